"""Turns figures into Prometheus' families: which series are shown, which start at 0, which become `other`.

Knows nothing of the journal that keeps the totals or of the page that shows them. Labels that mail fills are bounded,
so that nobody makes a server of time series grow (https://prometheus.io/docs/practices/instrumentation/).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from postmeter.mail.draft import Figure
from postmeter.metrics import METRICS, PREFIX, Meaning

OTHER = "other"
SERVICES = 20  # smtpd services by name; a busy master.cf has about ten
PROVIDERS = 30  # of mail; the table that we bring along has fewer
_LE = "le"  # the label of a histogram's bounds

Labels: TypeAlias = tuple[str, ...]
Gauges: TypeAlias = Mapping[Figure, float]
Value = TypeVar("Value", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is shown by name from the start. Other services and providers get a place while there is room."""

    domains: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()


class Collector:
    """What prometheus_client asks for a page: the totals of the journal and what is true at this moment.

    `totals` answers None when the journal cannot be read: then no total is shown at all, since one that falls back to 0
    would be taken for a restart, and be counted again in full when it comes back.
    """

    def __init__(
        self, scope: Scope, *, totals: Callable[[], Mapping[Figure, int] | None], gauges: Callable[[], Gauges]
    ) -> None:
        self._totals, self._gauges = totals, gauges
        providers = tuple(dict.fromkeys([*scope.providers[: PROVIDERS - 1], OTHER]))
        self._known = {"domain": (*scope.domains, OTHER), "service": scope.services[:SERVICES], "provider": providers}
        self._bounds = {
            "domain": _Names(scope.domains, at_most=len(scope.domains)),
            "service": _Names(scope.services, at_most=SERVICES),
            "provider": _Names(providers, at_most=PROVIDERS),
        }

    def collect(self) -> Iterator[Metric]:
        totals = self._totals()
        gauges = self._gauges()  # after the totals: it tells whether they could be read
        for meaning in METRICS:
            if meaning.kind == "gauge":
                yield from _gauge(meaning, self._bounded_gauge(meaning, _of(meaning, gauges)))
            elif totals is not None:
                yield self._total(meaning, _of(meaning, totals))

    def _total(self, meaning: Meaning, values: Mapping[Labels, int]) -> Metric:
        bounded = self._bounded(meaning, values)
        return _counter(meaning, bounded, self._known) if meaning.kind == "counter" else _histogram(meaning, bounded)

    def _bounded(self, meaning: Meaning, values: Mapping[Labels, int]) -> dict[Labels, int]:
        """The values with `domain` and `service` brought down to the few that are shown; the busiest come first."""
        names = (*meaning.labels, _LE) if meaning.kind == "histogram" else meaning.labels
        bounded: Counter[Labels] = Counter()
        for labels, value in sorted(values.items(), key=lambda item: (-item[1], item[0])):
            if len(labels) == len(names):
                bounded[tuple(map(self._shown, names, labels))] += value
        return dict(bounded)

    def _bounded_gauge(self, meaning: Meaning, values: Mapping[Labels, float]) -> dict[Labels, float]:
        """The same of what is true now: of times, the longest."""
        found: dict[Labels, list[float]] = {}
        for labels, value in sorted(values.items(), key=lambda item: (-item[1], item[0])):
            found.setdefault(tuple(map(self._shown, meaning.labels, labels)), []).append(value)
        together = max if meaning.name.endswith("_seconds") else sum
        return {labels: together(several) for labels, several in found.items()}

    def _shown(self, name: str, value: str) -> str:
        return self._bounds[name].shown(value) if name in self._bounds else value


class _Names:
    """Who is shown by name: those given, then who comes first while there is room; nobody loses a place again."""

    def __init__(self, names: Iterable[str], *, at_most: int) -> None:
        self._at_most = at_most
        self._names = set(list(dict.fromkeys(names))[:at_most])

    def shown(self, name: str) -> str:
        if name not in self._names:
            if len(self._names) >= self._at_most:
                return OTHER
            self._names.add(name)
        return name


def _of(meaning: Meaning, figures: Mapping[Figure, Value]) -> dict[Labels, Value]:
    return {labels: value for (name, labels), value in figures.items() if name == meaning.name}


def _counter(meaning: Meaning, values: Mapping[Labels, int], known: Mapping[str, Labels]) -> Metric:
    family = CounterMetricFamily(PREFIX + meaning.name, meaning.help, labels=meaning.labels)
    zeros = product(*(meaning.known.get(label) or known.get(label, ()) for label in meaning.labels))
    for labels, value in sorted((dict.fromkeys(zeros, 0) | dict(values)).items()):
        family.add_metric(list(labels), value)
    return family


def _gauge(meaning: Meaning, values: Mapping[Labels, float]) -> Iterator[Metric]:
    """A gauge nobody can tell is not shown, rather than shown as 0."""
    if values:
        family = GaugeMetricFamily(PREFIX + meaning.name, meaning.help, labels=meaning.labels)
        for labels, value in sorted(values.items()):
            family.add_metric(list(labels), value)
        yield family


def _histogram(meaning: Meaning, values: Mapping[Labels, int]) -> Metric:
    """From the counts of single buckets, with "sum" in microseconds and "count", as `metrics.Stopwatch` makes them."""
    family = HistogramMetricFamily(PREFIX + meaning.name, meaning.help, labels=meaning.labels)
    known: set[Labels] = set() if meaning.labels else {()}
    for series in sorted(known | {labels[:-1] for labels in values}):
        cells = {labels[-1]: value for labels, value in values.items() if labels[:-1] == series}
        total = cells.pop("sum", 0) / 1_000_000
        count = cells.pop("count", 0)
        buckets = [(bound, _at_most(cells, float(bound))) for bound in meaning.buckets]
        family.add_metric(list(series), [*buckets, ("+Inf", count)], total)
    return family


def _at_most(cells: Mapping[str, int], bound: float) -> int:
    """How many took at most so long; a bound of an older version falls into the next one of today."""
    return sum(value for le, value in cells.items() if float(le) <= bound)
