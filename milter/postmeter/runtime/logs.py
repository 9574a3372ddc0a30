"""Logs: one bounded line a record on standard error, as text for people and journald or as JSON for programs.

Knows nothing of what is logged. What clients send (addresses, header values, queue names) can hold line ends, terminal
controls and surrogates: none of them reaches the log as such. Under journald the priority goes in front of the line
(sd-daemon(3)); that standard error is the journal is told by JOURNAL_STREAM (systemd.exec(5)).
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

from postmeter.config.schema import Log

_LONGEST = 8000  # rsyslog's default maxMessageSize is 8k; journald's LineMax 48K (journald.conf(5))
_KEYS = 1000  # of what is said once a minute; enough for every place that can fail and many of their reasons
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
# C0, DEL, C1 and the two Unicode line ends become escapes: a log line is a line, and a terminal stays as it was.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES = _CONTROLS | {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}
# What separates lines, and what turns the direction of all that follows (UAX #9).
_ESCAPES |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def set_up(log: Log, *, daemon: str, fd: int = 2, environ: Mapping[str, str] = os.environ) -> None:
    """Send every record of this process to `fd`, as the configuration wants it."""
    logging.raiseExceptions = False  # a closed standard error must not fail a message
    logging.logThreads = False  # looking up a thread that C made leaves an object behind (CPython #114423)
    if log.format == "json":
        formatter: logging.Formatter = JsonLine(daemon)
    else:
        formatter = TextLine(daemon, journal=is_journal(fd, environ))
    handler = Lines(fd)
    handler.setFormatter(formatter)
    logging.basicConfig(level=log.level.upper(), handlers=[handler], force=True)


def is_journal(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether `fd` is connected to journald: JOURNAL_STREAM names its device and inode."""
    try:
        stat = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM", "") == f"{stat.st_dev}:{stat.st_ino}"


def one_line(text: str, *, longest: int = _LONGEST) -> str:
    """The text without anything that could end the line or steer a terminal, cut to a bounded length."""
    text = text[:longest] + (f"... ({len(text) - longest} more)" if len(text) > longest else "")
    return text.translate(_ESCAPES).encode("utf-8", "backslashreplace").decode()  # surrogates


class Lines(logging.Handler):
    """Writes each record by one write(2), so that lines of several processes do not mix below PIPE_BUF."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            while line:
                line = line[os.write(self._fd, line) :]
        except Exception:  # boundary: whatever is wrong with a log line, the work that wrote it goes on
            self.handleError(record)


class TextLine(logging.Formatter):
    """`TIME LEVEL DAEMON: message`; under journald, which knows time and process, `<N>DAEMON: message`."""

    def __init__(self, daemon: str, *, journal: bool) -> None:
        super().__init__()
        self._daemon, self._journal = daemon, journal

    def format(self, record: logging.LogRecord) -> str:
        text = one_line(_message(record))
        if self._journal:
            return f"<{_PRIORITY.get(record.levelno, 6)}>{self._daemon}: {text}"
        return f"{_stamp(record.created)} {record.levelname.lower()} {self._daemon}[{record.process}]: {text}"


class JsonLine(logging.Formatter):
    """An object a line: time, level, daemon, pid, logger, message."""

    def __init__(self, daemon: str) -> None:
        super().__init__()
        self._daemon = daemon

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(
            {
                "time": _stamp(record.created),
                "level": record.levelname.lower(),
                "daemon": self._daemon,
                "pid": record.process,
                "logger": record.name,
                "message": one_line(_message(record)),
            }
        )


def _message(record: logging.LogRecord) -> str:
    """The message, and the end of its traceback: the last lines say where and what."""
    text = record.getMessage()
    if not record.exc_info:
        return text
    trace = logging.Formatter().formatException(record.exc_info).replace("\n", " | ")
    return f"{text[: _LONGEST // 2]}: {trace[-_LONGEST // 2 + 10 :]}"


def _stamp(seconds: float) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


class OnceAMinute:
    """Says the same thing once a minute at most, and then how often it held its tongue.

    `key` is what is the same: a place and a reason, never an address. Safe for several threads.
    """

    def __init__(
        self, logger: logging.Logger, *, every: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger, self._every, self._clock = logger, every, clock
        self._lock = threading.Lock()
        self._said: dict[str, tuple[float, int]] = {}

    def log(self, level: int, key: str, message: str, *args: object, exc_info: bool = False) -> None:
        unsaid = self._unsaid(key)
        if unsaid is None:
            return
        if unsaid:
            message, args = message + " (and %d more like it)", (*args, unsaid)
        self._logger.log(level, message, *args, exc_info=exc_info)

    def _unsaid(self, key: str) -> int | None:
        """How many were held back since this key was last said, or None when it is too early to say it again."""
        with self._lock:
            now = self._clock()
            said_at, unsaid = self._said.get(key, (-self._every, 0))
            if now - said_at < self._every:
                self._said[key] = (said_at, unsaid + 1)
                return None
            self._said.pop(key, None)
            if len(self._said) >= _KEYS:
                del self._said[next(iter(self._said))]
            self._said[key] = (now, 0)
            return unsaid
