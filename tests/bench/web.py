"""What a redirect costs: requests a second, and how long the slowest hundredth waits, at 1, 100 and 1,000 connections.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.web [--seconds 5] [--only ROW]

wrk asks for one link over and over on loopback; the rows take turns, three rounds, and the medians are shown. nginx
answers a fixed 302 from its configuration: it checks and writes down nothing, which is as fast as this machine gets.
Ours check a token and append every hit to the spool, on a disk. All share the processors with wrk; on a machine that
does other things too look at the processor time that the server takes for a request.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from postmeter.token import Mint
from tests.bench import cpu
from tests.lab.folder import CLONE

NGINX = CLONE / "build" / "peers" / "nginx" / "usr" / "sbin" / "nginx"
CONNECTIONS = (1, 100, 1000)
ROUNDS = 3
HOST = "click.example.com"
TARGET = "https://shop.example/offer?utm_source=newsletter&id=4711#top"
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_SECRET = bytes(range(32))
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True, slots=True)
class Speed:
    """`slowest`: milliseconds that 99 of 100 answers stay below; `cpu`: the server's microseconds for one."""

    rate: float
    slowest: float
    cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Row:
    """`start` gets an empty folder."""

    name: str
    about: str
    start: Callable[[Path], AbstractContextManager[Started]]
    missing: Callable[[], str] = str


def _ours(workers: int, *, source: Path) -> Callable[[Path], AbstractContextManager[Started]]:
    @contextmanager
    def start(folder: Path) -> Iterator[Started]:
        port = _free_port()
        file, secrets = folder / "postmeter.yaml", folder / "secrets"
        secrets.write_text(_SECRET.hex())
        secrets.chmod(0o600)
        workers_key = f", workers: {workers}" if workers > 1 else ""
        file.write_text(
            f'tracking: {{url: "https://{HOST}", secrets: {secrets}}}\n'
            f'web: {{listen: "127.0.0.1:{port}"{workers_key}}}\njournal: {{path: {folder}/journal.db}}\n'
        )
        command = [sys.executable, "-P", "-m", "postmeter", "web", "-c", str(file)]
        with _running(command, port, folder, env={**os.environ, "PYTHONPATH": str(source)}) as pid:
            yield Started(port, pid)

    return start


@contextmanager
def _nginx(folder: Path) -> Iterator[Started]:
    port = _free_port()
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;\n"
        "events { worker_connections 4096; }\n"
        f"http {{ access_log off; {_nowhere(folder)}"
        f"keepalive_requests 100000000; server {{ listen 127.0.0.1:{port} backlog=1024;"
        f" location / {{ return 302 {TARGET}; }} }} }}\n"
    )
    command = [str(NGINX), "-c", str(file), "-e", str(folder / "error")]
    with _running(command, port, folder, env=dict(os.environ)) as pid:
        yield Started(port, pid)


def _nowhere(folder: Path) -> str:
    """Where nginx would keep what it never gets here; its own places are for root."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    return "".join(f"{kind}_temp_path {folder}/{kind}; " for kind in kinds)


ROWS = (
    Row(
        "nginx",
        "a fixed 302, one worker",
        _nginx,
        lambda: "" if NGINX.exists() else "not unpacked: sh tests/lab/install.sh bench",
    ),
    Row("web", "postmeter web, one worker, every hit in the spool", _ours(1, source=CLONE / "milter")),
    Row("web2", "postmeter web, two workers", _ours(2, source=CLONE / "milter")),
)


def main(arguments: Sequence[str] | None = None) -> None:
    args = _arguments(arguments)
    if shutil.which("wrk") is None:
        print("wrk is not there: sh tests/lab/install.sh bench")
        return
    rows = [row for row in ROWS if not args.only or row.name in args.only]
    if args.before:
        rows.append(Row("before", f"postmeter web of {args.before}", _ours(1, source=args.before)))
    ready = [row for row in rows if not row.missing()]
    for row in rows:
        if row not in ready:
            print(f"{row.name}: left out, {row.missing()}")
    with ExitStack() as stack:
        servers = {row.name: stack.enter_context(_started(row, args.folder)) for row in ready}
        show(ready, measure(servers, seconds=args.seconds))


def measure(servers: dict[str, Started], *, seconds: float) -> dict[tuple[str, int], list[Speed]]:
    """By row and number of connections: one after the other in each round, so that all meet the same weather."""
    found: dict[tuple[str, int], list[Speed]] = {}
    for connections in CONNECTIONS:
        for _ in range(ROUNDS):
            for name, server in servers.items():
                found.setdefault((name, connections), []).append(_speed(server, connections, seconds))
    return found


def _speed(server: Started, connections: int, seconds: float) -> Speed:
    pids = list(cpu.tree(server.pid))
    before = cpu.seconds(pids)
    speed = wrk(server.port, connections, seconds=seconds)
    return replace(speed, cpu=(cpu.seconds(pids) - before) / (speed.rate * seconds) * 1_000_000)


def wrk(port: int, connections: int, *, seconds: float) -> Speed:
    url = Mint([_SECRET]).link_url(f"https://{HOST}", reference=b"referenc", link=7, target=TARGET)
    path = url.removeprefix(f"https://{HOST}")
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "--timeout", "10s", "-H", f"Host: {HOST}",
         "-H", f"User-Agent: {AGENT}", "-H", "Accept: text/html", "-H", "Sec-Fetch-Mode: navigate",
         "-H", "Sec-Fetch-Dest: document", "-H", "Sec-Fetch-User: ?1", f"http://127.0.0.1:{port}{path}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return read(done.stdout)


def read(text: str) -> Speed:
    """What wrk prints; answers that are errors, or did not come, make the figures worthless."""
    if "Socket errors" in text or "Non-2xx or 3xx" in text:
        raise RuntimeError(text)
    slowest = re.search(r"^ +99% +([0-9.]+)(us|ms|s) *$", text, re.MULTILINE)
    rate = re.search(r"^Requests/sec: +([0-9.]+)$", text, re.MULTILINE)
    assert slowest, text
    assert rate, text
    return Speed(float(rate[1]), float(slowest[1]) * _UNITS[slowest[2]])


def show(rows: Sequence[Row], found: dict[tuple[str, int], list[Speed]]) -> None:
    print(f"\n{'':8}" + "".join(f"{connections:>18} conn." for connections in CONNECTIONS))
    for row in rows:
        cells = []
        for connections in CONNECTIONS:
            speeds = found[row.name, connections]
            rate = statistics.median(speed.rate for speed in speeds)
            slowest = statistics.median(speed.slowest for speed in speeds)
            spent = statistics.median(speed.cpu for speed in speeds)
            cells.append(f"{rate:>8,.0f}/s {slowest:>6.1f} ms {spent:>3.0f} µs")
        print(f"{row.name:8}" + " ".join(cells) + f"   {row.about}")
    _ratios(found)


def _ratios(found: dict[tuple[str, int], list[Speed]]) -> None:
    for name in ("web", "web2", "before"):
        if (name, 1) in found and ("nginx", 1) in found:
            shares = [_median(found[name, at]) / _median(found["nginx", at]) for at in CONNECTIONS]
            print(f"{name} : nginx = {', '.join(f'{share:.2f}' for share in shares)}")


def _median(speeds: Sequence[Speed]) -> float:
    return statistics.median(speed.rate for speed in speeds)


@contextmanager
def _started(row: Row, place: Path | None) -> Iterator[Started]:
    with (
        tempfile.TemporaryDirectory(prefix=f"postmeter-{row.name}-", dir=place) as folder,
        row.start(Path(folder)) as found,
    ):
        yield found


@contextmanager
def _running(command: Sequence[str], port: int, folder: Path, *, env: dict[str, str]) -> Iterator[int]:
    log = folder / "said"
    with log.open("wb") as said, subprocess.Popen(command, env=env, cwd="/", stdout=said, stderr=said) as process:
        try:
            until = time.monotonic() + 20
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{command[0]} did not come up:\n{log.read_text()}")
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()
            process.wait(20)


def _answers(port: int) -> bool:
    with closing(socket.socket()) as link:
        return link.connect_ex(("127.0.0.1", port)) == 0


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as found:
        return int(found.getsockname()[1])


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.web")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS])
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="a disk, for the spool")
    parser.add_argument("--before", type=Path, help="the milter directory of another version, to compare with")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
