"""Quotas: which limits a sender has, and what a client is told when one of them leaves no room."""

from __future__ import annotations

from postmeter.mail.draft import Draft
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.store.ledger import Charge, Overdrawn


class Quotas:
    """Quotas(quota, settler): built once a worker; safe to call from any thread."""

    def charges(self, draft: Draft) -> tuple[Charge, ...]:
        """What `settle` has to charge for this message."""
        raise NotImplementedError

    def check(self, draft: Draft) -> Reply | None:
        """The pipeline's step: refuse a message for which some limit leaves no room. Reads only."""
        raise NotImplementedError

    def refuse(self, draft: Draft, overdrawn: Overdrawn) -> Reply:
        """The reply when `settle` found no room after all."""
        raise NotImplementedError

    def gate(self, envelope: Envelope, recipient: bytes | None, now: float) -> Reply | None:
        """Early refusal at MAIL (`recipient` None) or RCPT for a sender already over. Reads only."""
        raise NotImplementedError
