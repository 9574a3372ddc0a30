"""What would keep events from the database of all hosts: its library, the file of its password, an open road.

Looks and changes nothing, and connects to nobody: that a database is down just now is no mistake of a configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from postmeter.config import postgresql
from postmeter.config.load import Loaded
from postmeter.config.permissions import Person, unfit
from postmeter.config.problem import Problem


def of_shipping(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """`journal.ship_to` and the key beside it."""
    journal = loaded.config.journal
    if journal.ship_to is None:
        if journal.ship_password_file is not None:
            what = "is not used: no database is named"
            yield loaded.warning("journal.ship_password_file", what, "name one in journal.ship_to")
        return
    if find_spec("psycopg") is None:
        yield loaded.problem("journal.ship_to", "Python's psycopg is not there", "apt-get install python3-psycopg")
    path = journal.ship_password_file
    if path is not None:
        make = f"write the database's password into it: install -D -m 0600 -o {me.name} /dev/stdin {path}"
        fault = unfit(path, me, make)
        if fault:
            yield loaded.problem("journal.ship_password_file", fault.what, fault.fix)
    if postgresql.leaves_this_host(journal.ship_to) and postgresql.ssl_mode(journal.ship_to) not in postgresql.VERIFIED:
        what = "whoever is in between can pretend to be the database and read addresses and logins"
        fix = "add ?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"
        yield loaded.warning("journal.ship_to", what, fix)
