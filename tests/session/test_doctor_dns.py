"""What the doctor learns from a real name server, a real TLS server and sockets, each on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter.config.load import loads
from postmeter.config.values import resolver
from postmeter.doctor import collect, outside, spf
from postmeter.doctor.facts import Answer
from postmeter.doctor.mailer import Mailer, Service
from postmeter.doctor.names import Names
from tests.lab import tls
from tests.lab.dns import SILENCE, NameServer

HERE = "203.0.113.7"
CONFIG = """
dkim: {sign: [{domain: example.com, keys: [{selector: s, file: /k.pem}]}]}
bounces: {domains: {example.com: bounces@mail.example.com}, cfbl_address: fbl@nowhere.example}
tracking: {url: "https://click.example.com"}
"""


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer() as server:
        yield server


def names(server: NameServer) -> Names:
    return Names([resolver(f"{server.address}:{server.port}")])


def test_answers_none_and_silence_are_told_apart(server: NameServer) -> None:
    server.records["example.com"] = "v=spf1 " + "ip4:192.0.2.1 " * 100 + "-all"
    server.rdata["example.com", "MX"] = ["10 mx.example.com."]
    server.rdata["null.example", "MX"] = ["0 ."]
    server.rdata["alias.example", "CNAME"] = ["example.com."]
    asked = names(server)
    assert asked.ask("example.com", "TXT").records == (server.records["example.com"],)  # over TCP, joined
    assert asked.ask("alias.example.", "MX").records == ("10 mx.example.com",)
    assert asked.ask("null.example", "MX").records == ("0 ",)
    assert asked.ask("example.com", "AAAA") == Answer()
    assert asked.ask("no.example", "A") == Answer()
    server.faults["bad.example"] = "SERVFAIL"
    assert "bad.example" in asked.ask("bad.example", "A").silent
    assert asked.ask("a..b", "A").silent
    before = len(server.asked)
    asked.ask("EXAMPLE.com", "TXT")
    assert len(server.asked) == before


def test_a_server_that_says_nothing_costs_a_bounded_time(server: NameServer) -> None:
    server.faults["*"] = SILENCE
    asked = Names([resolver(f"{server.address}:{server.port}")], patience=0.1)
    begun = time.monotonic()
    assert all(asked.ask(f"{number}.example.com", "A").silent for number in range(100))
    assert time.monotonic() - begun < 10
    assert "last" in asked.ask("example.com", "A").silent


def test_spf_of_a_real_zone(server: NameServer) -> None:
    server.records["example.com"] = "v=spf1 include:inner.example mx -all"
    server.records["inner.example"] = "v=spf1 ip4:198.51.100.0/24 -all"
    server.rdata["example.com", "MX"] = ["10 mx.example.com."]
    server.rdata["mx.example.com", "A"] = [HERE]
    found = spf.evaluate("example.com", HERE, names(server).ask)
    assert (found.result, found.lookups) == ("pass", 2)
    assert spf.evaluate("example.com", "203.0.113.8", names(server).ask).result == "fail"


@pytest.mark.parametrize(
    ("at", "domain"), [("example.com", "example.com"), ("example.com", "news.example.com"), ("", "example.com")]
)
def test_dmarc_is_found_at_the_domain_or_above_it(server: NameServer, at: str, domain: str) -> None:
    if at:
        server.records[f"_dmarc.{at}"] = "v=DMARC1; p=Reject;aspf = S"
    found = names(server).policy(domain)
    assert (found.at, found.tags.get("aspf"), found.tags.get("p")) == (at, *(("s", "reject") if at else (None, None)))


def test_all_that_the_world_sees(server: NameServer) -> None:
    """The tracking host answers nobody, the return path's domain has an address, the complaints' has nothing."""
    server.rdata["7.113.0.203.in-addr.arpa", "PTR"] = ["mail.example.com."]
    server.rdata["mail.example.com", "A"] = [HERE]
    seen = outside.look(loads(CONFIG), None, names(server), given=[HERE])
    assert [(each.domain, each.result) for each in seen.senders] == [
        ("example.com", "none"),
        ("mail.example.com", "none"),
    ]
    (pointer,) = seen.pointers
    assert pointer.forward["mail.example.com"].records == (HERE,)
    boxes = {box.address: box for box in seen.mailboxes}
    assert boxes["bounces@mail.example.com"].addresses.records == (HERE,)
    assert boxes["fbl@nowhere.example"].addresses == Answer()
    assert seen.sites[0].addresses == Answer()


def test_a_client_of_its_own_that_binds_is_heard_of(server: NameServer) -> None:
    bulk = Service("bulk/unix", "smtp", options={"smtp_bind_address": "8.8.4.4"})
    seen = outside.look(loads(""), Mailer({"smtp_bind_address": "8.8.8.8"}, services=(bulk,)), names(server))
    assert [pointer.address for pointer in seen.pointers] == ["8.8.8.8", "8.8.4.4"]


def test_addresses_that_postfix_binds_to_are_those_mail_leaves_from(server: NameServer) -> None:
    """Where there is NAT, what Postfix knows of it; and a private address is not what the world sees."""
    values = {"smtp_bind_address": "10.0.0.1", "proxy_interfaces": "8.8.8.8, [2001:4860:4860::8888]"}
    seen = outside.look(loads(CONFIG), Mailer(values), names(server))
    assert [pointer.address for pointer in seen.pointers] == ["8.8.8.8", "2001:4860:4860::8888"]


def test_a_certificate_that_browsers_do_not_believe_is_told(server: NameServer, tmp_path: Path) -> None:
    made = tls.make(tmp_path, host="click.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)
    server.rdata["click.example.com", "A"] = ["127.0.0.1"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        url = f"https://click.example.com:{listener.getsockname()[1]}"
        (site,) = outside.look(loads(CONFIG.replace("https://click.example.com", url)), None, names(server)).sites
        assert "certificate" in site.trouble.lower()
        authority = ssl.create_default_context(cafile=str(made.authority))
        threading.Thread(target=_serve, args=(listener, context), daemon=True).start()
        seen = outside.visit("click.example.com", "127.0.0.1", listener.getsockname()[1], authority)
        assert (seen.trouble, seen.expires > 0, "no answer in HTTP" in seen.stranger) == ("", True, True)


@pytest.mark.parametrize(
    ("answer", "stranger"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\nNot found.\n", ""),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nNot found.\n\r\n0\r\n\r\n", ""),
        (b"HTTP/1.1 404 Not Found\r\n\r\n<html>\r\n<head><title>404 Not Found", "404 Not Found"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>Welcome to nginx!", "200 OK"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nok", "502 Bad Gateway"),
        (b"220 mail.example.com ESMTP\r\n", "no answer in HTTP"),
        (b"HTTP/1.1 " + b"2" * 70000, "no answer in HTTP"),
        (b"", "no answer in HTTP"),
    ],
)
def test_whether_it_is_us_that_answers_for_links(answer: bytes, stranger: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer, args=(listener, answer), daemon=True)
        thread.start()
        seen = outside.visit("click.example.com", "127.0.0.1", listener.getsockname()[1], None)
        thread.join(10)
    assert (seen.trouble, seen.stranger.startswith(stranger), bool(seen.stranger)) == ("", True, bool(stranger)), seen


def test_links_that_lead_to_another_host_are_told_from_ours(
    server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours is an address that mail leaves from, or one that this host has."""
    monkeypatch.setattr(outside, "_PATIENCE", 0.1)  # nobody answers at two of them
    for host, address in (("here", "127.0.0.1"), ("given", HERE), ("proxy", "192.0.2.77")):
        server.rdata[f"{host}.example.com", "A"] = [address]
        config = loads(f'tracking: {{url: "http://{host}.example.com:1"}}')
        (site,) = outside.look(config, None, names(server), given=[HERE]).sites
        assert (host, site.here) == (host, host != "proxy")


def test_the_greeting_and_spf_of_it(server: NameServer) -> None:
    server.rdata["mail.example.com", "A"] = [HERE]
    server.records["mail.example.com"] = "v=spf1 a -all"
    for name, result in (("mail.example.com", ["pass"]), ("localhost", []), ("[203.0.113.7]", [])):
        helo = outside.look(loads(""), Mailer({"smtp_helo_name": name}), names(server), given=[HERE]).helo
        assert helo is not None
        assert [sender.result for sender in helo.senders] == result


def test_mail_servers_without_an_address_are_found(server: NameServer) -> None:
    server.rdata["mail.example.com", "MX"] = ["10 gone.example.com.", "20 there.example.com."]
    server.rdata["there.example.com", "A"] = [HERE]
    server.rdata["nowhere.example", "MX"] = ["0 ."]
    seen = outside.look(loads(CONFIG), None, names(server), given=[HERE])
    dead = {box.address: box.dead for box in seen.mailboxes}
    assert dead == {"bounces@mail.example.com": ("gone.example.com",), "fbl@nowhere.example": ()}


def _answer(listener: socket.socket, answer: bytes) -> None:
    wire, _ = listener.accept()
    with wire:
        wire.recv(4096)
        wire.sendall(answer)


def _serve(listener: socket.socket, context: ssl.SSLContext) -> None:
    wire, _ = listener.accept()
    try:
        with context.wrap_socket(wire, server_side=True) as sealed:
            sealed.recv(1)
    except OSError:
        wire.close()


def test_a_store_that_is_not_there_is_told(tmp_path: Path) -> None:
    text = (
        f"journal: {{path: {tmp_path / 'journal.db'}, ship_to: 'postgresql://p@127.0.0.1:1/p'}}\n"
        "quota: {store: 'redis://127.0.0.1:1/0'}\n"
    )
    trials = list(collect.stores(loads(text)))
    assert [trial.ok for trial in trials] == [None, False, False]
    (tmp_path / "journal.db").write_bytes(b"this is no database" * 100)
    assert next(collect.stores(loads(text))).ok is False


def test_disk_and_clock_are_looked_at(tmp_path: Path) -> None:
    config = loads(f"journal: {{path: {tmp_path / 'journal.db'}}}")
    mailer = Mailer({"queue_directory": str(tmp_path), "message_size_limit": "1000000000"})
    ours, queue = collect.disks(config, mailer)
    assert (ours.free > 0, ours.least, queue.least) == (True, 100 * 2**20, 1_500_000_000)
    assert not ours.readonly
    assert collect.clock() in (True, False, None)
