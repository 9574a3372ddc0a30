"""Mail leaves with a tagged return path, and what comes back to it by a real Postfix is known, recorded, passed on."""

from __future__ import annotations

import re
import secrets
import shutil
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.bench.returns import storm
from tests.e2e.conftest import OpenLab
from tests.lab.keys import DkimKey
from tests.lab.lab import ALICE, Lab, attach, letter
from tests.lab.ports import free_port
from tests.lab.postfix import Service
from tests.lab.product import Postmeter, python_environment
from tests.lab.reports import arf, dsn, vacation
from tests.lab.sink import Delivery
from tests.lab.verify import verify_all

CAMPAIGN = ["X-Postmeter-Campaign: spring"]
LEAVE = "leave@example.com"
TAGGED = re.compile(rb"bounces\+([a-z2-7]{32})@example\.com")


@dataclass
class Returning:
    lab: Lab
    key: DkimKey

    def newsletter(self, *, args: bytes = b"", login: str = ALICE) -> Delivery:
        return self.lab.deliver(letter(fields=CAMPAIGN), args=args, login=login)

    def come_back(self, raw: bytes, to: bytes, *, service: str = "transit") -> None:
        """As another server hands it in: a null return path."""
        self.lab.send(raw, login="", service=service, mail_from="", rcpt_to=[to.decode()])

    def figure(self, result: str) -> float:
        return self.lab.postmeter.metrics().figure("feedback_total", result=result)

    def after(self, result: str, do: Callable[[], None], *, count: int = 1) -> None:
        """Do it, and wait until it is counted so."""
        before = self.figure(result)
        do()
        self.lab.postmeter.wait_figure(before + count, "feedback_total", result=result)


def product(**bounces: object) -> tuple[Postmeter, DkimKey]:
    postmeter = Postmeter()
    secret = postmeter.folder / "bounces.secrets"
    secret.write_text(f"{secrets.token_hex(32)}\n")
    shutil.chown(secret, postmeter.user)
    secret.chmod(0o600)
    postmeter.settings["bounces"] = {
        "domains": {"example.com": "bounces@example.com"}, "secrets": str(secret), **bounces
    }  # fmt: skip
    return postmeter, postmeter.key("example.com", "pm")


def pipe(postmeter: Postmeter) -> str:
    """The service of contrib/postfix, for a program in a clone."""
    python, env = python_environment()
    command = f"env PYTHONPATH={env['PYTHONPATH']} {python} -s -P -m postmeter"
    return (
        f"feedback unix - n n - 10 pipe\n  user={postmeter.user} null_sender=\n"
        f"  argv=/usr/bin/{command} feedback -c {postmeter.config}"
        " --sender=${sender} --recipient=${original_recipient}"
    )


@pytest.fixture(scope="module")
def returning(open_lab: OpenLab) -> Returning:
    """By LMTP; what is passed on goes by a service that has the milter, and must not be metered there."""
    port = free_port()
    postmeter, key = product(lmtp=f"inet:127.0.0.1:{port}", feedback_id=True, cfbl_address="fbl@example.com")
    postmeter.settings["quota"] = {"domains": {"limits": ["1000 messages/day"]}}
    postmeter.settings["tracking"] = {
        "url": "https://click.example.com", "links": "off", "unsubscribe": True, "unsubscribe_mailto": LEAVE,
    }  # fmt: skip
    postmeter.secrets()
    milter = attach(postmeter.milter)
    inbound = Service(name="inbound", settings={"smtpd_milters": milter, "smtpd_sasl_auth_enable": "no"})
    lmtp = f"lmtp:inet:127.0.0.1:{port}"
    lab = Lab(
        postmeter=postmeter, services=[inbound], sendmail=True, master=[pipe(postmeter)],
        postfix={
            "recipient_delimiter": "+",
            "transport_maps": f"inline:{{ {{ bounces@example.com = {lmtp} }}, {{ {LEAVE} = {lmtp} }}, "
            "{ fbl@example.com = feedback: } }",
        },
    )  # fmt: skip
    postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.postfix.ports['inbound']}"}
    return Returning(open_lab(lab), key)


def tag_of(arrived: Delivery) -> bytes:
    found = TAGGED.fullmatch(arrived.mail_from)
    assert found, arrived.mail_from
    return found[1]


def bounced(lab: Lab, recipient: str) -> list[dict[str, object]]:
    return [event for event in lab.postmeter.events("bounced") if event["recipient"] == recipient]


def test_bulk_mail_leaves_with_a_tagged_return_path_of_its_domain_and_envid(returning: Returning) -> None:
    arrived = returning.newsletter()
    tag = tag_of(arrived)
    assert b"ENVID=" + tag in arrived.mail_args
    [event] = [one for one in returning.lab.postmeter.events() if one["recipients"] == [arrived.rcpt_to[0].decode()]]
    assert event["facts"]["return_path"].encode() == arrived.mail_from
    assert event["mail_from"] == ALICE


def test_feedback_fields_are_there_and_signed(returning: Returning, needs_verifiers: None) -> None:
    arrived = returning.newsletter()
    assert arrived.values(b"Feedback-ID") == [b"spring:alice:example.com:postmeter"]
    assert arrived.values(b"CFBL-Address") == [b"fbl@example.com; report=arf"]
    assert arrived.values(b"CFBL-Feedback-ID") == [tag_of(arrived)]
    (signature,) = arrived.values(b"DKIM-Signature")
    covered = re.sub(rb"\s", b"", signature).lower()
    assert b"feedback-id" in covered
    assert b"cfbl-address" in covered
    records = {returning.key.name: returning.key.record}
    assert [str(verdict) for verdict in verify_all([arrived.data], records) if not verdict.accepted] == []


def test_what_the_client_asked_of_dsn_stays(returning: Returning) -> None:
    arrived = returning.newsletter(args=b" RET=HDRS ENVID=theirs+2B1")
    assert tag_of(arrived)
    assert {b"RET=HDRS", b"ENVID=theirs+2B1"} <= set(arrived.mail_args)
    arrived = returning.newsletter(args=b" RET=HDRS")
    assert {b"RET=HDRS", b"ENVID=" + tag_of(arrived)} <= set(arrived.mail_args)


def test_an_envid_of_sendmail_stays(returning: Returning) -> None:
    recipient = "envid@example.net"
    done = returning.lab.postfix.sendmail(letter(fields=CAMPAIGN), "-V", "mine", "-f", ALICE, recipient)
    assert done.returncode == 0, done.stderr
    arrived = returning.lab.sink.wait_for(recipient.encode())
    assert tag_of(arrived)
    assert b"ENVID=mine" in arrived.mail_args


def test_other_mail_keeps_its_return_path(returning: Returning) -> None:
    assert returning.lab.deliver(letter()).mail_from == ALICE.encode()
    reply = returning.lab.deliver(letter(fields=[*CAMPAIGN, "In-Reply-To: <1@example.net>"]))
    assert reply.mail_from == ALICE.encode()


def test_a_bounce_that_comes_later_is_recorded(returning: Returning) -> None:
    """In whatever case its address comes, and once."""
    lab = returning.lab
    arrived = returning.newsletter()
    recipient = arrived.rcpt_to[0].decode()
    raw = dsn(recipient, to=arrived.mail_from.decode())
    shouted = b"Bounces+" + tag_of(arrived).upper() + b"@EXAMPLE.com"
    returning.after("bounce", lambda: returning.come_back(raw, shouted))
    returning.after("repeated", lambda: returning.come_back(raw, arrived.mail_from))
    [event] = bounced(lab, recipient)
    assert (event["by"], event["hard"], event["dsn"], event["login"]) == ("dsn", True, "5.1.1", ALICE)
    assert event["campaign"] == "spring"


def test_a_bounce_of_our_own_postfix_comes_back_too(returning: Returning) -> None:
    """Refused at RCPT by the next hop: bounce(8) sends the report to the tagged address, with our ENVID in it."""
    lab = returning.lab
    recipient = "gone@example.net"
    lab.sink.answer = lambda asked: (
        f"550 5.1.1 <{recipient}> no such user" if recipient.encode() in asked else "250 2.1.5 ok"
    )
    returning.after("bounce", lambda: void(lab.send(letter(fields=CAMPAIGN), rcpt_to=[recipient])))
    [event] = bounced(lab, recipient)
    assert event["hard"] is True
    lab.sink.answer = lambda asked: "250 2.1.5 ok"


def void(value: object) -> None:
    """What a lambda gives that is asked for nothing."""


def test_a_vacation_reply_reaches_the_sender_octet_for_octet_unmetered_and_unsigned(returning: Returning) -> None:
    lab = returning.lab
    arrived = returning.newsletter()
    raw = vacation(to=arrived.mail_from.decode(), fields=["From: twice@example.com"])
    before = len(lab.postmeter.events())
    returning.after("passed_on", lambda: returning.come_back(raw, arrived.mail_from))
    got = lab.sink.wait_for(lambda each: b"<vacation@example.net>" in each.data)
    assert (got.mail_from, got.rcpt_to) == (b"", (ALICE.encode(),))
    assert got.data.endswith(raw)
    above = got.data[: -len(raw)]
    assert re.sub(rb"(?mi)^received:.*\r\n(?:[ \t].*\r\n)*", b"", above) == b""
    assert len(lab.postmeter.events()) == before
    lab.sink.clear()


def test_what_is_forged_or_of_others_changes_nothing_and_is_listed(returning: Returning) -> None:
    lab = returning.lab
    arrived = returning.newsletter()
    recipient, tag = arrived.rcpt_to[0].decode(), tag_of(arrived)
    forged = b"bounces+" + (b"a" if tag[-1:] != b"a" else b"b").join([tag[:-1], b""]) + b"@example.com"
    before = lab.postmeter.events("bounced"), lab.postmeter.events("complained")
    returning.after("untrusted", lambda: returning.come_back(dsn(recipient, to="x"), forged))
    returning.after("untrusted", lambda: returning.come_back(dsn(recipient, to="x", mark="2"), b"bounces@example.com"))
    returning.after("untrusted", lambda: returning.come_back(dsn("a@example.org", to="x"), arrived.mail_from))
    returning.after("untrusted", lambda: returning.come_back(arf(recipient), b"fbl@example.com"))
    assert (lab.postmeter.events("bounced"), lab.postmeter.events("complained")) == before
    listed = lab.postmeter.run("feedback", "list").stdout
    assert forged in listed
    assert b"names nobody whom that message went to" in listed


def test_a_complaint_by_pipe_is_recorded(returning: Returning) -> None:
    """A provider sends back the header that it was given, to our address: by pipe(8) and the command."""
    arrived = returning.newsletter()
    recipient = arrived.rcpt_to[0].decode()
    raw = arf(recipient, feedback_id=tag_of(arrived).decode())
    returning.after("complaint", lambda: returning.come_back(raw, b"fbl@example.com"))
    [event] = [one for one in returning.lab.postmeter.events("complained") if one["recipient"] == recipient]
    assert event["login"] == ALICE


def test_an_unsubscribe_by_mail_is_one_of_the_page(returning: Returning) -> None:
    """As a program writes it that follows the mailto: URL."""
    lab = returning.lab
    arrived = returning.newsletter()
    recipient = arrived.rcpt_to[0].decode()
    (value,) = arrived.values(b"List-Unsubscribe")
    mailto = urllib.parse.urlsplit(value.decode().rpartition("<")[2].rstrip(">"))
    subject = urllib.parse.parse_qs(mailto.query)["subject"][0]
    mail = f"From: {recipient}\r\nTo: {mailto.path}\r\nSubject: {subject}\r\n\r\n".encode()
    returning.after("unsubscribe", lambda: void(lab.send(mail, login="", service="transit", rcpt_to=[mailto.path])))
    [event] = [one for one in lab.postmeter.events("unsubscribed") if one["recipient"] == recipient]
    assert event["scope"] == f"from:{ALICE}"


def test_explain_shows_the_return_path(returning: Returning) -> None:
    done = returning.lab.postmeter.run(
        "explain", "-", "--login", ALICE, "--rcpt", "a@example.net", stdin=letter(fields=CAMPAIGN)
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rb"^return path +bounces come to bounces\+[a-z2-7]{32}@example\.com", done.stdout, re.MULTILINE)


def test_while_books_is_away_reports_wait_in_postfix_or_on_disk(returning: Returning) -> None:
    lab = returning.lab
    arrived, second = returning.newsletter(), returning.newsletter()
    lab.postmeter.kill("books")
    returning.come_back(dsn(arrived.rcpt_to[0].decode(), to="x"), arrived.mail_from)
    lab.postfix.wait_for(r"postfix/lmtp\[\d+\]: .*status=deferred")
    returning.come_back(arf(second.rcpt_to[0].decode(), feedback_id=tag_of(second).decode()), b"fbl@example.com")
    lab.postfix.wait_for(r"relay=feedback.*status=sent")
    lab.postmeter.start("books")
    lab.postfix.run("postqueue", "-f")
    lab.postmeter.wait_until(lambda: bool(bounced(lab, arrived.rcpt_to[0].decode())))
    lab.postmeter.wait_until(
        lambda: any(one["recipient"] == second.rcpt_to[0].decode() for one in lab.postmeter.events("complained"))
    )


def test_an_unwritable_spool_leaves_the_report_in_postfix(returning: Returning) -> None:
    """4xx by LMTP and 75 by pipe(8) are the same to Postfix: deferred."""
    lab = returning.lab
    arrived = returning.newsletter()
    recipient = arrived.rcpt_to[0].decode()
    spool = lab.postmeter.state / "spool" / "returns" / "new"
    aside = spool.with_name("aside")
    lab.postmeter.wait_until(lambda: not list(spool.iterdir()))
    spool.rename(aside)
    spool.write_text("no directory")
    after = len(lab.postfix.log())
    try:
        returning.come_back(dsn(recipient, to="x"), arrived.mail_from)
        returning.come_back(arf(recipient, feedback_id=tag_of(arrived).decode()), b"fbl@example.com")
        lab.postfix.wait_for(r"postfix/lmtp\[\d+\]: .*status=deferred.*452 4\.3\.1", after=after)
        lab.postfix.wait_for(r"relay=feedback.*status=deferred", after=after)
    finally:
        spool.unlink()
        aside.rename(spool)
    assert bounced(lab, recipient) == []
    lab.postfix.run("postqueue", "-f")
    lab.postmeter.wait_until(lambda: bool(bounced(lab, recipient)))


def test_a_unix_socket_with_tag_all_records_and_passes_on(open_lab: OpenLab) -> None:
    """Also mail that is not bulk, and through the socket of the documented configuration."""
    postmeter, key = product(tag="all")
    where = postmeter.folder / "socket" / "feedback.sock"
    postmeter.settings["bounces"]["lmtp"] = f"unix:{where}"
    lab = Lab(
        postmeter=postmeter,
        postfix={
            "recipient_delimiter": "+",
            "transport_maps": f"inline:{{ {{ bounces@example.com = lmtp:unix:{where} }} }}",
        },
    )
    postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.postfix.ports['transit']}"}
    returning = Returning(open_lab(lab), key)
    arrived = lab.deliver(letter())
    recipient = arrived.rcpt_to[0].decode()
    raw = dsn(recipient, to=arrived.mail_from.decode())
    returning.after("bounce", lambda: returning.come_back(raw, arrived.mail_from))
    got = lab.sink.wait_for(lambda each: b"20261102.report" in each.data)
    assert got.rcpt_to == (ALICE.encode(),)
    assert got.data.endswith(raw)
    assert len(bounced(lab, recipient)) == 1


def test_a_storm_loses_nothing_and_doubles_nothing(needs_postfix: None) -> None:
    """`make bench`'s own, smaller: all of one message, ten clients at a time."""
    _, _, recorded = storm(bounces=300, clients=10)
    assert recorded == 300
