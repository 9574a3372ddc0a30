"""The one SQLite database of ledger and journal: opening, migrations, write transactions."""

from __future__ import annotations


class StoreError(Exception):
    """The store cannot be read or written; its text names the file and what to do."""
