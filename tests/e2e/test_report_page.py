"""The report's page in a real browser: it fits, in light and dark, and asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from postmeter.report.page import page
from tests.lab.chromium import Answer, Chromium
from tests.unit.test_report import evil

FITS = """(() => {
    const box = document.querySelector('svg').getBoundingClientRect();
    const bars = [...document.querySelectorAll('svg rect')].map(bar => bar.getBoundingClientRect());
    return {
        wide: document.documentElement.scrollWidth <= window.innerWidth,
        bars: bars.length,
        inside: bars.every(bar => bar.left >= box.left && bar.right <= box.right + 0.5 && bar.bottom <= box.bottom),
        strips: [...document.querySelectorAll('.strip')].every(strip => strip.scrollWidth <= strip.clientWidth + 1),
        title: document.querySelector('h1').textContent,
        color: getComputedStyle(document.body).backgroundColor,
        shown: document.body.innerText.includes('<script>alert(1)</script>'),
    };
})()"""


@pytest.fixture(scope="module")
def chromium(needs_chromium: None) -> Iterator[Chromium]:
    with Chromium() as browser:
        yield browser


def test_the_page_fits_and_loads_nothing(chromium: Chromium) -> None:
    answer = Answer("text/html; charset=utf-8", page(evil()).encode())
    shown = chromium.show(answer, picture=True, script=FITS)
    assert shown.asked == set()
    assert shown.value == {
        "wide": True, "bars": 3, "inside": True, "strips": True, "title": "Mail report",
        "color": "rgb(246, 247, 249)", "shown": True,
    }  # fmt: skip
    assert len(shown.picture) > 10_000


def test_a_dark_page_is_another_picture(chromium: Chromium) -> None:
    """The same rules without the question: what a browser in dark mode applies."""
    light = page(evil())
    dark = light.replace("@media screen and (prefers-color-scheme: dark)", "@media all")
    assert dark != light
    shown = chromium.show(Answer("text/html; charset=utf-8", dark.encode()), script=FITS)
    assert shown.value["color"] == "rgb(18, 22, 28)"


def test_a_page_without_chart_is_whole_too(chromium: Chromium) -> None:
    answer = Answer("text/html; charset=utf-8", page(evil(), mail=True).encode())
    shown = chromium.show(answer, script="document.querySelectorAll('table tr').length")
    assert shown.asked == set()
    assert shown.value > 10
