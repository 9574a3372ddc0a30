"""What is compared: each row is a name, a sentence, and how to start the milter that stands for it.

A new row, another milter for instance, is a function that starts it and a line in ROWS or PEERS. Knows nothing of
Postfix, of messages or of how they are counted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import cpu
from tests.lab.folder import CLONE, give
from tests.lab.product import Postmeter

# Room for any run: what is measured is that limits are kept, not that mail is refused.
LIMITS = ("1000000000 recipients/day", "1000000000 messages/hour")
SETTINGS: dict[str, Any] = {
    "milter": {"workers": 2},
    "quota": {"limits": list(LIMITS)},
    "tracking": {"url": "https://click.example.com", "mail": "all"},
}


@dataclass(slots=True)
class Started:
    """A milter that runs. `address` is as Postfix names it, empty for none; `pids` those whose time is the milter's."""

    address: str = ""
    pids: Callable[[], list[int]] = list
    postmeter: Postmeter | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """`start` gets an empty folder of its own."""

    name: str
    about: str
    start: Callable[[Path], AbstractContextManager[Started]]


@contextmanager
def _alone(folder: Path) -> Iterator[Started]:
    yield Started()


def _nothing(variant: str) -> Callable[[Path], AbstractContextManager[Started]]:
    @contextmanager
    def start(folder: Path) -> Iterator[Started]:
        address = folder / "socket"
        command = [sys.executable, "-m", "tests.bench.nothing", variant, str(address)]
        process = subprocess.Popen(command, cwd=CLONE, env={"PYTHONPATH": "milter:."}, stdin=subprocess.DEVNULL)
        try:
            wait_for(address, process)
            yield Started(f"unix:{address}", lambda: list(cpu.tree(process.pid)))
        finally:
            process.kill()
            process.wait()

    return start


@contextmanager
def _postmeter(folder: Path) -> Iterator[Started]:
    postmeter = Postmeter(SETTINGS, daemons=("milter", "books"), folder=give(folder / "postmeter", "root"))
    postmeter.key("example.com", "bench")
    postmeter.secrets()
    with postmeter:
        milter = postmeter.processes["milter"].pid
        yield Started(postmeter.milter, lambda: list(cpu.tree(milter)), postmeter)


def wait_for(address: Path, process: subprocess.Popen[bytes], *, bound: float = 20) -> None:
    """Until a milter's socket is there."""
    until = time.monotonic() + bound
    while not address.is_socket():
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{process.args!r} did not open {address}")
        time.sleep(0.02)


ALONE, FLOOR, OURS = "postfix", "nothing-signer", "postmeter"

ROWS: list[Row] = [
    Row(ALONE, "Postfix alone", _alone),
    Row("nothing-skipped", "a pymilter that does nothing and is asked nothing", _nothing("skipped")),
    Row(FLOOR, "a pymilter that does nothing but gets what a signer needs, replies off", _nothing("signer")),
    Row(OURS, "postmeter, every step on", _postmeter),
]

PEERS: list[Row] = []
"""Other programs for --peers, run on Debian's packages of them."""
