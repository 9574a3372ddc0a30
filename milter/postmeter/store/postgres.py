"""A connection to PostgreSQL, or to an engine that speaks its protocol, which keeps the facts of all hosts.

Made when it is needed, dropped after a failure, and never waited for longer than a bound. The only door to psycopg,
which is loaded with this module: import it where the configuration names a database. Knows nothing of what is stored.
PostgreSQL's manual, 34.1, says what the address may hold (sslmode, target_session_attrs …).
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from postmeter.store.accounts import StoreDownError
from postmeter.store.turn import deaf

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
except ImportError as error:  # psycopg is there, and libpq is not
    raise StoreDownError(f"psycopg cannot be loaded: {error}; apt-get install python3-psycopg libpq5") from None

PATIENCE = 60.0
"""Seconds for one transaction of a batch."""

_CONNECT = 10  # seconds
_SILENT = 30_000  # milliseconds that what we sent may stay unacknowledged (tcp(7), TCP_USER_TIMEOUT)

Cursor: TypeAlias = "psycopg.Cursor[tuple[Any, ...]]"


class Postgres:
    """For one thread. Raises `StoreDownError` for all that keeps it from answering; its text holds no secret."""

    def __init__(self, url: str, *, password_file: Path | None = None, patience: float = PATIENCE) -> None:
        self._url, self._password_file, self._patience = url, password_file, patience
        self._link: psycopg.Connection[tuple[Any, ...]] | None = None

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """All of it or nothing. When committing fails nobody knows which: whoever asks again must be able to tell."""
        late = threading.Event()
        try:
            link = self._connection()
            with _bounded(link, self._patience, late), link.transaction(), link.cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            self.close()
            why = f"no answer within {self._patience:g} s" if late.is_set() else _told(error)
            raise StoreDownError(f"PostgreSQL: {why}") from None
        except OSError as error:
            self.close()
            raise StoreDownError(f"PostgreSQL: {error}") from None

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                link.close()

    def _connection(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._link is None or self._link.closed:
            self._link = psycopg.connect(self._conninfo(), autocommit=True, prepare_threshold=None)
        return self._link

    def _conninfo(self) -> str:
        """Without statements that the server is to remember, so that a pooler may stand in between."""
        wanted: dict[str, Any] = {
            "connect_timeout": _CONNECT,
            "tcp_user_timeout": _SILENT,
            "application_name": "postmeter",
            **conninfo_to_dict(self._url),
            "client_encoding": "UTF8",
        }
        if self._password_file is not None:
            try:
                wanted["password"] = self._password_file.read_text("utf-8").strip()
            except UnicodeDecodeError:  # its text tells of the password
                raise StoreDownError(f"PostgreSQL: {self._password_file} is no UTF-8") from None
        return make_conninfo("", **wanted)


@contextlib.contextmanager
def _bounded(link: psycopg.Connection[Any], seconds: float, late: threading.Event) -> Iterator[None]:
    """A server that hangs is hung up on: psycopg itself would wait for ever."""

    def hang_up() -> None:
        deaf()
        late.set()
        with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(link.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _told(error: psycopg.Error) -> str:
    """On one line; not the details, in which the server repeats what it was sent."""
    return " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
