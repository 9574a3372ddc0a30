"""The emergency spool: what the journal could not take, a file an event, until it can; bounded, and replayed once.

A file appears whole, by rename, or not at all. A replayed file is noted in the transaction that took its event, so that
a process killed before it removed the file cannot have it counted twice. Who lists or removes files holds the turn to
write. Knows nothing of why the journal failed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from postmeter.store import rows
from postmeter.store.accounts import Hold, charge_of
from postmeter.store.batch import Job
from postmeter.store.database import Row

log = logging.getLogger(__name__)

MOST = 10_000  # files; a minute's mail of a busy host, and 40 MB on a disk that may be nearly full
_SLICE = 100  # files replayed in one transaction
_ENDING = ".json"
_UNREADABLE = (errno.EACCES, errno.EPERM, errno.EIO)  # what lasts; not that there are no descriptors for a moment
_ABANDONED = 3600.0  # seconds after which nobody writes a file of a few kB any more


class Spool:
    """A directory beside the database, named `spool/events`."""

    def __init__(self, folder: Path, *, durable: bool, most: int = MOST) -> None:
        self._folder = folder
        self._durable = durable
        self._most = most

    def put(self, job: Job) -> None:
        """Keep a job for later; OSError when that is impossible."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        if sum(1 for _ in os.scandir(self._folder)) >= self._most:
            raise OSError(f"{self._folder}: the emergency spool is full, with {self._most} files")
        name = f"{int(job.now * 1_000_000):020d}-{os.getpid()}-{secrets.token_hex(6)}"
        draft, path = self._folder / f"{name}.tmp", self._folder / f"{name}{_ENDING}"
        try:
            self._write(draft, json.dumps(_as_json(job)).encode())
            draft.rename(path)
            if self._durable:
                _sync_folder(self._folder)
        except OSError:  # its client is refused: nothing may come back of it
            draft.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise

    def waits(self) -> bool:
        """Whether there is something to replay."""
        try:
            return any(entry.name.endswith(_ENDING) for entry in os.scandir(self._folder))
        except FileNotFoundError:
            return False

    def take(self, link: Connection, now: float) -> tuple[list[Path], list[Job]]:
        """The oldest files and the jobs in them that no transaction took yet; noted as taken in this one.

        Their charges count from now: to date them back would look like a clock stepped back to accounts charged since.
        A message on hold is charged later, and Postfix knows it by its own time.
        """
        self._forget_drafts(now)
        paths = self._oldest()
        done = {name for (name,) in link.execute("SELECT name FROM replayed")}
        link.executemany("DELETE FROM replayed WHERE name = ?", [(name,) for name in done if not self._exists(name)])
        taken = [path for path in paths if path.name in done]  # not read: who took them removes them just now
        fresh = {path: content for path in paths if path.name not in done and (content := _content(path)) is not None}
        jobs = [job for path, content in fresh.items() if (job := _read(path, content, now)) is not None]
        link.executemany("INSERT INTO replayed VALUES (?)", [(path.name,) for path in fresh])
        return [*taken, *fresh], jobs

    def remove(self, paths: list[Path]) -> None:
        """After the commit."""
        for path in paths:
            path.unlink(missing_ok=True)

    def rewrite(self, change: Callable[[Row], Row], *, now: float) -> int:
        """Change the events that wait, and those beside them, each file as a whole; returns how many files changed."""
        self._forget_drafts(now)
        done = 0
        for path in sorted(self._folder.glob(f"*{_ENDING}")):
            try:
                found = json.loads(path.read_bytes())
                said = {
                    "row": found["row"] and list(found["row"]),
                    "besides": list(map(list, found.get("besides", ()))),
                }
                changed = {
                    "row": said["row"] and list(change(tuple(said["row"]))),
                    "besides": [list(change(tuple(one))) for one in said["besides"]],
                }
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if changed != said:
                draft = path.with_suffix(".tmp")
                draft.unlink(missing_ok=True)
                self._write(draft, json.dumps(found | changed).encode(), owner=path.stat())
                draft.rename(path)
                done += 1
        return done

    def _oldest(self) -> list[Path]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._folder) if entry.name.endswith(_ENDING))
        except FileNotFoundError:
            return []
        return [self._folder / name for name in names[:_SLICE]]

    def _forget_drafts(self, now: float) -> None:
        """What a killed process began to write counts towards our bound, and nobody will finish it."""
        for draft in self._folder.glob("*.tmp"):
            with suppress(FileNotFoundError):
                if draft.stat().st_mtime < now - _ABANDONED:
                    draft.unlink()

    def _exists(self, name: str) -> bool:
        return (self._folder / name).exists()

    def _write(self, path: Path, content: bytes, *, owner: os.stat_result | None = None) -> None:
        """What root writes again stays its owner's."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640), "wb") as file:
            if owner is not None and os.geteuid() == 0:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Else a power cut takes the name away (fsync(2), notes)."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _as_json(job: Job) -> dict[str, Any]:
    return {
        "charges": [asdict(charge) for charge in job.charges],
        "hold": asdict(job.hold) if job.hold else None,
        "recipients": job.recipients,
        "time": job.now,
        "row": job.row,
        "besides": job.besides,
        "figures": [[name, labels, count] for (name, labels), count in job.figures.items()],
    }


def _content(path: Path) -> bytes | None:
    """A file that the disk does not give would keep all others from coming back: it is put aside, and told about."""
    try:
        return path.read_bytes()
    except OSError as error:
        if error.errno not in _UNREADABLE:
            raise
        aside = path.rename(path.with_suffix(".unreadable"))
        log.error("an event cannot be read: %s; mend %s and give it its name back", error, aside)
        return None


def _read(path: Path, content: bytes, now: float) -> Job | None:
    """A file that says nothing, after a power cut, is told about and let go: there is nothing else to be had of it."""
    try:
        found = json.loads(content)
        charges = tuple(replace(charge_of(charge), enforce=False) for charge in found["charges"])
        figures = {(name, tuple(labels)): count for name, labels, count in found["figures"]}
        row = rows.checked(found["row"]) if found["row"] else None
        hold = _hold(found.get("hold"))
        when = float(found.get("time", now)) if hold else now
        besides = tuple(map(rows.checked, found.get("besides", ())))
        return Job(charges, row, figures, when, hold=hold, recipients=found.get("recipients", 0), besides=besides)
    except (ValueError, KeyError, TypeError) as error:
        log.error("%s: a damaged event is lost: %s", path, error)
        return None


def _hold(plain: dict[str, Any] | None) -> Hold | None:
    """Postfix holds the message by now, whatever the bound."""
    return Hold(**{**plain, "charges": tuple(map(charge_of, plain["charges"])), "most": 0}) if plain else None
