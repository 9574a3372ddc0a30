"""Where a link leads, and which links are left alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Tracking
from postmeter.tracking import targets, words
from postmeter.tracking.settings import own_hosts
from postmeter.tracking.targets import Rules, target_of


def rules(**keys: Any) -> Rules:
    tracking = Tracking(url="https://click.example.com", **keys)
    return Rules(tracking, own_hosts(tracking))


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("https://example.com", "https://example.com"),
        ("HTTP://Example.com:8080/A?b=c#d", "HTTP://Example.com:8080/A?b=c#d"),
        ("http://example.com/?a=1&amp;b=2&copy=3", "http://example.com/?a=1&b=2&copy=3"),
        (" \r\n\thttp://example.com/a\r\n\tb \f", "http://example.com/ab"),
        ("http://example.com/a b?c d#e f", "http://example.com/a%20b?c%20d#e%20f"),
        ("http://example.com/ä?ö=%20#ü", "http://example.com/%C3%A4?%C3%B6=%20#%C3%BC"),
        ("http://example.com/&auml;", "http://example.com/%C3%A4"),
        ("https://[2001:db8::1]/x", "https://[2001:db8::1]/x"),
        ("http://example.com/a[]=1&b={c}|'*", "http://example.com/a[]=1&b={c}|'*"),
    ],
)
def test_a_target_is_what_a_browser_would_ask_for(value: str, target: str) -> None:
    """References decoded, edges and line ends dropped, all else percent-encoded (URL standard, section 4.4)."""
    assert target_of(value.encode(), utf8=True) == (target, "")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", targets.RELATIVE),
        ("#top", targets.RELATIVE),
        ("\0http://example.com/", targets.RELATIVE),
        ("http://example.com/\0", targets.MALFORMED),  # a browser asks for /%EF%BF%BD
        ("/path", targets.RELATIVE),
        ("//example.com/", targets.RELATIVE),
        ("example.com/?a:b", targets.RELATIVE),
        ("mailto:a@example.com", targets.SCHEME),
        ("TEL:+1", targets.SCHEME),
        ("cid:x@example.com", targets.SCHEME),
        ("java\nscript:alert(1)", targets.SCHEME),
        ("data:text/html,http://example.com/", targets.SCHEME),
        ("*|UNSUB|*", targets.TEMPLATE),
        ("http://example.com/{{ name }}", targets.TEMPLATE),
        ("http://example.com/%%id%%", targets.TEMPLATE),
        ("https://%[host]%/", targets.TEMPLATE),
        ("http://${host}/", targets.TEMPLATE),
        ("http:/example.com/", targets.MALFORMED),
        ("http:example.com", targets.MALFORMED),
        ("http:///example.com", targets.MALFORMED),
        ("http:\\\\example.com\\", targets.MALFORMED),
        ("http://user:secret@example.com/", targets.MALFORMED),
        ("http://exa mple.com/", targets.MALFORMED),
        ("http://münchen.example/", targets.MALFORMED),
        ("http://example.com:x/", targets.MALFORMED),
        ("http://example.com/\x07x", targets.MALFORMED),
        ("http://example.com/&#7;x", targets.MALFORMED),
        ("http://example.com/a \r\nb", targets.MALFORMED),  # in quoted-printable that space may be taken off
        ("http://example.com/a \t\nb", targets.MALFORMED),
        ("http://example.com/" + "x" * 1882, targets.TOO_LONG),
        ("http://example.com/" + "&#x000000041;" * 5000, targets.TOO_LONG),
    ],
)
def test_what_is_no_plain_web_address_is_left_alone(value: str, reason: str) -> None:
    assert target_of(value.encode(), utf8=True) == ("", reason)


def test_the_longest_link_has_1900_characters() -> None:
    url = b"http://example.com/" + b"x" * 1881
    assert target_of(url, utf8=True) == (url.decode(), "")


def test_foreign_characters_need_a_known_charset() -> None:
    """A path is always UTF-8, a query is in the document's charset: without UTF-8 both or the latter are in doubt."""
    assert target_of("http://example.com/ä".encode("latin-1"), utf8=False) == ("", targets.MALFORMED)
    assert target_of(b"http://example.com/\xe4", utf8=True) == ("", targets.MALFORMED)
    assert target_of(b"http://example.com/&auml;", utf8=False) == ("http://example.com/%C3%A4", "")
    assert target_of(b"http://example.com/?&auml;", utf8=False) == ("", targets.MALFORMED)


@given(st.text(max_size=30), st.booleans())
def test_a_target_goes_into_a_location_field(text: str, utf8: bool) -> None:
    """Printable ASCII, whatever the attribute held, and nothing but encoding was done to it."""
    url, reason = target_of(("http://example.com/" + text).encode("utf-8", "ignore"), utf8=utf8)
    assert (url == "") == (reason != "")
    assert all(33 <= ord(char) <= 126 for char in url)
    if url and "&" not in text and "%" not in text and text.isprintable():
        assert unquote(url) == ("http://example.com/" + text).rstrip()


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/unsubscribe?u=1",
        "https://unsub.example.com/",
        "https://example.com/opt-out",
        "https://example.com/newsletter/abmelden",
        "https://example.com/desinscription",
    ],
)
def test_unsubscribe_links_are_left_alone(url: str) -> None:
    assert rules().refuse(url) == targets.UNSUBSCRIBE


@pytest.mark.parametrize("space", [" ", "\u00a0"])
@pytest.mark.parametrize(
    "text",
    ["Unsubscribe", "Jetzt abmelden", "Se désabonner", "Darse de baja", "Cancelar suscripción", "Annulla iscrizione"],
)
def test_links_that_say_unsubscribe_are_left_alone(text: str, space: str) -> None:
    assert targets.refuse_text(text.replace(" ", space).encode()) == targets.UNSUBSCRIBE


@pytest.mark.parametrize("language", words.LANGUAGES)
def test_a_link_that_speaks_as_our_own_page_does_is_left_alone(language: str) -> None:
    """In each of its languages, by its heading and by its button."""
    ours = words.ASK[language]
    for text in (ours.heading, ours.button, ours.button.replace("’", "'")):
        assert targets.refuse_text(text.encode()) == targets.UNSUBSCRIBE


@pytest.mark.parametrize(
    "text",
    [
        b"https://example.com",
        b"see http://example.com/x",
        b"www.example.com",
        b"example.com",
        b"shop.example.com/a?b",
        b"example.com/katalog.pdf",
        b"www.example.pdf",
        b"files.zip",
    ],
)
def test_links_that_show_a_url_are_left_alone(text: bytes) -> None:
    assert targets.refuse_text(text) == targets.URL_TEXT


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    "text", ["bücher.example", "www.bücher.example", "bücher.example/gärten", "example.com/größe?ä=ü"]
)
def test_a_url_with_other_letters_than_ascii_is_one(text: str, charset: str) -> None:
    assert targets.refuse_text(text.encode(charset)) == targets.URL_TEXT


@pytest.mark.parametrize(
    "text", ["пример.рф", "shop.xn--p1ai", "例え.テスト", "192.0.2.1", "192.0.2.1:8080/x", "//example.com/x"]
)
def test_a_url_need_not_end_in_letters_of_ascii(text: str) -> None:
    assert targets.refuse_text(text.encode()) == targets.URL_TEXT


@pytest.mark.parametrize(
    "text",
    [
        "example.com.",
        "(example.com)",
        "example.com!",
        '"example.com",',
        "» example.com",
        "example.com ›",
        "<example.com>",
    ],
)
def test_signs_around_a_url_do_not_hide_it(text: str) -> None:
    assert targets.refuse_text(text.encode()) == targets.URL_TEXT


@pytest.mark.parametrize(
    "text", ["exam\u200bple.com", "example\u00ad.com", "\ufeffexample.com", "example.\u2060com\u00a0"]
)
def test_signs_that_nobody_sees_do_not_hide_a_url(text: str) -> None:
    assert targets.refuse_text(text.encode()) == targets.URL_TEXT


@pytest.mark.parametrize(
    "text",
    ["", "Read more.", "3.5 stars", "Save 10.50 now", "e.g. this", "a@example.com", "...", "Weiter …", "10.50 €", "3.5",
     "Магазин. Ещё", "更多。", "24.12.", "Größe 4.2", "Read.", "» more…", "Jetzt für 9.99 kaufen", "Katalog.pdf",
     "» Price_list-2026.XLSX", "(termin.ics)", "v1.2-notes.html"],
)  # fmt: skip
def test_other_text_does_not_stop_tracking(text: str) -> None:
    assert targets.refuse_text(text.encode()) == ""


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com/",
        "https://example.com/reset",
        "https://example.com/Password_Reset?x=1",
        "https://example.com/users/signin",
        "https://example.com/sign-in",
        "https://example.com/?TOKEN=abc",
        "https://example.com/verify/abc",
        "https://example.com/?otp=1",
    ],
)
def test_reset_and_login_like_links_are_left_alone(url: str) -> None:
    assert rules().refuse(url) == targets.LOGIN_LIKE


@pytest.mark.parametrize(
    "url",
    ["https://example.com/presets", "https://example.com/tokens", "https://example.com/authors", "https://x.example/"],
)
def test_words_count_only_as_a_whole(url: str) -> None:
    assert rules().refuse(url) == ""


def test_a_list_of_words_takes_the_place_of_the_default() -> None:
    own = rules(skip_links=("Invoice", "pay now"))
    assert own.refuse("https://example.com/invoice/7") == targets.LOGIN_LIKE
    assert own.refuse("https://example.com/pay-now") == targets.LOGIN_LIKE
    assert own.refuse("https://example.com/login") == ""
    assert rules(skip_links=()).refuse("https://example.com/login") == ""


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://a.example.net/x", targets.SKIPPED_HOST),
        ("https://A.B.example.net.", targets.SKIPPED_HOST),
        ("https://example.net/", ""),
        ("https://notexample.net/", ""),
        ("https://exact.example:8443/?x", targets.SKIPPED_HOST),
        ("https://sub.exact.example/", ""),
        ("https://exact.example.evil.example/", ""),
        ("https://example.org/?a.example.net/", ""),
        ("https://click.example.com/c/abc", targets.OWN_LINK),
        ("http://CLICK.example.com.:80/u/abc", targets.OWN_LINK),
        ("https://click.example.com/shop", ""),
        ("https://go.shop.example/c/abc", targets.OWN_LINK),
    ],
)
def test_links_to_listed_hosts_and_links_of_ours_are_left_alone(url: str, reason: str) -> None:
    some = rules(
        skip_hosts=("*.example.net", "exact.example"), domains={"shop.example": {"url": "https://go.shop.example"}}
    )
    assert some.refuse(url) == reason


def test_the_words_of_the_default_are_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tracking.md").read_text()
    listed = text.partition("<!-- words -->")[2].partition("<!-- /words -->")[0]
    assert re.findall(r"`([^`]+)`", listed.replace("\n", " ")) == sorted(targets.DEFAULT_WORDS)
