"""A limit that grows day by day is the same on every host, every day, for ever."""

from __future__ import annotations

import datetime
from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.config import amounts
from postmeter.config.schema import Limit, Ramp
from postmeter.submission.ramp import on_day

EPOCH = datetime.date(1970, 1, 1).toordinal()


def ramp(start: int, factor: str, end: int, since: datetime.date = datetime.date(2026, 12, 1)) -> Ramp:
    first, last = (amounts.limit(amounts.limit_text(count, "recipients", 86_400)) for count in (start, end))
    return Ramp(start=first, factor=float(factor), end=last, since=since)


def on(found: Ramp, days: int) -> int:
    """The limit so many days after the first."""
    return on_day(found, found.since.toordinal() - EPOCH + days).count


factors = st.integers(1001, 20_000).map(lambda thousandths: str(thousandths / 1000))


@given(start=st.integers(1, 10**6), more=st.integers(0, 10**9), factor=factors, days=st.integers(0, 300))
@example(start=100, more=1000, factor="1.15", days=1)  # 115; 1.15 is less in binary
def test_it_is_what_exact_arithmetic_says(start: int, more: int, factor: str, days: int) -> None:
    exact = start * Fraction(factor) ** days
    assert on(ramp(start, factor, start + more), days) == min(start + more, exact.numerator // exact.denominator)


@given(start=st.integers(1, 10**6), more=st.integers(0, 10**9), factor=factors, day=st.integers(-100_000, 100_000))
def test_it_never_falls_and_stays_between_its_ends(start: int, more: int, factor: str, day: int) -> None:
    found = ramp(start, factor, start + more)
    assert start <= on(found, day) <= on(found, day + 1) <= start + more


@given(days=st.integers(0, 3_000_000), factor=st.sampled_from(["1.000000001", "1.5", "999999999.999999999"]))
def test_no_number_of_days_is_too_many(days: int, factor: str) -> None:
    assert 1 <= on(ramp(1, factor, 2**53), days) <= 2**53


def test_before_its_first_day_it_is_the_start() -> None:
    assert [on(ramp(50, "1.5", 20_000), days) for days in (-1000, -1, 0, 1, 2, 14, 15)] == [
        50,
        50,
        50,
        75,
        112,
        14_596,
        20_000,
    ]


def test_its_text_is_todays_number_and_can_be_configured() -> None:
    day = datetime.date(2026, 12, 2).toordinal() - EPOCH
    found = on_day(ramp(50, "1.5", 20_000), day)
    assert found == Limit(75, "recipients", 86_400, "75 recipients/day")
    first, last = amounts.limit("10M/day"), amounts.limit("1G/day")
    sizes = Ramp(start=first, factor=2.0, end=last, since=datetime.date(2026, 12, 1))
    assert on_day(sizes, day) == amounts.limit("20M/day")


@given(st.integers(1, 2**53), st.sampled_from(["messages", "recipients", "bytes"]), st.sampled_from([1, 3600, 86_400]))
def test_the_text_of_a_limit_is_read_back_as_that_limit(count: int, unit: str, window: int) -> None:
    text = amounts.limit_text(count, unit, window)
    assert amounts.limit(text) == Limit(count, unit, window, text)
