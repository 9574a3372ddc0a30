"""The one SQLite database of ledger and journal: opening it, migrations, write transactions, and what went wrong.

WAL mode, so that readers and the one writer never wait for each other; writers take turns (`turn`). A connection never
crosses a fork (sqlite.org/howtocorrupt.html, 2.6): whoever forks opens afterwards. Knows nothing of what is stored.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, time_ns
from typing import Any, NoReturn, TypeAlias

from postmeter.store.migrations import MIGRATIONS
from postmeter.store.turn import Turn

PATIENCE = 3.0
"""Seconds that a writer waits for its turn, and for somebody who writes without taking turns: sqlite3(1), a backup. A
transaction of ours takes a fraction of a millisecond."""

COPIED = "copied"
"""The position by which a copy is known."""

_MODE = 0o640
_LOOK = 0.1  # seconds between two looks of who only reads whether the file is still there
_TICKS = 20_000_000  # nanoseconds
_FILE_CHECKPOINT = 8000  # pages of WAL, 32 MB, that a writer copies back while all others wait; books do it sooner
_LONG = 3000  # pages of WAL that is to begin anew
_CACHE = 8_000  # kB; bounds the memory of a connection
_SYNC = {"normal": "NORMAL", "full": "FULL"}

_FIXES = (
    ("no journal yet", "start them, or name the right file in journal.path"),
    ("no regular file", "name a file that may be made there in journal.path"),
    ("another program's", "give the journal a file of its own in journal.path"),
    ("no such table", "it is empty, or from before an upgrade: start the daemons, or move it away"),
    ("malformed", "it is damaged: move it away, restore a backup, or start without it"),
    ("not a database", "it is no SQLite database: move it away"),
    ("new thread", "let the daemons have more tasks: TasksMax= of their unit, or the user's limit of processes"),
    ("locked", "another program holds it: end the transaction left open there"),
    ("full", "make room on that file system"),
    ("readonly", "give it, and its directory, to the user of the daemons"),
    ("unable to open", "its directory must exist and belong to the daemons' user; only it and root may read it"),
    ("Permission denied", "only the user of the daemons and root may write it"),
    ("disk I/O", "look for errors of the disk, and for limits of file size and space"),
)

Row: TypeAlias = tuple[Any, ...]


class StoreError(Exception):
    """The store cannot be read or written; its text names the file and what to do."""

    def __init__(self, path: Path, what: str) -> None:
        self.what = what
        self.fix = next((fix for sign, fix in _FIXES if sign in what), "see that file system and its permissions")
        super().__init__(f"{path}: {what}; {self.fix}")


class Database:
    """One connection that threads may share; they are served one after the other."""

    def __init__(self, path: Path, *, sync: str, readonly: bool, patience: float = PATIENCE) -> None:
        self.path = path
        self._name = str(path)  # a Path costs more than the stat(2) itself
        self._sync = _SYNC[sync]
        self._readonly = readonly
        self._patience = patience
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._link: sqlite3.Connection | None = None
        self._turn: Turn | None = None
        self._inode = 0
        self._look_at = float("-inf")
        self._synced = (0, 0, 0)
        self._tolerant = False

    def query(self, sql: str, values: Sequence[object] = ()) -> list[Row]:
        """All rows of one SELECT."""
        with self._mutex:
            try:
                if self._readonly:
                    self._forget_if_replaced()
                return self._fetch(sql, values)
            except (sqlite3.Error, OSError, StoreError) as error:
                self._fail(error)

    def _fetch(self, sql: str, values: Sequence[object]) -> list[Row]:
        """Octets that are no UTF-8, as a disk may give them back, shall not keep all other rows from being read."""
        link = self._connection()
        try:
            return link.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if not _is_no_text(error):
                raise
        self._tolerant = True
        link.text_factory = _as_text
        return link.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing, even when the process is killed. Raises StoreError; nothing is written then."""
        with self._mutex:
            try:
                self._forget_if_replaced()
                link = self._connection()
                turn = self._take_turn()
                try:
                    link.execute("BEGIN IMMEDIATE")
                    yield link
                    link.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        link.execute("ROLLBACK")
                    raise
                finally:
                    turn.give()
            except (sqlite3.Error, OSError, StoreError) as error:
                self._fail(error)

    def checkpoint(self) -> None:
        """Copy the write-ahead log back while others write; once it is long, what they wrote meanwhile in our turn.

        Else it comes due in somebody's transaction, for which all others wait. A log begins anew when nothing is left
        to be copied, and never while everybody goes on writing (sqlite.org/wal.html, 2.3).
        """
        with self._mutex:
            try:
                if self._copy_back() >= _LONG:
                    turn = self._take_turn()
                    try:
                        self._copy_back()
                    finally:
                        turn.give()
            except (sqlite3.Error, OSError, StoreError) as error:
                self._fail(error)

    def _copy_back(self) -> int:
        """As far as it can be; pages of the log."""
        _, pages, _ = self._connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(pages)

    def sync_log(self) -> None:
        """Have the disk take what anybody committed: with `sync` normal Linux does so after 30 s, or `checkpoint`.

        In nobody's turn. The log bears no lock of SQLite's that closing it could drop.
        """
        with suppress(FileNotFoundError), self._beside("-wal").open("rb", buffering=0) as log:
            found = os.fstat(log.fileno())
            seen = found.st_ino, found.st_size, found.st_mtime_ns
            if seen != self._synced:
                # What comes next may bear the same time: the kernel's clock ticks 100 to 1,000 times a second.
                settled = time_ns() - found.st_mtime_ns > _TICKS
                os.fdatasync(log.fileno())
                self._synced = seen if settled else (0, 0, 0)

    def close(self) -> None:
        with self._mutex:
            self._drop()
            if self._turn is not None:
                self._turn.close()
            self._turn = None

    def _connection(self) -> sqlite3.Connection:
        if os.getpid() != self._pid:
            raise RuntimeError(f"{self.path} was opened by process {self._pid}: open it again after a fork")
        if self._link is None:
            self._link = self._read() if self._readonly else self._write()
        return self._link

    def _write(self) -> sqlite3.Connection:
        """One that exists is never opened besides: closing that descriptor would drop SQLite's locks on the file
        (sqlite.org/howtocorrupt.html, 2.2).
        """
        if self._turn is None:
            self._turn = Turn(_open(self._beside(".lock")))
        turn = self._take_turn()
        try:
            if not self.path.exists():
                self._make()
            self._inode = self._regular().st_ino
            link = self._connect("mode=rw")
            self._refuse_foreign(link)  # before anything is changed in it
            link.execute("PRAGMA journal_mode=WAL")
            link.execute(f"PRAGMA synchronous={self._sync}")
            link.execute(f"PRAGMA wal_autocheckpoint={_FILE_CHECKPOINT}")
            link.execute("PRAGMA secure_delete=ON")  # as Debian builds it: what is deleted is overwritten
            _migrate(link)
        finally:
            turn.give()
        return link

    def _make(self) -> None:
        """With our mode before SQLite sees it: its -wal and -shm get the mode and owner of the database.

        Those of one that was moved away without them are another's, and may be in use there: who shared the -shm, an
        index of that log, would read the new log by it (sqlite.org/howtocorrupt.html, 2.4).
        """
        for ending in ("-wal", "-shm"):
            self._beside(ending).unlink(missing_ok=True)
        os.close(_open(self.path))

    def _read(self) -> sqlite3.Connection:
        """Read-only WAL needs the -shm file, or leave to make it (sqlite.org/wal.html, 5): neither when nobody runs."""
        try:
            self._inode = self._regular().st_ino
            link = self._connect("mode=ro")
            self._refuse_foreign(link)
            link.execute("SELECT count(*) FROM migrations")
        except FileNotFoundError:
            raise StoreError(self.path, "there is no journal yet: the daemons make it") from None
        except sqlite3.OperationalError:
            if self._beside("-wal").exists():
                raise
            link = self._connect("immutable=1")  # nobody writes: there is no -wal
            self._refuse_foreign(link)
        return link

    def _regular(self) -> os.stat_result:
        """Who opens a FIFO waits for somebody at its other end."""
        state = self.path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise StoreError(self.path, "it is no regular file")
        return state

    def _refuse_foreign(self, link: sqlite3.Connection) -> None:
        """What is ours is empty, or has seen our first step: the first tables come in one transaction with it."""
        try:
            ours = link.execute("SELECT 1 FROM migrations WHERE name = ?", (MIGRATIONS[0][0],)).fetchone()
        except sqlite3.OperationalError as error:
            if "no such" not in str(error):  # table or column
                raise
            ours = None
        if ours is None and link.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
            link.close()
            raise StoreError(self.path, "it is another program's database")

    def _connect(self, how: str) -> sqlite3.Connection:
        uri = f"{self.path.absolute().as_uri()}?{how}"
        link = sqlite3.connect(uri, uri=True, timeout=self._patience, isolation_level=None, check_same_thread=False)
        link.execute(f"PRAGMA cache_size=-{_CACHE}")
        link.execute("PRAGMA mmap_size=0")  # a failing disk is to be an error, not SIGBUS
        link.execute("PRAGMA foreign_keys=OFF")
        if self._tolerant:
            link.text_factory = _as_text  # slower than its own
        return link

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _take_turn(self) -> Turn:
        if self._turn is None:
            raise RuntimeError(f"{self.path} is open for reading only")
        if not self._turn.take(self._patience):
            raise StoreError(self.path, f"database is locked: no turn to write within {self._patience:g} s")
        return self._turn

    def _forget_if_replaced(self) -> None:
        """A file that was moved away would take our writes with it, into nowhere.

        Who writes looks each time: were another process faster, both would write one log for two files.
        """
        now = monotonic()
        if self._link is None or (self._readonly and now < self._look_at):
            return
        self._look_at = now + _LOOK
        try:
            same = os.stat(self._name).st_ino == self._inode
        except FileNotFoundError:
            same = False
        if not same:
            self._drop()

    def _fail(self, error: Exception) -> NoReturn:
        """Every failure of SQLite or the file system as a StoreError; the next use opens the file afresh."""
        if isinstance(error, sqlite3.ProgrammingError):
            raise error  # a bug of ours, and the file as good as ever
        self._drop()
        self._tolerant = self._tolerant or _is_no_text(error)
        if isinstance(error, StoreError):
            raise error
        what = error.strerror if isinstance(error, OSError) else None
        raise StoreError(self.path, what or str(error)) from error

    def _drop(self) -> None:
        if self._link is not None and os.getpid() == self._pid:
            with suppress(sqlite3.Error):
                self._link.close()
        self._link = None


def open(path: Path, *, sync: str = "normal", readonly: bool = False) -> Database:
    """The database, made and brought up to date if need be; StoreError when that is impossible."""
    database = Database(path, sync=sync, readonly=readonly)
    database.query("SELECT count(*) FROM migrations")
    return database


def _is_no_text(error: Exception) -> bool:
    return "Could not decode" in str(error)


def _as_text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _open(path: Path) -> int:
    """A descriptor for writing."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _create(path)


def _create(path: Path) -> int:
    """A file that root has to make belongs to whom its directory belongs to.

    Who that is must not have root make one elsewhere: O_EXCL follows no link, wherever it points.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    except FileExistsError:  # somebody was faster
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    os.fchmod(file, _MODE)
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
    return file


def _migrate(link: sqlite3.Connection) -> None:
    link.execute("BEGIN IMMEDIATE")
    try:
        link.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY, time REAL NOT NULL)")
        done = {name for (name,) in link.execute("SELECT name FROM migrations")}
        for name, step in MIGRATIONS:
            if name not in done:
                _make(link, step)
                link.execute("INSERT INTO migrations VALUES (?, unixepoch())", (name,))
        _renumber(link)
    except BaseException:
        link.execute("ROLLBACK")
        raise
    link.execute("COMMIT")


def _renumber(link: sqlite3.Connection) -> None:
    """A copy that is put back (`copying`) must give no number that the lost one gave to others after it was made: it
    goes on at the time in microseconds, which no counting reaches, and which the next copy's is beyond."""
    if link.execute("DELETE FROM positions WHERE name = ?", (COPIED,)).rowcount:
        missing = "SELECT 1 FROM sqlite_sequence WHERE name = 'events'"  # as long as there never was one
        link.execute(f"INSERT INTO sqlite_sequence SELECT 'events', 0 WHERE NOT EXISTS ({missing})")
        link.execute("UPDATE sqlite_sequence SET seq = max(seq, unixepoch() * 1000000) WHERE name = 'events'")


def _make(link: sqlite3.Connection, step: str | Callable[[sqlite3.Connection], None]) -> None:
    if callable(step):
        step(link)
        return
    for statement in step.split(";"):
        link.execute(statement)
