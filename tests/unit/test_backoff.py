"""What failed rests longer each time, never longer than its bound, and not at all once it succeeded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from postmeter.books.backoff import Backoff


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_rests_double_up_to_the_bound_give_or_take_a_quarter(chances: list[float]) -> None:
    left = iter(chances)
    rest = Backoff(first=1.0, most=600.0, chance=lambda: next(left))
    for nth in range(len(chances)):
        usual = min(2.0**nth, 600.0)
        wait = rest.failed(1000.0)
        assert 0.75 * usual <= wait <= 1.25 * usual
        assert rest.rests(1000.0 + wait * 0.999)
        assert not rest.rests(1000.0 + wait)


def test_success_forgets() -> None:
    rest = Backoff(first=1.0, most=600.0, chance=lambda: 0.5)
    for _ in range(9):
        rest.failed(0.0)
    rest.succeeded()
    assert not rest.rests(0.0)
    assert rest.failed(0.0) == 1.0
