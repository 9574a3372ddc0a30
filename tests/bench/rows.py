"""What is compared: each row is a name, a sentence, and how to start the milter that stands for it.

Here are Postfix alone, milters that do nothing and postmeter; `peers` has the others. A new row is a function that
starts it and a line in a list. Knows nothing of Postfix, of messages or of how they are counted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench import cpu
from tests.lab.folder import CLONE, give
from tests.lab.keys import DkimKey, make_key
from tests.lab.product import Postmeter, merge

DOMAIN, SELECTOR = "example.com", "bench"
"""Whose mail is sent, and the key that all sign with."""

# Room for any run: what is measured is that limits are kept, not that mail is refused.
LIMITS = ("1000000000 recipients/day", "1000000000 messages/hour")
SETTINGS: dict[str, Any] = {
    "milter": {"workers": 2},
    "quota": {"limits": list(LIMITS)},
    "tracking": {"url": "https://click.example.com", "mail": "all"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A milter that runs. `address` is as Postfix names it, empty for none; `pids` those whose time is the milter's."""

    address: str = ""
    pids: Callable[[], list[int]] = list
    key: DkimKey | None = None
    """What it signs with."""
    policy: str = ""
    """A policy service that Postfix asks at RCPT."""
    counted: Callable[[], int] | None = None
    """Messages that its quota has counted, where no journal tells."""
    forget: Callable[[], None] = lambda: None
    """Empties a book that grows slower with each message; called before each turn."""
    postmeter: Postmeter | None = None

    def books(self) -> list[int]:
        """Processes of ours that no message waits for."""
        return list(cpu.tree(self.postmeter.processes["books"].pid)) if self.postmeter else []


@dataclass(frozen=True, slots=True)
class Row:
    """`start` gets an empty folder of its own. `signs` and `tracks` are what it must do to every message.

    `foreign`: its service is like port 25, mail is not of this host. `share`: of the messages that others get, for rows
    that would take too long.
    """

    name: str
    about: str
    start: Callable[[Path], AbstractContextManager[Started]]
    signs: bool = False
    tracks: bool = False
    foreign: bool = False
    share: float = 1.0


Starting = Callable[[Path], AbstractContextManager[Started]]


@contextmanager
def _alone(folder: Path) -> Iterator[Started]:
    yield Started()


def _nothing(variant: str) -> Starting:
    @contextmanager
    def start(folder: Path) -> Iterator[Started]:
        address = folder / "socket"
        with _program("tests.bench.nothing", variant, str(address), address=address) as pids:
            yield Started(address=f"unix:{address}", pids=pids)

    return start


@contextmanager
def _least(folder: Path) -> Iterator[Started]:
    address, book = folder / "socket", folder / "book.db"
    key = make_key(folder / "keys", domain=DOMAIN, selector=SELECTOR, user="root")
    with _program("tests.bench.least", str(address), str(key.file), str(book), address=address) as pids:
        yield Started(address=f"unix:{address}", pids=pids, key=key)


@contextmanager
def _program(module: str, *arguments: str, address: Path) -> Iterator[Callable[[], list[int]]]:
    """One of ours that is a milter, until it is no more needed; gives its processes."""
    command = [sys.executable, "-m", module, *arguments]
    # A session of its own, as every milter here: the kernel divides time between sessions first (sched(7)).
    process = subprocess.Popen(
        command, cwd=CLONE, env={"PYTHONPATH": "milter:."}, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_for(address, process)
        yield lambda: list(cpu.tree(process.pid))
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ours(settings: Mapping[str, Any] | None = None, *, on_port: bool = False) -> Starting:
    """postmeter with every step on; `settings` are laid over those of all rows."""

    @contextmanager
    def start(folder: Path) -> Iterator[Started]:
        mine = merge(SETTINGS, settings or {})
        place = give(folder / "postmeter", "root")
        postmeter = Postmeter(mine, daemons=("milter", "books"), folder=place, inet=on_port)
        key = postmeter.key(DOMAIN, SELECTOR)
        postmeter.secrets()
        with postmeter:
            milter = postmeter.processes["milter"].pid
            yield Started(address=postmeter.milter, pids=lambda: list(cpu.tree(milter)), key=key, postmeter=postmeter)

    return start


def wait_for(address: Path, process: subprocess.Popen[bytes], *, bound: float = 20) -> None:
    """Until a milter's socket is there."""
    until = time.monotonic() + bound
    while not address.is_socket():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} did not open {address}")
        time.sleep(0.02)


ALONE, SKIPPED, FLOOR, LEAST, OURS = "postfix", "nothing-skipped", "nothing-signer", "least", "postmeter"

_SKIPPED = Row(SKIPPED, "a pymilter that does nothing and is asked nothing", _nothing("skipped"))

ROWS: list[Row] = [
    Row(ALONE, "Postfix alone", _alone),
    _SKIPPED,
    Row(FLOOR, "a pymilter that does nothing but gets what a signer needs, replies off", _nothing("signer")),
    Row(
        LEAST, "a pymilter that signs, and charges and writes down in one transaction, and no more", _least, signs=True
    ),
    Row(OURS, "postmeter, every step on", ours(), signs=True, tracks=True),
]

# The sender is none of ours by address either: real mail for us does not come from loopback.
FOREIGN: list[Row] = [
    replace(_SKIPPED, foreign=True),
    Row(
        "postmeter-foreign", "postmeter, mail that is not ours", ours({"senders": {"networks": ["192.0.2.0/24"]}}),
        foreign=True,
    ),
]  # fmt: skip

INET = Row("postmeter-inet", "postmeter on a port", ours(on_port=True), signs=True, tracks=True)

WORKERS = Row(
    "postmeter-1-worker", "postmeter with one worker", ours({"milter": {"workers": 1}}), signs=True, tracks=True
)

SYNC = Row(
    "postmeter-full", "postmeter with journal.sync: full", ours({"journal": {"sync": "full"}}), signs=True, tracks=True
)
