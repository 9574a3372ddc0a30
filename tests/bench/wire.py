"""The same messages over the bare milter protocol, without a Postfix: what the milter itself can do, and its CPU.

`python -m tests.bench.wire [ROW…]`. Clients are processes with one connection each. Knows nothing of what the milter
decides, only that it must take every message.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from tests.bench import cpu
from tests.bench.clients import fork, wait
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.peers import PEERS
from tests.bench.rows import FLOOR, OURS, ROWS, Row
from tests.lab.folder import give
from tests.lab.mta import Mta, Taken

_TAKEN = "ac"  # accept, continue


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.wire", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", default=[FLOOR, OURS])
    parser.add_argument("--messages", type=int, default=2000, help="of each kind")
    parser.add_argument("--clients", type=int, default=8)
    options = parser.parse_args(arguments)
    print(f"{'messages over the milter protocol':<40}{'messages/s':>12}{'CPU ms':>9}")
    for row in [*ROWS, *PEERS]:
        if row.name in options.rows:
            _measure(row, clients=options.clients, messages=options.messages)
    return 0


def _measure(row: Row, *, clients: int, messages: int) -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir="/var/tmp"))
        started = stack.enter_context(row.start(give(Path(folder), "root")))
        address = Path(started.address.removeprefix("unix:"))
        for mail in (plain(), newsletter()):
            run(address, mail, clients=clients, each=10)
            before, start = cpu.seconds(started.pids()), time.perf_counter()
            count = run(address, mail, clients=clients, each=messages // clients)
            seconds, spent = time.perf_counter() - start, cpu.seconds(started.pids()) - before
            print(f"{row.name:<24}{mail.name:<16}{count / seconds:>12,.0f}{spent / count * 1000:>9.2f}", flush=True)


def run(address: Path, mail: Mail, *, clients: int, each: int, signs: bool = False) -> int:
    """All clients at once; how many messages the milter took. One that `signs` has to, each message."""
    wait([fork(partial(_session, address, mail, each, signs=signs)) for _ in range(clients)])
    return clients * each


def _session(address: Path, mail: Mail, count: int, *, signs: bool) -> None:
    """RuntimeError when a message is not taken."""
    fields, body = mail.fields(), mail.body()
    with Mta(address, timeout=60) as mta:
        mta.negotiate()
        mta.connect(address="127.0.0.1")
        for nth in range(count):
            mta.mail("news@example.com")
            queue_id = f"{os.getpid()}x{nth}"
            mta.rcpt("reader@example.net", queue_id=queue_id)
            taken = mta.message(fields, body, queue_id=queue_id)
            mta.abort()
            if taken.verdict.code not in _TAKEN or (signs and _signatures(taken) != 1):
                raise RuntimeError(f"{queue_id}: {taken.verdict}, {_signatures(taken)} signatures")
        mta.quit()


def _signatures(taken: Taken) -> int:
    """Fields inserted (i) or added (h)."""
    made = (change.data[4:] if change.code == "i" else change.data for change in taken.changes if change.code in "ih")
    return sum(field.lower().startswith(b"dkim-signature\0") for field in made)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
