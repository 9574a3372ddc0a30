"""How much of a journal a message reads and writes, empty and grown: counts that no other load of the machine changes.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.pages [--events 0 1000000] [--logins 1000000]

Two processes look and settle in turn, as workers do: each commit of the one empties the other's cache. strace(1) tells
what the first of them reads, the write-ahead log what both write. A page is new when no message before it, of this
run, read it from the file: such pages have to come from the disk where the kernel does not keep the whole file.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from postmeter.store.settle import Settler
from tests.bench import filling, record
from tests.bench.ledger import FIGURES, charges, submitted
from tests.bench.record import Figures, Parts
from tests.lab.waiting import wait_for

_PAGE = 4096
_READ = re.compile(r"pread64\(\d+<[^>]*/journal\.db>.*, (\d+), (\d+)\) += \d+$")


def pages(options: argparse.Namespace) -> Figures:
    """Of each journal in turn."""
    table = []
    for events in options.events:
        with tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir=options.folder) as folder:
            journal = Path(folder) / "journal.db"
            filling.fill(journal, events=events, logins=options.logins if events else 0)
            found = _counted(journal, options.messages, options.logins)
        table.append({"events": events, **found})
        print(f"{events:>12,} events: " + ", ".join(f"{value:.2f} {name}" for name, value in found.items()))
    return {"pages": table}


def _counted(journal: Path, messages: int, logins: int) -> dict[str, float]:
    """A message; as many as that before are not counted, for they fill the caches."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(2)]
    workers = [fork.Process(target=_settle, args=(journal, logins, nth, pipes[nth][1])) for nth in range(2)]
    for process in workers:
        process.start()
    lines = [here for here, _ in pipes]
    _in_turn(lines, messages)
    filling.restart_log(journal)
    with _traced(workers[0].pid or 0) as kept:
        _in_turn(lines, messages)
    written, commits = filling.frames(journal), filling.commits(journal)
    for line, process in zip(lines, workers, strict=True):
        line.send(False)
        process.join()
    calls = [line for line in kept.read_text().splitlines() if "pread64(" in line]
    read = {int(found[2]) // _PAGE for line in calls if (found := _READ.search(line)) and int(found[1]) == _PAGE}
    kept.unlink()
    return {
        "calls of pread": len(calls) / messages,
        "new pages read": len(read) / messages,
        "pages a commit": written / commits,
    }


def _settle(journal: Path, logins: int, nth: int, line: Connection) -> None:
    dice = random.Random(nth)
    with closing(Settler(journal, host="lab")) as settler:
        while line.recv():
            login, queue_id, now = dice.randrange(logins), f"4B{time.time_ns() // 1000:010X}", time.time()
            event = replace(submitted(queue_id, login), queue_id=queue_id, source=f"eom:{queue_id}:{now}")
            settler.glance(charges(login), now)
            settler.settle(charges(login), event, FIGURES, now)
            line.send(None)


def _in_turn(lines: Sequence[Connection], messages: int) -> None:
    for _ in range(messages):
        for line in lines:
            line.send(True)
            line.recv()


@contextmanager
def _traced(pid: int) -> Iterator[Path]:
    """A file of what it reads meanwhile, whole at the end."""
    with tempfile.NamedTemporaryFile(delete=False) as kept:
        command = ["strace", "-f", "-qq", "-y", "-e", "trace=pread64", "-o", kept.name, "-p", str(pid)]
        tracer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text())
        yield Path(kept.name)
        tracer.terminate()
        tracer.wait(10)


PARTS: Parts = {"pages": pages}


def main(arguments: Sequence[str]) -> int:
    if shutil.which("strace") is None:
        print("strace is missing: apt install strace", file=sys.stderr)
        return 1
    parser = record.parser("pages", __doc__, PARTS)
    parser.add_argument("--events", type=int, nargs="+", default=[0, 1_000_000])
    parser.add_argument("--logins", type=int, default=1_000_000, help="of all journals but the empty one")
    parser.add_argument("--messages", type=int, default=300, help="of each process")
    parser.add_argument("--folder", default="/var/tmp")
    record.measure(parser.parse_args(arguments), PARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
