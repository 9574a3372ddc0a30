"""The tracking server over real sockets: what it answers, to whom it refuses to, and what it writes down."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import json
import os
import re
import socket
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import parse_headers
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books import spooled
from postmeter.config import values
from postmeter.config.load import loads
from postmeter.runtime import spool
from postmeter.token import Mint
from postmeter.tracking import answers, blocked, hits, web
from postmeter.tracking.clients import Clients
from postmeter.tracking.desk import Desk, Site, Visit, hosts
from postmeter.tracking.targets import LONGEST
from postmeter.tracking.text import closed
from tests.lab.waiting import wait_for

SECRET, OLD = b"n" * 32, b"o" * 32
BASE = "http://click.example.com"
TARGET = "https://shop.example/offer?a=1&b=2#top"
MINT = Mint([SECRET])


def path_of(target: str = TARGET, *, base: str = BASE, secret: bytes = SECRET, reference: bytes = b"referenc") -> str:
    return urlsplit(Mint([secret]).link_url(base, reference=reference, link=7, target=target)).path


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Running:
    """A server in a thread of its own, and everything that it was made of."""

    port: int
    directory: Path
    desk: Desk
    blocklist: blocked.Blocklist
    hits: hits.Hits
    loop: asyncio.AbstractEventLoop

    def raw(self, data: bytes) -> bytes:
        """All that comes back until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as link:
            found = b""
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # cut off while we still send
                link.sendall(data)
                while block := link.recv(65536):
                    found += block
            return found

    def ask(self, path: str, *fields: str, method: str = "GET", host: str = "click.example.com") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *fields, "Connection: close", "", ""]
        return parse(self.raw("\r\n".join(lines).encode("utf-8", "surrogateescape")))

    def recorded(self) -> list[dict[str, object]]:
        lines = b"".join(file.read_bytes() for file in spool.files(self.directory, hits.SPOOL)).splitlines()
        return [json.loads(line) for line in lines]


def parse(raw: bytes) -> Reply:
    head, _, body = raw.partition(b"\r\n\r\n")
    first, _, rest = head.partition(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+", first)
    assert found, raw
    fields = parse_headers(BytesIO(rest + b"\r\n\r\n"))
    return Reply(int(found[1]), {name.lower(): value for name, value in fields.items()}, body)


@contextlib.contextmanager
def running(directory: Path, *, timeout: float = 3.0, max_request: int = 16384) -> Iterator[Running]:
    listener = socket.create_server(("127.0.0.1", 0))
    directory.mkdir(exist_ok=True)
    kept = hits.Hits(spool.Writer(directory, name=hits.SPOOL, now=time.time))
    blocklist = blocked.Blocklist(directory / "blocked")
    site = Site(
        Mint([SECRET, OLD]),
        frozenset({"click.example.com", "old.example.com", "127.0.0.1"}),
        Clients([ipaddress.ip_network("127.0.0.1")]),
    )
    desk = Desk(site, blocklist, kept, pages={"/u/": page} if "paged" in directory.name else None)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    found = Running(listener.getsockname()[1], directory, desk, blocklist, kept, loop)

    def tend() -> None:
        blocklist.look()
        kept.retry()

    async def serve() -> None:
        await web.serve(listener, web.Server(desk, max_request=max_request, timeout=timeout), stop=stop, tend=tend)

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        yield found
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()
        loop.close()
        kept.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("web")) as found:
        yield found


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_link_is_answered_by_a_redirect_that_nobody_may_store(server: Running, method: str) -> None:
    reply = server.ask(path_of(), method=method)
    assert (reply.status, reply.body) == (302, b"")
    assert reply.headers["location"] == TARGET
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["x-robots-tag"] == "noindex, nofollow"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert "server" not in reply.headers
    date = datetime.strptime(reply.headers["date"], "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    assert abs(date.timestamp() - time.time()) < 60, "RFC 9110 section 5.6.7"


def test_a_click_is_in_the_spool_before_its_answer(server: Running) -> None:
    agent = "Mozilla/5.0 (X11; Linux x86_64)"
    before = len(server.recorded())
    server.ask(path_of(), f"User-Agent: {agent}", "X-Forwarded-For: 203.0.113.9, 198.51.100.7")
    (hit,) = server.recorded()[before:]
    assert abs(float(str(hit.pop("time"))) - time.time()) < 60
    assert hit == {
        "kind": "click",
        "reference": b"referenc".hex(),
        "link": 7,
        "recipient": "",
        "target": TARGET,
        "host": "click.example.com",
        "method": "GET",
        "address": "198.51.100.7",
        "agent": agent,
        "secure": False,
        "fields": {},
    }


@pytest.mark.parametrize(
    "path",
    ["/", "/c", "/c/", "/c/x", "/C/x", "/o/x", "/u/x", "/favicon.ico", "/c/../healthz", "//c/", "/healthz/", "*"],
)
def test_anything_else_is_the_same_small_404(server: Running, path: str) -> None:
    before = len(server.recorded())
    reply = server.ask(path)
    assert (reply.status, reply.body) == (404, b"Not found.\n")
    assert "server" not in reply.headers
    assert len(server.recorded()) == before


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT", "get", "FOO"])
def test_another_method_is_a_404_or_no_http(server: Running, method: str) -> None:
    reply = server.ask(path_of(), "Content-Length: 3", method=method)
    assert (reply.status, reply.body) == (404, b"Not found.\n")


def test_tokens_that_are_not_ours_get_the_same_404_as_noise(server: Running) -> None:
    good = path_of()
    last = "A" if good[-1] != "A" else "B"
    wrong = [good[:-1] + last, good[:-1], good[:20], good + "A", good + "=", path_of(secret=b"f" * 32)]
    noise = server.ask("/c/noise")
    for path in wrong:
        reply = server.ask(path)
        assert (reply.status, reply.body) == (noise.status, noise.body)
        assert reply.headers.keys() == noise.headers.keys()


@pytest.mark.parametrize("host", ["other.example", "old.example.com", "", "click.example.com, x", "[::1]", "a b"])
def test_a_token_is_worth_nothing_on_another_host(server: Running, host: str) -> None:
    assert server.ask(path_of(), host=host).status == 404


def test_a_host_that_is_not_ours_is_404_even_with_a_token_made_for_it(server: Running) -> None:
    assert server.ask(path_of(base="http://evil.example"), host="evil.example").status == 404


def test_a_host_of_earlier_days_and_an_older_secret_still_answer(server: Running) -> None:
    assert server.ask(path_of(base="http://old.example.com"), host="old.example.com").status == 302
    assert server.ask(path_of(secret=OLD)).status == 302


def test_a_host_too_long_for_one_is_not_remembered(server: Running) -> None:
    """Spellings are, so that strangers would fill the memory with theirs."""
    tracemalloc.start()
    try:
        server.ask("/c/x", host="evil.example")
        before = tracemalloc.get_traced_memory()[0]
        for number in range(200):
            assert server.ask("/c/x", host=f"{number}.{'é' * 5000}").status == 404
        assert tracemalloc.get_traced_memory()[0] - before < 300_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("host", ["CLICK.example.com", "click.example.com:8587", "click.example.com."])
def test_spellings_of_our_host_are_our_host(server: Running, host: str) -> None:
    assert server.ask(path_of(), host=host).status == 302


@pytest.mark.parametrize("host", ["click.example.com", "evil.example", ""])
@pytest.mark.parametrize("base", ["http://click.example.com", "HTTPS://CLICK.example.com:8587"])
def test_a_target_that_names_its_host_is_answered_for_that_host(server: Running, base: str, host: str) -> None:
    """As programs ask that take us for a proxy (RFC 9112 section 3.2.2): what the Host field says does not matter."""
    before = len(server.recorded())
    reply = server.ask(f"{base}{path_of()}?utm_source=x", host=host)
    assert (reply.status, reply.headers["location"]) == (302, TARGET)
    (hit,) = server.recorded()[before:]
    assert (hit["host"], hit["secure"]) == ("click.example.com", False)
    assert server.ask(base + image(), host=host).status == 200
    assert server.ask(f"{base}/healthz?x", host=host).body == b"ok\n"


@pytest.mark.parametrize(
    "base",
    [
        "http://old.example.com",
        "http://evil.example",
        "http://evil.example@click.example.com",
        "http://click.example.com@evil.example",
        "http://evil.example\\@click.example.com",
        "http://click.example.com#",
        "http://click.example.com,evil.example",
        "http://",
        "http:",
        "//click.example.com",
        "ftp://click.example.com",
        "click.example.com",
    ],
)
def test_a_target_that_names_another_host_or_none_is_404_whatever_host_says(server: Running, base: str) -> None:
    before = len(server.recorded())
    reply = server.ask(base + path_of())
    assert (reply.status, reply.body) == (404, b"Not found.\n")
    assert len(server.recorded()) == before


@pytest.mark.parametrize("other", ["evil.example", "click.example.com"])
def test_two_hosts_are_none(server: Running, other: str) -> None:
    """RFC 9112 section 3.2. aiohttp 3.8 lets them through."""
    assert server.ask(path_of(), f"Host: {other}").status == 404
    assert server.ask(path_of(), "Host: click.example.com", host=other).status == 404


def test_what_gateways_do_to_an_address_does_not_kill_the_link(server: Running) -> None:
    path = path_of()
    assert server.ask(path + "?utm_source=x&y=/c/z").status == 302
    assert server.ask("/c/" + "".join(f"%{ord(char):02x}" for char in path[3:20]) + path[20:]).status == 302


@pytest.mark.parametrize("end", [".", ",", ";", ")", "]", ">", "'", "%22", "%3E", "*", "!", "?", ").", "%C2%BB"])
def test_what_a_program_takes_for_the_end_of_a_url_does_not_kill_the_link(server: Running, end: str) -> None:
    """Programs disagree on where a URL in a text ends; a quotation mark of another script is nothing that we know."""
    assert server.ask(path_of() + end).status == (404 if end == "%C2%BB" else 302)


def test_an_end_that_programs_leave_off_is_written_otherwise(server: Running) -> None:
    """As links of texts are: a token may end in a hyphen or an underline."""
    targets = [f"https://shop.example/{'x' * length}" for length in range(200)]
    paths = [path_of(target=target) for target in targets]
    odd = [path for path in paths if path[-1] in "-_"]
    assert odd
    for path in odd:
        reply = server.ask(closed(path.encode()).decode())
        assert (reply.status, reply.headers["location"]) == (302, targets[paths.index(path)])


def test_hosts_come_from_every_tracking_url_and_from_web_hosts() -> None:
    text = (
        "tracking: {url: 'https://a.example', domains: {x.example: {url: 'https://b.example:8443'}},"
        " logins: {y: {url: 'http://C.example'}}}\nweb: {hosts: [d.example]}"
    )
    assert hosts(loads(text)) == {"a.example", "b.example", "c.example", "d.example"}


def test_healthz_is_for_everybody(server: Running) -> None:
    reply = server.ask("/healthz", host="10.0.0.1")
    assert (reply.status, reply.body) == (200, b"ok\n")
    assert server.ask("/healthz", method="POST").status == 404


@pytest.mark.parametrize(
    ("target", "location"),
    [
        ("https://a.example/\r\nSet-Cookie: x=1\r\n\r\n<script>", "https://a.example/Set-Cookie:%20x=1<script>"),
        ("https://a.example/\x00\x1f\x7f", "https://a.example/%00%1F%7F"),
        ("https://a.example/ä?q=ü b#é", "https://a.example/%C3%A4?q=%C3%BC%20b#%C3%A9"),
        ("https://a.example/%41%zz?x=[1]&y='\"", "https://a.example/%41%zz?x=[1]&y='\""),
        ("HTTP://a.example/\u2028", "HTTP://a.example/%E2%80%A8"),
    ],
)
def test_a_location_is_one_line_of_ascii_that_leads_where_the_target_does(
    server: Running, target: str, location: str
) -> None:
    reply = server.ask(path_of(target))
    assert (reply.status, reply.headers["location"]) == (302, location)
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize("target", ["", "javascript:alert(1)", "//a.example/", "/x", "data:text/html,x", "http://"])
def test_what_is_no_absolute_web_address_is_no_target_whoever_signed_it(server: Running, target: str) -> None:
    before = len(server.recorded())
    assert server.ask(path_of(target)).status == 404
    assert len(server.recorded()) == before


@given(st.text(max_size=60))
def test_no_text_can_break_out_of_the_location(text: str) -> None:
    wire = answers.redirect("https://a.example/" + text).wire(0)
    head, end, body = wire.partition(b"\r\n\r\n")
    assert (end, body) == (b"\r\n\r\n", b"")
    lines = head.split(b"\r\n")
    assert len(lines) == 9
    assert all(re.fullmatch(rb"[ -~]+", line) for line in lines)


def test_many_requests_share_a_connection(server: Running) -> None:
    one = f"GET {path_of()} HTTP/1.1\r\nHost: click.example.com\r\n\r\n".encode()
    last = f"GET {path_of()} HTTP/1.1\r\nHost: click.example.com\r\nConnection: close\r\n\r\n".encode()
    assert server.raw(one * 9 + last).count(b"HTTP/1.1 302 Found\r\n") == 10


def test_http_1_0_is_answered_and_closed(server: Running) -> None:
    raw = server.raw(f"GET {path_of()} HTTP/1.0\r\nHost: click.example.com\r\n\r\n".encode())
    assert raw.startswith(b"HTTP/1.1 302 Found\r\n")
    assert b"\r\nConnection: close\r\n" in raw


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"GET http://click.example.com:x/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%ff%00 HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n",
    ],
)
def test_noise_gets_a_404_or_nothing_and_never_a_banner(server: Running, noise: bytes) -> None:
    raw = server.raw(noise)
    assert raw == b"" or raw.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"aiohttp" not in raw
    assert b"Python" not in raw
    assert server.ask("/healthz").status == 200


@pytest.mark.parametrize("target", [b"http://xn--/", b"http://[::1", b"//[", b"http://a:99999999/", b"/c/\xff"])
@pytest.mark.parametrize("method", [b"GET", b"CONNECT"])
def test_a_target_that_is_no_url_gets_the_same_404_and_no_word_in_the_log(
    server: Running, caplog: pytest.LogCaptureFixture, method: bytes, target: bytes
) -> None:
    """aiohttp fails on some of them outside of all that it handles; asyncio would then log the request."""
    raw = server.raw(method + b" " + target + b" HTTP/1.1\r\nHost: click.example.com\r\nConnection: close\r\n\r\n")
    assert parse(raw).status == 404
    gc.collect()  # a task that failed is told of when it goes
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_a_request_over_the_bound_is_cut_off(tmp_path: Path) -> None:
    with running(tmp_path, max_request=2048) as small:
        for huge in (
            f"GET /{'x' * 5000} HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n" + "X: y\r\n" * 2000 + "\r\n",
            f"POST / HTTP/1.1\r\nContent-Length: 9999\r\n\r\n{'x' * 9999}",
        ):
            raw = small.raw(huge.encode())
            assert raw == b"" or raw.startswith(b"HTTP/1.1 404 ")
        assert small.ask(path_of()).status == 302


@pytest.mark.parametrize(("parameters", "cookies"), [(0, 14_000), (14_000, 0), (6000, 8000)])
def test_within_the_bound_it_does_not_matter_where_the_bytes_are(
    server: Running, parameters: int, cookies: int
) -> None:
    """A person with many cookies for example.com has all of them sent to click.example.com: no reason for a 404."""
    reply = server.ask(f"{path_of()}?{'p' * parameters}", f"Cookie: {'c' * cookies}")
    assert (reply.status, reply.headers["location"]) == (302, TARGET)


@pytest.mark.parametrize("start", [b"", b"GET /c/", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /he"])
def test_a_slow_client_is_cut_off_however_it_dribbles(tmp_path: Path, start: bytes) -> None:
    """A byte now and then does not buy more time than one request may take."""
    with running(tmp_path, timeout=0.5) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as link:
            began = time.monotonic()
            link.sendall(start)
            while time.monotonic() - began < 10:
                try:
                    if not link.recv(4096):
                        break
                except TimeoutError:
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        link.sendall(b"x" if start else b"")
                except ConnectionResetError:
                    break
            assert 0.4 < time.monotonic() - began < 4
        assert server.ask(path_of()).status == 302


def test_a_client_that_reads_nothing_is_cut_off_and_no_bug_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Answers wait for it, 64 kB of them, until its time is up."""
    ask = f"GET {path_of()} HTTP/1.1\r\nHost: click.example.com\r\n\r\n".encode()
    with running(tmp_path, timeout=0.5) as server:
        with socket.socket() as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            link.settimeout(10)
            link.connect(("127.0.0.1", server.port))
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                ask_on(link, ask)
        assert server.ask(path_of()).status == 302
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def ask_on(link: socket.socket, ask: bytes) -> None:
    """One request after the other, each below the bound on bytes."""
    for _ in range(100_000):
        link.sendall(ask)


def test_requests_that_wait_behind_each_other_are_bounded(tmp_path: Path) -> None:
    """Whoever sends hundreds for each answer would fill the memory: aiohttp 3.8 keeps whatever comes."""
    ask = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 300
    with running(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), timeout=10) as link:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(50):
                link.sendall(ask)
                if not link.recv(1 << 20):
                    break
        waiting = [len(one._messages) for one in gc.get_objects() if isinstance(one, web.Connection)]
        assert max(waiting, default=0) < 1000
        assert server.ask(path_of()).status == 302


def test_a_client_that_vanishes_within_its_body_is_no_bug(paged: Running, caplog: pytest.LogCaptureFixture) -> None:
    for at in range(20):
        with socket.create_connection(("127.0.0.1", paged.port)) as link:
            link.sendall(b"POST /u/x HTTP/1.1\r\nHost: click.example.com\r\nContent-Length: 99\r\n\r\nList-")
            if at % 2:
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    assert paged.ask(path_of()).status == 302
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_blocked_message_or_host_is_gone_and_an_unblocked_one_is_back(server: Running) -> None:
    path = server.directory / "blocked"
    other = b"otherref"
    for messages, names, gone in (
        ([other.hex()], [], {other}),
        ([], ["shop.example"], {other, b"referenc"}),
        ([], ["*.example"], {other, b"referenc"}),
        ([], ["*.shop.example", "hop.example", "example"], set[bytes]()),
    ):
        blocked.write(path, messages=messages, hosts=names)
        server.blocklist.look()
        for reference in (other, b"referenc"):
            reply = server.ask(path_of(reference=reference))
            assert reply.status == (410 if reference in gone else 302)
            assert "location" not in reply.headers or reply.status == 302


def test_a_block_takes_effect_within_five_seconds(server: Running) -> None:
    blocked.write(server.directory / "blocked", messages=[b"referenc".hex()], hosts=[])
    began = time.monotonic()
    while server.ask(path_of()).status != 410:
        assert time.monotonic() - began < 5
    blocked.write(server.directory / "blocked", messages=[], hosts=[])
    while server.ask(path_of()).status != 302:
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("https://A.Example./x", "a.example"),
        ("http://user:pw@a.example:81/", "a.example"),
        ("http://good.example\\@evil.example/", "good.example"),
        ("https:\\\\evil.example", "evil.example"),
        ("http://[2001:DB8::1]:80/", "[2001:db8::1]"),
        ("https://a.example?@b", "a.example"),
        ("mailto:a@a.example", ""),
        ("", ""),  # an image's token has no target
    ],
)
def test_the_host_of_a_target_is_the_one_a_browser_would_ask(target: str, host: str) -> None:
    assert blocked.host_of_target(target) == host


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """Numbers of processes come again."""
    (tmp_path / f".blocked-{os.getpid()}").write_text("host half")
    blocked.write(tmp_path / "blocked", messages=[], hosts=["a.example"])
    assert (tmp_path / "blocked").read_text() == "host a.example\n"
    assert [path.name for path in tmp_path.iterdir()] == ["blocked"]


def test_a_list_that_cannot_be_understood_blocks_what_it_can() -> None:
    known = blocked.parse("nonsense\nmessage xyz\nhost a.example\n\nmessage 7265666572656e63\nmessage\n")
    assert known == blocked.Blocked(frozenset({b"referenc"}), frozenset({"a.example"}))


def test_a_spool_that_cannot_be_written_stops_no_redirect_and_loses_no_click_that_waits(tmp_path: Path) -> None:
    with running(tmp_path / "spool") as server:
        server.directory.rename(tmp_path / "away")
        for _ in range(3):
            assert server.ask(path_of()).status == 302
        (tmp_path / "away").rename(server.directory)
        began = time.monotonic()
        while len(server.recorded()) < 3:
            assert time.monotonic() - began < 5


def test_clicks_that_found_no_room_to_wait_are_counted(tmp_path: Path) -> None:
    kept = hits.Hits(spool.Writer(tmp_path / "spool", name="hits", now=time.time), waiting=2)
    hit = hits.Hit(
        time=1.0, reference=b"r" * 8, link=1, recipient=b"", target="t", host="h", method="GET", address="", agent=""
    )
    for _ in range(5):
        kept.keep(hit)
    kept.retry()
    (tmp_path / "spool").mkdir()
    kept.retry()
    lines = b"".join(file.read_bytes() for file in spool.files(tmp_path / "spool", "hits")).splitlines()
    assert [json.loads(line).get("lost") for line in lines] == [None, None, 3]


def test_the_last_of_the_disk_is_not_for_who_repeats_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links answer, unsubscribes are not thanked for, and all of it is written when there is room again."""
    with running(tmp_path) as server:
        writer = server.hits._writer
        monkeypatch.setattr(writer, "_spare", 2 * spool.free_bytes(tmp_path))
        assert server.ask(path_of()).status == 302
        assert not server.hits.put(b'{"kind":"unsubscribe"}')
        assert server.recorded() == []
        with pytest.raises(spool.SpoolError, match="the last of the disk is for mail"):
            writer.append((b"{}",))
        monkeypatch.setattr(writer, "_spare", 0)
        wait_for(lambda: len(server.recorded()) == 2)


def test_clicks_that_are_lost_at_the_end_are_all_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    kept = hits.Hits(spool.Writer(tmp_path / "nowhere", name="hits", now=time.time), waiting=2)
    for number in range(5):
        kept.keep(
            hits.Hit(
                time=1.0, reference=b"r" * 8, link=number, recipient=b"", target="t", host="h", method="GET",
                address="", agent="",
            )
        )  # fmt: skip
    kept.retry()
    kept.close()
    assert "5 clicks lost" in caplog.messages


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "6.6.6.6, 203.0.113.9", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, 10.0.0.1", "203.0.113.9"),
        ("127.0.0.1", "203.0.113.9, nonsense", "127.0.0.1"),
        ("127.0.0.1", "nonsense, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("127.0.0.1", "[2001:db8::9]:4711", "2001:db8::9"),
        ("::ffff:127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("203.0.113.1", "198.51.100.1", "203.0.113.1"),
        ("", "198.51.100.1", ""),
    ],
)
def test_a_forwarded_address_is_believed_as_far_as_trusted_proxies_wrote_it(
    peer: str, forwarded: str, address: str
) -> None:
    clients = Clients([ipaddress.ip_network("127.0.0.1"), ipaddress.ip_network("10.0.0.0/8")])
    assert clients.address(peer, forwarded) == address


@pytest.mark.parametrize("proxy", ["::ffff:10.0.0.1", "::ffff:10.0.0.0/120", "10.0.0.0/24"])
@pytest.mark.parametrize("peer", ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1"])
def test_a_proxy_is_known_in_either_form_that_a_log_shows_it_in(proxy: str, peer: str) -> None:
    """A listener on [::] sees IPv4 as ::ffff:10.0.0.1 (RFC 4291 section 2.5.5.2)."""
    clients = Clients([values.network(proxy)])
    assert clients.address(peer, "203.0.113.9") == "203.0.113.9"
    assert clients.address("10.0.1.1", "203.0.113.9") == "10.0.1.1"


def test_an_agent_of_any_bytes_and_any_length_makes_one_bounded_line(server: Running) -> None:
    before = len(server.recorded())
    server.ask(path_of(), "User-Agent: \udcff\udcfe\u2028 " + "x" * 5000)
    (hit,) = server.recorded()[before:]
    assert len(str(hit["agent"])) <= 300
    str(hit["agent"]).encode()


@pytest.mark.parametrize("letter", ["\U0001f600", "\u20ac", "\udcff", '"', "\\"])
def test_no_line_is_longer_than_its_reader_takes(server: Running, letter: str) -> None:
    """In JSON a letter takes up to twelve octets; a hit on a longer line would be lost."""
    longest = TARGET.replace("offer", "\\" * (LONGEST - len(TARGET)))
    fields = [f"{name}: {letter * 40}" for name in hits.SEEN]
    reply = server.ask(path_of(longest), f"User-Agent: {letter * 300}", f"X-Forwarded-For: ::1%{letter * 60}", *fields)
    assert reply.status == 302
    line = max((file.read_bytes() for file in spool.files(server.directory, hits.SPOOL)), key=len).splitlines()[-1]
    assert len(line) <= spooled.LONGEST
    seen = spooled.seen("here", spooled.said(line))
    assert (seen.target, seen.address) == (longest, "::1")
    assert all(value.startswith(letter[0] if letter.isprintable() else "\ufffd") for value in seen.fields.values())


def image(*, base: str = BASE, secret: bytes = SECRET) -> str:
    return urlsplit(Mint([secret]).open_url(base, reference=b"referenc", recipient=b"reader")).path


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_open_is_answered_by_an_image_that_nobody_may_store(server: Running, method: str) -> None:
    before = len(server.recorded())
    reply = server.ask(image(), "X-Purpose: preview", "Sec-Purpose: " + "p" * 500, method=method)
    assert (reply.status, reply.headers["content-type"], reply.headers["content-length"]) == (200, "image/gif", "43")
    assert reply.headers["cache-control"] == "no-store"
    assert reply.body == (b"" if method == "HEAD" else answers.IMAGE.page)
    (hit,) = server.recorded()[before:]
    assert (hit["kind"], hit["method"], hit["link"], hit["target"]) == ("open", method, 0, "")
    assert hit["recipient"] == b"reader".hex()
    assert hit["fields"] == {"X-Purpose": "preview", "Sec-Purpose": "p" * 40}


def test_the_image_is_one_transparent_pixel() -> None:
    """As Section 18 to 23 of the GIF89a specification lay it out: size, a transparent colour, no more than 43 bytes."""
    found = answers.IMAGE.page
    assert len(found) == 43
    assert (found[:6], found[6:10], found[-1:]) == (b"GIF89a", b"\1\0\1\0", b";")
    assert found[found.index(b"\x21\xf9\x04") + 3] & 1


def test_a_link_s_token_opens_nothing_and_an_open_s_token_leads_nowhere(server: Running) -> None:
    before = len(server.recorded())
    assert server.ask("/o/" + path_of()[3:]).status == 404
    assert server.ask("/c/" + image()[3:]).status == 404
    assert server.ask(image(base="http://evil.example"), host="evil.example").status == 404
    assert len(server.recorded()) == before


def test_opens_of_a_blocked_message_are_gone(server: Running) -> None:
    path = server.directory / "blocked"
    blocked.write(path, messages=[b"referenc".hex()], hosts=[])
    server.blocklist.look()
    assert server.ask(image()).status == 410
    blocked.write(path, messages=[], hosts=[])
    server.blocklist.look()
    assert server.ask(image()).status == 200


@pytest.mark.parametrize(
    ("proto", "secure"),
    [(None, False), ("https", True), ("HTTPS", True), ("http, https", True), ("https, http", False), ("x", False)],
)
def test_a_trusted_proxy_says_whether_it_was_tls(server: Running, proto: str | None, secure: bool) -> None:
    before = len(server.recorded())
    server.ask(path_of(), *([f"X-Forwarded-Proto: {proto}"] if proto else []))
    (hit,) = server.recorded()[before:]
    assert hit["secure"] is secure


def test_nobody_else_may_say_so() -> None:
    clients = Clients([ipaddress.ip_network("127.0.0.1")])
    assert not clients.secure("203.0.113.1", "https", False)
    assert clients.secure("203.0.113.1", "http", True)


def page(visit: Visit, site: Site) -> answers.Answer:
    """Tells what reached it."""
    said = {"method": visit.method, "host": visit.host, "token": visit.token, "body": len(visit.body)}
    return answers.Answer(200, "OK", "\r\nContent-Type: application/json", json.dumps(said).encode())


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(tmp_path_factory.mktemp("paged"), timeout=0.5, max_request=4096) as found:
        yield found


def posted(server: Running, path: str, body: bytes, *fields: str, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: click.example.com\r\nContent-Length: {size}\r\nConnection: close\r\n"
    return server.raw((head + "".join(f"{line}\r\n" for line in fields) + "\r\n").encode() + body)


def test_a_body_is_read_where_a_page_wants_it_and_nowhere_else(paged: Running) -> None:
    raw = posted(paged, "/u/to%2Dken?x=1", b"List-Unsubscribe=One-Click")
    said = json.loads(parse(raw).body)
    assert said == {"method": "POST", "host": "click.example.com", "token": "to-ken", "body": 26}
    for path in ("/c/x", "/o/x", "/", "/healthz", path_of(), "/U/x", "/u"):
        assert parse(posted(paged, path, b"x")).status == 404


def test_a_page_is_found_by_a_target_that_names_its_host(paged: Running) -> None:
    raw = posted(paged, "http://click.example.com/u/to%2Dken?x=1", b"List-Unsubscribe=One-Click")
    said = json.loads(parse(raw).body)
    assert said == {"method": "POST", "host": "click.example.com", "token": "to-ken", "body": 26}
    assert parse(posted(paged, "http://other.example/u/token", b"x")).status == 404


def test_a_chunked_body_counts_with_what_it_says(paged: Running) -> None:
    head = b"POST /u/x HTTP/1.1\r\nHost: click.example.com\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert json.loads(parse(paged.raw(head + b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")).body)["body"] == 7


def test_who_asks_before_sending_a_body_is_told_to_go_on(paged: Running) -> None:
    raw = posted(paged, "/u/x", b"a=b", "Expect: 100-continue")
    assert raw.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_a_body_over_the_bound_is_cut_off(paged: Running) -> None:
    for raw in (posted(paged, "/u/x", b"x" * 9000), posted(paged, "/u/x", b"x" * 9000, length=10**9)):
        assert b"HTTP/1.1 200" not in raw
    assert paged.ask("/u/x").status == 200


def test_a_body_within_the_bound_is_read_however_large_it_is(tmp_path: Path) -> None:
    """aiohttp has a bound of its own, of 1 MB, and answers with its banner beyond that."""
    body = b"x" * 2_000_000
    with running(tmp_path / "paged", max_request=3_000_000) as server:
        assert json.loads(parse(posted(server, "/u/x", body)).body)["body"] == len(body)
        assert b"aiohttp" not in posted(server, "/u/x", body * 2)


def test_a_body_is_not_unpacked_whatever_it_says_it_is(paged: Running) -> None:
    """A hundred bytes would be a hundred thousand, and noise an error of ours."""
    for body in (zlib.compress(bytes(100_000), 9), b"noise"):
        raw = posted(paged, "/u/x", body, "Content-Encoding: deflate")
        assert json.loads(parse(raw).body)["body"] == len(body)


def test_a_body_that_does_not_come_is_cut_off_in_time(paged: Running) -> None:
    began = time.monotonic()
    assert posted(paged, "/u/x", b"half", length=400) == b""
    assert 0.4 < time.monotonic() - began < 4


def test_a_page_is_for_our_hosts_and_three_methods(paged: Running) -> None:
    assert paged.ask("/u/x", host="evil.example").status == 404
    assert paged.ask("/u/x", method="DELETE").status == 404
    assert paged.ask("/u/x", method="HEAD").body == b""


def test_a_file_of_hits_is_finished_after_a_minute_so_that_it_can_be_deleted(tmp_path: Path) -> None:
    now = [0.0]
    kept = hits.Hits(spool.Writer(tmp_path, name="hits", now=time.time), clock=lambda: now[0])
    for second in range(1, 180):
        now[0] = float(second)
        if second in (1, 2, 100, 101):
            kept.put(b"{}")
        kept.retry()
    files = spool.files(tmp_path, "hits")
    assert [spool.discard(file, 6) is not None for file in files] == [True, True]
