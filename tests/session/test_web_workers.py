"""`postmeter web` with several workers and with TLS of its own: who answers when one dies, and which certificate."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from postmeter.runtime import spool
from tests.bench import cpu
from tests.lab import tls
from tests.lab.redirects import Place, opened
from tests.lab.waiting import wait_for


@pytest.fixture
def place() -> Iterator[Place]:
    with opened() as found:
        yield found


def workers_of(process: subprocess.Popen[bytes]) -> set[int]:
    return {pid for pid in cpu.tree(process.pid) if pid != process.pid}


def replaced(process: subprocess.Popen[bytes], victim: int) -> bool:
    known = workers_of(process)
    return victim not in known and len(known) == 2


def files(place: Place) -> list[Path]:
    return spool.files(place.state / "spool" / "hits", "hits")


def recorded(place: Place) -> int:
    return sum(path.read_bytes().count(b"\n") for path in files(place))


def test_workers_share_the_port_and_each_writes_a_file_of_its_own(place: Place) -> None:
    place.more = ", workers: 3"
    place.write()
    with place.running() as process:
        wait_for(lambda: len(workers_of(process)) == 3)
        asked = recorded(place)
        end = time.monotonic() + 20
        while len(files(place)) < 3 and time.monotonic() < end:
            links = [place.connect() for _ in range(30)]
            for link in links:
                link.connect()
            for link in links:
                link.request("GET", place.path_of(), headers={"Host": "127.0.0.1"})
            assert {link.getresponse().status for link in links} == {302}
            for link in links:
                link.close()
            asked += 30
        assert recorded(place) == asked
        assert {int(path.stem.split("-")[-2]) for path in files(place)} == workers_of(process)


def test_kill_9_of_workers_loses_no_hit_that_was_answered_and_the_port_stays_open(place: Place) -> None:
    """Clients ask on while one worker after the other is killed; every 302 that came back is in the spool."""
    place.more = ", workers: 2"
    place.write()
    with place.running() as process:
        wait_for(lambda: len(workers_of(process)) == 2)
        before, answered, stop = recorded(place), [0], threading.Event()

        def ask() -> None:
            while not stop.is_set():
                with suppress(OSError, EOFError):
                    answered[0] += place.status() == 302

        def asked_more(count: int) -> bool:
            return answered[0] > count

        asking = threading.Thread(target=ask)
        asking.start()
        for _ in range(4):
            wait_for(partial(asked_more, answered[0] + 5))
            victim = sorted(workers_of(process))[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(partial(replaced, process, victim))
        stop.set()
        asking.join(10)
        assert answered[0] > 20
        assert answered[0] <= recorded(place) - before <= answered[0] + 5


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGHUP])
def test_a_reload_changes_the_number_of_workers_and_drops_nobody(place: Place, number: signal.Signals) -> None:
    """While clients ask all the time: new connections come in, and one that is open is finished."""
    with place.running() as process:
        first = workers_of(process)
        assert len(first) == 1
        place.more = ", workers: 2"
        place.write()
        process.send_signal(number)
        while first & workers_of(process):
            assert place.status() == 302
        wait_for(lambda: len(workers_of(process)) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) == 0


def test_a_request_in_flight_is_answered_before_the_end(place: Place) -> None:
    with place.running() as process, closing(socket.create_connection(("127.0.0.1", place.port))) as link:
        head = f"GET {place.path_of()} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        link.sendall(f"{head}Connection: close\r\n\r\n".encode())
        process.send_signal(signal.SIGTERM)
        assert link.recv(65536).startswith(b"HTTP/1.1 302 Found\r\n")
        assert process.wait(8) == 0


def test_workers_end_with_a_parent_that_is_killed(place: Place) -> None:
    with place.running() as process:
        known = workers_of(process)
        process.kill()
        process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in known))


class Renewed:
    """Certificates of one authority after the other, put where the daemon reads them as certbot does."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.files = place.path / "live"
        self.files.mkdir()
        self.count = 0
        self.renew()
        place.more = f", certificate: {self.files}/server.pem, key: {self.files}/key.pem, timeout: 20s"
        place.write()

    def renew(self) -> None:
        self.count += 1
        made = tls.make(self.place.path / f"made{self.count}", host="127.0.0.1")
        self.expected = x509.load_pem_x509_certificate(_certificate(made.server)).serial_number
        self.place.tls = made.context()
        for name in ("key.pem", "server.pem"):
            new = self.files / "new"
            shutil.copy(made.server, new)
            new.chmod(0o600)
            new.replace(self.files / name)

    def serial(self) -> int:
        """Of the certificate that the server shows just now, whoever signed it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        plain = socket.create_connection(("127.0.0.1", self.place.port), timeout=5)
        with context.wrap_socket(plain, server_hostname="click.example.com") as link:
            der = link.getpeercert(binary_form=True)
        assert der
        return x509.load_der_x509_certificate(der).serial_number


def _certificate(path: Path) -> bytes:
    text = path.read_bytes()
    return text[text.index(b"-----BEGIN CERTIFICATE") :]


@pytest.fixture
def renewed(place: Place) -> Renewed:
    return Renewed(place)


def test_a_renewed_certificate_serves_without_a_restart_and_a_broken_one_never(renewed: Renewed) -> None:
    place = renewed.place
    with place.running() as process:
        known = workers_of(process)
        assert renewed.serial() == renewed.expected
        first = place.connect()
        first.request("GET", place.path_of(), headers={"Host": "127.0.0.1"})
        assert first.getresponse().read() == b""
        renewed.renew()
        wait_for(lambda: renewed.serial() == renewed.expected)
        first.request("GET", place.path_of(), headers={"Host": "127.0.0.1"})
        assert first.getresponse().status == 302  # the old connection lives on
        assert place.status() == 302
        (renewed.files / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n")
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            assert place.status() == 302
        assert renewed.serial() == renewed.expected
        renewed.renew()
        wait_for(lambda: renewed.serial() == renewed.expected)
        assert workers_of(process) == known


def test_old_tls_and_plain_http_get_nothing_and_cost_nobody_else_anything(renewed: Renewed) -> None:
    place = renewed.place
    with place.running():
        with socket.create_connection(("127.0.0.1", place.port), timeout=5) as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            with suppress(ConnectionResetError):
                assert b"HTTP" not in plain.recv(4096)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        link = socket.create_connection(("127.0.0.1", place.port), timeout=5)
        with closing(link), pytest.raises(OSError, match=r"(?i)alert|reset|protocol|eof"):
            old.wrap_socket(link)
        assert place.status() == 302


def test_a_handshake_that_does_not_go_on_is_cut_off_in_time(renewed: Renewed) -> None:
    place = renewed.place
    place.more = place.more.replace("timeout: 20s", "timeout: 1s")
    place.write()
    with place.running(), socket.create_connection(("127.0.0.1", place.port), timeout=10) as silent:
        began = time.monotonic()
        assert place.status() == 302
        assert silent.recv(10) == b""
        assert 0.5 < time.monotonic() - began < 5


def test_a_hit_by_tls_says_so(renewed: Renewed) -> None:
    place = renewed.place
    with place.running():
        place.status()
        assert b'"secure":true' in files(place)[-1].read_bytes()


def test_a_stop_does_not_wait_for_a_handshake(renewed: Renewed) -> None:
    place = renewed.place
    place.more = place.more.replace("timeout: 20s", "timeout: 60s")
    place.write()
    with place.running() as process, socket.create_connection(("127.0.0.1", place.port), timeout=10):
        assert place.status() == 302
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0
