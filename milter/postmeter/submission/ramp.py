"""A limit that grows day by day, to warm up a new address: what it is on a day, and nothing else.

A pure function of the date, so that every worker and host has the same limit without asking another. Days are UTC's.
"""

from __future__ import annotations

import datetime
from decimal import MAX_EMAX, ROUND_DOWN, Context, Decimal
from functools import lru_cache

from postmeter.config.amounts import limit_text
from postmeter.config.schema import Limit, Ramp

DAY = 86_400
_EPOCH = datetime.date(1970, 1, 1)

# Exact where it matters: a product that is a whole number below 2**53 has a power of fewer digits than these. Numbers
# of any size are let grow, since the end caps them: no overflow is an error.
_EXACT = Context(prec=60, rounding=ROUND_DOWN, Emax=MAX_EMAX, traps=[])


@lru_cache(maxsize=4096)
def on_day(ramp: Ramp, day: int) -> Limit:
    """The limit on a day counted from 1970-01-01: start * factor ** days since `since`, rounded down, at most end."""
    days = max(0, day - (ramp.since - _EPOCH).days)
    grown = _EXACT.multiply(Decimal(ramp.start.count), _EXACT.power(Decimal(repr(ramp.factor)), days))
    count = ramp.end.count if grown >= ramp.end.count else int(grown)
    return Limit(count, ramp.start.unit, ramp.start.window, limit_text(count, ramp.start.unit, ramp.start.window))
