"""What memory postmeter takes: at rest beside its peers, over many messages, for large ones, and in a flood.

    PYTHONPATH=milter:. build/venv/bin/python -m tests.bench.memory [--only rest|growth|large|together|flood] …

Without a Postfix, over the milter protocol; every step is on, with keys for ten domains. `growth` sends 200,000
messages in 2,000 connections and tells octets a message as the slope of the straight line through its samples behind
the first quarter. Peers are those of `signers`, with one key each. Figures go to build/bench-memory.json too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tests.bench import cpu, filling, flood, held, large, record
from tests.bench.clients import fork, wait
from tests.bench.held import MIB
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.peers import PEERS, missing
from tests.bench.record import Figures, Parts, judged
from tests.bench.whole import DOMAINS, running, socket_of, working
from tests.lab.folder import give
from tests.lab.mta import Mta
from tests.lab.product import Postmeter, merge

_LARGE = 50_000_000
_FILLED = 500_000
_TOGETHER = 10


# --- at rest


def rest(options: argparse.Namespace) -> Figures:
    found: Figures = {}
    with running({}, daemons=("milter", "books", "web")) as ours:
        _some_mail(socket_of(ours))
        time.sleep(2)
        workers = [held.share(pid) / MIB for pid in ours.workers()]
        parent = held.share(ours.processes["milter"].pid) / MIB
        others = {name: _tree(ours.processes[name].pid) for name in ("books", "web")}
        found["postmeter"] = {"worker": max(workers), "workers": len(workers), "parent": parent, **others}
        found["postmeter"]["milter"] = sum(workers) + parent
    print(f"at rest, after {_WARM} messages, proportional set size in MiB, {DOMAINS} domains:")
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in found["postmeter"].items()))
    for row in PEERS:
        if row.name in ("opendkim", "rspamd", "dkimpy-milter") and not missing(row.name):
            with ExitStack() as stack:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir="/var/tmp"))
                started = stack.enter_context(row.start(give(Path(folder), "root")))
                _some_mail(Path(started.address.removeprefix("unix:")))
                time.sleep(2)
                found[row.name] = {"all": held.shares(started.pids()) / MIB, "processes": len(started.pids())}
                print(f"  {row.name}: {found[row.name]['all']:.1f} in {found[row.name]['processes']} processes")
    found["goals"] = [judged("a worker at rest, MiB", found["postmeter"]["worker"], 45)]
    return found


_WARM = 200


def _some_mail(address: Path) -> None:
    session(address, [plain(), newsletter()], _WARM)


def _tree(pid: int) -> float:
    return held.shares(cpu.tree(pid)) / MIB


# --- over many messages


def session(address: Path, mails: Sequence[Mail], count: int) -> None:
    """One connection, so many messages, of each kind in turn; raises where one is not taken."""
    ready = [(mail.fields(), mail.body()) for mail in mails]
    with Mta(address, timeout=60) as mta:
        mta.negotiate()
        mta.connect(address="127.0.0.1")
        for nth in range(count):
            queue_id = f"{os.getpid():X}{time.monotonic_ns():X}"
            mta.mail("news@example.com")
            mta.rcpt(f"reader{nth % 50}@example.net", queue_id=queue_id)
            fields, body = ready[nth % len(ready)]
            verdict = mta.message(fields, body, queue_id=queue_id).verdict
            mta.abort()
            if verdict.code not in "ac":
                raise RuntimeError(f"{queue_id}: {verdict}")
        mta.quit()


def many(ours: Postmeter, *, messages: int, connections: int, clients: int) -> list[tuple[float, float]]:
    """Samples: messages sent so far, and octets of the workers' own."""
    address, mails = socket_of(ours), [plain()] * 9 + [newsletter()]
    read, write = os.pipe()
    each = messages // connections

    def some(first: int) -> None:
        for _ in range(first, connections, clients):
            session(address, mails, each)
            os.write(write, b".")

    pids = [fork(partial(some, nth)) for nth in range(clients)]
    os.close(write)
    points, sent, due = [(0.0, held.anonymous(ours.workers()))], 0, 0.0
    with open(read, "rb", buffering=0) as done:
        while told := done.read(4096):
            sent += len(told) * each
            if sent >= due:
                points.append((float(sent), held.anonymous(ours.workers())))
                due = sent + messages / 100
    wait(pids)
    return points


def growth(options: argparse.Namespace) -> Figures:
    """On a journal that is large from the beginning: SQLite's cache, 8 MB a connection, is full early then."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir="/var/tmp"))
        ours = working({}, give(Path(folder), "root") / "postmeter", daemons=("milter",))
        filling.fill(ours.state / "journal.db", events=_FILLED, logins=0)
        filling.hand_over(ours.state / "journal.db", ours.user)
        stack.enter_context(ours)
        workers = ours.workers()
        points = many(ours, messages=options.messages, connections=options.connections, clients=8)
        same = workers == ours.workers()
        rows = filling.rows(ours.state / "journal.db") - _FILLED
    later = [point for point in points if point[0] >= options.messages / 4]
    octets = held.slope(later)
    first, last = later[0][1] / MIB, later[-1][1] / MIB
    print(f"{options.messages:,} messages in {options.connections:,} connections, {len(workers)} workers together:")
    print(f"  {points[0][1] / MIB:.1f} MiB at the start, {first:.1f} after a quarter, {last:.1f} at the end")
    print(f"  {octets:.2f} octets a message; {rows:,} rows in the journal; the same workers: {same}")
    goals = [judged("octets that stay of a message", octets, 5), judged("rows missing", options.messages - rows, 0)]
    told = [[int(sent), int(size)] for sent, size in points]
    return {"octets_a_message": octets, "samples": told, "same_workers": same, "rows": rows, "goals": goals}


# --- large ones


def alone(options: argparse.Namespace) -> Figures:
    with running({"milter": {"workers": 1}}) as ours:
        address, [worker] = socket_of(ours), ours.workers()
        _some_mail(address)
        peaks = [large.measure(address, worker, make(options.size)) for make in large.KINDS]
        rests = held.resident(worker) / MIB
    print(f"one message of {options.size / 1e6:.0f} MB, most that is resident beyond the rest, in its sizes:")
    for peak in peaks:
        done = "rewritten" if peak.rewritten else "as it was"
        print(f"  {peak.name:<22}{peak.times:5.2f}  {done}{'' if peak.taken else ', NOT TAKEN'}")
    print(f"  and {rests:.0f} MiB afterwards")
    goals = [judged(f"{peak.name}: times its size", peak.times, 3) for peak in peaks]
    return {"peaks": [asdict(peak) for peak in peaks], "afterwards_mib": rests, "goals": goals}


def together(options: argparse.Namespace) -> Figures:
    found: Figures = {"goals": []}
    mail = large.page_and_attachment(options.size)
    for bound in (512, 300):
        with running({"milter": {"workers": 1, "max_memory": f"{bound}M"}}) as ours:
            address, [worker] = socket_of(ours), ours.workers()
            _some_mail(address)
            before = held.resident(worker) / MIB
            rounds = []
            for _ in range(3):
                held.forget_peak(worker)
                verdicts = large.at_once(address, mail, _TOGETHER)
                rounds.append((held.peak(worker) / MIB, verdicts.count("a"), verdicts.count("y")))
            after = held.resident(worker) / MIB
        print(
            f"{_TOGETHER} messages of {options.size / 1e6:.0f} MB at once, max_memory {bound}M; {before:.0f} MiB before"
        )
        for top, taken, later in rounds:
            others = _TOGETHER - taken - later
            print(f"  at most {top:.0f} MiB, {taken} taken, {later} put off with 4xx, {others} otherwise")
        print(f"  and {after:.0f} MiB afterwards")
        most = before + bound + 2 * len(mail.raw) / MIB
        found[f"{bound}M"] = {"before_mib": before, "rounds": rounds, "afterwards_mib": after}
        found["goals"].append(judged(f"MiB at most, {bound}M", max(top for top, _, _ in rounds), most))
        found["goals"].append(judged("neither taken nor 4xx", sum(_TOGETHER - a - y for _, a, y in rounds), 0))
    return found


# --- a flood


def flooded(options: argparse.Namespace) -> Figures:
    found: Figures = {"goals": []}
    for about, settings, begun in (
        ("silent", {}, b""),
        ("half a packet each", {}, b"\0\0"),
        ("silent, max_sessions 100", {"milter": {"max_sessions": 100}}, b""),
        ("half a packet each, max_sessions 100", {"milter": {"max_sessions": 100}}, b"\0\0"),
    ):
        with running(merge({"milter": {"workers": 1}}, settings), daemons=("milter",)) as ours:
            one = flood.flood(socket_of(ours), ours.workers, options.flood, begun=begun)
        print(f"{options.flood:,} connections at once to one worker, {about}:")
        print(
            f"  {one.opened:,} accepted or queued, {one.refused:,} refused; at most {one.files:,} descriptors and "
            f"{one.threads:,} threads, {one.grown / MIB:.0f} MiB more, {one.cpu * 100:.0f}% of a CPU; "
            f"the same worker: {one.same_workers}; mail again after {one.recovered:.1f} s"
        )
        found[about] = asdict(one)
        found["goals"].append(judged(f"{about}: workers lost", not one.same_workers, 0))
        found["goals"].append(judged(f"{about}: seconds until mail goes again", one.recovered, 10))
    return found


PARTS: Parts = {
    "rest": rest, "large": alone, "together": together, "flood": flooded, "growth": growth,
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    parser = record.parser("memory", __doc__, PARTS)
    parser.add_argument("--messages", type=int, default=200_000, help="of `growth`")
    parser.add_argument("--connections", type=int, default=2000, help="of `growth`")
    parser.add_argument("--size", type=int, default=_LARGE, help="octets of a large message")
    parser.add_argument("--flood", type=int, default=2000, help="connections")
    record.measure(parser.parse_args(arguments), PARTS)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
