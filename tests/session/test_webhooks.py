"""Webhooks: a real journal and real HTTP servers, good and bad; clocks that the test holds."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from postmeter.books import calls
from postmeter.books.calls import CallError
from postmeter.books.webhooks import PREFIX, Hook, forget_others, shown
from postmeter.config.schema import Webhook
from postmeter.events import Event, Refused, Warned
from postmeter.store.journal import Journal
from tests.lab import tls

NOW = 1_793_700_005.0  # five seconds into a minute
SECRET = b"a secret of some length"
_numbers = count()


class Receiver:
    """An HTTP server that keeps what it is posted; `answer` is the status of the next answers."""

    def __init__(self, server: type[ThreadingHTTPServer] = ThreadingHTTPServer, host: str = "127.0.0.1") -> None:
        self.answer = 200
        self.location = ""
        self.most = 1 << 20  # octets; more is answered 413, unread, and the connection closed
        self.retry_after = ""  # beside that 413
        self.calls: list[tuple[str, dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                if int(self.headers["Content-Length"]) > receiver.most:
                    self.close_connection = True
                    self.send_response(413)
                    if receiver.retry_after:
                        self.send_header("Retry-After", receiver.retry_after)
                    self.end_headers()
                    return
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.calls.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answer)
                if receiver.location:
                    self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815  (http.server wants this name)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = server((host, 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/mail?to=crm"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def events(self) -> list[dict[str, Any]]:
        return [event for _, _, body in self.calls for event in json.loads(body)["events"]]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


class Hooked:
    """A hook under a test: `now` is both of its clocks; a new one is a restart."""

    def __init__(self, folder: Path, url: str, *events: str, batch: int = 100, retry_for: float = 86_400.0) -> None:
        self.folder, self.now = folder, NOW
        self.journal = Journal(folder / "journal.db", host="mx")
        self.settings = Webhook(url=url, events=events or ("quota_warning",), batch=batch, retry_for=retry_for)
        self.restart()
        self.work()

    def restart(self) -> None:
        self.hook = Hook(
            self.settings, Journal(self.folder / "journal.db", host="mx"), secret=SECRET, chance=lambda: 0.5,
            now=lambda: self.now, ticks=lambda: self.now,
        )  # fmt: skip

    def work(self, *events: Event, later: float = 0.0) -> None:
        self.now += later
        self.journal.record(events)
        while self.hook.work():
            pass

    def figure(self, name: str) -> int:
        return self.journal.totals().get((name, ()), 0)


def warned(number: int = 0, *, time: float = NOW) -> Warned:
    return Warned(
        source=f"warned:{next(_numbers)}", time=time, login="", level="sender", key=f"user{number}", unit="recipients",
        window=86_400, limit=100, text="100 recipients/day", used=80, percent=80,
    )  # fmt: skip


def refused(*, time: float = NOW, source: str = "refused:a:quota:1") -> Refused:
    return Refused(
        source=source, time=time, login="a", sender="a", service="smtpd", reason="quota", reply="451", recipients=2
    )


def test_events_are_posted_as_json_each_once_in_their_order(tmp_path: Path, receiver: Receiver) -> None:
    hooked = Hooked(tmp_path, receiver.url, batch=3)
    hooked.work(*(warned(number) for number in range(7)))
    assert [len(json.loads(body)["events"]) for _, _, body in receiver.calls] == [3, 3, 1]
    assert [event["key"] for event in receiver.events()] == [f"user{number}" for number in range(7)]
    first = receiver.events()[0]
    assert first["event"] == "quota_warning"
    assert first["id"] == f"mx:{first['seq']}"
    assert (first["used"], first["limit"], first["percent"], first["host"]) == (80, 100, 80, "mx")
    assert "kind" not in first
    path, named, _ = receiver.calls[0]
    assert path == "/mail?to=crm"
    assert named["content-type"] == "application/json"


def test_a_receiver_can_verify_the_signature_with_openssl(tmp_path: Path, receiver: Receiver) -> None:
    """As docs/operations.md says: HMAC-SHA256 over time stamp, a dot and the body."""
    Hooked(tmp_path, receiver.url).work(warned())
    _, named, body = receiver.calls[0]
    signed = named["x-postmeter-timestamp"].encode() + b"." + body
    openssl = shutil.which("openssl")
    assert openssl
    command = [openssl, "dgst", "-sha256", "-hmac", SECRET.decode(), "-hex"]
    told = subprocess.run(command, input=signed, capture_output=True, check=True).stdout.decode()
    assert named["x-postmeter-signature"] == "sha256=" + told.split()[-1]
    assert named["x-postmeter-timestamp"] == str(int(NOW))


def test_without_a_secret_nothing_pretends_to_be_signed() -> None:
    assert "X-Postmeter-Signature" not in calls.headers(b"{}", secret=b"", now=NOW)


def test_only_what_was_asked_for_is_posted(tmp_path: Path, receiver: Receiver) -> None:
    hooked = Hooked(tmp_path, receiver.url, "refused")
    hooked.work(warned(), refused(time=NOW - 3600), warned())
    assert [event["event"] for event in receiver.events()] == ["refused"]


def test_what_happened_before_anybody_asked_is_not_posted(tmp_path: Path, receiver: Receiver) -> None:
    Journal(tmp_path / "journal.db").record([warned(1)])
    Hooked(tmp_path, receiver.url).work(warned(2))
    assert [event["key"] for event in receiver.events()] == ["user2"]


def test_a_restart_goes_on_where_the_last_one_stopped(tmp_path: Path, receiver: Receiver) -> None:
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(warned(1))
    hooked.restart()
    hooked.work(warned(2))
    hooked.restart()
    hooked.work()
    assert [event["key"] for event in receiver.events()] == ["user1", "user2"]


def test_events_of_no_interest_in_between_are_passed_in_slices(tmp_path: Path, receiver: Receiver) -> None:
    hooked = Hooked(tmp_path, receiver.url)
    hooked.journal.record([refused(source=f"refused:{number}") for number in range(12_345)])
    hooked.work(warned(1))
    assert [event["key"] for event in receiver.events()] == ["user1"]


def test_what_fails_is_tried_again_at_longer_intervals_with_a_fresh_signature(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answer = 503
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(warned(1))
    for _ in range(63):
        hooked.work(later=1.0)
    assert len(receiver.calls) == 7  # after 1, 2, 4, 8, 16 and 32 seconds
    assert len({named["x-postmeter-signature"] for _, named, _ in receiver.calls}) == 7
    assert len({body for _, _, body in receiver.calls}) == 1
    assert hooked.figure("webhook_failures_total") == 7
    receiver.answer = 204
    receiver.calls.clear()
    hooked.work(warned(2), later=600.0)
    assert [event["key"] for event in receiver.events()] == ["user1", "user2"]


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 410, 500])
def test_only_2xx_counts_and_redirects_are_not_followed(tmp_path: Path, receiver: Receiver, status: int) -> None:
    receiver.answer, receiver.location = status, "/elsewhere"
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(warned())
    assert [path for path, _, _ in receiver.calls] == ["/mail?to=crm"]
    assert hooked.figure("webhook_failures_total") == 1


def test_a_receiver_that_takes_no_large_bodies_gets_smaller_ones(tmp_path: Path, receiver: Receiver) -> None:
    """413 to a hundred events would be 413 to the same hundred until they are given up, and to those behind them."""
    receiver.most = 1000
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(*(warned(number) for number in range(30)))
    assert [event["key"] for event in receiver.events()] == [f"user{number}" for number in range(30)]
    assert hooked.figure("webhook_failures_total") == 0
    assert len(receiver.calls) < 20
    receiver.most = 100
    receiver.calls.clear()
    hooked.work(warned(30), warned(31))
    assert (receiver.events(), hooked.figure("webhook_failures_total")) == ([], 1), "one event is as small as it gets"
    receiver.most = 1 << 20
    hooked.work(*(warned(number) for number in range(32, 500)), later=60.0)
    assert [event["key"] for event in receiver.events()] == [f"user{number}" for number in range(30, 500)]
    assert len(receiver.calls) < 60, "and then larger ones again"


def test_an_event_that_alone_is_too_large_is_given_up_at_once_and_holds_up_no_other(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a message to a thousand, perhaps. Nothing makes it smaller, and it would stand there for `retry_for`."""
    receiver.most = 10_000
    large = {3, 4, 8, 19}
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(*(replace(warned(number), text="x" * 10_000 if number in large else "x") for number in range(20)))
    assert [event["key"] for event in receiver.events()] == [f"user{n}" for n in range(20) if n not in large]
    assert (hooked.figure("webhook_dropped_total"), hooked.figure("webhook_failures_total")) == (4, 4)
    first = receiver.events()[0]["seq"] + min(large)
    assert f"event mx:{first} is more than it takes (413), with 10" in caplog.text
    calls_before = len(receiver.calls)
    hooked.restart()
    hooked.work(warned(20), later=1.0)
    assert [event["key"] for event in receiver.events()][-1:] == ["user20"]
    assert len(receiver.calls) == calls_before + 1, "nothing comes again"


def test_a_receiver_that_is_full_for_a_while_gets_everything_later(
    tmp_path: Path, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """413 with Retry-After is temporary (RFC 9110 section 15.5.14); a large event was given up for ever."""
    receiver.most, receiver.retry_after = 0, "120"
    hooked = Hooked(tmp_path, receiver.url)
    hooked.work(*(replace(warned(number), text="x" * 10_000) for number in range(3)))
    assert (hooked.figure("webhook_dropped_total"), hooked.figure("webhook_failures_total")) == (0, 1)
    assert "answered 413, for a while (Retry-After)" in caplog.text
    receiver.most = 1 << 20
    hooked.work(later=60.0)
    assert [event["key"] for event in receiver.events()] == ["user0", "user1", "user2"]
    assert len(receiver.calls) == 1


def test_what_is_too_old_is_given_up_and_counted_but_not_untried(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answer = 500
    hooked = Hooked(tmp_path, receiver.url, batch=2, retry_for=3600.0)
    hooked.work(*(warned(number) for number in range(5)))
    while hooked.now < NOW + 3000:
        hooked.work(later=60.0)
    hooked.work(warned(5, time=hooked.now))
    assert hooked.figure("webhook_dropped_total") == 0
    hooked.work(later=1200.0)
    assert hooked.figure("webhook_dropped_total") == 5
    receiver.answer = 200
    receiver.calls.clear()
    hooked.work(later=700.0)
    assert [event["key"] for event in receiver.events()] == ["user5"]
    old = warned(6, time=NOW - 1e6)
    hooked.work(old)
    assert receiver.events()[-1]["key"] == "user6", "a receiver that is there gets everything"


def test_refusals_are_posted_when_their_minute_is_over_with_all_of_its_count(
    tmp_path: Path, receiver: Receiver
) -> None:
    hooked = Hooked(tmp_path, receiver.url, "refused", "quota_warning")
    hooked.work(warned(1), refused(), warned(2))
    hooked.work(refused(), later=30.0)
    assert [event["event"] for event in receiver.events()] == ["quota_warning"]
    hooked.work(refused(), later=20.0)
    hooked.work(later=15.0)
    assert [event["event"] for event in receiver.events()] == ["quota_warning", "refused", "quota_warning"]
    assert (receiver.events()[1]["count"], receiver.events()[1]["recipients"]) == (3, 6)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tls.make(tmp_path / "tls", host="localhost")
    receiver = Receiver()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)
    receiver.server.socket = context.wrap_socket(receiver.server.socket, server_side=True)
    url = f"https://localhost:{receiver.server.server_address[1]}/"
    try:
        with pytest.raises(CallError, match="certificate"):
            calls.post(url, b"{}", {})
        assert receiver.calls == []
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))  # as if it were one of the system's authorities
        assert calls.post(url, b"{}", {}) == 200
        with pytest.raises(CallError, match="certificate"):
            calls.post(url.replace("localhost", "127.0.0.1"), b"{}", {})
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def test_an_ipv6_address_is_called_with_and_without_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    class Six(ThreadingHTTPServer):
        address_family = socket.AF_INET6

    receiver = Receiver(Six, "::1")
    port = receiver.server.server_address[1]
    monkeypatch.setattr(HTTPConnection, "default_port", port)
    try:
        assert calls.post(f"http://[::1]:{port}/mail", b"{}", {}) == 200
        assert calls.post("http://[::1]/mail", b"{}", {}) == 200
        assert [named["host"].partition("]")[0] for _, named, _ in receiver.calls] == ["[::1"] * 2
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


@contextlib.contextmanager
def raw(talk: Callable[[Any], None]) -> Iterator[str]:
    """The url of a server that does with a connection what it likes."""
    import socketserver

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            talk(self.request)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def test_an_answer_that_drips_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, the whole never does."""
    monkeypatch.setattr(calls, "_LONGEST", 0.5)
    over = threading.Event()

    def drip(link: Any) -> None:
        link.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not over.wait(0.05):
            link.sendall(b"x")

    try:
        with raw(drip) as url, pytest.raises(CallError):
            calls.post(url, b"{}", {})
    finally:
        over.set()


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize(("said", "heard"), [(b"413 Content Too Large", 413), (b"200 OK", 0)])
def test_an_answer_to_half_a_body_is_heard_but_for_a_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bytes, heard: int, *, secure: bool
) -> None:
    """Who will not have all of it says so and hangs up; who says yes to a part has not got the rest."""
    answer = b"HTTP/1.1 " + said + b"\r\nConnection: close\r\n\r\n"
    made = tls.make(tmp_path / "tls", host="localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server)

    def refuse(link: Any) -> None:
        if secure:
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # or the answer waits, and is never sent
            link = context.wrap_socket(link, server_side=True)
        with link:
            link.recv(9999)
            link.sendall(answer)

    with raw(refuse) as url, contextlib.nullcontext() if heard else pytest.raises(CallError):
        url = url.replace("http://127.0.0.1", "https://localhost") if secure else url
        assert calls.post(url, bytes(30_000_000), {}) == heard


@pytest.mark.parametrize(
    "said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 twohundred\r\n\r\n", b"HTTP/1.1 200" + b"x" * 99_999]
)
def test_what_is_no_http_is_a_failed_call(said: bytes) -> None:
    with raw(lambda link: (link.recv(9999), link.sendall(said))[1]) as url, pytest.raises(CallError):
        calls.post(url, b"{}", {})


@pytest.mark.parametrize(("last", "heard"), [(b"204 No Content", 204), (b"503 Sorry", 503), (b"101 Switch", 101)])
def test_what_a_server_says_before_its_answer_is_no_answer(last: bytes, heard: int) -> None:
    """RFC 9110 section 15.2; to take it for a failure would post what was taken again and again."""
    before = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    with raw(lambda link: (link.recv(9999), link.sendall(before + b"HTTP/1.1 " + last + b"\r\n\r\n"))[1]) as url:
        assert calls.post(url, b"{}", {}) == heard


def test_what_a_server_says_before_its_answer_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_LONGEST", 0.5)

    def pour(link: Any) -> None:
        link.recv(9999)
        with contextlib.suppress(OSError):
            while True:
                link.sendall(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)

    with raw(pour) as url, pytest.raises(CallError):
        calls.post(url, b"{}", {})


def test_a_body_without_end_is_not_read() -> None:
    def pour(link: Any) -> None:
        link.recv(9999)
        link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                link.sendall(b"x" * 65536)
        except OSError:
            pass

    with raw(pour) as url:
        assert calls.post(url, b"{}", {}) == 200


def test_a_slow_resolver_takes_nothing_from_the_time_in_which_a_drip_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is nothing to cut yet when the time is over; the call must end all the same."""
    monkeypatch.setattr(calls, "_LONGEST", 0.2)
    asked, resolve = threading.Event(), socket.getaddrinfo

    def slow(*args: Any, **named: Any) -> Any:
        asked.wait(0.6)
        return resolve(*args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    said = b"HTTP/1.1 200 OK\r\n\r\n"
    answering = raw(lambda link: (link.recv(9999), link.sendall(said))[1])
    with answering as url, pytest.raises(CallError, match="no whole answer"):
        calls.post(url, b"{}", {})


def test_what_is_no_text_comes_as_json_that_everybody_reads(tmp_path: Path, receiver: Receiver) -> None:
    """A lone half of a surrogate pair, from a login that is no UTF-8, would be refused by strict readers for ever."""
    Hooked(tmp_path, receiver.url).work(replace(warned(), key="al\udcffce ünï 𝕬"))
    body = receiver.calls[-1][2]
    assert b"\\ud" not in body
    assert [event["key"] for event in receiver.events()] == ["al?ce ünï 𝕬"]


@pytest.mark.parametrize("rest", ["/mail?token=secret", "/services/T0/B0/secret", "", "/"])
def test_of_a_url_only_the_host_is_shown(rest: str) -> None:
    """What stands behind it is a password with many services."""
    assert shown(f"https://crm.example.com:8443{rest}") == "https://crm.example.com:8443"


def test_positions_of_urls_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    places = {PREFIX + "https://a.example/": "1", PREFIX + "https://b.example/": "2", "notices": "3"}
    journal.record([], positions=places)
    forget_others(journal, ["https://a.example/"])
    assert journal.positions() == {PREFIX + "https://a.example/": "1", "notices": "3"}
