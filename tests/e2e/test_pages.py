"""Pages of the tracking server before a person's eyes, ears and keyboard, in Debian's Chromium. Only in `make all`."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from postmeter.runtime import spool
from postmeter.token import Mint, Unsubscribe
from postmeter.tracking import words
from tests.lab import redirects
from tests.lab.person import Person
from tests.lab.redirects import Place
from tests.unit.test_pages import colours, contrast

BASE = "https://127.0.0.1"
LEFT = "news@shop.example"
SIDES = ("width", "height")


@pytest.fixture(scope="module")
def place(needs_chromium: None) -> Iterator[Place]:
    with redirects.opened() as found, found.running():
        yield found


@pytest.fixture(scope="module")
def person(place: Place) -> Iterator[Person]:
    with Person(place.port, host="127.0.0.1") as found:
        yield found


@pytest.fixture
def url(place: Place) -> str:
    said = Unsubscribe(b"referenc", b"bob@example.net", f"from:{LEFT}")
    return Mint([place.secret]).unsubscribe_url(BASE, said, nonce=b"only used 1x")


def recorded(place: Place) -> int:
    files = spool.files(place.state / "spool" / "hits", "hits")
    return sum(path.read_bytes().count(b'"unsubscribe"') for path in files)


def rgb(text: str) -> str:
    """`rgb(1, 2, 3)` as a style sheet has it."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", text)[:3])


@pytest.mark.parametrize("language", words.LANGUAGES)
@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_a_person_unsubscribes_by_keyboard_in_any_language(
    person: Person, place: Place, url: str, language: str, key: str
) -> None:
    """Tab to the button, see that it has the focus, press it; no script runs."""
    before, asked = recorded(place), len(person.asked)
    person.likes(languages=f"{language}-XX,{language};q=0.9,en;q=0.1")
    person.visit(url)
    assert person.sees("document.documentElement.lang") == language
    assert person.sees("document.querySelector('h1').innerText") == words.ASK[language].heading
    assert LEFT in person.sees("document.body.innerText")
    assert recorded(place) == before
    person.press("Tab")
    assert person.sees("document.activeElement.innerText") == words.ASK[language].button
    assert person.sees("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    person.press(key, leads_on=True)
    assert person.sees("document.querySelector('h1').innerText") == words.DONE[language].heading
    assert recorded(place) == before + 1
    assert [(one.method, one.url, one.body) for one in person.asked[asked:]] == [
        ("GET", url, ""),
        ("POST", url, "List-Unsubscribe=One-Click"),
    ]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_it_can_be_read_on_any_screen_in_any_light(person: Person, url: str, dark: bool, width: int) -> None:
    """No scrolling to the side, letters and button large enough, and the contrast that the style sheet promises."""
    person.likes(dark=dark, width=width)
    person.visit(url)
    assert person.sees("document.scrollingElement.scrollWidth <= innerWidth")
    assert person.sees("parseFloat(getComputedStyle(document.querySelector('p')).fontSize)") >= 16
    sizes = [person.sees(f"document.querySelector('button').getBoundingClientRect().{side}") for side in SIDES]
    assert min(sizes) >= 44  # WCAG 2.2, 2.5.5
    assert person.sees("document.querySelector('button').getBoundingClientRect().bottom <= innerHeight")
    shown = {
        "page": rgb(person.sees("getComputedStyle(document.body).backgroundColor")),
        "text": rgb(person.sees("getComputedStyle(document.querySelector('p')).color")),
        "button": rgb(person.sees("getComputedStyle(document.querySelector('button')).backgroundColor")),
        "label": rgb(person.sees("getComputedStyle(document.querySelector('button')).color")),
    }
    promised = colours("dark" if dark else "light")
    assert {name: contrast(colour, "#000") for name, colour in shown.items()} == {
        name: contrast(colour, "#000") for name, colour in promised.items()
    }


def test_a_screen_reader_is_told_what_there_is(person: Person, url: str) -> None:
    person.likes(languages="de")
    person.visit(url)
    heard = person.hears()
    assert ("heading", "Abmelden") in heard
    assert ("button", "Abmelden") in heard
    assert ("RootWebArea", "Abmelden") in heard


@pytest.mark.parametrize("path", ["/u/nothing", "/c/nothing", "/"])
def test_who_follows_a_broken_link_reads_so_in_his_language(person: Person, path: str) -> None:
    person.likes(languages="fr")
    asked = len(person.asked)
    person.visit(BASE + path)
    assert person.sees("document.querySelector('h1').innerText") == words.NOT_FOUND["fr"].heading
    assert rgb(person.sees("getComputedStyle(document.body).backgroundColor")) == "#ffffff"
    assert [one.url for one in person.asked[asked:]] == [BASE + path]


def test_what_somebody_wrote_into_a_list_s_name_is_only_shown(person: Person, place: Place) -> None:
    name = "<img/src=x/onerror=alert(1)><form/action=https://evil.example>"
    said = Unsubscribe(b"referenc", b"bob@example.net", f"list:shop.example/{name}")
    asked = len(person.asked)
    person.visit(Mint([place.secret]).unsubscribe_url(BASE, said, nonce=b"only used 1x"))
    assert name in person.sees("document.body.innerText")
    assert person.sees("document.querySelectorAll('img, script').length + document.forms.length") == 1
    assert len(person.asked) == asked + 1
