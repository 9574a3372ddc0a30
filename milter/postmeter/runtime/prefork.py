"""A parent of one thread that owns the listening socket, and generations of forked workers that share it.

The parent never serves. A worker never changes its configuration: a reload starts a new generation, and the old one
sees its sessions to their end, as it does when the parent leaves its place to the next one. A worker drains when the
pipe to its parent closes, which also happens when the parent dies. Knows nothing of libmilter: what a worker does is a
function it is given. D22, D23, D39; fork(2), waitpid(2).
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import NoReturn

from postmeter.runtime.listener import Listener
from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.notify import Notifier, watchdog_interval
from postmeter.runtime.signals import CHILD, HAND_OVER, RELOAD, STOP, Signals

log = logging.getLogger(__name__)
once = OnceAMinute(log)

GRACE = 5.0  # seconds that a worker may stay beyond its drain before it is killed
SICK = 1.0  # a worker that lives shorter than this is not replaced at once
SERVES = b"r"
# What a worker reads from its pipe; at its end it drains.
RETIRED = b"r"  # others serve now: take no new session, and stay as long as `linger` for those there are
LEFT_ALONE = b"a"  # the same, and nobody will write again


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker gets: the shared listener, the pipe whose end-of-file says drain, and what it tells its parent."""

    listener: socket.socket
    control: int
    ready: Callable[[], None]
    """It serves."""
    left: Callable[[], None] = lambda: None
    """It accepts no more."""


@dataclass(frozen=True, slots=True)
class Generation:
    """Workers of one configuration. `serve` runs in the worker and does not return in order (a return is an end)."""

    serve: Callable[[Post], None]
    workers: int
    drain: float
    """Seconds that a worker may take to end when all is to stop."""
    linger: float = 0.0
    """The same when others serve in its place; no less than `drain`."""


@dataclass(slots=True)
class Worker:
    pid: int
    control: int
    """Our end of its pipe; -1 once it is closed."""
    says: int
    """Read end of a pipe: a byte when it serves, end-of-file when it accepts no more."""
    generation: Generation
    started: float = field(default_factory=monotonic)
    deadline: float = float("inf")
    serves: bool = False
    accepts: bool = True
    leaves: bool = False
    """Told to, in one way or another."""

    def listen(self) -> None:
        """Take in what it has said since."""
        with contextlib.suppress(BlockingIOError):
            while said := os.read(self.says, 1):
                self.serves = said == SERVES
            self.accepts = False

    @property
    def settled(self) -> bool:
        """Serves, or accepts no more, whichever it was told."""
        return not self.accepts if self.leaves else self.serves


class Prefork:
    """Runs one generation after the other until a signal ends it."""

    def __init__(
        self,
        listener: Listener,
        first: Generation,
        *,
        reload: Callable[[], Generation | None],
        beat: Callable[[], None],
        reload_by: frozenset[signal.Signals] = frozenset({RELOAD}),
    ) -> None:
        """`reload` gives the next generation, or None to keep the present one; `beat` runs about once a second.

        `reload_by`: the signals that ask for it; one of them may be a signal that would stop otherwise.
        """
        self._listener = listener
        self._generation = first
        self._former: Generation | None = None
        """Serves on until the workers of a reload do."""
        self._again = False
        """Those differ by the socket alone: there is nothing to fall back to, whoever fails is tried again."""
        self._reload = reload
        self._beat = beat
        self._reload_by = reload_by
        self._notifier = Notifier.from_environment()
        self._watched = watchdog_interval(os.environ, os.getpid()) is not None
        self._signals = Signals()
        self._workers: dict[int, Worker] = {}
        self._stopping = False
        self._leaving = False
        """The next parent comes; who still works here needs none."""
        self._begun = False
        """The first generation has served."""
        self._announced = False
        """Said to be ready, since the start or the last reload."""
        self._failed = False
        self._due: list[float] = []

    def run(self) -> int:
        """Until a stop signal and the last worker's end; 1 when the first workers could not even start."""
        with self._signals as signals:
            self._fill()
            while not self._leaving and (self._workers or not self._stopping):
                self._handle(signals.wait(1.0 if self._announced else 0.05))
                self._announce()
                self._relieve()
                self._replace_the_dead()
                self._kill_the_late()
                self._listen_again()
                self._beat()
                if self._watched:
                    self._notifier.watchdog()
        return 1 if self._failed else 0

    def _handle(self, received: signal.Signals | None) -> None:
        if received == CHILD:
            for pid, status in _reap():
                self._bury(pid, failed=os.WIFEXITED(status))
        elif received in self._reload_by:
            if not self._stopping:
                self._turn_over()
        elif received == HAND_OVER:
            if not self._stopping:
                self._hand_over()
        elif received in STOP:
            self._stop(at_once=self._stopping and received == signal.SIGINT)

    def _fill(self) -> None:
        for _ in range(self._generation.workers):
            self._hire()

    def _hire(self) -> None:
        """One more; where the system has no room for it just now, it is tried again in a second (fork(2), pipe(2))."""
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            pid = os.fork()
        except OSError as error:
            for fd in pipes:
                os.close(fd)
            once.log(logging.ERROR, "hire", "no new worker just now, trying again: %s", error)
            self._due.append(monotonic() + SICK)
            return
        theirs, ours, says, said = pipes
        generation = self._generation
        if pid == 0:
            for fd in (ours, says, *self._ends()):
                os.close(fd)
            self._signals.release()
            _work(generation, _post(self._listener.socket, theirs, said))
        os.close(theirs)
        os.close(said)
        os.set_blocking(says, False)
        self._workers[pid] = Worker(pid, ours, says, generation)

    def _ends(self) -> Iterator[int]:
        """Our ends of other workers' pipes: a worker that kept one open would keep its siblings from draining."""
        for worker in self._workers.values():
            yield from (fd for fd in (worker.control, worker.says) if fd >= 0)

    def _turn_over(self) -> None:
        """To the next generation. It is announced when nothing new can reach the old one any more."""
        self._notifier.reloading()
        self._announced = False
        try:
            following = self._reload()
        except Exception:  # boundary: mail goes on, whatever a reload does
            log.exception("not reloaded, the old configuration goes on: a bug")
            following = None
        if following is not None:
            self._follow(following)

    def _follow(self, following: Generation, *, again: bool = False) -> None:
        """The former ones of who listens again have a socket that nobody finds: nothing falls back to them."""
        former = None if self._again else self._former
        self._former, self._generation, self._again = former or self._generation, following, again
        self._fill()

    def _listen_again(self) -> None:
        """Of a socket whose name somebody removed: new workers get one that is found, old ones keep their sessions."""
        old = self._listener
        if self._stopping or not self._announced or old.again is None or not old.lost():
            return
        self._notifier.discard(old.kept)  # first, for systemd keeps one and no second
        try:
            self._listener = old.again()
        except OSError as error:
            once.log(logging.ERROR, "gone", "nobody can connect, the socket is gone: %s", error)
            return
        log.warning("%s was removed, and is there again", old.path)
        old.socket.close()
        self._announced = False
        self._follow(replace(self._generation), again=True)

    def _retire_the_former(self) -> None:
        """Once every new worker serves, those of older generations leave."""
        new = [worker for worker in self._workers.values() if worker.generation is self._generation]
        if self._former is None or self._due or not all(worker.serves for worker in new):
            return
        old = [worker for worker in self._workers.values() if worker not in new and not worker.leaves]
        for worker in old:
            _retire(worker, RETIRED)
        self._former = None
        what, self._again = "listening again" if self._again else "reloaded", False
        log.info("%s: %d new workers, %d finish their sessions", what, len(new), len(old))

    def _fall_back(self, former: Generation) -> None:
        """New workers that cannot start change nothing."""
        log.error("not reloaded, the old configuration goes on: a new worker could not start")
        for worker in self._workers.values():
            if worker.generation is not former:
                _drain(worker)
        self._generation, self._former = former, None
        self._due = [monotonic()] * self._missing()

    def _hand_over(self) -> None:
        """Connections wait in the socket that systemd keeps; workers end by themselves when their sessions are over."""
        if not self._notifier or not self._listener.kept:
            log.error("not handed over: nobody would keep the socket")
            return
        self._notifier.stopping("makes room for the next one")
        self._stopping = self._leaving = True
        log.info("the next one takes over; %d workers finish their sessions", len(self._workers))
        for worker in self._workers.values():
            _retire(worker, LEFT_ALONE)
        until = monotonic() + 1.0  # who connects from here on is to meet the next ones
        for worker in self._workers.values():
            select.select([worker.says], [], [], max(0.0, until - monotonic()))

    def _stop(self, *, at_once: bool) -> None:
        if not self._stopping:
            self._notifier.stopping()
            if self._listener.kept:
                self._notifier.discard(self._listener.kept)
                self._notifier.extend(self._generation.drain + 2 * GRACE)
            self._stopping = True
            self._listener.forget()
        for worker in self._workers.values():
            _drain(worker)
            if at_once:
                worker.deadline = 0.0

    def _announce(self) -> None:
        """Tell systemd once every worker serves, or accepts no more if it is of an older generation."""
        if self._announced or self._stopping:
            return
        for worker in self._workers.values():
            worker.listen()
        self._retire_the_former()
        if self._former is None and not self._due and all(worker.settled for worker in self._workers.values()):
            self._begun = self._announced = True
            log.info("%d workers ready", self._generation.workers)
            self._notifier.ready(f"{self._generation.workers} workers")

    def _bury(self, pid: int, *, failed: bool) -> None:
        """A worker has ended: replace it, unless it was told to, or could not even start (`failed`, by no signal)."""
        worker = self._workers.pop(pid, None)
        if worker is None:
            return
        worker.listen()
        for fd in (worker.control, worker.says):
            if fd >= 0:
                os.close(fd)
        if worker.leaves or self._stopping:
            return
        if failed and not worker.serves and not self._again and (self._former or not self._begun):
            self._give_up()
            return
        once.log(logging.WARNING, _ended_of(worker.generation), "worker %d ended; replacing it", pid)
        sick = monotonic() - worker.started < SICK
        self._due.append(monotonic() + (SICK if sick else 0.0))

    def _relieve(self) -> None:
        """A living worker that was not told to leave, and accepts no more, cannot go on: another takes its place."""
        for worker in self._workers.values():
            worker.listen()
            if worker.accepts or worker.leaves or self._stopping or _ended(worker.pid):
                continue
            log.warning("worker %d can go on no more; replacing it", worker.pid)
            _retire(worker, RETIRED)
            self._due.append(monotonic())

    def _give_up(self) -> None:
        """What could not even start is not tried again: not the reload, or not the daemon."""
        if self._former is not None:
            self._fall_back(self._former)
            return
        log.error("a worker ended before it was ready; giving up")
        self._failed = True
        self._stop(at_once=False)

    def _replace_the_dead(self) -> None:
        now = monotonic()
        ripe = [due for due in self._due if due <= now]
        self._due = [due for due in self._due if due > now]
        for _ in ripe[: self._missing()]:
            self._hire()

    def _missing(self) -> int:
        """Of another generation than the present one nobody is replaced."""
        there = sum(worker.generation is self._generation and not worker.leaves for worker in self._workers.values())
        return 0 if self._stopping else max(0, self._generation.workers - there)

    def _kill_the_late(self) -> None:
        for worker in self._workers.values():
            if monotonic() > worker.deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)


def _reap() -> Iterator[tuple[int, int]]:
    """Children that have ended, with their wait status; one SIGCHLD may stand for several."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


def _ended(pid: int) -> bool:
    """Whether a child has, without taking its status away from `_reap`."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _work(generation: Generation, post: Post) -> NoReturn:
    """In the child: a process group of its own, so that a terminal's Ctrl-C reaches the parent alone."""
    code = 1
    try:
        os.setpgid(0, 0)
        generation.serve(post)
        code = 0
    except BaseException:  # nothing may return into the parent's loop
        once.log(logging.ERROR, _ended_of(generation), "worker failed", exc_info=True)
    finally:
        os._exit(code)


def _ended_of(generation: Generation) -> str:
    """By which it is said once a minute, also why: a worker begins with what its parent has said of those before it."""
    return f"ended {id(generation)}"


def _retire(worker: Worker, word: bytes) -> None:
    """Its pipe stays open: a stop may still come."""
    if worker.control >= 0:
        with contextlib.suppress(BrokenPipeError):  # it has just ended
            os.write(worker.control, word)
        worker.leaves = True
        worker.deadline = monotonic() + max(worker.generation.linger, worker.generation.drain) + GRACE


def _drain(worker: Worker) -> None:
    if worker.control >= 0:
        os.close(worker.control)
        worker.control, worker.leaves = -1, True
        worker.deadline = min(worker.deadline, monotonic() + worker.generation.drain + GRACE)


def _post(listener: socket.socket, control: int, said: int) -> Post:
    return Post(listener, control, ready=lambda: _say(said), left=lambda: os.close(said))


def _say(fd: int) -> None:
    os.write(fd, SERVES)
