"""Which shares of a limit a charge reaches, and the fact that goes into the journal when somebody is to be told.

Pure; knows nothing of who is told, and how. That each is told once a window is for the store to see to.
"""

from __future__ import annotations

from postmeter.events import Warned
from postmeter.store.accounts import Charge


def reached(charge: Charge, before: int) -> list[int]:
    """The shares of `charge.warn` that usage passes upwards when the charge is added to `before`."""
    after = before + charge.amount
    return [percent for percent in charge.warn if before * 100 < percent * charge.limit <= after * 100]


def refused(charge: Charge) -> list[int]:
    """A refusal counts as the whole limit used, for somebody wanted more than that.

    But not that of a message which never fits: it says nothing about what is used.
    """
    return [percent for percent in charge.warn if percent <= 100] if charge.amount <= charge.limit else []


def warned(charge: Charge, *, percent: int, used: int, login: str, now: float) -> Warned:
    """`used` is what is used indeed, with the charge if it was made; `login` is whose message it was."""
    name, unit, window = charge.account
    return Warned(
        source=f"warned:{name}:{unit}:{window}:{percent}:{now:.6f}",
        time=now,
        login=login or charge.key if charge.level in ("sender", "brake") else "",
        level=charge.level,
        key=charge.key,
        unit=unit,
        window=window,
        limit=charge.limit,
        text=charge.text,
        used=used,
        percent=percent,
    )
