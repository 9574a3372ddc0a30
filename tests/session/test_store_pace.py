"""Who keeps below his limit at a steady pace is never refused, however his charges were joined."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from postmeter.store.window import Window
from tests.unit.test_store_window import LENGTHS, SECOND


@given(st.sampled_from(LENGTHS), st.integers(1, 3000), st.integers(1, 40), st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
@example(86_400 * SECOND, 64, 1, 0)
@example(86_400 * SECOND, 65, 1, 0)
@example(86_400 * SECOND, 100, 1, 7)
def test_a_steady_pace_of_95_percent_is_never_refused(length: int, messages: int, amount: int, start: int) -> None:
    """Messages of one size, `messages` of which fill the limit; 95 % of that pace, over three windows."""
    limit, full, of = messages * amount, length * 100, messages * 95
    window = Window(length)
    for nth in range(min(3 * messages, messages + 900)):
        now = 10**15 + start + (nth * full * 100 + of * 99) // (of * 100)  # fractions cost more than the window
        assert window.room_at(now, amount=amount, limit=limit) == now
        window = window.charged(now, amount)
