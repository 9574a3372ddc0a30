"""What an order about a login does to its mail: frozen by the administrator, or stopped by the brake.

Knows nothing of who gave the order, nor of how orders are kept (`store.orders`). Unlike limits both hold for the null
sender as well: a login is no mail server that brings bounces, and whoever stole one would get out by `MAIL FROM:<>`.
That can be told at MAIL alone; later nothing with a null sender is refused or held (RFC 5321 section 4.5.5). Mail that
was taken before, and comes back from a content filter, is in the queue already and the administrator's to delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from postmeter.config.schema import Brake as Settings
from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.store.orders import Standing
from postmeter.submission.identity import sender
from postmeter.submission.pipeline import Gate, Stage

Stopped: TypeAlias = Callable[[str], object]
"""Whether there is such an order about a sender just now."""


class Freeze:
    """550 for all mail of the login, until a person takes the order back."""

    def __init__(self, frozen: Stopped) -> None:
        self._frozen = frozen

    def gate(self, envelope: Envelope, recipient: bytes | None) -> Reply | None:
        return self._refusal(sender(envelope))

    def step(self, draft: Draft) -> Reply | None:
        return None if draft.free else self._refusal(draft.sender)

    def _refusal(self, name: str) -> Reply | None:
        if not self._frozen(name):
            return None
        return Reply(550, "5.7.1", f"{name} is frozen by the administrator")


class Brake:
    """451 for all mail of the login, or Postfix's hold queue (`hold`), until a person ends it.

    550 where nobody would come again later: pickup(8) would bring the message each minute for ever (D42).
    """

    def __init__(self, braked: Stopped, *, hold: bool) -> None:
        self._braked, self._hold = braked, hold

    def gate(self, envelope: Envelope, recipient: bytes | None) -> Reply | None:
        if self._hold and envelope.mail_from:
            return None
        return self._refusal(envelope, sender(envelope))

    def step(self, draft: Draft) -> Reply | None:
        reply = None if draft.free else self._refusal(draft.message.envelope, draft.sender)
        if reply is None or not self._hold:
            return reply
        if draft.message.envelope.mail_from:
            draft.hold = "brake"
            draft.note("brake", f"to Postfix's hold queue: {reply.text}")
        return None

    def _refusal(self, envelope: Envelope, name: str) -> Reply | None:
        if not self._braked(name):
            return None
        return stopped(envelope, name)


def stopped(envelope: Envelope, name: str) -> Reply:
    """What a login that the brake stops is told, and no more: a thief reads it."""
    return _later(envelope, f"{name} sends unlike ever before and waits for the administrator")


def too_many(draft: Draft, most: int) -> Reply:
    """What a braked login is told when nothing more of it may be held."""
    return _later(draft.message.envelope, f"{draft.sender}: {most} messages wait for the administrator already")


def _later(envelope: Envelope, text: str) -> Reply:
    return Reply(451, "4.7.1", text) if envelope.waits else Reply(550, "5.7.1", text)


Rules: TypeAlias = tuple[tuple[str, Freeze | Brake], ...]
"""By the name that refusals are recorded with."""


def rules(standing: Standing, settings: Settings) -> Rules:
    """An order of the brake holds while it is on: who switches it off frees everybody."""
    freeze = Freeze(standing.frozen)
    if settings.mode != "on":
        return (("frozen", freeze),)
    return ("frozen", freeze), ("brake", Brake(standing.braked, hold=settings.action == "hold"))


def gates(found: Rules) -> Iterable[Gate]:
    return [Gate(name, rule.gate, bounces=True) for name, rule in found]


def stages(found: Rules) -> Iterable[Stage]:
    return [Stage(name, rule.step) for name, rule in found]
