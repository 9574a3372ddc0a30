"""One-click unsubscribe through a real Postfix: the fields arrive, signed, and what they lead to works."""

from __future__ import annotations

import contextlib
import http.client
import re
import sqlite3
import urllib.parse
from dataclasses import dataclass

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.keys import DkimKey
from tests.lab.lab import ALICE, Lab, letter
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery
from tests.lab.verify import verify_all, verify_opendkim

CAMPAIGN = ["X-Campaign: spring", "List-Id: Weekly offers <weekly.example.com>"]
SCOPE = "list:example.com/weekly.example.com"
ONE_CLICK = "List-Unsubscribe=One-Click"


@dataclass
class Signed:
    lab: Lab
    key: DkimKey


@pytest.fixture(scope="module")
def signed(open_lab: OpenLab) -> Signed:
    """Tracked too, so that the fields meet a changed body; the server of the pages runs as another user."""
    postmeter = Postmeter(
        {"tracking": {"url": "https://click.example.com", "unsubscribe": True, "opens": True}},
        daemons=("milter", "web", "books"),
        web_user="www-data",
    )
    key = postmeter.key("example.com", "pm")
    postmeter.secrets()
    return Signed(open_lab(Lab(postmeter=postmeter)), key)


def newsletter(*fields: str) -> bytes:
    return letter('<p><a href="https://shop.example/">offers</a></p>\r\n', html=True, fields=[*CAMPAIGN, *fields])


def url_of(arrived: Delivery) -> str:
    (value,) = arrived.values(b"List-Unsubscribe")
    found = re.fullmatch(rb"<(https://click\.example\.com/u/[\w-]+)>", value.strip())
    assert found, value
    return found[1].decode()


def ask(lab: Lab, url: str, body: str | None = None) -> tuple[int, str]:
    """As the TLS proxy would hand it on."""
    link = http.client.HTTPConnection("127.0.0.1", lab.postmeter.ports["web"], timeout=20)
    fields = {"Host": "click.example.com"}
    if body is not None:
        fields["Content-Type"] = "application/x-www-form-urlencoded"
    link.request("GET" if body is None else "POST", urllib.parse.urlsplit(url).path, body=body, headers=fields)
    answer = link.getresponse()
    page = answer.read().decode()
    link.close()
    return answer.status, page


def suppressed(lab: Lab) -> list[tuple[str, str, str]]:
    with contextlib.closing(sqlite3.connect(f"file:{lab.postmeter.state / 'journal.db'}?mode=ro", uri=True)) as link:
        return link.execute("SELECT address, scope, reason FROM suppressions").fetchall()


def test_a_newsletter_arrives_with_both_fields_signed(signed: Signed, needs_verifiers: None) -> None:
    """RFC 8058 section 4: without that, Gmail and Yahoo show no button."""
    arrived = signed.lab.deliver(newsletter())
    assert arrived.values(b"List-Unsubscribe-Post") == [b"List-Unsubscribe=One-Click"]
    assert url_of(arrived)
    (signature,) = arrived.values(b"DKIM-Signature")
    listed = re.search(rb"[;\s]h=([^;]+)", signature)
    assert listed
    assert {b"list-unsubscribe", b"list-unsubscribe-post"} <= set(re.sub(rb"\s", b"", listed[1]).lower().split(b":"))
    records = {signed.key.name: signed.key.record}
    assert [str(verdict) for verdict in verify_all([arrived.data], records) if not verdict.accepted] == []
    without = arrived.data.replace(b"List-Unsubscribe=One-Click", b"List-Unsubscribe=Two-Click")
    assert not verify_opendkim([without], records)[0].accepted


def test_what_it_leads_to_works(signed: Signed) -> None:
    lab = signed.lab
    arrived = lab.deliver(newsletter())
    url, recipient = url_of(arrived), arrived.rcpt_to[0].decode()
    before = len(lab.postmeter.events("unsubscribed"))
    status, page = ask(lab, url)
    assert (status, "weekly.example.com" in page, "<button" in page) == (200, True, True)
    assert ask(lab, url, ONE_CLICK)[0] == ask(lab, url, ONE_CLICK)[0] == 200
    lab.postmeter.wait_figure(before + 1, "unsubscribes_total")
    event = lab.postmeter.events("unsubscribed")[-1]
    assert (event["recipient"], event["scope"]) == (recipient, SCOPE)
    assert (recipient, SCOPE, "unsubscribed") in suppressed(lab)
    assert lab.postmeter.events()[-1]["facts"]["unsubscribe"] == SCOPE


def test_who_left_a_list_still_gets_other_mail(signed: Signed) -> None:
    """A password reset from the same address."""
    lab = signed.lab
    arrived = lab.deliver(newsletter())
    before = len(suppressed(lab))
    ask(lab, url_of(arrived), ONE_CLICK)
    lab.postmeter.wait_until(lambda: len(suppressed(lab)) > before)
    recipient = arrived.rcpt_to[0].decode()
    lab.send(letter("Your new password\r\n", subject="reset"), rcpt_to=[recipient])
    again = lab.sink.wait_for(lambda each: each.holds(b"Your new password") and recipient.encode() in each.rcpt_to)
    assert again.values(b"List-Unsubscribe") == []


@pytest.mark.parametrize("fields", [["List-Unsubscribe: <mailto:leave@example.com>"], ["In-Reply-To: <1@example.net>"]])
def test_a_field_of_its_own_or_a_reply_stays_as_it_is(signed: Signed, fields: list[str]) -> None:
    arrived = signed.lab.deliver(newsletter(*fields))
    assert arrived.values(b"List-Unsubscribe-Post") == []
    expected = [b"<mailto:leave@example.com>"] if "List-Un" in fields[0] else []
    assert arrived.values(b"List-Unsubscribe") == expected


def test_no_recipient_sees_what_unsubscribes_another(signed: Signed) -> None:
    lab = signed.lab
    lab.send(newsletter(), login=ALICE, rcpt_to=["one@example.net", "two@example.net"])
    assert lab.sink.wait_for(b"one@example.net").values(b"List-Unsubscribe") == []
