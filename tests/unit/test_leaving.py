"""GET changes nothing, POST with the one pair of RFC 8058 acts, and nobody is thanked for what is not written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import cast
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books.unsubscribes import unsubscribed
from postmeter.events import Unsubscribed
from postmeter.token import Mint, Unsubscribe
from postmeter.tracking import answers
from postmeter.tracking.answers import Answer
from postmeter.tracking.clients import Clients
from postmeter.tracking.desk import Site, Visit
from postmeter.tracking.hits import Hits
from postmeter.tracking.leaving import line, one_click, page
from tests.growth import growth

HOST = "click.example.com"
MINT = Mint([b"s" * 32])
SAID = Unsubscribe(b"referenc", b"bob@example.net", "from:news@shop.example")
TOKEN = MINT.unsubscribe_url(f"https://{HOST}", SAID, nonce=b"only used 1x").rpartition("/")[2]
FORM = "application/x-www-form-urlencoded"
POST = Visit(
    method="POST", host=HOST, token=TOKEN, languages="", kind=FORM, body=b"List-Unsubscribe=One-Click",
    address="203.0.113.9", secure=True,
)  # fmt: skip


@dataclass
class Spool:
    works: bool = True
    lines: list[bytes] = field(default_factory=list)

    def put(self, line: bytes) -> bool:
        self.lines += [line] * self.works
        return self.works


def visit(what: Visit, spool: Spool) -> Answer:
    site = Site(MINT, frozenset({HOST}), Clients([]))
    return page(cast(Hits, spool), now=lambda: 1.5)(what, site)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_changes_nothing(method: str) -> None:
    spool = Spool()
    found = visit(replace(POST, method=method), spool)
    assert (found.status, spool.lines) == (200, [])
    assert b'<form method="post"><button name="List-Unsubscribe" value="One-Click">' in found.page
    assert b"news@shop.example" in found.page
    assert b"bob" not in found.page


def test_a_post_is_written_down_and_only_then_thanked_for() -> None:
    spool = Spool()
    found = visit(POST, spool)
    assert (found.status, b"<form" in found.page) == (200, False)
    assert [json.loads(one) for one in spool.lines] == [
        {
            "kind": "unsubscribe",
            "time": 1.5,
            "reference": b"referenc".hex(),
            "recipient": "bob@example.net",
            "scope": "from:news@shop.example",
            "host": HOST,
        }
    ]


def test_what_cannot_be_written_down_is_not_thanked_for() -> None:
    found = visit(POST, Spool(works=False))
    assert found.status == 503
    assert b"<form" in found.page
    assert "\r\nRetry-After: 60" in found.fields


@pytest.mark.parametrize(("token", "host"), [(TOKEN[:-1], HOST), ("", HOST), (TOKEN, "other.example.com")])
def test_a_token_that_is_not_ours_unsubscribes_nobody(token: str, host: str) -> None:
    spool = Spool()
    assert visit(replace(POST, token=token, host=host), spool) is answers.NOT_FOUND
    assert spool.lines == []


@pytest.mark.parametrize("body", [b"", b"x=y", b"List-Unsubscribe", b"List-Unsubscribe=No", b"\xff\0", b"&" * 5000])
def test_a_post_that_does_not_say_so_is_asked_again(body: bytes) -> None:
    spool = Spool()
    found = visit(replace(POST, body=body), spool)
    assert (found.status, spool.lines) == (400, [])
    assert b"<form" in found.page


def multipart(*parts: tuple[str, str]) -> bytes:
    head = "--xyz\r\nContent-Disposition: form-data; name="
    return ("".join(f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in parts) + "--xyz--\r\n").encode()


def kinds() -> Iterator[tuple[str, bytes]]:
    """What mail programs and forms send."""
    plain = b"List-Unsubscribe=One-Click"
    yield FORM, plain
    yield f"{FORM}; charset=UTF-8", plain
    yield FORM.upper(), plain
    yield FORM, b"a=b&List-Unsubscribe=One-Click&c="
    yield FORM, b"list-unsubscribe=one-click"
    yield FORM, plain + b"\r\n"
    yield FORM, b"List%2DUnsubscribe=One%2DClick"
    yield "", plain
    yield "text/plain", plain
    yield "multipart/form-data", plain
    for quoted in ("boundary=xyz", 'boundary="xyz"', "charset=utf-8; Boundary=xyz"):
        yield f"multipart/form-data; {quoted}", multipart(("List-Unsubscribe", "One-Click"))
    yield "multipart/form-data; boundary=xyz", multipart(("a", "b"), ("List-Unsubscribe", "One-Click"))
    yield "Multipart/Form-Data; boundary=xyz", multipart(("list-unsubscribe", "one-click"))


@pytest.mark.parametrize(("kind", "body"), list(kinds()))
def test_both_forms_of_the_rfc_are_understood(kind: str, body: bytes) -> None:
    assert one_click(kind, body)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data; boundary=xyz", multipart(("List-Unsubscribe", "No"))),
        ("multipart/form-data; boundary=xyz", multipart(("Other", "One-Click"))),
        ("multipart/form-data; boundary=xyz", multipart(("Other", 'name="List-Unsubscribe"\r\n\r\nOne-Click'))),
        ("multipart/form-data; boundary=abc", multipart(("Other", "x"))),
        (FORM, b"x=List-Unsubscribe%3DOne-Click"),
    ],
)
def test_what_only_looks_like_it_is_not(kind: str, body: bytes) -> None:
    assert not one_click(kind, body)


def test_a_body_that_begins_a_field_again_and_again_takes_no_longer_than_others() -> None:
    """Each beginning was followed to the end of the line: four times the body took sixteen times as long."""

    def ask(many: int) -> None:
        assert not one_click("multipart/form-data; boundary=x", b"--x\r\n" + b"Content-Disposition:" * many)

    assert growth(ask, 800, 3200) < 10


@given(st.text(max_size=60) | st.just("multipart/form-data; boundary=x"), st.binary(max_size=300))
def test_no_body_of_any_kind_is_too_much(kind: str, body: bytes) -> None:
    one_click(kind, body)


@given(st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=5), st.booleans())
def test_a_form_says_it_if_it_says_it_anywhere(pairs: dict[str, str], said: bool) -> None:
    pairs = {name: value for name, value in pairs.items() if name.strip().lower() != "list-unsubscribe"}
    pairs |= {"List-Unsubscribe": "One-Click"} if said else {}
    assert one_click(FORM, urlencode(pairs, errors="replace").encode()) is said


@given(
    st.binary(min_size=1, max_size=100),
    st.sampled_from(["from:news@shop.example", "list:shop.example/weekly", "from:j\u00f6rg@xn--bcher-kva.example"]),
)
def test_what_the_server_writes_the_books_understand(recipient: bytes, scope: str) -> None:
    said = json.loads(line(Unsubscribe(b"referenc", recipient, scope), host=HOST, now=1.5))
    event, figures = unsubscribed("hit:x:0", said)
    assert (event.source, event.scope) == (f"unsubscribed:{b'referenc'.hex()}", scope)
    assert event.recipient == recipient.decode("utf-8", "backslashreplace")
    assert event.from_domain in scope
    assert not figures


GOOD = json.loads(line(SAID, host=HOST, now=1.5))


@pytest.mark.parametrize(
    "change",
    [
        {"scope": ""},
        {"scope": "everywhere"},
        {"scope": "domain:shop.example"},
        {"scope": "list:shop.example"},
        {"scope": "from:nobody"},
        {"scope": 7},
        {"recipient": ""},
        {"recipient": None},
        {"reference": "x"},
        {"time": -1},
        {"time": True},
        {"host": None},
    ],
)
def test_a_line_with_anything_else_is_none(change: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        unsubscribed("hit:x:0", GOOD | change)
    for key in GOOD.keys() - {"kind"}:
        with pytest.raises(KeyError):
            unsubscribed("hit:x:0", {name: value for name, value in GOOD.items() if name != key})


def test_the_event_says_all_that_a_sender_needs() -> None:
    assert unsubscribed("hit:x:0", GOOD)[0] == Unsubscribed(
        source=f"unsubscribed:{b'referenc'.hex()}",
        time=1.5,
        reference=b"referenc".hex(),
        recipient="bob@example.net",
        scope="from:news@shop.example",
        from_domain="shop.example",
        host=HOST,
    )
