"""A worker of our own making: the real libmilter, prefork and session, around whatever pipeline a test wants."""

from __future__ import annotations

import gc
import itertools
import os
import pickle
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from postmeter.config.schema import InetAddress, Milter, Senders, UnixAddress
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.runtime.kept import NOTHING
from postmeter.runtime.listener import listen
from postmeter.runtime.prefork import Generation, Post, Prefork
from postmeter.submission.identity import Identity
from postmeter.submission.load import Load
from postmeter.submission.pipeline import Pipeline, Stage
from postmeter.submission.server import Shift, serve
from postmeter.submission.session import Desk
from tests.lab.mta import Mta


@pytest.fixture(scope="module", autouse=True)
def tidy() -> Iterator[None]:
    """What tests left open hangs in rings of references: hundreds of descriptors pile up before the collector comes by
    itself, and the select(2) of Debian 12's psycopg takes none beyond 1,023."""
    yield
    gc.collect()


@dataclass
class Diary:
    """A recorder that sends what it is told over a datagram socket to the test's process."""

    path: Path
    settle: Callable[[Draft], Reply | None] = field(default=lambda draft: None)

    def _tell(self, *what: Any) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(pickle.dumps(what), str(self.path))

    def accepted(self, draft: Draft) -> Reply | None:
        late = self.settle(draft)
        message = replace(draft.message, body=draft.body)
        self._tell("accepted" if late is None else "refused", message, draft.notes, str(late))
        return late

    def refused(self, envelope: Envelope, reply: Reply, *, stage: str, draft: Draft | None = None) -> None:
        self._tell("refused", envelope, stage, str(reply))

    def passed(self, service: str) -> None:
        self._tell("passed", service)

    def took(self, stage: str, seconds: float) -> None:
        pass

    def failed(self, where: str) -> None:
        self._tell("failed", where)


class Running:
    """A parent with its workers, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = folder / "milter.sock"
        self.inet: tuple[str, int] | None = None
        self._inbox = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inbox.bind(str(folder / "diary"))
        self._inbox.settimeout(10)
        self.pid = 0

    def start(self, *stages: Stage, **settings: Any) -> Running:
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setpgid(0, 0)
                os._exit(self._parent(stages, settings))
            finally:
                os._exit(70)  # an exception of ours must not become pytest's, here
        self._wait_until_it_answers()
        return self

    def _parent(self, stages: tuple[Stage, ...], settings: dict[str, Any]) -> int:
        workers, drain = settings.pop("workers", 1), settings.pop("drain", 5.0)
        linger, kept = settings.pop("linger", 0.0), settings.pop("kept", NOTHING)
        reloads = iter(settings.pop("reloads", ()))

        def broken(post: Post) -> None:
            (self.folder / "broken").touch()
            raise RuntimeError("cannot start")

        def reload() -> Generation:
            how = next(reloads, "good")
            if how == "bug":
                (self.folder / "broken").touch()
                raise RuntimeError("a bug")
            return generation() if how == "good" else Generation(broken, workers, drain)

        def generation() -> Generation:
            return Generation(
                lambda post: self._serve(post, stages, dict(settings), (drain, linger)), workers, drain, linger
            )

        inet = self.inet and InetAddress(*self.inet)
        listener = listen(Milter(listen=inet or UnixAddress(self.address), socket_group=None), kept)
        return Prefork(listener, generation(), reload=reload, beat=lambda: None).run()

    def _serve(
        self, post: Post, stages: tuple[Stage, ...], settings: dict[str, Any], bounds: tuple[float, float]
    ) -> None:
        diary = Diary(self.folder / "diary", settings.pop("settle", lambda draft: None))
        senders = settings.pop("senders", Senders())
        numbers = itertools.count()
        load = Load(
            max_sessions=settings.pop("max_sessions", 100), max_memory=settings.pop("max_memory", 100 << 20)
        )
        tolerant = settings.get("tolerant", False)
        desk = Desk(
            identity=Identity(senders, settings.pop("holds_key", lambda domain: domain == "example.com")),
            gates=settings.pop("gates", ()),
            pipeline=Pipeline(stages, tolerant=tolerant),
            recorder=diary,
            load=load,
            reference=lambda: next(numbers).to_bytes(8, "big"),
            **settings,
        )
        drain, linger = bounds
        serve(
            desk,
            Shift(post.listener, post.control, drain, post.ready, lambda: None, lambda: None, post.left, linger),
        )

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end:
            try:
                with self.mta() as mta:
                    assert mta.negotiate().code == "O"
                return
            except (OSError, ConnectionError):
                time.sleep(0.01)  # a bounded wait for a condition
        raise AssertionError("the milter did not come up")

    def mta(self) -> Mta:
        return Mta(self.inet or self.address)

    def session(self, **connect: Any) -> Mta:
        mta = self.mta()
        assert mta.negotiate().code == "O"
        mta.connect(**connect)
        return mta

    def told(self) -> Any:
        """The next entry of the diary."""
        return pickle.loads(self._inbox.recv(1 << 20))

    def told_no_more(self) -> bool:
        """Ends it, and looks whether it wrote anything else into its diary."""
        self.stop()
        return not select.select([self._inbox], [], [], 0)[0]

    def workers(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def stop(self, signum: int = signal.SIGTERM) -> int:
        os.kill(self.pid, signum)
        return self.wait()

    def wait(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def kill(self) -> None:
        if self.pid:
            for pid in [*self.workers(), self.pid]:
                os.kill(pid, signal.SIGKILL)
            self.wait()
        self._inbox.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    it = Running(tmp_path)
    yield it
    it.kill()
