"""One private Postfix with a service for each row, and smtp-source(1) to send through them in turn.

Knows nothing of what the figures mean. Every smtpd(8) session is one of ours (ORIGINATING), so that the client address
is the sender. Messages go to discard(8).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench import cpu
from tests.bench.messages import Mail
from tests.bench.rows import Row, Started
from tests.lab.folder import give
from tests.lab.lab import attach
from tests.lab.postfix import Postfix, Service

MEMORY = Path("/dev/shm")
_DISK = Path("/var/tmp")
_WARM = 40  # messages before the first that count: processes are started, caches filled
_DRAIN = 60.0  # seconds until the queue must be empty after a run

# in_flow_delay is Postfix's brake on senders that outrun delivery; max_use and max_idle keep smtpd processes alive.
_MAIN = {"in_flow_delay": "0", "max_use": "100000", "max_idle": "600s", "smtpd_sasl_auth_enable": "no"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One row, one message, one round. `seconds` until the last message was accepted; `cpu` the milter's, likewise."""

    row: str
    mail: str
    round: int
    count: int
    seconds: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu / self.count * 1000


@dataclass(frozen=True, slots=True)
class Load:
    """`keep` sends all of a session's messages over one connection; else each has its own."""

    messages: int
    sessions: int
    keep: bool


class Bench:
    """Use as a context manager: all milters and Postfix run from beginning to end, idle while it is not their turn."""

    def __init__(self, rows: Sequence[Row], load: Load, *, disk: bool) -> None:
        self.in_memory = not disk and os.access(MEMORY, os.W_OK)
        self._rows, self._load = rows, load
        self._stack = ExitStack()
        self.started: dict[str, Started] = {}
        self.sent: dict[tuple[str, str], int] = {}

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            for row in self._rows:
                self.started[row.name] = stack.enter_context(row.start(_folder(stack, _DISK)))
            queue = _folder(stack, MEMORY if self.in_memory else _DISK)
            postfix = Postfix(*self._services(), sink="discard:", settings=_MAIN, folder=queue)
            self.postfix = stack.enter_context(postfix)
            self._files = _folder(stack, _DISK)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def sample(self, row: str, mail: Mail, *, nth: int) -> Sample:
        """Send the load once; the queue is empty before and after."""
        if nth == 0:
            self._send(row, mail, _WARM)
            self._drain()
        pids = self.started[row].pids()
        before, start = cpu.seconds(pids), time.perf_counter()
        self._send(row, mail, self._load.messages)
        seconds, spent = time.perf_counter() - start, cpu.seconds(pids) - before
        self._drain()
        return Sample(row, mail.name, nth, self._load.messages, seconds, spent)

    def delivered(self) -> int:
        """`sent` lines in Postfix's log, when all of them have been written."""
        wanted, until = sum(self.sent.values()), time.monotonic() + 10
        while (found := self.postfix.log().count(" status=sent ")) < wanted and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _services(self) -> Iterator[Service]:
        for name, started in self.started.items():
            milter = {"smtpd_milters": attach(started.address)} if started.address else {}
            yield Service(name=name, settings={"milter_macro_daemon_name": "ORIGINATING", **milter})

    def _send(self, row: str, mail: Mail, count: int) -> None:
        file = self._files / mail.name
        file.write_bytes(mail.raw.replace(b"\r\n", b"\n"))
        load = self._load
        done = self.postfix.run(
            "smtp-source", "-s", str(load.sessions), "-m", str(count), *(["-d"] if load.keep else []),
            "-f", "news@example.com", "-t", "reader@example.net", "-M", "client.example.com", "-F", str(file),
            f"inet:127.0.0.1:{self.postfix.ports[row]}",
        )  # fmt: skip
        if done.returncode != 0 or done.stderr:
            raise RuntimeError(f"smtp-source to {row}: {done.stderr.decode()}\n{self.postfix.log()[-2000:]}")
        self.sent[row, mail.name] = self.sent.get((row, mail.name), 0) + count

    def _drain(self) -> None:
        until = time.monotonic() + _DRAIN
        folders = [self.postfix.queue / name for name in ("incoming", "active")]
        while any(next(os.scandir(folder), None) for folder in folders):
            if time.monotonic() > until:
                raise RuntimeError(f"the queue is not empty {_DRAIN:g} s after a run:\n{self.postfix.log()[-2000:]}")
            time.sleep(0.02)


def _folder(stack: ExitStack, place: Path) -> Path:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=place)))
    return give(folder, "root")
