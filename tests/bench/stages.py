"""Where a message's time goes: a worker's own callbacks called in this process, each step of the pipeline timed.

`python -m tests.bench --profile`. The wiring is that of `postmeter milter`, caught where it hands over to libmilter; so
what libmilter, pymilter and the kernel cost is not in here (`wire` has that), nor what threads cost each other. One
thread, so that cProfile sees everything. Processor time, not the clock's: another program's load does not show.
"""

from __future__ import annotations

import cProfile
import pstats
import socket
import statistics
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import thread_time
from typing import Any
from unittest import mock

import milter

from postmeter.cli import milter as milter_command
from postmeter.mail.draft import Draft
from postmeter.mail.reply import Reply
from postmeter.runtime.listener import Listener
from postmeter.runtime.prefork import Generation, Post
from postmeter.submission import server, session
from postmeter.submission.pipeline import Stage
from postmeter.submission.session import Desk, Session
from tests.bench.messages import Mail
from tests.bench.rows import SETTINGS
from tests.lab.product import Postmeter

WARM = 50
TOP = 20  # functions in each list of the profile
_BEFORE = ("envfrom", "envrcpt", "header", "eoh", "body")
MACROS = {"{daemon_name}": "ORIGINATING", "j": "mail.example.com"}


@dataclass(slots=True)
class Watch:
    """Seconds of this thread by name, for one message."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def take(self) -> dict[str, float]:
        taken, self.seconds = self.seconds, defaultdict(float)
        return dict(taken)

    def timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **named: Any) -> Any:
            start = thread_time()
            try:
                return call(*arguments, **named)
            finally:
                self.seconds[name] += thread_time() - start

        return measured


class Context:
    """What pymilter gives to a callback, with nothing behind it; edits are dropped."""

    def __init__(self, private: Session) -> None:
        self.private = private
        self.queue_id = ""
        self.reply = ""

    def getpriv(self) -> Session:
        return self.private

    def getsymval(self, name: str) -> str | None:
        return (self.queue_id or None) if name == "i" else MACROS.get(name)

    def setreply(self, *reply: str) -> None:
        self.reply = " ".join(reply)

    def addheader(self, *field: Any) -> None:
        pass

    def chgheader(self, *field: Any) -> None:
        pass

    def replacebody(self, body: bytes) -> None:
        pass


class Worker:
    """The callbacks of a worker, fed by hand."""

    def __init__(self, desk: Desk, watch: Watch) -> None:
        self._callbacks: dict[str, Callable[..., Any]] = {
            name: watch.timed(name, callback) for name, callback in server._callbacks(desk).items()
        }
        self._context = Context(Session(desk))
        self._call("connect", "client.example.com", socket.AF_INET, ("127.0.0.1", 40000))

    def message(self, mail: Mail, queue_id: str) -> None:
        """As Postfix does it: the queue id is there from RCPT on (D2)."""
        context = self._context
        context.queue_id = ""
        self._call("envfrom", b"<news@example.com>")
        context.queue_id = queue_id
        self._call("envrcpt", b"<reader@example.net>")
        for name, value in mail.fields():
            self._call("header", name, value)
        self._call("eoh")
        self._call("body", mail.body())
        if self._call("eom") != milter.ACCEPT:
            raise RuntimeError(f"refused: {context.reply}")
        self._call("abort")

    def _call(self, name: str, *arguments: Any) -> Any:
        return self._callbacks[name](self._context, *arguments)


class _Parent:
    """In place of prefork: its one worker is this process."""

    def __init__(self, listener: Listener, first: Generation, **_: Any) -> None:
        self._listener, self._first = listener, first

    def run(self) -> int:
        self._first.serve(Post(self._listener.socket, -1, lambda: None))
        return 0


@contextmanager
def opened_desk() -> Iterator[Desk]:
    """All that a worker of the benchmark's configuration works with, on a journal of its own."""
    caught: list[tuple[Desk, Any]] = []
    postmeter = Postmeter(SETTINGS)
    try:
        postmeter.key("example.com", "bench")
        postmeter.secrets()
        postmeter.write()
        hand_over = mock.patch.object(server, "serve", lambda desk, shift: caught.append((desk, shift)))
        with hand_over, mock.patch.object(milter_command, "Prefork", _Parent):
            milter_command.run(Namespace(config=postmeter.config))
        yield caught[0][0]
    finally:
        for _, shift in caught:
            shift.close()
        postmeter.close()


def profile(mails: list[Mail], *, count: int) -> Iterator[str]:
    """Lines for people: a table of microseconds a message, then the functions that cost most."""
    with opened_desk() as desk:
        for mail in mails:
            yield from _table(desk, mail, count)
            yield from _functions(desk, mail, count)


def _table(desk: Desk, mail: Mail, count: int) -> Iterator[str]:
    """The least is what a step costs undisturbed; the median is what it cost here."""
    inside = [*(stage.name for stage in desk.pipeline._stages), "edits", "settle"]
    taken = list(_messages(desk, mail, count))
    for each in taken:
        each["rest of eom"] = each["eom"] - sum(each[name] for name in inside)
        each["all"] = sum(each[name] for name in (*_BEFORE, "eom", "abort"))
    yield f"{mail.name}: microseconds a message in our callbacks, one thread"
    yield f"  {'':<14}{'least':>9}{'median':>9}"
    for name in (*_BEFORE, "eom", *inside, "rest of eom", "abort", "all"):
        each_took = [each[name] * 1e6 for each in taken]
        label = f"  {name}" if name in (*inside, "rest of eom") else name
        yield f"  {label:<14}{min(each_took):>9.1f}{statistics.median(each_took):>9.1f}"
    yield ""


def _messages(desk: Desk, mail: Mail, count: int) -> Iterator[dict[str, float]]:
    """Seconds by name, of each message."""
    watch = Watch()
    worker = Worker(_watched(desk, watch), watch)
    with mock.patch.object(session, "send", watch.timed("edits", session.send)):
        _feed(worker, mail, WARM, "warm")
        for nth in range(count):
            watch.take()
            worker.message(mail, f"table{nth}")
            yield watch.take()


def _watched(desk: Desk, watch: Watch) -> Desk:
    """The same desk with a stopwatch in every step."""
    stages = tuple(Stage(each.name, watch.timed(each.name, each.step), each.spare) for each in desk.pipeline._stages)
    pipeline = type(desk.pipeline)(stages)
    recorder = mock.Mock(wraps=desk.recorder)
    accepted: Callable[[Draft], Reply | None] = desk.recorder.accepted
    recorder.accepted = watch.timed("settle", accepted)
    recorder.took = desk.recorder.took
    return replace(desk, pipeline=pipeline, recorder=recorder)


def _functions(desk: Desk, mail: Mail, count: int) -> Iterator[str]:
    worker = Worker(desk, Watch())
    profiler = cProfile.Profile()
    profiler.enable()
    _feed(worker, mail, count, "profile")
    profiler.disable()
    stats: Any = pstats.Stats(profiler)
    yield f"{mail.name}: functions by cProfile, microseconds a message (it makes small ones look dearer)"
    yield f"  {'own':>9}{'with calls':>12}{'calls':>8}"
    known = [_Function(*place, *counts[1:4]) for place, counts in stats.stats.items()]
    yield from (each.line_of(count) for each in sorted(known, key=lambda each: -each.own)[:TOP])
    yield "  ours, by what they cost with all that they call:"
    ours = [each for each in known if "/postmeter/" in each.file]
    yield from (each.line_of(count) for each in sorted(ours, key=lambda each: -each.whole)[: 2 * TOP])
    yield ""


@dataclass(frozen=True, slots=True)
class _Function:
    """A row of pstats."""

    file: str
    line: int
    name: str
    calls: int
    own: float
    whole: float

    def line_of(self, messages: int) -> str:
        own, whole = (seconds / messages * 1e6 for seconds in (self.own, self.whole))
        where = "" if self.file == "~" else f"{'/'.join(Path(self.file).parts[-2:])}:{self.line} "
        return f"  {own:>9.1f}{whole:>12.1f}{self.calls / messages:>8.1f}  {where}{self.name}"


def _feed(worker: Worker, mail: Mail, count: int, mark: str) -> None:
    for nth in range(count):
        worker.message(mail, f"{mark}{nth}")
