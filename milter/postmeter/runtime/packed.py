"""Read a file that may have been compressed as if it had not: gzip, xz, Zstandard, told by their first bytes.

Knows nothing of lines. gzip and xz are Python's; for Zstandard the `zstd` program runs, which is there where somebody
compresses logs with it (RFC 1952; RFC 8878; the .xz file format).
"""

from __future__ import annotations

import gzip
import lzma
import subprocess
import zlib
from pathlib import Path
from typing import IO, cast

_STEP = 256 * 1024  # bytes unpacked at one time
_DAMAGE = (OSError, EOFError, zlib.error, lzma.LZMAError)


class PackedError(Exception):
    """It cannot be unpacked; the text is for people."""


def is_packed(path: Path) -> bool:
    """By its first bytes; OSError when it cannot be read."""
    with path.open("rb") as file:
        return _kind(file.read(6)) != ""


class Unpacked:
    """A compressed, or plain, file from its beginning to its end: read at any place, quick only going on."""

    def __init__(self, path: Path) -> None:
        """OSError, or PackedError."""
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None
        self._stream = self._open()
        self._at = 0
        self._held = b""
        self.damage: PackedError | None = None

    def pread(self, count: int, at: int) -> bytes:
        """The bytes there, none behind the end or where it is damaged: then `damage` says so."""
        if at < self._at:
            self.close()
            self._stream, self._at, self._held = self._open(), 0, b""
        while at + count > self._at + len(self._held):
            passed = min(at - self._at, len(self._held))
            self._at, self._held = self._at + passed, self._held[passed:]
            more = self._more()
            if not more:
                break
            self._held += more
        begin = at - self._at
        return self._held[begin : begin + count]

    def close(self) -> None:
        """End what unpacks it."""
        self._stream.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._process = None

    def _more(self) -> bytes:
        data = b""
        try:
            data = self._stream.read(_STEP) if self.damage is None else b""
        except _DAMAGE as error:
            self.damage = PackedError(f"{self._path}: {error}")
        if not data and self._process is not None and self._process.wait() != 0:
            self.damage = PackedError(f"{self._path}: zstd cannot unpack it")
        return data

    def _open(self) -> IO[bytes]:
        with self._path.open("rb") as file:
            kind = _kind(file.read(6))
        if kind == "gzip":
            return cast(IO[bytes], gzip.open(self._path, "rb"))
        if kind == "xz":
            return lzma.open(self._path, "rb")
        if kind == "zstd":
            return self._zstd()
        return self._path.open("rb")

    def _zstd(self) -> IO[bytes]:
        command = ["zstd", "--decompress", "--stdout", "--quiet", "--", str(self._path)]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            raise PackedError(f"{self._path}: it takes the program zstd: {error}") from error
        return cast(IO[bytes], self._process.stdout)


def _kind(head: bytes) -> str:
    if head.startswith(b"\x1f\x8b"):
        return "gzip"
    if head.startswith(b"\xfd7zXZ\0"):
        return "xz"
    return "zstd" if head.startswith(b"\x28\xb5\x2f\xfd") else ""
