"""A letter of ours that a command sends: by the mail server of `notify`, free of every quota as the notices are.

Knows nothing of what is in it.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import closing

from postmeter.books.letters import Letter
from postmeter.books.mailing import ID_LIVES, Mailer
from postmeter.config.schema import Config
from postmeter.store import database, notices


def send(config: Config, *, subject: str, text: str, html: str, to: Sequence[str], about: str) -> list[str]:
    """Whom the server did not take it for; OSError when it took nothing. `about` makes the Message-ID."""
    name = config.journal.host or socket.gethostname()
    name = name if re.fullmatch(r"[A-Za-z0-9.-]+", name) else "localhost"
    mailer = Mailer(config.notify.smtp, config.notify.from_ or f"postmaster@{name}", name)
    ident, now = secrets.token_hex(16), time.time()
    message = mailer.compose(Letter(subject, text, html), to=to, ident=ident, about=about, now=now)
    with closing(database.open(config.journal.path, sync=config.journal.sync)) as book:
        notices.issue(book, ident, now=now, until=now + ID_LIVES)
        try:
            return mailer.send(message, to=to)
        finally:
            notices.revoke(book, ident)
