"""`make bench`: what postmeter costs, in turn with Postfix alone and with a milter that does nothing.

Rows take turns within a round, so that whatever else the machine does hits all alike. Ends with 1 when the journal, the
ledger or Postfix's log disagree with what was sent. One row by itself:
`PYTHONPATH=milter:. build/venv/bin/python -m tests.bench --only postmeter:newsletter --rounds 1`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.bench import account, report, stages
from tests.bench.account import Account
from tests.bench.messages import Mail, newsletter, plain
from tests.bench.rows import OURS, PEERS, ROWS, Row
from tests.bench.run import Bench, Load, Sample
from tests.lab import postfix
from tests.lab.folder import CLONE

MAILS: list[Mail] = [plain(), newsletter()]
ONE_EACH = {"recipients in 86400 s": 1, "messages in 3600 s": 1}
"""What a message of ours puts on each account of rows.LIMITS."""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if reason := postfix.missing():
        print(f"bench: {reason}", file=sys.stderr)
        return 1
    if options.profile:
        print("\n".join(stages.profile(MAILS, count=options.messages)))
        return 0
    pairs = _chosen(options.only, [*ROWS, *PEERS] if options.peers or options.only else ROWS)
    load = Load(options.messages, options.sessions, keep=not options.reconnect)
    facts: dict[str, object] = {"machine": report.machine()}
    busy = report.busy()
    with Bench(_distinct(row for row, _ in pairs), load, disk=options.disk) as bench:
        facts |= _setting(bench, load, options.rounds)
        _print(facts)
        samples = _measure(bench, pairs, options.rounds)
        found = report.results(samples)
        print("\n".join(report.table(found)))
        if busy:
            print(f"{busy}: trust CPU ms more than messages/s\n")
        books, wrong = _compare(bench)
    _print({"what it left": books})
    _save(options.json, facts | report.as_json(found, samples) | {"what it left": books, "wrong": wrong})
    print("\n".join(f"WRONG: {line}" for line in wrong) or f"All accounts agree. {options.json} has every sample.")
    return 1 if wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    names = ", ".join(row.name for row in [*ROWS, *PEERS])
    parser.add_argument("--only", action="append", default=[], metavar="ROW[:MESSAGE]", help=f"one of: {names}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--messages", type=int, default=1500, help="in each round, for each row and message")
    parser.add_argument("--sessions", type=int, default=8, help="SMTP sessions at a time")
    parser.add_argument("--reconnect", action="store_true", help="a new session for every message")
    parser.add_argument("--disk", action="store_true", help="Postfix's queue on disk, not in /dev/shm")
    parser.add_argument("--peers", action="store_true", help="other programs too")
    parser.add_argument("--profile", action="store_true", help="where postmeter's time goes, without Postfix")
    parser.add_argument("--json", type=Path, default=CLONE / "build" / "bench.json")
    return parser


def _chosen(only: Sequence[str], rows: Sequence[Row]) -> list[tuple[Row, Mail]]:
    """Rows within messages, so that neighbours in time are neighbours in the table."""
    pairs = [(row, mail) for mail in MAILS for row in rows]
    if not only:
        return pairs
    wanted = [tuple(name.partition(":")[::2]) for name in only]
    chosen = [(row, mail) for row, mail in pairs if (row.name, "") in wanted or (row.name, mail.name) in wanted]
    if not chosen:
        raise SystemExit(f"bench: nothing is called {' or '.join(only)}; see --help")
    return chosen


def _distinct(rows: Iterable[Row]) -> list[Row]:
    return list({row.name: row for row in rows}.values())


def _measure(bench: Bench, pairs: Sequence[tuple[Row, Mail]], rounds: int) -> list[Sample]:
    samples = []
    for nth in range(rounds):
        for row, mail in pairs:
            sample = bench.sample(row.name, mail, nth=nth)
            samples.append(sample)
            line = f"round {nth + 1}  {mail.name:<11} {row.name:<16} {sample.rate:>7,.0f}/s {sample.cpu_ms:>6.2f} ms"
            print(line, file=sys.stderr, flush=True)
    return samples


def _setting(bench: Bench, load: Load, rounds: int) -> dict[str, object]:
    version = bench.postfix.run("postconf", "-dh", "mail_version").stdout.decode().strip()
    queue = "in memory" if bench.in_memory else "on disk"
    one = "many messages a session" if load.keep else "one message a session"
    how = f"{rounds} rounds of {load.messages} messages, {load.sessions} sessions at a time, {one}"
    ours = bench.started.get(OURS)
    told: dict[str, object] = {
        "versions": report.versions(version),
        "load": {
            "by": f"smtp-source: {how}",
            "to": f"unix sockets, Postfix's queue {queue}, postmeter's journal on disk, discard transport",
            **{mail.name: f"{len(mail.raw)} octets, {mail.links} links" for mail in MAILS},
        },
        "rows": {name: next(row.about for row in [*ROWS, *PEERS] if row.name == name) for name in bench.started},
    }
    if ours and ours.postmeter:
        told["postmeter.yaml"] = ours.postmeter.config.read_text()
    return told


def _compare(bench: Bench) -> tuple[dict[str, object], list[str]]:
    """Journal, ledger and Postfix's log against what smtp-source sent; what differs, in words."""
    sent = sum(bench.sent.values())
    left: dict[str, object] = {"messages sent": sent, "Postfix's sent lines": bench.delivered()}
    wrong = [] if left["Postfix's sent lines"] == sent else ["Postfix's log tells of more or fewer messages"]
    ours = bench.started.get(OURS)
    if ours and ours.postmeter:
        found = account.read(ours.postmeter.state / "journal.db")
        left["postmeter"] = {"messages sent": _of_ours(bench.sent), **found.counts()}
        wrong += [f"postmeter: {line}" for line in account.differences(found, _wanted(bench.sent))]
    return left, wrong


def _of_ours(sent: Mapping[tuple[str, str], int]) -> int:
    return sum(count for (row, _), count in sent.items() if row == OURS)


def _wanted(sent: Mapping[tuple[str, str], int]) -> Account:
    links = sum(sent.get((OURS, mail.name), 0) * mail.links for mail in MAILS)
    return account.expected(messages=_of_ours(sent), links=links, limits=ONE_EACH)


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


def _save(file: Path, what: Mapping[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(what, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
