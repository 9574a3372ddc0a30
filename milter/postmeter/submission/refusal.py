"""The words of a refusal for a quota: what was counted, of how much, and when there is room again.

Codes: RFC 3463 X.7.1 (not allowed by policy), 5.5.3 (too many recipients), 5.3.4 (message too big for the system).
Number and unit stand side by side, as configured: whether messages or recipients are counted is what people ask most.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil

from postmeter.mail.reply import Reply
from postmeter.store.accounts import Charge, Overdrawn

SPANS = {0: "message", 1: "second", 60: "minute", 3600: "hour", 86_400: "day", 2_592_000: "month"}
"""What a limit's window of so many seconds is called."""

_LONGEST_NAME = 150
_LEVELS = {"domain": " (From domain)", "network": " (network)"}
_NAMES = {
    ("domain", ""): "mail without a From domain of its own",
    ("network", "unknown"): "clients without a known address",
    ("total", ""): "this server",
}
_NEVER = {"messages": (550, "5.7.1"), "recipients": (550, "5.5.3"), "bytes": (552, "5.3.4")}
_SIZES = ((1024**4, "T"), (1024**3, "G"), (1024**2, "M"), (1024, "k"))


def reply(over: Overdrawn, now: float, *, reject: bool) -> Reply:
    """What can never fit is refused for good, whatever `reject` says."""
    code, status = (550, "5.7.1") if reject else (451, "4.7.1")
    if over.room_at is None:
        code, status = _NEVER[over.charge.unit]
    return Reply(code, status, sentence(over, now))


def sentence(over: Overdrawn, now: float) -> str:
    charge, name = over.charge, _name(over.charge)
    if over.room_at is None:
        return f"{name}: {_counted(charge.amount, charge)} in one message, limit {charge.text}"
    used, limit = number(over.used, charge.unit), _counted(charge.limit, charge)
    room = f"room for {number(charge.amount, charge.unit)} {_clock(over.room_at, now)} ({_wait(over.room_at - now)})"
    return f"{name}: {used} of {limit} in the last {SPANS[charge.window]}; {room}, limit {charge.text}"


def _name(charge: Charge) -> str:
    """Printable and short: the rest of the sentence must not be cut off (Reply.line).

    The level stands behind the name: who is refused for the mail of many others must not take it for his own.
    """
    safe = charge.key.encode("ascii", "backslashreplace").decode("ascii")
    key = "".join(char if char.isprintable() else "?" for char in safe)[:_LONGEST_NAME]
    return _NAMES.get((charge.level, charge.key)) or f"{key}{_LEVELS.get(charge.level, '')}"


def _counted(count: int, charge: Charge) -> str:
    text = number(count, charge.unit)
    if charge.unit == "bytes":
        return text
    return f"{text} {charge.unit[:-1] if count == 1 else charge.unit}"


def number(count: int, unit: str) -> str:
    """Bytes as sizes are configured: k, M, G of 1024."""
    if unit != "bytes":
        return str(count)
    factor, letter = next(((size, letter) for size, letter in _SIZES if count >= size), (1, " bytes"))
    return f"{count / factor:.1f}".removesuffix(".0") + letter


def _clock(when: float, now: float) -> str:
    """Rounded up, so that nobody comes too early; with the day when that is not clear."""
    wait = when - now
    rounded = ceil(when) if wait < 120 else ceil(when / 60) * 60
    moment = datetime.fromtimestamp(rounded, UTC)
    if wait < 120:
        return f"at {moment:%H:%M:%S} UTC"
    return f"at {moment:%H:%M} UTC" if wait < 86_400 else f"on {moment:%Y-%m-%d} at {moment:%H:%M} UTC"


def _wait(seconds: float) -> str:
    for unit, name, most in ((1, "s", 120), (60, "min", 120), (3600, "h", 48)):
        if seconds < unit * most:
            return f"in {ceil(seconds / unit)} {name}"
    return f"in {ceil(seconds / 86_400)} days"
