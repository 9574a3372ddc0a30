"""Our own mail, when it comes in by our own Postfix: known by a one-time id, neither charged nor rewritten, but signed.

Knows nothing of what notices say or who sends them (`books`). The field is removed from all mail of ours: an id that is
unknown, used or there twice makes it mail like any other. The id is used up when the message is settled, so that a
client that was refused may come again with it. What carries no such field costs no question to the database.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from time import time

from postmeter.mail.draft import Draft
from postmeter.mail.message import Field
from postmeter.mail.reply import Reply
from postmeter.runtime.logs import OnceAMinute
from postmeter.store import notices
from postmeter.store.database import Database, StoreError

once = OnceAMinute(logging.getLogger(__name__))

_NAME = b"X-Postmeter-Notice"
_KEY = _NAME.lower()
_ID = re.compile(rb"[0-9a-f]{32}")  # 128 random bits


class Notices:
    """One a worker, safe for several threads."""

    def __init__(self, reader: Database, writer: Database) -> None:
        self._reader, self._writer = reader, writer

    def has_id(self, fields: Sequence[Field]) -> bool:
        """Whether it is mail of our own that waits for nobody else: then it is ours wherever it comes from."""
        return bool(self._known(fields))

    def step(self, draft: Draft) -> Reply | None:
        """Set the message free, or not; the field goes in any case."""
        if _KEY not in draft.message.keys:
            return None
        ident = self._known(draft.fields)
        reply = draft.drop_fields(_NAME)
        if ident:
            draft.free = "notice"
            draft.facts["notice"] = ident
            draft.note("notice", "our own mail: neither charged nor rewritten")
        else:
            draft.note("notice", "not our own mail, whatever it says: mail like any other")
        return reply

    def spend(self, draft: Draft) -> bool:
        """Use up the id that set the message free; false when another message did so meanwhile."""
        ident = str(draft.facts.get("notice", ""))
        return _asked(lambda: notices.consume(self._writer, ident, now=time()))

    def _known(self, fields: Sequence[Field]) -> str:
        values = _values(fields)
        if len(values) != 1 or not _ID.fullmatch(values[0]):
            return ""
        ident = values[0].decode()
        return ident if _asked(lambda: notices.knows(self._reader, ident, now=time())) else ""


def _values(fields: Sequence[Field]) -> list[bytes]:
    return [field.value.strip() for field in fields if field.key == _KEY]


def _asked(question: Callable[[], bool]) -> bool:
    """A journal that cannot answer knows no id: at worst our own mail is charged."""
    try:
        return question()
    except StoreError as error:
        once.log(logging.WARNING, "notice", "a notice of our own is taken for mail like any other: %s", error)
        return False
