"""Programs that run as children of one parent: started, started again when they die, stopped in order.

Knows nothing of what they are. Each gets a process group of its own: Ctrl-C on a terminal reaches a whole group at
once, and only the parent knows in which order to stop. None outlives a killed parent (PR_SET_PDEATHSIG in prctl(2)).
Each says when it is ready, as it would to systemd (sd_notify(3)), so that the parent can say it of all. Exit code 78 is
EX_CONFIG of sysexits.h: whoever ends with it would do so again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from postmeter.runtime.notify import Notifier
from postmeter.runtime.signals import RELOAD, STOP, Signals

log = logging.getLogger(__name__)

HOPELESS = 78  # EX_CONFIG
_FIRST, _LONGEST = 1.0, 60.0  # seconds before a dead child is started again: doubled each time
_HEALTHY = 60.0  # seconds of life after which the delay begins anew
_SETTLED = 5.0  # seconds of silence after which a child counts as ready
_TICK, _SOON = 1.0, 0.05  # seconds between two looks, and while we wait for somebody to be ready
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, slots=True)
class Program:
    """`patience` is how many seconds it may take to stop before it is killed."""

    name: str
    command: tuple[str, ...]
    patience: float


@dataclass(slots=True)
class _Child:
    program: Program
    delay: float
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    notices: socket.socket | None = None
    ready: bool = False
    asked: float = 0.0
    """When it was last given a reason to say that it is ready."""


class Children:
    """Keeps the programs running until a signal stops them, first the first, then all others together."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        environment: Mapping[str, str],
        signals: Signals,
        notifier: Notifier,
        delay: float = _FIRST,
        more: Callable[[], Sequence[Program]] = tuple,
    ) -> None:
        """`notifier` is told when all are ready, and ready again after a reload. `more` are the programs wanted then:
        those that are new start, none is stopped."""
        self._children = [_Child(program, delay) for program in programs]
        self._environment, self._signals, self._delay = dict(environment), signals, delay
        self._notifier = notifier
        self._more = more
        self._announced = False
        self._libc = ctypes.CDLL(None)
        self._code: int | None = None
        """How we shall end; None as long as we shall not."""

    def run(self) -> int:
        """0 after a stop signal, 78 when a child cannot run with this configuration."""
        while self._code is None:
            self._start_due()
            self._handle(self._signals.wait(self._pause()))
            self._look()
            self._announce()
        self._stop(self._children[:1])
        self._stop(self._children[1:])
        return self._code

    def _start_due(self) -> None:
        for child in self._children:
            if child.process is None and child.due <= monotonic():
                self._start(child)

    def _start(self, child: _Child) -> None:
        """By `preexec_fn`, safe in a parent of one thread: signals unblocked, and an end when we end."""
        program = child.program
        child.started = monotonic()
        name = _listen(child)
        try:
            child.process = subprocess.Popen(
                program.command,
                env={**self._environment, "NOTIFY_SOCKET": name},
                stdin=subprocess.DEVNULL,
                process_group=0,
                preexec_fn=self._prepare,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.error("%s cannot be started: %s", program.name, error)
            self._postpone(child)

    def _prepare(self) -> None:
        self._signals.release()
        self._libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def _handle(self, received: signal.Signals | None) -> None:
        if received in STOP:
            self._code = 0
        elif received == RELOAD:
            self._reload()

    def _reload(self) -> None:
        self._notifier.reloading()
        for child in self._children:
            child.ready, child.asked = False, monotonic()
        self._announced = False
        self._send(self._children, RELOAD)
        known = {child.program.name for child in self._children}
        self._children += [_Child(program, self._delay) for program in self._more() if program.name not in known]

    def _look(self) -> None:
        """Notice who died."""
        for child in self._children:
            code = None if child.process is None else child.process.poll()
            if code is None:
                continue
            child.process = None
            if code == HOPELESS:
                log.error("%s cannot run with this configuration", child.program.name)
                self._code = HOPELESS
            elif self._code is None:
                self._postpone(child)
                log.error("%s ended %s; again in %.1f s", child.program.name, _how(code), child.due - monotonic())

    def _postpone(self, child: _Child) -> None:
        now = monotonic()
        if now - child.started >= _HEALTHY:
            child.delay = self._delay
        child.due = now + child.delay
        child.delay = min(child.delay * 2, _LONGEST)

    def _pause(self) -> float:
        """Until somebody has to be started; a signal ends every wait."""
        due = min((child.due for child in self._children if child.process is None), default=float("inf"))
        return min(max(due - monotonic(), 0.0), _TICK if self._announced else _SOON)

    def _announce(self) -> None:
        if not self._announced and all(_is_ready(child) for child in self._children):
            self._notifier.ready()
            self._announced = True

    def _stop(self, children: Sequence[_Child]) -> None:
        """Ask them to stop, wait for them, kill who takes too long. A second Ctrl-C is passed on as it is."""
        deadlines = {id(child): monotonic() + child.program.patience for child in children}
        self._send(children, signal.SIGTERM)
        while any(child.process is not None for child in children):
            if self._signals.wait(_TICK) == signal.SIGINT:
                self._send(children, signal.SIGINT)
            self._look()
            late = [child for child in children if monotonic() > deadlines[id(child)]]
            self._send(late, signal.SIGKILL)

    def _send(self, children: Sequence[_Child], number: signal.Signals) -> None:
        for child in children:
            if child.process is not None:
                child.process.send_signal(number)


def _listen(child: _Child) -> str:
    """A new address for what this child says; abstract (unix(7)), so that one who runs as another user reaches it."""
    if child.notices is not None:
        child.notices.close()
    child.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    child.ready, child.asked = False, monotonic()
    name = f"postmeter-{os.getpid()}-{secrets.token_hex(8)}"
    child.notices.bind(f"\0{name}")
    return f"@{name}"


def _is_ready(child: _Child) -> bool:
    """Whether it has said so, or has lived long enough without a word."""
    with suppress(BlockingIOError):
        while child.process is not None and child.notices is not None and not child.ready:
            child.ready = b"READY=1" in child.notices.recv(4096).splitlines()
    return child.ready or (child.process is not None and monotonic() - child.asked >= _SETTLED)


def _how(code: int) -> str:
    return f"with code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
