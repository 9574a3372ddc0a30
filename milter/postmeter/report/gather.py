"""The figures of a report: all of its days together, broken down, and as rates, each with what it is a share of.

Pure but for the reader that it is given. A recipient counts on the day on which its message was submitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Protocol, TypeAlias

from postmeter.store.figures import DAY, DECIDED

PLACES = ("delivered", "waiting", "deferred", "hard", "soft", "expired", "unknown")
"""Where an accepted recipient can be: their sum is `accepted`."""

COLUMNS: dict[str, str] = {
    "accepted": "accepted",
    "delivered": "delivered",
    "waiting": "not yet tried",
    "deferred": "deferred",
    "hard": "bounced hard",
    "soft": "bounced soft",
    "expired": "expired",
    "unknown": "unknown",
    "delayed": "deferred at least once",
    "suppressed": "suppressed",
    "would_suppress": "would be suppressed",
    "untaken": "not taken by Postfix",
    "complained": "complained",
    "unsubscribed": "unsubscribed",
    "opened_human": "opened by people",
    "opened_machine": "opened by machines",
    "opened_unsure": "opened, unsure by whom",
    "clicked_human": "clicked by people",
    "clicked_machine": "clicked by machines",
    "clicked_unsure": "clicked, unsure by whom",
    "opens": "opens, repeats counted",
    "clicks": "clicks, repeats counted",
}
"""Every figure of a report and how people call it, in the order in which they are shown."""

TRACKED = frozenset(name for name in COLUMNS if name.startswith(("open", "click")))
"""What no provider is known for."""

Figures: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Rate:
    """`of` says in a word what `whole` adds up to."""

    part: tuple[str, ...]
    whole: tuple[str, ...]
    of: str

    def value(self, counts: Figures) -> float | None:
        """None where there is nothing that it could be a share of."""
        whole = sum(counts.get(name, 0) for name in self.whole)
        return sum(counts.get(name, 0) for name in self.part) / whole if whole else None


_ACCEPTED, _DELIVERED = ("accepted",), ("delivered",)
RATES: dict[str, Rate] = {
    "delivered": Rate(_DELIVERED, DECIDED, "decided"),
    "bounced": Rate(("hard", "soft", "expired"), DECIDED, "decided"),
    "hard": Rate(("hard",), DECIDED, "decided"),
    "soft": Rate(("soft",), DECIDED, "decided"),
    "expired": Rate(("expired",), DECIDED, "decided"),
    "waiting": Rate(("waiting",), _ACCEPTED, "accepted"),
    "deferred": Rate(("deferred",), _ACCEPTED, "accepted"),
    "unknown": Rate(("unknown",), _ACCEPTED, "accepted"),
    "delayed": Rate(("delayed",), _ACCEPTED, "accepted"),
    "suppressed": Rate(("suppressed",), ("accepted", "suppressed"), "accepted + suppressed"),
    "complained": Rate(("complained",), _DELIVERED, "delivered"),
    "unsubscribed": Rate(("unsubscribed",), _DELIVERED, "delivered"),
    "opened_human": Rate(("opened_human",), _DELIVERED, "delivered"),
    "opened_machine": Rate(("opened_machine",), _DELIVERED, "delivered"),
    "opened_unsure": Rate(("opened_unsure",), _DELIVERED, "delivered"),
    "clicked_human": Rate(("clicked_human",), _DELIVERED, "delivered"),
    "clicked_machine": Rate(("clicked_machine",), _DELIVERED, "delivered"),
    "clicked_unsure": Rate(("clicked_unsure",), _DELIVERED, "delivered"),
}
"""By the figure that is the share, but for `bounced`, which is of all kinds. `decided`: delivered, bounced, expired."""


class Read(Protocol):
    """As `store.figures.breakdowns`, without its database."""

    def __call__(self, *, since: int, until: int, by: Sequence[str]) -> Mapping[str, Mapping[str, Figures]]: ...


@dataclass(frozen=True, slots=True)
class Part:
    """One domain, login, campaign, provider or day."""

    name: str
    counts: Figures


@dataclass(frozen=True, slots=True)
class Report:
    """Days count from 1970; `until` is the first one that is not in it. `made` is when it was made."""

    since: int
    until: int
    made: float
    host: str
    total: Figures
    parts: Mapping[str, Sequence[Part]]
    """By what they are broken down by; days in their order, all else busiest first."""

    @property
    def period(self) -> str:
        first, last = day_text(self.since), day_text(self.until - 1)
        return first if first == last else f"{first} to {last}"

    @property
    def days(self) -> Sequence[Part]:
        """Every day, those without mail too."""
        return self.parts["day"]

    @property
    def tracked(self) -> bool:
        return any(self.total.get(name) for name in TRACKED)

    @property
    def nameless(self) -> bool:
        """Some hits cannot be told from their repeats: privacy keeps nothing to know them by."""
        return bool(self.total.get("opens_untold") or self.total.get("clicks_untold"))


def gather(read: Read, *, since: int, until: int, by: Sequence[str], now: float, host: str) -> Report:
    found = read(since=since, until=until, by=tuple(dict.fromkeys(["", "day", *by])))
    total, days = found.get("", {}).get("", {}), found.get("day", {})
    parts = {one: _parts(found.get(one, {}), one) for one in by if one != "day"}
    parts["day"] = [Part(day_text(day), _with_sums(days.get(str(day), {}))) for day in range(since, until)]
    return Report(since, until, now, host, _with_sums(total), parts)


def _parts(found: Mapping[str, Figures], by: str) -> list[Part]:
    parts = [Part(name, _with_sums(counts)) for name, counts in found.items()]
    if by == "provider":  # a hit is of a message, which may have gone to several
        parts = [Part(part.name, _without_hits(part.counts)) for part in parts]
    told = [part for part in parts if any(part.counts.values())]
    return sorted(told, key=lambda part: (-part.counts.get("accepted", 0), part.name))


def _with_sums(counts: Figures) -> Counter[str]:
    summed = Counter(dict(counts))
    for what in ("opens", "clicks"):
        summed[what] = sum(counts.get(f"{what}_{by}", 0) for by in ("human", "machine", "unsure"))
    return summed


def _without_hits(counts: Figures) -> Counter[str]:
    return Counter({name: value for name, value in counts.items() if not name.startswith(("open", "click"))})


def decided(counts: Figures) -> int:
    """How many recipients it is decided of whether they got the mail."""
    return sum(counts.get(name, 0) for name in DECIDED)


def day_text(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).date().isoformat()


def day_of(text: str) -> int:
    """The number of a day written as 2026-11-22; ValueError for anything else."""
    return (date.fromisoformat(text) - date(1970, 1, 1)).days


NAMELESS = {
    "domain": "(no From domain)",
    "login": "(no login, or not told)",
    "campaign": "(no campaign)",
    "provider": "(not yet known)",
}


def shown(by: str, name: str) -> str:
    """What stands in a report for a part without a name."""
    return name or NAMELESS.get(by, "")


def percent(value: float | None) -> str:
    """With as many digits as tell 0.04% from 0.004%, as complaint rates need; few are not none, most not all."""
    if value is None:
        return "–"
    if value in (0, 1) or 0.1 <= value < 0.9995 or value > 1:
        return f"{value:.1%}"
    return f"{value:.2%}" if 0.001 <= value < 0.1 else f"{min(max(value, 0.00001), 0.99999):.3%}"
