"""For commands that tell of all hosts: opens the database that they ship to, where the configuration names one.

psycopg is loaded only then. A database that is away is told with the way round it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from postmeter.store import veil
from postmeter.store.accounts import StoreDownError

if TYPE_CHECKING:
    from postmeter.config.schema import Config
    from postmeter.store.database import Database
    from postmeter.store.everywhere import Everywhere

ALL = "all hosts"


@contextmanager
def everywhere(config: Config, book: Database, *, here: bool) -> Iterator[Everywhere | None]:
    """None where there is none, or it is not asked for. `book` is this host's, whose hashes of addresses are known."""
    if config.journal.ship_to is None or here:
        yield None
        return
    try:
        from postmeter.store.everywhere import Everywhere

        key = veil.read_key(book)
        reader = Everywhere(
            config.journal.ship_to,
            password_file=config.journal.ship_password_file,
            forms=lambda address: veil.forms(address, key),
        )
        with closing(reader):
            yield reader
    except StoreDownError as error:
        raise StoreDownError(f"{error}; --here tells of this host alone") from None
