"""Amounts in the configuration: durations, sizes, numbers, limits.

Text in, value out, or `MistakeError` with what to write instead. k is 1024, a day 24 hours, a month 30 days.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from postmeter.config.problem import MistakeError, quoted

MINUTE, HOUR, DAY, MONTH = 60, 3600, 86400, 30 * 86400
_LARGEST = 2**53  # what JSON numbers of every reader can hold (RFC 8259 section 6); fits SQLite's 64 bits too
_LONGEST = 36500 * DAY
_MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTES = {"": 1, "k": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_UNITS = {"message": "messages", "recipient": "recipients", "byte": "bytes"}
_WINDOWS = {"second": 1, "minute": MINUTE, "hour": HOUR, "day": DAY, "month": MONTH, "message": 0}

_NUMBER = r"[0-9]{1,16}(?:\.[0-9]{1,9})?"  # longer ones are above every bound, and slow to convert
_DURATION = re.compile(rf"({_NUMBER}) ?(ms|s|m|h|d)")
_SIZE = re.compile(rf"({_NUMBER}) ?([kKMGT]?)")
_LIMIT = re.compile(r"(?P<count>[0-9]{1,16}) *(?P<unit>[a-z]+) */ *(?P<window>[a-z]+)")
_BYTE_LIMIT = re.compile(rf"(?P<size>{_NUMBER} ?[kKMGT]) */ *(?P<window>[a-z]+)")


@dataclass(frozen=True, slots=True)
class Limit:
    """`unit` is messages, recipients or bytes; `window` seconds, 0 = each message; `text` as it was configured."""

    count: int
    unit: str
    window: int
    text: str


def duration(text: str) -> float:
    """Seconds. A number alone says too little, but for 0."""
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise MistakeError(
            f"{quoted(text)} is not a duration", "write a number and ms, s, m, h or d, for example 30s, 10m or 7d"
        )
    seconds = Fraction(match[1]) * _MILLISECONDS[match[2]] / 1000
    if seconds > _LONGEST:
        raise MistakeError(f"{quoted(text)} is longer than a hundred years", "write a shorter time")
    return float(seconds)


def size(text: str) -> int:
    """Bytes; k is 1024."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise MistakeError(
            f"{quoted(text)} is not a size", "write bytes, or a number and k, M or G, for example 64k or 10M"
        )
    count = int(Fraction(match[1]) * _BYTES[match[2].replace("K", "k")])
    if count > _LARGEST:
        raise MistakeError(f"{quoted(text)} is too large", "write at most 8192T")
    return count


def duration_text(seconds: float) -> str:
    """The shortest exact way to write a time; `duration` reads it back."""
    milliseconds = round(seconds * 1000)
    for unit in ("d", "h", "m", "s"):
        if milliseconds % _MILLISECONDS[unit] == 0:
            return f"{milliseconds // _MILLISECONDS[unit]}{unit}" if milliseconds else "0"
    return f"{milliseconds}ms"


def size_text(count: int) -> str:
    """The shortest exact way to write a size; `size` reads it back."""
    for unit in ("T", "G", "M", "k"):
        if count and count % _BYTES[unit] == 0:
            return f"{count // _BYTES[unit]}{unit}"
    return str(count)


def whole(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise MistakeError(f"{quoted(text)} is not a whole number", "write digits alone")
    return int(text)


def decimal(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise MistakeError(f"{quoted(text)} is not a number", "write it like 1.5")
    return float(text)


def percent(text: str) -> float:
    """A fraction of one: 80% is 0.8."""
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?%", text):
        raise MistakeError(f"{quoted(text)} is not a percentage", "write it like 80%")
    return float(Fraction(text[:-1]) / 100)


def boolean(text: str) -> bool:
    known = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    if text.lower() not in known:
        raise MistakeError(f"{quoted(text)} is neither true nor false", "write true or false")
    return known[text.lower()]


def octal_mode(text: str) -> int:
    """A file mode, e.g. 0660."""
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise MistakeError(f"{quoted(text)} is not a file mode", 'write three octal digits, for example "0660"')
    return int(text, 8)


def limit(text: str) -> Limit:
    """An amount and the time it is for, e.g. 500 recipients/day or 1G/day."""
    match = _BYTE_LIMIT.fullmatch(text)
    if match:
        return _limit(size(match["size"]), "bytes", match["window"], text)
    match = _LIMIT.fullmatch(text)
    if match:
        return _limit(int(match["count"]), _unit(match["unit"], text), match["window"], text)
    raise MistakeError(f"{quoted(text)} is not a limit", _limit_fix(text))


def limits(text: str) -> tuple[Limit, ...]:
    """Limits with commas between them, as on a command line; `unlimited` is none."""
    if text.strip() == "unlimited":
        return ()
    found = tuple(limit(one.strip()) for one in text.split(","))
    kinds = [(one.unit, one.window) for one in found]
    twice = next((one for one in found if kinds.count((one.unit, one.window)) > 1), None)
    if twice is not None:
        raise MistakeError(f"{twice.text!r} limits what another limit of this list limits", "keep one")
    return found


def limit_text(count: int, unit: str, window: int) -> str:
    """A limit as it is configured; `limit` reads it back."""
    span = next(name for name, seconds in _WINDOWS.items() if seconds == window)
    if unit == "bytes" and (short := size_text(count)) != str(count):
        return f"{short}/{span}"
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}/{span}"


def _limit_fix(text: str) -> str:
    bare = re.fullmatch(r"([0-9]+) */ *([a-z]+)", text)
    if bare:
        return f"say of what: {bare[1]} messages/{bare[2]}, {bare[1]} recipients/{bare[2]} or {bare[1]} bytes/{bare[2]}"
    return "write it like 500 recipients/day, 100 messages/hour, 1G/day or 50 recipients/message"


def _unit(word: str, text: str) -> str:
    unit = _UNITS.get(word.removesuffix("s"))
    if unit is None:
        raise MistakeError(f"{quoted(text)} counts {word!r}", "count messages, recipients or bytes")
    return unit


def _limit(count: int, unit: str, window: str, text: str) -> Limit:
    if window not in _WINDOWS:
        raise MistakeError(
            f"{quoted(text)} is for each {window!r}", "write /second, /minute, /hour, /day, /month or /message"
        )
    if window == "message" and unit == "messages":
        raise MistakeError(
            f"{quoted(text)} limits nothing", "limit the recipients or bytes of a message, or messages in a time"
        )
    if count < 1:
        raise MistakeError(f"{quoted(text)} would let nothing through", "write 1 or more, or leave the limit out")
    if count > _LARGEST:
        raise MistakeError(f"{quoted(text)} is too large to be counted", "leave the limit out")
    return Limit(count, unit, _WINDOWS[window], text)
