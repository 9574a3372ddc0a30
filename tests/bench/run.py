"""One private Postfix with a service for each row, and smtp-source(1) to send through them in turn.

Knows nothing of what the figures mean. The client address is the sender: every smtpd(8) session is one of ours
(ORIGINATING) but those of rows for mail that is not. Messages go to discard(8); before it counts, and after, each row
shows at a real next hop what it does to them.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench import cpu, proof, wire
from tests.bench.messages import Mail
from tests.bench.parts import Part, Turn
from tests.bench.rows import Row, Started
from tests.lab.client import Client
from tests.lab.folder import give
from tests.lab.lab import attach
from tests.lab.postfix import Postfix, Service
from tests.lab.sink import Sink

MEMORY = Path("/dev/shm")
_DISK = Path("/var/tmp")
_WARM = 40  # messages before the first that count: processes are started, caches filled
_DRAIN = 60.0  # seconds until the queue must be empty after a run
SENDER, READER = "news@example.com", "reader@example.net"

# in_flow_delay is Postfix's brake on senders that outrun delivery; max_use and max_idle keep smtpd processes alive.
_MAIN = {
    "in_flow_delay": "0", "max_use": "100000", "max_idle": "600s", "smtpd_sasl_auth_enable": "no",
    "default_process_limit": "120",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn of one round. `seconds` until the last message was accepted; `cpu` the milter's, likewise.

    `busiest` is the part of it that its busiest process had.
    """

    part: str
    row: str
    mail: str
    sessions: int
    round: int
    count: int
    seconds: float
    cpu: float
    busiest: float = 1.0

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    @property
    def cpu_ms(self) -> float:
        return self.cpu / self.count * 1000


class Bench:
    """Use as a context manager: all milters and Postfix run from beginning to end, idle while it is not their turn."""

    def __init__(self, part: Part, *, messages: int, keep: bool = True, disk: bool = False) -> None:
        """`keep` sends all of a session's messages over one connection; else each has its own."""
        self.in_memory = not (disk or part.disk) and os.access(MEMORY, os.W_OK)
        self.part, self._messages, self._keep = part, messages, keep
        """Without the rows that do not start: `failed`, with the reason."""
        self.failed: dict[str, str] = {}
        self._stack = ExitStack()
        self.started: dict[str, Started] = {}
        self.sent: dict[tuple[str, str], int] = {}
        """By row and message."""
        self.posted = 0
        """Those of them that went through Postfix."""

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            for row in self.part.rows:
                self._start(row, stack)
            self.part = self.part.without(self.failed)
            self._sink = stack.enter_context(Sink())
            queue = _folder(stack, MEMORY if self.in_memory else _DISK)
            hop = {"transport_maps": f"inline:{{ {{ {proof.DOMAIN} = {self._sink.transport} }} }}"}
            postfix = Postfix(*self._services(), sink="discard:", settings={**_MAIN, **hop}, folder=queue)
            self.postfix = stack.enter_context(postfix)
            self._files = _folder(stack, _DISK)
            self._books = {name: cpu.seconds(started.books()) for name, started in self.started.items()}
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def _start(self, row: Row, stack: ExitStack) -> None:
        try:
            self.started[row.name] = stack.enter_context(row.start(_folder(stack, _DISK)))
        except RuntimeError as error:
            self.failed[row.name] = str(error)

    def prepare(self, turn: Turn) -> None:
        """Processes are started, caches filled, and a message has shown that the row does what it is said to do."""
        self._give(turn, max(_WARM, turn.sessions))
        self.prove(turn)
        self._drain()

    def prove(self, turn: Turn) -> None:
        """One message through the row to a next hop, looked at there. Raises `RuntimeError`."""
        self._sink.clear()
        with Client(self.port(turn.row)) as client:
            client.send(turn.mail.raw, mail_from=SENDER, rcpt_to=[proof.READER])
        self.note(turn, 1)
        [delivery] = self._sink.wait()
        if wrong := proof.wrong(turn, delivery, self.started[turn.row.name].key):
            raise RuntimeError(f"{turn.row.name}, {turn.mail.name}: {wrong}")

    def sample(self, turn: Turn, *, nth: int) -> Sample:
        """Send the load once; the queue is empty before and after."""
        count = self.count(turn.row)
        started = self.started[turn.row.name]
        with proof.quota(started, count):
            before, start = cpu.each(started.pids()), time.perf_counter()
            count = self._give(turn, count)
            seconds, spent = time.perf_counter() - start, cpu.since(before)
        self._drain()
        total = sum(spent)
        busiest = max(spent) / total if total else 1.0
        return Sample(self.part.name, turn.row.name, turn.mail.name, turn.sessions, nth, count, seconds, total, busiest)

    def count(self, row: Row) -> int:
        """Messages of a turn."""
        return max(1, round(self._messages * row.share))

    def port(self, row: Row) -> int:
        return self.postfix.ports[row.name]

    def note(self, turn: Turn, count: int) -> None:
        """So many more have been sent, and accepted."""
        self._count(turn, count)
        self.posted += count

    def _count(self, turn: Turn, count: int) -> None:
        self.sent[turn.row.name, turn.mail.name] = self.sent.get((turn.row.name, turn.mail.name), 0) + count

    def books(self, row: Row) -> float:
        """CPU seconds that our books have had since the beginning, idle or not."""
        return cpu.seconds(self.started[row.name].books()) - self._books[row.name]

    def delivered(self) -> int:
        """`sent` lines in Postfix's log, when all of them have been written."""
        wanted, until = self.posted, time.monotonic() + 10
        while (found := self.postfix.log().count(" status=sent ")) < wanted and time.monotonic() < until:
            time.sleep(0.1)
        return found

    def _services(self) -> Iterator[Service]:
        for row in self.part.rows:
            started = self.started[row.name]
            settings = {} if row.foreign else {"milter_macro_daemon_name": "ORIGINATING"}
            if started.address:
                settings["smtpd_milters"] = attach(started.address)
            if started.policy:
                settings["smtpd_recipient_restrictions"] = f"check_policy_service {started.policy}"
            yield Service(name=row.name, settings=settings)

    def _give(self, turn: Turn, count: int) -> int:
        """By Postfix or straight to the milter; how many, which every session has the same number of there."""
        if not self.part.bare:
            self._send(turn, count)
            return count
        address = Path(self.started[turn.row.name].address.removeprefix("unix:"))
        each = max(1, count // turn.sessions)
        given = wire.run(address, turn.mail, clients=turn.sessions, each=each, signs=turn.row.signs)
        self._count(turn, given)
        return given

    def _send(self, turn: Turn, count: int) -> None:
        file = self._file(turn.mail)
        done = self.postfix.run(
            "smtp-source", "-s", str(turn.sessions), "-m", str(count), *(["-d"] if self._keep else []),
            "-f", SENDER, "-t", READER, "-M", "client.example.com", "-F", str(file),
            f"inet:127.0.0.1:{self.port(turn.row)}",
        )  # fmt: skip
        if done.returncode != 0 or done.stderr:
            said = f"{done.stderr.decode()}\n{self.postfix.log()[-2000:]}"
            raise RuntimeError(f"smtp-source to {turn.row.name}: {said}")
        self.note(turn, count)

    def _file(self, mail: Mail) -> Path:
        file = self._files / mail.name
        if not file.exists():
            file.write_bytes(mail.raw.replace(b"\r\n", b"\n"))
        return file

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
