"""`make bench`: what postmeter costs behind Postfix, in turn with Postfix alone, milters that do nothing, and others.

Parts: speed, inet (milters on ports), foreign (mail that is not ours), workers, protocol (without Postfix), sessions,
waits (how long a message takes), disk. Rows take turns within a round, so that whatever else the machine does hits all
alike, and each proves on a message that it does what it is said to do. Ends with 1 when the journal, the ledger or
Postfix's log disagree with what was sent. One row alone:
`PYTHONPATH=milter:. build/venv/bin/python -m tests.bench --only postmeter:newsletter`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.bench import account, goals, latency, parts, report, stages
from tests.bench.latency import Waits
from tests.bench.parts import MAILS, PARTS, Part
from tests.bench.run import READER, SENDER, Bench, Sample
from tests.bench.signers import floor
from tests.lab import postfix
from tests.lab.client import RefusedError
from tests.lab.folder import CLONE

_OPEN = 16  # SMTP sessions that wait for a message to be due


@dataclass(slots=True)
class Run:
    """What was found so far."""

    samples: list[Sample] = field(default_factory=list)
    waits: list[Waits] = field(default_factory=list)
    least: dict[str, list[float]] = field(default_factory=lambda: {mail.name: [] for mail in MAILS})
    left: dict[str, object] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    lacks: dict[str, str] = field(default_factory=dict)
    told: dict[str, object] = field(default_factory=dict)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if reason := postfix.missing():
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    if options.profile:
        print("\n".join(stages.profile(list(MAILS), count=options.messages or 1000)))
        return 0
    chosen = list(parts.chosen(options.part, options.only))
    if not chosen:
        raise SystemExit(f"bench: nothing is called {' or '.join([*options.part, *options.only])}; see --help")
    facts: dict[str, object] = {"machine": report.machine()}
    busy, run = report.busy(), Run()
    for part in chosen:
        _measure(part, options, run)
    facts |= run.told
    _tell(facts, run, busy=busy, file=options.json)
    return 1 if run.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("part", nargs="*", metavar="PART", help=f"of: {', '.join(part.name for part in PARTS)}")
    names = ", ".join(parts.names())
    parser.add_argument("--only", action="append", default=[], metavar="ROW[:MESSAGE]", help=f"of: {names}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, help="in each turn, instead of what a part has")
    parser.add_argument("--sessions", type=int, help="SMTP sessions at a time, instead of what a part has")
    parser.add_argument("--rate", type=int, help="messages a second, where a part has a rate")
    parser.add_argument("--reconnect", action="store_true", help="a new session for every message")
    parser.add_argument("--disk", action="store_true", help="Postfix's queue always on disk, not in /dev/shm")
    parser.add_argument("--profile", action="store_true", help="where postmeter's time goes, without Postfix")
    parser.add_argument("--json", type=Path, default=CLONE / "build" / "bench.json")
    return parser


def _measure(part: Part, options: argparse.Namespace, run: Run) -> None:
    part, lacks = parts.present(part)
    run.lacks |= lacks
    for name, reason in lacks.items():
        print(f"without {name}: {reason}", file=sys.stderr)
    if not part.turns:
        return
    if options.sessions:
        part = parts.with_sessions(part, options.sessions)
    count = options.messages or part.messages
    try:
        with Bench(part, messages=count, keep=not options.reconnect, disk=options.disk) as bench:
            run.wrong += [f"{part.name}: {name} does not start: {why}" for name, why in bench.failed.items()]
            _rounds(bench, bench.part, options, run)
    except (RuntimeError, AssertionError, RefusedError, OSError) as error:  # mail that was not taken, most likely
        run.wrong.append(f"{part.name}: {type(error).__name__}: {error}")  # the other parts go on


def _rounds(bench: Bench, part: Part, options: argparse.Namespace, run: Run) -> None:
    for turn in part.turns:
        bench.prepare(turn)
    for nth in range(options.rounds):
        _round(bench, part, run, nth=nth, rate=options.rate or part.rate)
    for turn in part.turns:
        bench.prove(turn)
    run.told |= _setting(bench, options) if not run.told else {}
    left, wrong = _compare(bench, part)
    run.left[part.name] = left
    run.wrong += [f"{part.name}: {line}" for line in wrong]
    run.lost[part.name] = int(str(left["messages lost"]))


def _round(bench: Bench, part: Part, run: Run, *, nth: int, rate: int) -> None:
    for turn in part.turns:
        if part.rate:
            moments = latency.due(bench.count(turn.row), rate)
            took = latency.send(
                bench.port(turn.row), turn.mail.raw, sender=SENDER, reader=READER, moments=moments, sessions=_OPEN
            )
            bench.note(turn, len(took))
            waits = latency.waits(part.name, turn.row.name, turn.mail.name, nth, took)
            run.waits.append(waits)
            said = f"{waits.median:>8.2f} ms {waits.p99:>7.2f} ms"
        else:
            sample = bench.sample(turn, nth=nth)
            run.samples.append(sample)
            said = f"{sample.rate:>8,.0f}/s {sample.cpu_ms:>7.3f} ms"
        name = f"{turn.mail.name:<11} {turn.row.name:<19}{turn.sessions:>4}"
        print(f"{part.name:<9}round {nth + 1}  {name}{said}", file=sys.stderr, flush=True)
    if part.name == "speed":
        for mail in MAILS:
            run.least[mail.name].append(floor(mail, 300))


def _setting(bench: Bench, options: argparse.Namespace) -> dict[str, object]:
    version = bench.postfix.run("postconf", "-dh", "mail_version").stdout.decode().strip()
    one = "one message a session" if options.reconnect else "many messages a session"
    queue = "on disk" if options.disk else "in memory, but of part disk"
    sessions = options.sessions or parts.MANY
    told: dict[str, object] = {
        "versions": report.versions(version),
        "load": {
            "by": f"smtp-source, {one}; {options.rounds} rounds; {sessions} sessions where no number is said",
            "waits": f"{options.rate or parts.RATE} messages a second, due at drawn moments, over {_OPEN} sessions",
            "to": f"unix sockets, but of part inet; Postfix's queue {queue}; postmeter's journal on disk; discard(8)",
            **{mail.name: f"{len(mail.raw)} octets, {mail.links} links" for mail in MAILS},
        },
        "rows": {row.name: row.about for each in PARTS for row in each.rows},
    }
    ours = [started.postmeter for started in bench.started.values() if started.postmeter]
    return told | ({"postmeter.yaml": ours[0].config.read_text()} if ours else {})


def _compare(bench: Bench, part: Part) -> tuple[dict[str, object], list[str]]:
    """Journals, ledgers and Postfix's log against what was sent; what differs, in words."""
    posted, delivered = bench.posted, bench.delivered()
    left: dict[str, object] = {"messages through Postfix": posted, "Postfix's sent lines": delivered}
    wrong = [] if delivered == posted else ["Postfix's log tells of more or fewer messages"]
    lost = max(0, posted - delivered)
    for row in part.rows:
        if (postmeter := bench.started[row.name].postmeter) is None:
            continue
        mine = {mail: count for (name, mail), count in bench.sent.items() if name == row.name}
        wanted = account.wanted(row, mine, {mail.name: mail.links for mail in MAILS})
        found = account.settled(postmeter.state / "journal.db", wanted)
        books = f"{bench.books(row):.1f} s in all"
        left[row.name] = {"messages sent": sum(mine.values()), **found.counts(), "CPU of the books beside": books}
        wrong += [f"{row.name}: {line}" for line in account.differences(found, wanted)]
        lost += max(0, wanted.submitted - found.submitted)
    return left | {"messages lost": lost}, wrong


def _tell(facts: dict[str, object], run: Run, *, busy: str, file: Path) -> None:
    found = report.results(run.samples)
    reached = goals.goals(goals.Found(found, run.waits, run.least, run.lost))
    _print(facts | {"what it left": run.left})
    print("\n".join([*report.table(found), *report.waiting(run.waits), *goals.table(reached)]))
    for name, reason in run.lacks.items():
        print(f"without {name}: {reason}")
    if busy:
        print(f"{busy}: trust CPU ms more than messages/s")
    lists = {
        "samples": [asdict(each) for each in run.samples],
        "results": [asdict(each) for each in found],
        "waits": [asdict(each) for each in run.waits],
        "goals": [{**asdict(each), "reached": each.reached} for each in reached],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    said = facts | {"floor ms": run.least, "what it left": run.left, "wrong": run.wrong, "without": run.lacks}
    file.write_text(json.dumps(said | lists, indent=1) + "\n")
    print("\n".join(f"WRONG: {line}" for line in run.wrong) or f"All accounts agree. {file} has every sample.")


def _print(facts: Mapping[str, object]) -> None:
    for title, what in facts.items():
        print(f"{title}:")
        lines = [f"{key}: {value}" for key, value in _flat(what)] if isinstance(what, Mapping) else None
        print("".join(f"  {line}\n" for line in lines or str(what).splitlines()))


def _flat(what: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in what.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}, ")
        else:
            yield above + key, value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
