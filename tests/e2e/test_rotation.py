"""A rotation under mail: real daemons, name servers on port 53 of addresses of their own, every message verified.

Each message is judged by dkimpy when it arrives, with what one of the name servers shows at that moment.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.policy import default

import dkim
import dns.message
import dns.query
import pytest

from tests.lab.dns import SILENCE
from tests.lab.lab import Lab, letter
from tests.lab.product import Postmeter
from tests.lab.zones import Zones

DOMAIN = "example.com"
ADMIN = "admin@example.net"


class Rotating(Lab):
    """A lab with a zone, whose domain has the keys that `dkim new` made."""

    def __init__(self, zones: Zones, postmeter: Postmeter) -> None:
        super().__init__(postmeter=postmeter)
        self.zones = zones
        self._asked = itertools.cycle([zones.resolver, *zones.servers.values()])

    def command(self, *words: str) -> dict[str, object]:
        """One of the dkim commands, as root."""
        done = self.postmeter.run("dkim", *words, "--json", user="root")
        assert done.stdout, done.stderr.decode()
        said = json.loads(done.stdout)
        assert isinstance(said, dict)
        return said

    def records(self, domain: str = DOMAIN) -> dict[str, str]:
        keys = self.command("dns", domain)["keys"]
        assert isinstance(keys, list)
        return {key["name"]: key["record"] for key in keys}

    def signed_by(self) -> set[str]:
        """A message is sent; all its signatures hold with what DNS shows now; these are their selectors."""
        data = self.deliver(letter()).data
        server = next(self._asked)

        def lookup(name: bytes, timeout: float = 5) -> bytes | None:
            reply = dns.query.tcp(dns.message.make_query(name.decode(), "TXT"), server.address, 5, server.port)
            return next((b"".join(record.strings) for found in reply.answer for record in found), None)

        fields = [value for name, value in dkim.DKIM(data).headers if name.lower() == b"dkim-signature"]
        assert fields
        for nth in range(len(fields)):
            assert dkim.DKIM(data).verify(idx=nth, dnsfunc=lookup), f"{server.address} shows nothing that fits"
        return {re.search(rb"\bs=([^;\s]+)", field)[1].decode() for field in fields}  # type: ignore[index]


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Rotating]:
    with Zones(DOMAIN, port=53) as zones:
        postmeter = Postmeter({
            "dkim": {"resolvers": [zones.resolver.address], "rotate_seen": "6s", "check_every": "3s"},
            "quota": {"warn_to": [ADMIN]},
        })  # fmt: skip
        postmeter.settings["dkim"]["keys_dir"] = str(postmeter.folder / "keys")
        postmeter.write()
        lab = Rotating(zones, postmeter)
        lab.command("new", DOMAIN)
        for name, record in lab.records().items():
            zones.publish(name, record)
        postmeter.settings["dkim"]["sign"] = [{"domain": DOMAIN, "keys": "auto"}]
        postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.sink.port}", "from": "postmaster@example.com"}
        with lab:
            yield lab


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
def test_under_mail_no_signature_is_ever_without_its_record(lab: Rotating) -> None:
    old = lab.signed_by()
    assert len(old) == 2
    lab.command("rotate", DOMAIN)
    new_records = {name: text for name, text in lab.records().items() if name.partition(".")[0] not in old}
    new = {name.partition(".")[0] for name in new_records}
    assert len(new) == 2
    for name, text in new_records.items():
        lab.zones.publish(name, text, on=[f"ns1.{DOMAIN}"])
    lab.postmeter.wait_for(rf"_domainkey\.{DOMAIN} waits: missing: ns2\.{DOMAIN}", daemon="books")
    assert lab.signed_by() == old
    lab.postmeter.kill("books")
    lab.postmeter.start("books")
    for name, text in new_records.items():
        lab.zones.publish(name, text)

    seen = [lab.signed_by() for _ in until(lambda: lab.signed_by() == new)]
    assert all(selectors <= old | new for selectors in seen)
    lab.postmeter.wait_until(lambda: len(lab.postmeter.events("keychanged")) >= 6)
    changes = sorted((event["change"], event["selector"]) for event in lab.postmeter.events("keychanged"))
    assert changes == sorted(
        [(change, name) for change in ("pending", "active") for name in new] + [("retired", name) for name in old]
    )
    for name in new:
        lab.postmeter.wait_figure(1, "dkim_key_ok", domain=DOMAIN, selector=name)
    lab.postmeter.wait_figure(2, "dkim_key_ok")
    assert ADMIN.encode() in lab.sink.wait_for(ADMIN.encode()).rcpt_to


def until(condition: Callable[[], bool]) -> Iterator[int]:
    """Numbers until it is true; a bound keeps a rotation that never ends from hanging the tests."""
    for number in range(400):
        if condition():
            return
        yield number
    raise AssertionError("the new keys never signed")


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
def test_a_key_that_dns_loses_is_told_and_mended(lab: Rotating) -> None:
    """On the page, in the journal, by mail; and again when it is back."""
    lab.postmeter.wait_figure(2, "dkim_key_ok")
    name, text = next(iter(lab.records().items()))
    selector = name.partition(".")[0]
    lab.zones.withdraw(name)
    lab.postmeter.wait_figure(0, "dkim_key_ok", selector=selector)
    notice = lab.sink.wait_for(ADMIN.encode())
    told = message_from_bytes(notice.data, policy=default)
    assert f"DKIM key {selector} of {DOMAIN}: DNS does not show what we sign with" in told["Subject"]
    assert f"{name}. IN TXT" in told.get_content()
    lab.zones.publish(name, text)
    lab.postmeter.wait_figure(1, "dkim_key_ok", selector=selector)
    assert [event["change"] for event in lab.postmeter.events("keychanged")] == ["failed", "mended"]


@pytest.mark.skipif(os.geteuid() != 0, reason="port 53 is root's")
def test_books_ends_at_once_while_dns_is_silent(lab: Rotating) -> None:
    lab.postmeter.wait_figure(2, "dkim_key_ok")
    for server in (lab.zones.resolver, *lab.zones.servers.values()):
        server.faults["*"] = SILENCE
    asked = len(lab.zones.resolver.asked)
    lab.postmeter.wait_until(lambda: len(lab.zones.resolver.asked) > asked)
    begun = time.monotonic()
    assert lab.postmeter.stop("books") == 0
    assert time.monotonic() - begun < 3
