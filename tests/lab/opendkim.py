"""Debian's opendkim as a milter, spoken to by `mta`: what it makes of a message, to compare ours with.

The signer is told to keep what it hashes (KeepTemporaryFiles, opendkim.conf(5)): the canonical body, and the canonical
fields that it signs with its own DKIM-Signature behind them. Knows nothing of postmeter.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.keys import DkimKey
from tests.lab.mta import Mta

PROGRAM = Path("/usr/sbin/opendkim")
_BOUND = 20.0

# The default list of fields is short; as a glob for each first letter it has everything that a message can bring.
_ALL_FIELDS = ",".join(f"{letter}*" for letter in "abcdefghijklmnopqrstuvwxyz0123456789")


@dataclass(frozen=True, slots=True)
class Hashed:
    """What opendkim hashed of one message, and the field it made; all empty where it did not sign."""

    body: bytes = b""
    header: bytes = b""
    signature: bytes = b""


class _Running:
    """opendkim in the foreground, with its configuration in an empty folder; a context manager."""

    def __init__(self, folder: Path, settings: Mapping[str, object]) -> None:
        self.folder = folder
        self.address = folder / "socket"
        # 0 is no limit: messages with more header than 64 KiB would not be looked at.
        always = {"Socket": f"local:{self.address}", "MaximumHeaders": 0, "UMask": "000", "Syslog": "no"}
        self._settings = {**settings, **always}
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        config = self.folder / "opendkim.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self._settings.items()))
        log = (self.folder / "log").open("wb")
        with log:
            self.process = subprocess.Popen([PROGRAM, "-f", "-x", config], stdin=subprocess.DEVNULL, stderr=log)
        until = time.monotonic() + _BOUND
        while not self._listens():  # its socket is there a moment before it listens
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"opendkim did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.02)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.process.kill()  # in order it takes libmilter's five seconds
            self.process.wait(_BOUND)

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.address)) == 0

    def session(self, address: str = "127.0.0.1") -> Mta:
        mta = Mta(self.address)
        mta.negotiate()
        mta.connect(address=address)
        return mta


class OpenDkim(_Running):
    """A signer. `judge` is for reading what it hashed, not for measuring it."""

    def __init__(self, folder: Path, key: DkimKey, *, form: str, judge: bool = True) -> None:
        self._kept = folder / "kept"
        settings: dict[str, object] = {
            "Mode": "s", "Domain": key.domain, "Selector": key.selector, "KeyFile": key.file, "Canonicalization": form,
            "InternalHosts": "0.0.0.0/0", "RequireSafeKeys": "no",
        }  # fmt: skip
        if judge:
            self._kept.mkdir(parents=True)
            kept = {"KeepTemporaryFiles": "yes", "TemporaryDirectory": self._kept}
            settings |= {**kept, "SignHeaders": _ALL_FIELDS}
        super().__init__(folder, settings)

    def hashed(self, mta: Mta, fields: Iterable[tuple[str, bytes]], body: bytes, *, sender: str) -> Hashed:
        """One message of a session, and the files that are left of it, which are removed."""
        for old in self._kept.iterdir():
            old.unlink()
        mta.mail(sender)
        mta.rcpt("reader@example.net")
        taken = mta.message(fields, body)
        mta.abort()
        made = [change.data[4:] for change in taken.changes if change.code == "i"]
        if not made:
            return Hashed()
        body_hashed, header_hashed = sorted((file.read_bytes() for file in self._kept.iterdir()), key=_is_header)
        return Hashed(body_hashed, header_hashed, made[0].split(b"\0")[1])


class OpenDkimVerifier(_Running):
    """A verifier that gets fields octet by octet; `opendkim -t` puts one space behind a colon, whatever was there."""

    def __init__(self, folder: Path, records: Mapping[str, str]) -> None:
        keys = folder / "keys"
        keys.write_text("".join(f"{name} {record}\n" for name, record in records.items()))
        super().__init__(folder, {"Mode": "v", "TestPublicKeys": keys, "AlwaysAddARHeader": "yes"})

    def results(self, mta: Mta, fields: Iterable[tuple[str, bytes]], body: bytes) -> str:
        """The Authentication-Results field that it would add to a message; mail of 127.0.0.1 it does not look at."""
        mta.mail("alice@example.com")
        mta.rcpt("reader@example.net")
        taken = mta.message(fields, body)
        mta.abort()
        return "".join(taken.inserted("Authentication-Results"))


def _is_header(kept: bytes) -> bool:
    """Its last field has no line end (RFC 6376 section 3.7); a canonical body is empty or has one."""
    return bool(kept) and not kept.endswith(b"\r\n")
