"""The way of an answer to the sender whom it was meant for: by `notify.smtp`, octet for octet, with a null return path.

One that the server does not take now waits and holds up no other.

Above it stands a Received field of ours, as every server puts one there (RFC 5321 section 4.4). By it the milter knows
mail that was not written here: it is neither metered nor signed. Servers count such fields, and so do we, so that
nothing goes in circles. Knows nothing of why a message is passed on, nor to whom it may be.
"""

from __future__ import annotations

import logging
import smtplib
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime

from postmeter.books.backoff import Backoff
from postmeter.config.schema import InetAddress
from postmeter.feedback.arrivals import Arrival, Arrivals
from postmeter.mail.reading import crlf
from postmeter.runtime.logs import OnceAMinute

log = logging.getLogger(__name__)
once = OnceAMinute(log)

_BATCH = 20  # messages over one connection
_PATIENCE, _TAKING = 10.0, 300.0  # seconds for the server to say who it is, and for each later answer
_FIRST, _MOST = 5.0, 600.0  # seconds of rest when it does not take mail
_GIVE_UP = 5 * 86400.0  # Postfix's maximal_queue_lifetime


class Forwarding:
    """Made and used in one thread. `failed` counts a failure by the name of its chore."""

    def __init__(
        self,
        waiting: Arrivals,
        kept: Arrivals,
        smtp: InetAddress,
        *,
        host: str,
        failed: Callable[[str], None],
        chance: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._waiting, self._kept, self._smtp, self._host = waiting, kept, smtp, host
        self._failed, self._clock = failed, clock
        self._rest = Backoff(first=_FIRST, most=_MOST, chance=chance)
        self._after = ""  # the last one that was tried
        self._refused: Exception | None = None  # what the server said of one of them, in this turn through all

    def work(self) -> bool:
        """Some of those that wait, over one connection; true when there are more in this turn through all."""
        if self._rest.rests(time.monotonic()):
            return False
        names = [name for name in self._waiting.names() if name > self._after][: _BATCH + 1]
        try:
            if names:
                self._send(names[:_BATCH])
        except OSError as error:  # smtplib's are such; of the server or the way there, so all others wait too
            return self._wait(error)
        if len(names) > _BATCH:
            return True
        refused, self._after, self._refused = self._refused, "", None
        if refused is not None:
            return self._wait(refused)
        self._rest.succeeded()
        return False

    def _wait(self, error: Exception) -> bool:
        """Behind the one that it failed with, if others are there: it may be that one's fault."""
        wait = self._rest.failed(time.monotonic())
        self._failed("returns")
        once.log(logging.ERROR, "smtp", "answers to senders wait: %s: %s; again in %.0f s", self._smtp, error, wait)
        self._give_up()
        return False

    def close(self) -> None:
        """Nothing is held."""

    def _send(self, names: list[str]) -> None:
        link = smtplib.SMTP(self._smtp.host, self._smtp.port, local_hostname=self._host, timeout=_PATIENCE)
        try:
            if link.sock is not None:
                link.sock.settimeout(_TAKING)
            link.ehlo_or_helo_if_needed()
            for name in names:
                arrival = self._waiting.read(name)
                self._after = name
                if arrival is not None:
                    self._hand_over(link, arrival)
            with suppress(OSError):  # all has been taken by now
                link.quit()
        finally:
            link.close()

    def _hand_over(self, link: smtplib.SMTP, arrival: Arrival) -> None:
        """A sender whom the server refuses for good is no sender: a person may look at it."""
        to = arrival.envelope.recipients
        options = [word for word in ("BODY=8BITMIME", "SMTPUTF8") if link.has_extn(word.rpartition("=")[2])]
        if all(address.isascii() for address in to) and "SMTPUTF8" in options:
            options.remove("SMTPUTF8")
        try:
            link.sendmail("", list(to), self._trace(arrival) + crlf(arrival.raw), options)
        except (smtplib.SMTPRecipientsRefused, smtplib.SMTPResponseException, UnicodeEncodeError) as error:
            if not _for_good(error):
                if link.sock is None:  # smtplib leaves at 421
                    raise
                self._refused = error
                return
            log.warning("%s: not passed on to its sender: %s", arrival.name, error)
            self._waiting.move(arrival.name, self._kept, why=f"not passed on: {error}"[:500])
        else:
            self._waiting.drop(arrival.name)

    def _trace(self, arrival: Arrival) -> bytes:
        date = format_datetime(datetime.fromtimestamp(self._clock(), UTC))
        ident = arrival.name.removesuffix(".eml")
        return f"Received: by {self._host} (postmeter) with LMTP id {ident};\r\n\t{date}\r\n".encode("ascii", "replace")

    def _give_up(self) -> None:
        """On what waited for too long: the oldest come first."""
        for name in self._waiting.names(_BATCH):
            arrival = self._waiting.read(name)
            if arrival is not None and self._clock() - arrival.envelope.time > _GIVE_UP:
                self._waiting.move(name, self._kept, why="not passed on: no server took it for five days")


def _for_good(error: Exception) -> bool:
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in error.recipients.values())
    return not isinstance(error, smtplib.SMTPResponseException) or error.smtp_code >= 500
