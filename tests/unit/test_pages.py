"""What people see: sound HTML in their language, readable in any light, with nothing in it that runs or loads."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from itertools import product
from xml.etree.ElementTree import Element

import html5lib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.tracking import answers, pages, words
from postmeter.tracking.answers import Answer
from postmeter.tracking.words import Words, choose

LEFT = "news@shop.example"
SPOKEN: Mapping[str, Mapping[str, Words]] = {
    "ask": words.ASK,
    "done": words.DONE,
    "again": words.AGAIN,
    "not found": words.NOT_FOUND,
    "gone": words.GONE,
}
ALL = list(product(SPOKEN, words.LANGUAGES))
ALLOWED = {"html", "head", "meta", "title", "style", "body", "main", "h1", "p", "strong", "bdi", "form", "button"}


def answer(name: str, language: str, left: str = LEFT) -> Answer:
    made = {
        "ask": lambda: pages.ask(language, left),
        "done": lambda: pages.done(language, left),
        "again": lambda: pages.again(language, left),
        "not found": lambda: pages.plain(answers.NOT_FOUND, language),
        "gone": lambda: pages.plain(answers.GONE, language),
    }
    return made[name]()


def document(page: Answer) -> Element:
    """As a browser reads it; any mistake is an error."""
    root: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(page.page.decode())
    return root


def policy(page: Answer) -> dict[str, str]:
    found = re.search(r"\r\nContent-Security-Policy: ([^\r]+)", page.fields)
    assert found
    return dict(part.strip().partition(" ")[::2] for part in found[1].split(";"))


def text(element: Element | None) -> str:
    assert element is not None
    return "".join(element.itertext())


@pytest.mark.parametrize(("name", "language"), ALL)
def test_a_page_is_sound_html_of_a_few_plain_elements(name: str, language: str) -> None:
    page = answer(name, language)
    root = document(page)
    assert {element.tag for element in root.iter()} <= ALLOWED
    assert root.get("lang") == language
    assert f"\r\nContent-Language: {language}" in page.fields
    assert "\r\nContent-Type: text/html; charset=utf-8" in page.fields
    assert len(page.page) < 3000
    assert len(root.findall("body/main")) == len(root.findall("body/main/h1")) == 1
    viewport = root.find("head/meta[@name='viewport']")
    assert viewport is not None
    assert viewport.get("content") == "width=device-width, initial-scale=1"


@pytest.mark.parametrize(("name", "language"), ALL)
def test_a_page_says_what_there_is_to_say_in_its_language(name: str, language: str) -> None:
    root, said = document(answer(name, language)), SPOKEN[name][language]
    assert text(root.find("head/title")) == text(root.find("body/main/h1")) == said.heading
    spoken = [text(paragraph) for paragraph in root.findall("body/main/p")]
    assert spoken == [line for line in (said.text.format(left=LEFT), said.more) if line]
    buttons = root.findall("body/main/form/button")
    assert [text(button) for button in buttons] == ([said.button] if said.button else [])


@pytest.mark.parametrize(("name", "language"), ALL)
def test_nothing_in_a_page_runs_or_loads_or_is_kept(name: str, language: str) -> None:
    """Not even if somebody got something into it: the policy allows this one style sheet and this one form."""
    page = answer(name, language)
    rules = policy(page)
    style = text(document(page).find("head/style"))
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'" if b"<form" in page.page else "'none'",
    }
    assert not re.search(rb"(?i)<script|\bsrc=|href=|url\(|@import|\son[a-z]+=|style=|https?:", page.page)
    assert "cookie" not in page.wire(0).decode().lower()


@pytest.mark.parametrize("spoken", SPOKEN.values(), ids=SPOKEN)
def test_every_page_speaks_every_language_and_in_each_differently(spoken: Mapping[str, Words]) -> None:
    assert tuple(spoken) == words.LANGUAGES
    assert set(words.LANGUAGES) >= {"en", "de", "fr", "es", "it"}
    first = next(iter(spoken.values()))
    for said in spoken.values():
        assert [bool(part) for part in (said.more, said.button)] == [bool(first.more), bool(first.button)]
        assert ("{left}" in said.text) == ("{left}" in first.text)
        assert all(line[-1] in ".?" and line == line.strip() for line in (said.text, said.more) if line)
        assert "'" not in said.heading + said.text + said.more + said.button
    assert len({said.heading for said in spoken.values()}) == len({said.text for said in spoken.values()}) == 5


@given(st.text(max_size=80))
def test_whatever_is_left_is_text_and_nothing_else(left: str) -> None:
    """It comes out of a header field that somebody wrote."""
    for name in ("ask", "done"):
        assert re.findall(rb"<[/!a-zA-Z]+", answer(name, "en", left).page) == re.findall(
            rb"<[/!a-zA-Z]+", answer(name, "en").page
        )


@pytest.mark.parametrize("left", ["<script>alert(1)</script>", "a&b@x", '"><img src=x>', "{heading}", "{0}", "}{"])
def test_markup_and_braces_in_a_name_are_shown_as_they_are(left: str) -> None:
    assert text(document(answer("ask", "en", left)).find("body/main/p/strong/bdi")) == left


def colours(scheme: str) -> dict[str, str]:
    light, dark = (dict(re.findall(r"--(\w+):(#\w+)", block)) for block in re.findall(r":root\{([^}]*)\}", pages.STYLE))
    return light if scheme == "light" else dark


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_measure_of_contrast_is_right() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("one", "other", "least"),
    [("text", "page", 7.0), ("label", "button", 4.5), ("button", "page", 3.0)],  # WCAG 2.2, 1.4.6, 1.4.3, 1.4.11
)
def test_contrast_is_enough_in_light_and_dark(scheme: str, one: str, other: str, least: float) -> None:
    known = colours(scheme)
    assert set(known) == {"page", "text", "button", "label"}
    assert contrast(known[one], known[other]) >= least


def test_the_focus_is_visible_and_never_taken_away() -> None:
    """Its outline has the colour of text, which has contrast to the page."""
    assert "button:focus-visible{outline:3px solid var(--text);outline-offset:3px}" in pages.STYLE
    assert "outline:0" not in pages.STYLE
    assert "outline:none" not in pages.STYLE


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT", "de"),
        ("DE-at;q=0.5", "de"),
        ("nl, fr;q=0.8, en;q=0.9", "en"),
        ("nl,fr;q=0.9,en;q=0.8", "fr"),
        ("es, it", "es"),
        ("it;q=0.3, es;q=0.30, de;q=0.301", "de"),
        ("de;q=0", "en"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("*", "en"),
        ("*;q=0.5, it;q=0.4", "en"),
        ("nl, pl", "en"),
        ("fr ; q=1.000 , de", "fr"),
        ("de;q=2", "en"),
        ("de;q=nan, it;q=0.1", "it"),
        ("de;level=1, it;q=0.1", "it"),
        ("x" * 500 + ",de", "en"),
        ("zh-Hant-TW,zh;q=0.9,it-CH;q=0.8,*;q=0.1", "it"),
    ],
)
def test_the_language_is_the_one_most_wanted(accepted: str, language: str) -> None:
    assert choose(accepted) == language


@given(st.text(max_size=600) | st.text("defrn-*;,q=01. ", max_size=60))
def test_whatever_is_accepted_some_language_is_spoken(accepted: str) -> None:
    assert choose(accepted) in words.LANGUAGES


def test_only_the_page_for_try_again_says_when() -> None:
    assert [name for name in SPOKEN if "Retry-After" in answer(name, "en").fields] == ["again"]
    assert {name: answer(name, "en").status for name in SPOKEN} == {
        "ask": 200, "done": 200, "again": 503, "not found": 404, "gone": 410,
    }  # fmt: skip
