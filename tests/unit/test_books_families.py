"""The page's content, read back by prometheus_client's own parsers; promtool judges it in session/test_promtool.py."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

import postmeter
from postmeter.books.families import PROVIDERS, SERVICES, Collector, Gauges, Scope
from postmeter.cli import keycare
from postmeter.mail.draft import Figure
from postmeter.metrics import BUCKETS, METRICS, Stopwatch

SCOPE = Scope(domains=("example.com", "example.org"), services=("ORIGINATING", "local"))
NOW: Gauges = {("quota_store_up", ()): 1.0, ("build_info", ("0.1.0",)): 1.0}
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _page(totals: Mapping[Figure, int] | None, *, accept: str = "text/plain", scope: Scope = SCOPE) -> str:
    registry = CollectorRegistry()
    registry.register(Collector(scope, totals=lambda: totals, gauges=lambda: NOW))
    encode, _ = choose_encoder(accept)
    return encode(registry).decode()


def _samples(page: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(page)
        for sample in family.samples
    }


def _value(page: str, name: str, **labels: str) -> float | None:
    return _samples(page).get((name, frozenset(labels.items())))


def test_a_total_is_shown_with_its_labels() -> None:
    page = _page({("dkim_signatures_total", ("example.com", "rsa-sha256")): 7, ("recipients_total", ()): 12})
    assert _value(page, "postmeter_dkim_signatures_total", domain="example.com", algorithm="rsa-sha256") == 7
    assert _value(page, "postmeter_recipients_total") == 12


def test_known_label_values_start_at_0() -> None:
    page = _page({})
    assert _value(page, "postmeter_messages_total", service="local", result="accepted") == 0
    assert _value(page, "postmeter_dkim_signatures_total", domain="example.org", algorithm="ed25519-sha256") == 0
    assert _value(page, "postmeter_quota_refusals_total", window="day", unit="recipients") == 0
    assert _value(page, "postmeter_links_rewritten_total") == 0
    for domain in ("example.com", "other"):
        assert _value(page, "postmeter_deliveries_total", domain=domain, provider="other", status="sent") == 0
    assert _value(page, "postmeter_delivery_delay_seconds_count") == 0


def test_a_journal_that_cannot_be_read_shows_no_total_rather_than_0() -> None:
    shown = {name for name, _ in _samples(_page(None))}
    assert shown == {"postmeter_quota_store_up", "postmeter_build_info"}


def test_only_domains_with_a_key_are_named() -> None:
    domains = ("example.com", "a.test", "b.test")
    totals: dict[Figure, int] = {("dkim_signatures_total", (domain, "rsa-sha256")): 1 for domain in domains}
    page = _page(totals)
    assert _value(page, "postmeter_dkim_signatures_total", domain="other", algorithm="rsa-sha256") == 2
    assert "a.test" not in page


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 10**12), max_size=60))
def test_services_are_bounded_and_nothing_is_lost(services: dict[str, int]) -> None:
    page = _page({("messages_total", (service, "accepted")): count for service, count in services.items()})
    shown = {
        dict(labels)["service"]: value
        for (name, labels), value in _samples(page).items()
        if name == "postmeter_messages_total" and ("result", "accepted") in labels
    }
    assert len(shown) <= SERVICES + 1
    assert sum(shown.values()) == sum(services.values())


@given(st.dictionaries(st.text(max_size=20), st.integers(1, 10**6), min_size=1, max_size=60))
def test_providers_are_bounded_in_gauges_too(providers: dict[str, int]) -> None:
    """A table of one's own may name any number of them; `other` is all the rest, and as old as its oldest."""
    gauges: dict[Figure, float] = {("queue_recipients", ("active", name)): count for name, count in providers.items()}
    gauges |= {("queue_oldest_seconds", ("active", name)): count for name, count in providers.items()}
    registry = CollectorRegistry()
    registry.register(Collector(SCOPE, totals=lambda: None, gauges=lambda: gauges))
    samples = _samples(choose_encoder("")[0](registry).decode())
    for name, told in (("queue_recipients", sum), ("queue_oldest_seconds", max)):
        values = [value for (metric, _), value in samples.items() if metric == f"postmeter_{name}"]
        assert len(values) <= PROVIDERS + 1
        assert told(values) == told(providers.values())


def test_a_service_that_has_its_place_keeps_it() -> None:
    totals: dict[Figure, int] = {}
    registry = CollectorRegistry()
    registry.register(Collector(SCOPE, totals=lambda: totals, gauges=dict))
    encode, _ = choose_encoder("")
    for number in range(40):
        totals["messages_total", (f"smtp{number}", "accepted")] = number + 1
        encode(registry)
    page = encode(registry).decode()
    assert _value(page, "postmeter_messages_total", service="smtp0", result="accepted") == 1
    assert _value(page, "postmeter_messages_total", service="smtp39", result="accepted") is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=350))
def test_the_histogram_counts_as_a_plain_list_would(durations: list[float]) -> None:
    stopwatch = Stopwatch()
    for seconds in durations:
        stopwatch.observe("eom", seconds)
    samples = _samples(_page(stopwatch.take()))

    def value(name: str, **labels: str) -> float:
        return samples[f"postmeter_callback_seconds_{name}", frozenset({"stage": "eom", **labels}.items())]

    for bound in BUCKETS:
        expected = sum(seconds <= float(bound) for seconds in durations)
        assert value("bucket", le=bound) == expected, bound
    assert value("bucket", le="+Inf") == len(durations)
    assert value("count") == len(durations)
    assert math.isclose(value("sum"), sum(durations), abs_tol=1e-6 * len(durations))


def test_a_stopwatch_gives_each_duration_once() -> None:
    stopwatch = Stopwatch()
    stopwatch.observe("eom", 0.003)
    assert stopwatch.take() == {
        ("callback_seconds", ("eom", "0.005")): 1,
        ("callback_seconds", ("eom", "sum")): 3000,
        ("callback_seconds", ("eom", "count")): 1,
    }
    assert stopwatch.take() == {}


def test_bounds_of_an_older_version_fall_into_todays() -> None:
    old: dict[Figure, int] = {
        ("callback_seconds", ("eom", "0.003")): 4,
        ("callback_seconds", ("eom", "count")): 4,
    }
    page = _page(old)
    assert _value(page, "postmeter_callback_seconds_bucket", stage="eom", le="0.0025") == 0
    assert _value(page, "postmeter_callback_seconds_bucket", stage="eom", le="0.005") == 4


def test_every_place_that_can_fail_is_known_before_it_does() -> None:
    """An alert on `increase` never sees the first failure of a series that begins with it."""
    source = "".join(path.read_text() for path in Path(postmeter.__file__).parent.rglob("*.py"))
    places = set(re.findall(r'\b(?:Chore|Stage|Apart)\(\s*"(\w+)"', source))
    places |= set(re.findall(r'"errors_total", \(?"(\w+)"', source)) - {meaning.name for meaning in METRICS}
    places |= {keycare.WATCH, keycare.ROTATION, "shipping", "removed", "frozen", "brake"}
    places |= {"session", "envfrom", "envrcpt", "eoh", "eom"}
    (errors,) = (meaning for meaning in METRICS if meaning.name == "errors_total")
    assert places - set(errors.known["where"]) == set()


def test_labels_that_do_not_fit_are_left_out_instead_of_failing_the_page() -> None:
    page = _page({("recipients_total", ("surprise",)): 3, ("no_such_total", ()): 1})
    assert _value(page, "postmeter_recipients_total") == 0
    assert "no_such_total" not in page


FULL: dict[Figure, int] = {
    ("messages_total", ('sub"mis\\sion\n', "accepted")): 2,
    ("callback_seconds", ("eom", "0.005")): 1,
    ("callback_seconds", ("eom", "sum")): 4000,
    ("callback_seconds", ("eom", "count")): 1,
}


def test_openmetrics_is_given_to_who_asks_and_is_valid() -> None:
    page = _page(FULL, accept=OPENMETRICS)
    assert page.endswith("# EOF\n")
    families = parse_openmetrics(page)  # type: ignore[no-untyped-call]
    assert any(family.name == "postmeter_messages" for family in families)


def test_every_name_is_a_good_one() -> None:
    """https://prometheus.io/docs/practices/naming/: counters end in _total, nothing else does; units are base units."""
    for meaning in METRICS:
        assert meaning.name.endswith("_total") == (meaning.kind == "counter"), meaning.name
        assert not meaning.name.endswith(("_ms", "_milliseconds", "_kb", "_mb")), meaning.name
        assert not set(meaning.labels) & {"address", "recipient", "le"}, meaning.name
        assert "login" not in meaning.labels or meaning.name == "login_recipients", "only metrics.per_login asks for it"
        assert set(meaning.known) <= set(meaning.labels), meaning.name
    assert len({meaning.name for meaning in METRICS}) == len(METRICS)
