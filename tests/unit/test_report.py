"""A report's figures add up, name what they are a share of, and hold what clients chose without being steered by it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html.parser import HTMLParser
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.cli.report import days
from postmeter.config.problem import MistakeError
from postmeter.report import chart, page, table, text
from postmeter.report.gather import COLUMNS, PLACES, RATES, Report, day_text, gather, percent
from postmeter.store import figures

TODAY = 20_779
NOW = TODAY * 86_400.0 + 50_000
EVIL = '=cmd|"/c calc"!A1\x1b[31m<script>alert(1)</script>\u202e,\r\nx'

counts = st.fixed_dictionaries({name: st.integers(0, 10**6) for name in PLACES}).map(
    lambda found: Counter({**found, "accepted": sum(found.values())})
)


def made(cells: Mapping[tuple[int, str], Mapping[str, int]], *, by: str = "login", length: int = 7) -> Report:
    """Of what each name had on each day."""

    def read(*, since: int, until: int, by: Sequence[str]) -> dict[str, dict[str, Counter[str]]]:
        found: dict[str, dict[str, Counter[str]]] = {}
        for one, ((day, name), values) in product(by, cells.items()):
            key = {"": "", "day": str(day)}.get(one, name)
            found.setdefault(one, {}).setdefault(key, Counter()).update(values)
        return found

    return gather(read, since=TODAY - length + 1, until=TODAY + 1, by=[by], now=NOW, host="mx1.example.com")


@given(st.dictionaries(st.tuples(st.integers(TODAY - 6, TODAY), st.text(max_size=8)), counts, max_size=6))
def test_every_breakdown_adds_up_to_the_total(cells: dict[tuple[int, str], Counter[str]]) -> None:
    report = made(cells)
    for parts in report.parts.values():
        summed: Counter[str] = Counter()
        for part in parts:
            summed.update(part.counts)
        assert {name: summed[name] for name in COLUMNS} == {name: report.total.get(name, 0) for name in COLUMNS}
    assert report.total.get("accepted", 0) == sum(report.total.get(place, 0) for place in PLACES)
    assert len(report.days) == 7


@given(counts)
def test_rates_are_shares_and_layers_are_everybody(values: Counter[str]) -> None:
    for rate in RATES.values():
        value = rate.value(values)
        assert value is None or 0 <= value <= 1
    assert sum(value for _, _, value in chart.stacked(values)) == values["accepted"]


def test_the_places_are_those_that_are_counted() -> None:
    assert set(PLACES) == set(figures.WHERE_THEY_ARE)


def test_no_mail_has_no_rates() -> None:
    report = made({})
    assert all(rate.value(report.total) is None for rate in RATES.values())
    assert "No mail" in "".join(text.as_text(report, bars=True))
    assert "No mail" in page.page(report)


def test_a_small_rate_keeps_its_digits() -> None:
    assert [percent(value) for value in (None, 0.0, 1.0, 0.973, 0.0123, 0.00042)] == [
        "–", "0.0%", "100.0%", "97.3%", "1.23%", "0.042%",
    ]  # fmt: skip


def evil() -> Report:
    values = Counter(accepted=1000, delivered=900, hard=100, complained=9, opens_untold=1, opens_human=5)
    return made({(TODAY, EVIL): values, (TODAY - 1, "ann@example.com"): Counter(accepted=5, delivered=5)})


def test_few_are_not_none_and_most_are_not_all() -> None:
    told = [percent(value) for value in (1e-9, 0.99949, 0.9996, 0.9999999, 1.0004)]
    assert told == ["0.001%", "99.9%", "99.960%", "99.999%", "100.0%"]


def test_a_name_stays_on_its_line_of_text_and_steers_nothing() -> None:
    told = list(text.as_text(evil(), bars=True))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "".join(told))
    assert sum("calc" in line for line in told) == 1


def test_a_name_is_no_formula_in_csv() -> None:
    rows = list(csv.DictReader(io.StringIO(table.as_csv(evil()))))
    found = next(row for row in rows if "calc" in row["name"])
    assert found["name"] == "'" + EVIL
    assert (found["accepted"], found["hard_rate"]) == ("1000", "0.100000")
    assert rows[0]["by"] == "total"


@given(st.text(max_size=20))
def test_no_name_begins_as_a_formula(name: str) -> None:
    assert not table.safe(name).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    assert table.safe(name) in (name, "'" + name)


def test_json_says_the_same_and_names_every_denominator() -> None:
    found = json.loads(table.as_json(evil()))
    assert found["total"]["accepted"] == 1005
    assert found["by"]["login"][0]["name"] == EVIL
    assert found["rates"]["complained"] == {"of": "delivered", "sum_of": ["delivered"]}
    assert found["total"]["rates"]["complained"] == 9 / 905


class Elements(HTMLParser):
    """What a page is made of."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[tuple[str, str | None]] = set()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Any]]) -> None:
        self.tags[tag] += 1
        self.attributes |= set(attrs)


def test_a_page_holds_nothing_that_runs_or_loads() -> None:
    for mail in (False, True):
        source = page.page(evil(), mail=mail)
        found = Elements(source)
        assert not found.tags.keys() & {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "form",
            "a",
            "base",
            "image",
            "use",
        }
        assert not {name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href")}
        assert "&lt;script&gt;" in source
        assert "url(" not in source
        assert "@import" not in source
        assert found.tags["svg"] == (0 if mail else 1)
    assert "default-src 'none'" in source


def test_a_page_says_alarms_in_words() -> None:
    source = page.page(evil())
    assert "bounced hard: above 5%" in source
    assert "complained: above 0.5%" in source


def test_every_breakdown_of_a_provider_leaves_out_what_no_provider_is_known_for() -> None:
    values = Counter(accepted=10, delivered=10, opened_human=4, opens_human=4)
    report = made({(TODAY, "google"): values}, by="provider")
    assert report.total["opened_human"] == 4
    assert "opened_human" not in report.parts["provider"][0].counts
    assert [row["opened_human"] for row in csv.DictReader(io.StringIO(table.as_csv(report)))][:2] == ["4", ""]


@given(st.integers(0, 10**12))
def test_a_chart_s_scale_holds_everything_and_divides_by_four(most: int) -> None:
    assert most <= chart.ceiling(most) <= max(4, 2 * most)
    assert chart.ceiling(most) % 4 == 0


def test_days_are_whole_and_named_as_people_name_them() -> None:
    assert days("7d", None, NOW) == (TODAY - 6, TODAY + 1)
    assert days("12h", None, NOW) == (TODAY, TODAY + 1)
    assert days("7d", "1d", NOW) == (TODAY - 7, TODAY)
    assert days("2026-11-01", "2026-11-30", NOW) == (20_758, 20_788)


SPANS = st.one_of(st.dates().map(str), st.integers(0, 50_000).map("{}d".format), st.text(max_size=8))


@given(SPANS, st.none() | SPANS)
def test_whatever_is_asked_for_is_refused_or_can_be_named(since: str, until: str | None) -> None:
    """The first week of the first year has no days before it, and that of the last none behind."""
    with suppress(MistakeError):
        first, end = days(since, until, NOW)
        assert 0 < end - first < 4000
        assert day_text(first) <= day_text(end - 1)


def test_days_before_all_mail_are_wrong_usage() -> None:
    for since, until in (("7d", "0001-01-01"), ("1969-12-31", "1970-01-01")):
        with pytest.raises(MistakeError, match="1970"):
            days(since, until, NOW)
    assert days("1970-01-01", "1970-01-01", NOW) == (0, 1)
    with pytest.raises(MistakeError, match="no days"):
        days("2026-11-30", "2026-11-29", NOW)
