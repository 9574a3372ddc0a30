"""Mail of ours that a content filter takes away and gives back: it carries what was decided, and is signed at last.

An after-queue content filter (Postfix's FILTER_README) gives mail back on a service of its own, where login and client
are those of the filter. So the first pass charges, rewrites and puts a mark on it instead of a signature; the second
believes the mark for an hour, takes it off and signs. Whoever has no mark that holds is a stranger there: inbound mail
goes through the same filter. Marks are known by their MAC alone; anybody else's are taken off like ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from postmeter.mail.draft import MOST_DROPPED, Draft, Figure, Step
from postmeter.mail.message import Field, Message
from postmeter.mail.reply import Reply
from postmeter.runtime.logs import OnceAMinute
from postmeter.store.database import StoreError
from postmeter.token import Mark, Marker, domain_digest

once = OnceAMinute(logging.getLogger(__name__))

NAME = b"X-Postmeter-Mark"
KEY = NAME.lower()

LIFE = 3600.0
"""Seconds that a mark is believed, from the first pass on or from when the message was let out of the hold queue."""

_AHEAD = 60.0  # seconds by which the clock of the host that made the mark may be ahead of ours
_EXPIRED: Figure = ("dkim_unsigned_total", ("mark_expired",))

MaySign = Callable[[Draft], str]


class Marks:
    """`senders.refiltered` at work, for one worker.

    `released` tells when a held message was let go, by its queue id; 0 when it was not.
    """

    def __init__(
        self,
        marker: Marker,
        *,
        may_sign: MaySign,
        host: str,
        released: Callable[[str], float] = lambda queue_id: 0.0,
        count: Callable[[Mapping[Figure, int]], None] = lambda figures: None,
    ) -> None:
        self._marker = marker
        self._may_sign = may_sign
        self._host = host
        self._released = released
        self._count = count

    def believe(self, draft: Draft) -> bool:
        """Whether the message was here before: exactly one mark on it holds. Then the draft is what the mark says."""
        known = _authentic(draft.message, self._marker)
        holding = [mark for mark in known if self._holds(mark, draft.message.time)]
        if len(holding) == 1:
            draft.mark, draft.free = holding[0], "marked"
        elif not holding and any(mark.time <= draft.message.time for mark in known):
            self._count({_EXPIRED: 1})
        return draft.mark is not None

    def step(self, draft: Draft) -> Reply | None:
        """Take off what is there; on the first pass, put ours on."""
        reply = drop(draft)
        if draft.mark is not None:
            draft.note("mark", f"back from the content filter, first here as {draft.mark.queue_id or 'a message'}")
        elif reply is None:
            self._put(draft)
        return reply

    def _put(self, draft: Draft) -> None:
        _identify(draft, self._host)
        message = draft.message
        mark = Mark(
            reference=message.reference,
            time=int(message.time),
            signable=not self._may_sign(draft),
            domain=domain_digest(draft.from_domain),
            queue_id=message.queue_id,
            login=message.envelope.login,
            sender=draft.sender,
        )
        text = self._marker.mark(mark, message_id=_message_id(draft.fields))
        draft.insert_field(Field(NAME, b" " + text.encode()), at=0)
        draft.facts["marked"] = True
        draft.note("mark", "marked for the content filter; signed when it comes back")

    def why_unsigned(self, draft: Draft) -> str:
        """As `Identity.why_unsigned`, with the first pass's word for who may use the From domain."""
        mark = draft.mark
        reason = self._may_sign(draft)
        if mark is None or (reason and not draft.from_domain):
            return reason
        if mark.domain != domain_digest(draft.from_domain):
            return "from_changed"
        return "" if mark.signable else "from_mismatch"

    def _holds(self, mark: Mark, now: float) -> bool:
        """The hour of a message that was held begins when it is let go."""
        if -_AHEAD <= now - mark.time < LIFE:
            return True
        return mark.time <= now and bool(mark.queue_id) and 0 <= now - self._let_go(mark.queue_id) < LIFE

    def _let_go(self, queue_id: str) -> float:
        try:
            return self._released(queue_id)
        except StoreError as error:
            once.log(logging.WARNING, "mark", "%s: whether it was held cannot be read: %s", queue_id, error)
            return 0.0


def last_pass_only(step: Step) -> Step:
    """For what must come behind the content filter."""

    def run(draft: Draft) -> Reply | None:
        return step(draft) if draft.mark is not None else None

    return run


def drop(draft: Draft) -> Reply | None:
    """Take every mark off. So many that they cannot be taken off are no work of ours, nor of a filter's."""
    return draft.drop_fields(NAME) if KEY in draft.message.keys else None


def _authentic(message: Message, marker: Marker) -> list[Mark]:
    """The marks on it that we made for its Message-ID, however old; none where there are more than can be removed."""
    texts = [_squeezed(field.value).decode("latin-1") for field in message.fields if field.key == KEY]
    if len(texts) > MOST_DROPPED:
        return []
    message_id = _message_id(message.fields)
    return [mark for text in texts if (mark := marker.open_mark(text, message_id=message_id)) is not None]


def _message_id(fields: Iterable[Field]) -> bytes:
    """What a mark is bound to. A filter may fold fields anew: white space does not count."""
    return b"\0".join(_squeezed(field.value) for field in fields if field.key == b"message-id")


def _squeezed(value: bytes) -> bytes:
    return b"".join(value.split())


def _identify(draft: Draft, host: str) -> None:
    """A Message-ID where there is none (RFC 6409 section 8.3): Postfix would add one behind the filter, and every mark
    needs one to be bound to. Below Postfix's own Received field."""
    if not any(field.key == b"message-id" for field in draft.fields):
        made = f" <{draft.message.reference.hex()}@{host}>"
        draft.insert_field(Field(b"Message-ID", made.encode("ascii", "replace")), at=min(1, len(draft.fields)))
