"""Read the systemd journal: what came to the mail facility, from a cursor that is kept with what was made of it.

A child, `journalctl --follow`, writes an entry a line as JSON (journalctl(1), systemd.journal-fields(7)); no wait here
is longer than the caller says. Entries are chosen by facility: a program started from another unit, and
every instance of Postfix, logs there. Beside them comes what journald says of entries that it dropped. Knows nothing of
what messages say, keeps nothing on disk.

The saved entry is asked for again (`--cursor`, not `--after-cursor`) and left out: where it does not come first, the
journal has been cut off in between, which is a counted gap; `--after-cursor` then passes over an entry silently.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postmeter.runtime.logs import OnceAMinute

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_FIELDS = ("MESSAGE", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "_PID", "_HOSTNAME")
_DROPPED = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e"  # SD_MESSAGE_JOURNAL_DROPPED of sd-messages.h
_MAIL = "SYSLOG_FACILITY=2"
_CHUNK = 256 * 1024  # bytes taken from the child at one time
LONGEST = 1024 * 1024  # bytes of an entry; journald cuts a line at 48 kB, which JSON may make five times as long
_MOST = 2000  # entries of a batch
_PAUSE = 5.0  # seconds before a child that ended is started again
_SILENT = 600.0  # seconds without an entry after which a child is replaced: followers were known to fall asleep
_ENDING = 2.0  # seconds that a child gets to end


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. `message` is bytes where it was no UTF-8."""

    cursor: str
    time: float
    host: str
    identifier: str
    pid: int
    message: str | bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that follow each other; `end`, the last one's cursor, is saved in one transaction with what they gave."""

    entries: tuple[Entry, ...]
    end: str | None


class Journal:
    """The entries behind `start`, a cursor, or else from the oldest on, or from the last `since` seconds."""

    def __init__(
        self,
        start: str | None,
        *,
        since: float | None = None,
        options: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`options` choose another journal: `--directory=…`, `--namespace=…`."""
        self._since = since
        self._options = tuple(options)
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._expected: str | None = None
        self._unread = b""
        self._cut = False
        self._pending: Batch | None = None
        self._next = 0.0
        self._heard = 0.0
        self.position = start
        self.gaps = 0

    def read(self, wait: float = 0.0) -> Batch:
        """What has come, a bounded part of it; waits at most so long for it. The same again until `accept`."""
        if self._pending is not None:
            return self._pending
        if self._child is None and not self._start():
            return Batch((), self.position)
        self._fill(wait)
        batch = self._batch()
        if batch.entries:
            self._pending = batch
        return batch

    def accept(self, batch: Batch) -> None:
        """Go on behind this batch: what came of it has been kept."""
        self.position = batch.end
        self._pending = None

    def lag(self) -> int:
        """Bytes that the child wrote and nobody has read yet; what it has not written cannot be told."""
        return len(self._unread)

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        self._unread, self._pending, self._cut = b"", None, False
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_ENDING)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()

    def _start(self) -> bool:
        now = self._clock()
        if now < self._next:
            return False
        self._next, self._heard = now + _PAUSE, now
        where = [f"--cursor={self.position}"] if self.position else []
        if not where and self._since is not None:
            where = [f"--since=-{max(0, round(self._since))}s"]
        command = ["journalctl", "--follow", "--no-tail", "--all", "--output=json", *self._options, *where]
        command += [f"--output-fields={','.join(_FIELDS)}", _MAIL, "+", _DROPPED]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            once.log(logging.ERROR, "journalctl", "the journal cannot be read: %s", error)
            return False
        for pipe in (self._child.stdout, self._child.stderr):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        self._expected = self.position
        return True

    def _fill(self, wait: float) -> None:
        """Take what the child wrote; when it has ended, or been silent for long, another one is started later."""
        child = self._child
        if child is None or child.stdout is None or (b"\n" in self._unread and len(self._unread) > _CHUNK):
            return
        if wait > 0 and b"\n" not in self._unread:
            select.select([child.stdout], [], [], wait)
        try:
            data = os.read(child.stdout.fileno(), _CHUNK)
        except BlockingIOError:
            self._tell(child)
            if self._clock() - self._heard > _SILENT:
                self.close()
            return
        self._heard = self._clock()
        self._unread += data
        if not data and b"\n" not in self._unread:
            self._tell(child)
            self.close()

    def _tell(self, child: subprocess.Popen[bytes]) -> None:
        """Say what the child had to say for itself: for example whose journal it may not read."""
        said = b""
        with contextlib.suppress(BlockingIOError):
            said = os.read(child.stderr.fileno(), 4096) if child.stderr else b""
        text = said.decode("utf-8", "replace").partition("\n")[0].strip()
        if text:
            once.log(logging.WARNING, "journalctl said", "journalctl: %s", text[:300])
        if "seek to cursor" in text:  # of another machine's journal, or none at all
            self.gaps += 1
            self.position = None

    def _batch(self) -> Batch:
        entries: list[Entry] = []
        begin = 0
        end = self.position
        while len(entries) < _MOST and (stop := self._unread.find(b"\n", begin)) >= 0:
            raw, begin = self._unread[begin:stop], stop + 1
            if self._cut:
                self._cut = False
                continue
            entry = _entry(raw)
            if entry is None:
                self.gaps += 1
            elif not self._again(entry):
                entries.append(entry)
                end = entry.cursor
        self._unread = self._unread[begin:]
        if len(self._unread) > LONGEST and b"\n" not in self._unread:
            self.gaps += not self._cut
            self._unread, self._cut = b"", True
        return Batch(tuple(entries), end)

    def _again(self, entry: Entry) -> bool:
        """Whether it is the entry that had been dealt with; when it is not there any more, others may be missing."""
        expected, self._expected = self._expected, None
        if expected is not None and entry.cursor != expected:
            self.gaps += 1
        return entry.cursor == expected


def _entry(raw: bytes) -> Entry | None:
    try:
        fields = json.loads(raw)
        message = fields["MESSAGE"]
        return Entry(
            cursor=str(fields["__CURSOR"]),
            time=int(fields["__REALTIME_TIMESTAMP"]) / 1_000_000,
            host=_word(fields.get("_HOSTNAME")),
            identifier=_word(fields.get("SYSLOG_IDENTIFIER")),
            pid=_pid(fields.get("SYSLOG_PID") or fields.get("_PID")),
            message=_bytes(message) if isinstance(message, list) else _word(message),
        )
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _bytes(message: list[object]) -> bytes:
    """A field that is no UTF-8 is a list of bytes; one that was given twice a list of texts."""
    numbers = [each for each in message if isinstance(each, int) and 0 <= each < 256]
    if len(numbers) == len(message):
        return bytes(numbers)
    return str(message[0]).encode("utf-8", "backslashreplace")


def _word(value: object) -> str:
    if isinstance(value, list):
        return _bytes(value).decode("utf-8", "backslashreplace") if value else ""
    return value if isinstance(value, str) else ""


def _pid(value: object) -> int:
    text = _word(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
