"""When a line of a log was written: the stamps of RFC 3164 section 4.1.2 and of RFC 3339, also with milliseconds.

Knows nothing of what follows the stamp. The old form says neither year nor zone: it is this machine's local time, and
the year is the one that makes it the nearest before a moment that the caller knows it was written by. Which pass of an
hour that comes twice it is, is told by what was written before it.
"""

from __future__ import annotations

import calendar
import time
from datetime import datetime
from functools import lru_cache
from math import inf

_AHEAD = 24 * 3600.0  # seconds that another host's clock, or its zone, may seem to be ahead of us
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"
_SET_BACK = 1200.0  # seconds; no clock is set back by less (half an hour on Lord Howe Island)
_DISORDER = 60.0  # seconds by which lines may stand in another order than that of their stamps
_LEAP = 9  # years back among which there is a 29 February (1896 and 1904, 2096 and 2104)


def split(text: str, now: float, since: float = inf) -> tuple[float | None, str]:
    """The time, and the rest of the line behind it; no time for what begins with no stamp.

    `since` is when the lines before it were written, or that it was not written yet by then.
    """
    if text[3:4] == " " and text[15:16] == " ":
        when = _shown(text[:15], int(now) // 60)
        if when is not None and when - since > _SET_BACK:
            when = _first(when, since)
        return when, text[16:]
    stamp, _, rest = text.partition(" ")
    return _written(stamp), rest


@lru_cache(maxsize=1024)
def _shown(stamp: str, now: int) -> float | None:
    minute, seconds = _minute(stamp[:12], now), stamp[13:]
    if minute is None or stamp[12] != ":" or not (seconds.isascii() and seconds.isdigit()):
        return None
    return minute + int(seconds)


def _first(when: float, since: float) -> float:
    """The first time that local clocks showed this, if that was not before the lines before."""
    back = _repeated(when // 60)
    return when - back if when - back >= since - _DISORDER else when


@lru_cache(maxsize=128)
def _repeated(minute: float) -> float:
    """How long before this minute local clocks had shown the same: 0 where they had not."""
    shown = time.localtime(minute * 60)
    return minute * 60 - min(_meanings((shown.tm_year, shown.tm_mon, shown.tm_mday, shown.tm_hour, shown.tm_min)))


def _written(stamp: str) -> float | None:
    if stamp[10:11] != "T":
        return None
    try:
        return datetime.fromisoformat(stamp).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=128)
def _minute(text: str, now: int) -> float | None:
    """The beginning of the minute `Jul 15 01:28` that is nearest before the minute `now`, ours since 1970."""
    month, between = divmod(_MONTHS.find(text[:3]) + 3, 3)
    day, hour, minute = (_digits(part) for part in (text[4:6], text[7:9], text[10:12]))
    if between or not (month and 0 <= hour < 24 and 0 <= minute < 60 and text[6] == " " and text[9] == ":"):
        return None
    latest = now * 60 + _AHEAD
    year = time.localtime(latest).tm_year
    for candidate in range(year, year - _LEAP, -1):
        if 1 <= day <= calendar.monthrange(candidate, month)[1]:
            meanings = _meanings((candidate, month, day, hour, minute))
            if fitting := [meaning for meaning in meanings if meaning <= latest]:
                return max((meaning for meaning in fitting if meaning <= now * 60 + 60), default=min(fitting))
    return None


def _meanings(shown: tuple[int, int, int, int, int]) -> set[float]:
    """When local clocks show this: twice in the hour that comes twice; for the one left out, when they would have."""
    both = {time.mktime((*shown, 0, 0, 0, summer)) for summer in (0, 1)}
    true = {meaning for meaning in both if time.localtime(meaning)[:5] == shown}
    return true or {time.mktime((*shown, 0, 0, 0, -1))}


def _digits(text: str) -> int:
    text = text.strip(" ")
    return int(text) if text.isascii() and text.isdigit() else -1
