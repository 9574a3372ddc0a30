"""Mail that meets the milter twice, around an after-queue content filter (FILTER_README): charged and rewritten before
it, signed once behind it, while inbound mail goes through the same filter untouched."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from postmeter.token import Mark, Marker, domain_digest, parse_secrets
from tests.e2e.conftest import OpenLab
from tests.lab import verify
from tests.lab.client import Client
from tests.lab.folder import CLONE, new_folder
from tests.lab.keys import DkimKey, records
from tests.lab.lab import ALICE, BOB, Lab, attach, letter
from tests.lab.postfix import Service, submission
from tests.lab.product import Postmeter
from tests.lab.sink import Delivery, Sink

LIMIT = 3
MARK = b"x-postmeter-mark"
LINK = "https://shop.example/offer?a=1"


class Filter(Sink):
    """Gives what it gets to another smtpd, as amavis does, with a field of its own and whatever `alter` makes of it."""

    port_back = 0

    def __init__(self) -> None:
        super().__init__()
        self.alter: Callable[[bytes], bytes] = lambda data: data

    def keep(self, delivery: Delivery) -> None:
        super().keep(delivery)
        data = b"X-Filtered: clean\r\n" + self.alter(delivery.data)
        with Client(self.port_back) as client:
            client.send(data, mail_from=delivery.mail_from, rcpt_to=delivery.rcpt_to)


@dataclass
class House:
    """A lab with its filter, its secret and its key."""

    lab: Lab
    filter: Filter
    key: DkimKey
    secret: Path
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1000)))

    def send(self, message: bytes, **how: str) -> bytes:
        """To a recipient whom nobody else has."""
        recipient = f"reader{next(self.numbers)}@example.net"
        self.lab.send(message, rcpt_to=[recipient], **how)  # type: ignore[arg-type]
        return recipient.encode()

    def arrives(self, message: bytes, **how: str) -> Delivery:
        return self.lab.sink.wait_for(self.send(message, **how))

    def gives_back(self, message: bytes) -> Delivery:
        """As if it came from the filter."""
        return self.arrives(message, login="", service="back")

    def marked(self, message_id: str, *, age: float = 0.0) -> str:
        """A mark made with the house's own secret."""
        mark = Mark(
            reference=b"12345678",
            time=int(time.time() - age),
            signable=True,
            domain=domain_digest("example.com"),
            queue_id="4First",
            login=ALICE,
            sender=ALICE,
        )
        marker = Marker(parse_secrets(self.secret.read_text()))
        return f"X-Postmeter-Mark: {marker.mark(mark, message_id=message_id.encode())}"

    def figure(self, name: str, **labels: str) -> float:
        return self.lab.postmeter.metrics().figure(name, **labels)


def product(refiltered: str) -> tuple[Postmeter, DkimKey, Path]:
    settings = {
        "senders": {"refiltered": [refiltered]},
        "quota": {"rules": [{"login": BOB, "limits": [f"{LIMIT} messages/day"], "over": "hold"}]},
        "tracking": {"url": "https://click.example.com", "mail": "all"},
    }
    postmeter = Postmeter(settings)
    secret = postmeter.folder / "bounces.secrets"
    secret.write_text(f"{secrets.token_hex(32)}\n")
    shutil.chown(secret, postmeter.user)
    secret.chmod(0o600)
    postmeter.settings["bounces"] = {"secrets": str(secret)}
    postmeter.secrets()
    postmeter.key("shop.example", "pm")
    return postmeter, postmeter.key("example.com", "pm"), secret


@pytest.fixture(scope="module")
def house(open_lab: OpenLab) -> Iterator[House]:
    """`content_filter` stands in main.cf, so that all mail goes through it, requeued and sendmail(1)'s too."""
    postmeter, key, secret = product("REFILTERED")
    it = Filter()
    with it:
        no_filter = {"content_filter": "", "receive_override_options": "no_header_body_checks"}
        nobody = {"smtpd_sasl_auth_enable": "no"}
        back = {**nobody, **no_filter, "smtpd_milters": attach(postmeter.milter)}
        services = [
            Service(name="mx", settings=nobody),
            # As for clients that are elsewhere: Postfix gives their mail no fields that are missing.
            Service(
                name="remote",
                settings={**submission(attach(postmeter.milter)).settings, "local_header_rewrite_clients": ""},
            ),
            Service(name="back", settings={**back, "milter_macro_daemon_name": "REFILTERED"}),
        ]
        guarded = {"cleanup_service_name": "postmeter-guard"}
        services += [
            Service(name="guarded-mx", settings={**nobody, **guarded}),
            Service(name="guarded", settings={**submission(attach(postmeter.milter)).settings, **guarded}),
        ]
        # The lines that contrib/postfix gives, here beside services that do without them.
        lines = (CLONE / "contrib/postfix/master.cf.fragment").read_text().partition("\n#postmeter-guard")[2]
        guard = "postmeter-guard" + lines.partition("\n# It")[0].replace("\n#", "\n")
        lab = Lab(
            postmeter=postmeter,
            services=services,
            master=[guard],
            sendmail=True,
            postfix={"content_filter": f"smtp:[127.0.0.1]:{it.port}"},
        )
        it.port_back = lab.postfix.ports["back"]
        yield House(open_lab(lab), it, key, secret)


@pytest.fixture(autouse=True)
def obliging(request: pytest.FixtureRequest) -> None:
    """Filter and sink take everything, and alter nothing, until a test says otherwise."""
    if "house" in request.fixturenames:
        house = request.getfixturevalue("house")
        house.filter.alter = lambda data: data
        house.filter.answer = house.lab.sink.answer = lambda recipient: "250 2.1.5 ok"


def assert_signed_once(house: House, delivery: Delivery) -> None:
    assert len(delivery.values(b"dkim-signature")) == 1
    [verdict] = verify.verify_opendkim([delivery.data], records(house.key))
    assert verdict.accepted, verdict
    assert delivery.values(MARK) == []


@pytest.mark.usefixtures("needs_verifiers")
def test_mail_of_ours_is_rewritten_before_the_filter_and_signed_once_behind_it(house: House) -> None:
    """OpenDKIM accepts what arrives, although the filter added a field and altered the body."""
    house.filter.alter = lambda data: data.replace(b"Good morning", b"[checked] Good morning")
    links = house.figure("links_rewritten_total")
    delivery = house.arrives(letter(f'<p>Good morning <a href="{LINK}">offer</a></p>\r\n', html=True))
    assert_signed_once(house, delivery)
    assert delivery.values(b"x-filtered") == [b"clean"]
    assert delivery.body.count(b"https://click.example.com/c/") == 1
    assert b"[checked]" in delivery.body
    seen = house.filter.wait_for(delivery.rcpt_to[0])
    assert len(seen.values(MARK)) == 1
    assert seen.values(b"dkim-signature") == []
    assert delivery.body.partition(b'href="')[2][:80] == seen.body.partition(b'href="')[2][:80]
    house.lab.postmeter.wait_figure(links + 1, "links_rewritten_total")


def test_it_is_charged_once_and_marks_outlast_the_hold_queue(house: House) -> None:
    """bob may send so many a day; one more is put on hold, and goes through the filter when it is let go."""
    for _ in range(LIMIT):
        house.arrives(letter(sender=BOB), login=BOB)
    assert house.figure("messages_total", result="held") == 0
    recipient = house.send(letter(sender=ALICE), login=BOB)
    house.lab.postmeter.wait_figure(1, "messages_total", result="held")
    assert house.lab.postmeter.run("quota", "reset", BOB).returncode == 0
    command = ("quota", "release", "--due", "--postfix", str(house.lab.postfix.config))
    done = house.lab.postmeter.run(*command, user="root", env=house.lab.postfix.environment())
    assert done.returncode == 0, done
    house.lab.postfix.run("postqueue", "-f")
    delivery = house.lab.sink.wait_for(recipient)
    assert delivery.values(b"x-filtered") == [b"clean"]
    assert delivery.values(MARK) == []
    assert house.lab.postmeter.events("refiltered")[-1]["login"] == BOB


def test_the_journal_has_one_submission_and_joins_the_second_queue_id_to_it(house: House) -> None:
    accepted = house.figure("messages_total", result="accepted")
    recipients = house.figure("recipients_total")
    again = house.figure("messages_total", result="refiltered", service="REFILTERED")
    delivery = house.arrives(letter())
    house.lab.postmeter.wait_figure(again + 1, "messages_total", result="refiltered", service="REFILTERED")
    assert house.figure("messages_total", result="accepted") == accepted + 1
    assert house.figure("recipients_total") == recipients + 1
    submitted, returned = house.lab.postmeter.events()[-1], house.lab.postmeter.events("refiltered")[-1]
    assert returned["first_queue_id"] == submitted["queue_id"] != returned["queue_id"]
    assert (returned["login"], submitted["login"]) == (ALICE, ALICE)
    assert returned["recipients"] == [delivery.rcpt_to[0].decode()]
    assert returned["facts"]["signatures"] == ["example.com/pm/rsa-sha256"]
    assert "signatures" not in submitted["facts"]


def test_inbound_mail_passes_the_filter_untouched(house: House) -> None:
    """Forged in alice's name, from a trusted address: without a mark nothing speaks for it."""
    delivery = house.arrives(letter(), login="", service="mx", mail_from="x@elsewhere.example")
    assert delivery.values(b"dkim-signature") == []
    given = house.filter.wait_for(delivery.rcpt_to[0])
    assert delivery.as_sent == b"X-Filtered: clean\r\n" + given.data
    assert given.values(MARK) == []


def test_a_mark_that_a_client_sends_is_replaced_and_an_inbound_one_taken_off(house: House) -> None:
    forged = letter(fields=["X-Postmeter-Mark: forged", "x-postmeter-mark: too", house.marked("<x@y>")])
    delivery = house.arrives(forged)
    assert len(house.filter.wait_for(delivery.rcpt_to[0]).values(MARK)) == 1
    assert_signed_once(house, delivery)
    inbound = house.arrives(forged, login="", service="mx", mail_from="x@elsewhere.example")
    assert inbound.values(MARK) == []
    assert inbound.values(b"dkim-signature") == []
    given = house.filter.wait_for(inbound.rcpt_to[0])
    assert len(given.values(MARK)) == 3
    without = re.sub(rb"(?mi)^x-postmeter-mark:.*\r\n", b"", given.data)
    assert inbound.as_sent == b"X-Filtered: clean\r\n" + without


def named(message_id: str, *fields: str) -> bytes:
    return re.sub(rb"(?m)^Message-ID:.*$", f"Message-ID: {message_id}\r".encode(), letter(fields=fields))


@pytest.mark.parametrize(
    ("bound_to", "age", "signatures", "late"),
    [
        ("<one@example.com>", 0, 1, 0),
        ("<one@example.com>", 3700, 0, 1),
        ("<one@example.com>", -600, 0, 0),
        ("<two@example.com>", 0, 0, 0),
    ],
)
def test_a_mark_is_good_for_its_message_and_its_hour(
    house: House, bound_to: str, age: float, signatures: int, late: int
) -> None:
    """Made with the right secret; given back to the filter's service, from an address that is trusted. Mail of ours
    that was too long in the filter is counted."""
    before = house.figure("dkim_unsigned_total", reason="mark_expired")
    delivery = house.gives_back(named("<one@example.com>", house.marked(bound_to, age=age)))
    assert len(delivery.values(b"dkim-signature")) == signatures
    assert delivery.values(MARK) == []
    house.lab.postmeter.wait_figure(before + late, "dkim_unsigned_total", reason="mark_expired")


def test_header_checks_keep_out_a_mark_that_somebody_got_hold_of(house: House) -> None:
    """Inbound mail could bring a good mark for an hour, with the Message-ID that it was made for. A cleanup(8) of
    its own takes marks off whatever clients send, and leaves alone the one that the milter puts on behind it (D16)."""
    stolen = named("<stolen@example.com>", house.marked("<stolen@example.com>"))
    inbound = house.arrives(stolen, login="", service="guarded-mx", mail_from="x@elsewhere.example")
    assert inbound.values(b"dkim-signature") == []
    assert house.filter.wait_for(inbound.rcpt_to[0]).values(MARK) == []
    ours = house.arrives(stolen, service="guarded")
    assert len(house.filter.wait_for(ours.rcpt_to[0]).values(MARK)) == 1
    assert len(ours.values(b"dkim-signature")) == 1


def test_a_from_domain_that_the_filter_changed_is_not_signed_for(house: House) -> None:
    before = house.figure("dkim_unsigned_total", reason="from_changed")
    house.filter.alter = lambda data: data.replace(b"From: alice@example.com", b"From: alice@elsewhere.example")
    delivery = house.arrives(letter())
    assert delivery.values(b"dkim-signature") == []
    house.lab.postmeter.wait_figure(before + 1, "dkim_unsigned_total", reason="from_changed")


def test_a_login_gains_no_signature_by_the_filter(house: House) -> None:
    """alice puts on another domain of the house: behind the filter nobody knows her, but the mark
    says what was decided."""
    before = house.figure("dkim_unsigned_total", reason="from_mismatch")
    assert house.arrives(letter(sender="alice@shop.example")).values(b"dkim-signature") == []
    house.lab.postmeter.wait_figure(before + 1, "dkim_unsigned_total", reason="from_mismatch")


@pytest.mark.usefixtures("needs_verifiers")
def test_mail_without_a_message_id_is_signed_too(house: House) -> None:
    """Postfix gives it one behind the filter, where it comes from loopback: a mark bound to none would not fit then."""
    delivery = house.arrives(re.sub(rb"(?m)^Message-ID:.*\r\n", b"", letter()), service="remote")
    assert delivery.values(b"message-id") == house.filter.wait_for(delivery.rcpt_to[0]).values(b"message-id")
    assert delivery.values(b"message-id")[0].endswith(b"@lab>")
    assert_signed_once(house, delivery)


def requeue(house: House) -> None:
    """`postqueue -f` wakes pickup(8), which looks but once a minute."""
    assert house.lab.postfix.run("postsuper", "-r", "ALL").returncode == 0
    house.lab.postfix.run("postqueue", "-f")


@pytest.mark.usefixtures("needs_verifiers")
def test_mail_requeued_before_the_filter_or_behind_it_is_signed_once(house: House) -> None:
    """`postsuper -r` shows mail to no milter, and to main.cf's `content_filter` (postsuper(1)): waiting for the filter
    it still has its mark; behind the filter it comes back once more, signed and without one."""
    charged = house.figure("messages_total", result="accepted")
    house.filter.answer = lambda recipient: "450 4.2.0 not now"
    recipient = house.send(letter())
    house.lab.postfix.wait_for(rf"to=<{recipient.decode()}>.*status=deferred")
    house.filter.answer = lambda recipient: "250 2.1.5 ok"
    house.lab.sink.answer = lambda recipient: "450 4.2.0 not now"
    requeue(house)
    house.lab.postfix.wait_for(rf"relay=127\.0\.0\.1\[127\.0\.0\.1\]:{house.lab.sink.port}.*status=deferred")
    house.lab.sink.answer = lambda recipient: "250 2.1.5 ok"
    requeue(house)
    delivery = house.lab.sink.wait_for(recipient)
    assert delivery.values(b"x-filtered") == [b"clean", b"clean"]
    assert_signed_once(house, delivery)
    assert house.figure("messages_total", result="accepted") == charged + 1


@pytest.mark.usefixtures("needs_verifiers")
def test_sendmails_mail_goes_the_same_way(house: House) -> None:
    message = letter().replace(b"\r\n", b"\n")
    assert house.lab.postfix.sendmail(message, "-f", ALICE, "program@example.net").returncode == 0
    assert_signed_once(house, house.lab.sink.wait_for(b"program@example.net"))


@pytest.fixture(scope="module")
def piped(open_lab: OpenLab) -> Iterator[tuple[House, Path]]:
    """A filter of FILTER_README's first kind: pipe(8) hands out, sendmail(1) takes back, as service `local`."""
    postmeter, key, secret = product("local")
    folder = new_folder("filter")
    folder.chmod(0o777)
    script = folder / "filter.sh"
    script.write_text(f"#!/bin/sh\ncat > {folder}/draft && mv {folder}/draft {folder}/filtered\n")
    script.chmod(0o755)
    filtering = {
        "smtpd_milters": attach(postmeter.milter),
        "milter_macro_daemon_name": "ORIGINATING",
        "content_filter": "pipe-filter:x",
    }
    lab = Lab(
        postmeter=postmeter,
        services=[Service(name="office", settings=filtering)],
        sendmail=True,
        master=[f"pipe-filter unix - n n - - pipe\n  flags=Rq user=nobody argv={script}"],
    )
    unused = Filter()
    with unused:
        yield House(open_lab(lab), unused, key, secret), folder / "filtered"
    shutil.rmtree(folder)


@pytest.mark.usefixtures("needs_verifiers")
def test_a_pipe_filter_gives_mail_back_by_sendmail(piped: tuple[House, Path]) -> None:
    """pipe(8) may not run postdrop's group in a lab, so the second half of the script is done here."""
    house, filtered = piped
    house.lab.send(letter(), service="office", rcpt_to=["piped@example.net"])
    house.lab.postmeter.wait_until(filtered.exists)
    message = filtered.read_bytes()
    assert message.lower().count(MARK) == 1
    house.lab.postfix.sendmail(message, "-G", "-i", "-f", ALICE, "piped@example.net")
    assert_signed_once(house, house.lab.sink.wait_for(b"piped@example.net"))
    house.lab.postmeter.wait_figure(1, "messages_total", result="accepted")
    house.lab.postmeter.wait_figure(1, "messages_total", result="refiltered", service="local")


def test_a_program_of_this_host_is_a_stranger_where_the_filter_gives_back(piped: tuple[House, Path]) -> None:
    house, _ = piped
    house.lab.postfix.sendmail(letter().replace(b"\r\n", b"\n"), "-f", ALICE, "local@example.net")
    delivery = house.lab.sink.wait_for(b"local@example.net")
    assert delivery.values(b"dkim-signature") == []
    assert delivery.values(MARK) == []


def test_what_came_back_of_a_frozen_login_is_listed_by_its_new_queue_id(house: House) -> None:
    """After a break-in most of what is queued has been through the filter."""
    accept, house.lab.sink.answer = house.lab.sink.answer, lambda recipient: "450 4.2.0 later"
    try:
        house.send(letter())
        house.lab.postmeter.wait_until(lambda: len(house.lab.postfix.queued()) == 1)
        house.lab.postfix.wait_for("status=deferred")
        done = house.lab.as_root("freeze", ALICE, "--queue")
        house.lab.postmeter.run("unfreeze", ALICE)
        assert done.stdout.decode().split() == house.lab.postfix.queued()
        assert house.lab.postfix.run("postsuper", "-d", "-", stdin=done.stdout).returncode == 0
    finally:
        house.lab.sink.answer = accept
