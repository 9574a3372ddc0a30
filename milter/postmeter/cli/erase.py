"""`postmeter erase`: a person's address goes out of everything that is kept here, while the daemons run.

A keyed hash takes its place, so that a suppression goes on and sums stay as they are. What is not ours to forget yet is
named: mail that is still in Postfix's queue, and what the sender's own record says of a sender. In the end the files
themselves are searched for what was erased.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, OK, USAGE, Command, said

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.store.database import Database
    from postmeter.store.erasing import Person, Pseudonym
    from postmeter.store.personal import Place

_ROUNDS = 5  # at most: a spelling met in one is looked for in the next
_FOLDS = 10.0  # seconds to wait for readers of the write-ahead log
_TOLD = 5.0  # seconds to wait for the database of all hosts
_GOING = {
    "": "{} messages to it are still in Postfix's queue: erase again when they have left it",
    "unshipped": "{} suppressions of it are still to be told to the database of all hosts: erase again when it is back",
}
_SMALL = 64 * 1024 * 1024  # octets that are written anew within a second, which mail can wait
_BLOCK = 1 << 20


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="whose traces go, in any spelling")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="write even a large journal anew; mail waits in the emergency spool",
    )


def run(args: Namespace) -> int:
    from postmeter.config.load import load
    from postmeter.store import database, veil

    local, _, domain = args.address.rpartition("@")
    if not local.strip() or not domain.strip() or veil.is_hashed(args.address):
        print(f"postmeter erase: {args.address!r} is no address: write NAME@DOMAIN", file=sys.stderr)
        return USAGE
    config = load(args.config)
    try:
        return _erase(config, args.address, compact=args.compact)
    except (database.StoreError, OSError) as error:
        print(f"postmeter erase: {said(error)}", file=sys.stderr)
        return FOUND_A_PROBLEM


def _erase(config: Config, address: str, *, compact: bool) -> int:
    from postmeter.runtime.privileges import become_owner
    from postmeter.store import database, erasing, veil

    path = config.journal.path
    pseudonyms = _pseudonyms(config.tracking.secrets)  # which root alone may be able to read
    become_owner(path.parent)
    opened = database.open(path, sync=config.journal.sync)
    person = erasing.Person(address, veil.read_key(opened), pseudonyms)
    try:
        for what, count in _everything(opened, person, path.parent).items():
            print(f"{what:<34}{count:>8}")
        problems = [*_still_going(opened, person, path.parent), *_sender(opened, person)]
    finally:
        opened.close()
    problems += _rest(path, person, compact=compact)
    if config.journal.ship_to is not None:
        print("the database of all hosts is told with the next shipment; erase on every host that wrote to the address")
    print(f"{person.address} is {person.hash} now")
    for problem in problems:
        print(f"postmeter erase: {problem}", file=sys.stderr)
    return FOUND_A_PROBLEM if problems else OK


def _everything(opened: Database, person: Person, state: Path) -> dict[str, int]:
    """Until nothing more is found: what waits first, for it goes where the rest is. How much changed where."""
    from postmeter.store import erasing, personal

    changed: dict[str, int] = {}
    for _ in range(_ROUNDS):
        found = {"events that wait for the journal": _waiting(opened, person, state)}
        found["events"] = erasing.events(opened, person)
        for place in personal.PLACES[1:]:
            if place.lasting:
                found[_name(place.table)] = erasing.rows(opened, place, person)
        found["who wrote to the address"] = erasing.contacts(opened, person)
        found["kept mail that came back, deleted"] = sum(_delete(_returns(state, "kept"), person))
        changed = {name: changed.get(name, 0) + count for name, count in found.items()}
        if not any(found.values()):
            break
    return changed


def _name(table: str) -> str:
    names = {"fates": "what became of mail to it", "suppressions": "suppressions, which go on"}
    return names.get(table, table.replace("_", " "))


def _pseudonyms(secrets: Path) -> Pseudonym:
    """Under every secret in the file: hits of all of them may still be kept."""
    from postmeter.token import Mint, parse_secrets

    try:
        mints = [Mint([secret]) for secret in parse_secrets(secrets.read_text("ascii"))]
    except (FileNotFoundError, ValueError):
        mints = []
    return lambda spelling: [mint.pseudonym(spelling) for mint in mints]


def _waiting(opened: Database, person: Person, state: Path) -> int:
    """In the emergency spool, whose files change hands with the turn to write."""
    from postmeter.store.emergency import Spool

    def changed(row: tuple[object, ...]) -> tuple[object, ...]:
        host, kind, source, *columns, data = row
        source, data = person.out_of(str(kind), str(source), str(data))
        return host, kind, source, *columns, data

    with opened.transaction():
        return Spool(state / "spool" / "events", durable=True).rewrite(changed, now=time.time())


def _returns(state: Path, which: str) -> Iterable[Path]:
    return _files(state / "spool" / "returns" / which)


def _files(folder: Path) -> list[Path]:
    """A directory of the spool may be a less trusted user's: what is no plain file could hold us, or lead elsewhere."""
    return [path for path in folder.glob("*") if path.is_file() and not path.is_symlink()]


def _delete(files: Iterable[Path], person: Person) -> Iterator[int]:
    for path in files:
        if _says(path, person):
            path.unlink(missing_ok=True)
            yield 1


def _still_going(opened: Database, person: Person, state: Path) -> Iterator[str]:
    """What somebody is at work with: to change it would lose what becomes of it."""
    from postmeter.store import personal
    from postmeter.tracking.hits import SPOOL

    for place in personal.PLACES:
        if not place.lasting and (count := _left(opened, place, person)):
            yield _GOING.get(place.table, _GOING[""]).format(count)
    unread = [
        *(path for path in _files(state / "spool" / SPOOL) if _holds(path, person)),
        *(path for which in ("new", "forward", "away") for path in _returns(state, which) if _says(path, person)),
    ]
    for path in _files(state / "spool" / "events"):
        if _holds(path, person):
            yield f"{path} names it and waits for the journal: erase again in a minute or two"
    for path in unread:
        yield f"{path} names it and waits for `postmeter books`: erase again in a minute or two"


def _left(opened: Database, place: Place, person: Person) -> int:
    """Other hosts are told within seconds, when they can be."""
    from postmeter.store import erasing

    until = time.monotonic() + (_TOLD if place.table == "unshipped" else 0.0)
    while (count := erasing.count(opened, place, person)) and time.monotonic() < until:
        time.sleep(0.1)
    return count


def _sender(opened: Database, person: Person) -> Iterator[str]:
    from postmeter.store import erasing

    if erasing.sends(opened, person):
        yield "it is a login here: its own mail stays on record, with the login, for journal.keep"


def _rest(path: Path, person: Person, *, compact: bool) -> Iterator[str]:
    """Search the files themselves; what is no row any more and lies between rows goes when the file is written anew."""
    _fold(path, person, compact=False)
    files = (path, path.with_name(path.name + "-wal"))
    if not any(_holds(file, person) for file in files):
        return
    if path.stat().st_size > _SMALL and not compact:
        yield (
            "remains may stand between the rows of the file: run it again with --compact when mail may wait, some "
            "seconds a gigabyte"
        )
        return
    if not _fold(path, person, compact=True) and any(_holds(file, person) for file in files):
        yield "it came again meanwhile: run it again"


def _fold(path: Path, person: Person, *, compact: bool) -> int:
    """How many rows hold the letters all the same: parts of other addresses, or a sender's own.

    Closed before any file is searched: to close a file that SQLite has open drops its locks.
    """
    from postmeter.store import database, erasing

    opened = database.open(path)
    try:
        if compact:
            erasing.compact(opened)
        until = time.monotonic() + _FOLDS
        while not erasing.fold(opened) and time.monotonic() < until:
            time.sleep(0.1)
        return erasing.others(opened, person) if compact else 0
    finally:
        opened.close()


def _says(path: Path, person: Person) -> bool:
    """Whether mail that came back names it, in whatever coding; the first line is ours."""
    from postmeter.mail.uncoded import readings

    try:
        with path.open("rb") as file:
            ours, raw = file.readline(), file.read()
    except FileNotFoundError:
        return False
    return any(person.in_octets(text) for text in (ours, *readings(raw)))


def _holds(path: Path, person: Person) -> bool:
    """Whether the file has any spelling of it, in blocks that overlap."""
    tail = b""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                held = tail + block
                if person.in_octets(held):
                    return True
                tail = held[-person.longest :]
    except FileNotFoundError:
        pass
    return False


COMMANDS = (
    Command(
        "erase",
        "take a person's address out of everything that is kept",
        "postmeter erase bob@example.com",
        arguments,
        run,
    ),
)
