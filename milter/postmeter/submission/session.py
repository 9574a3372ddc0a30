"""One SMTP client's connection as libmilter tells it: collect the message, have it decided, apply, record, answer.

The only place that talks to libmilter about messages, and only at their end. Refuses to know how anything is decided.
Whatever happens a callback answers once and with an int (D6, D31): what goes wrong in here ends in the policy of
`milter.on_bug`. Postfix's MILTER_README and cleanup_milter.c say when each callback comes; libmilter's own page for
each function says what may be called in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from time import time
from typing import Any, Protocol

import milter

from postmeter.mail.address import bare
from postmeter.mail.apply import ordered
from postmeter.mail.draft import Draft, drops
from postmeter.mail.message import (
    Change,
    Client,
    DropField,
    DropRecipient,
    Envelope,
    Field,
    InsertField,
    Message,
    ReplaceBody,
    ReplaceField,
    ReplaceSender,
)
from postmeter.mail.reply import Reply
from postmeter.submission.identity import Identity, Whose
from postmeter.submission.load import TOO_MUCH, Load, Share, Spurned
from postmeter.submission.mark import KEY, NAME, Marks
from postmeter.submission.pipeline import BUG, Gate, Outcome, Pipeline

log = logging.getLogger(__name__)

_NOBODY = Envelope(b"")
_EACH, _EACH_RCPT, _EACH_ASKED = 220, 50, 160  # octets that a field, a recipient, one with parameters take besides text


class Recorder(Protocol):
    """Where what became of a message is settled and written down (`record` is this worker's)."""

    def accepted(self, draft: Draft) -> Reply | None:
        """Charge and record in one transaction; a reply refuses the message after all."""

    def refused(self, envelope: Envelope, reply: Reply, *, stage: str, draft: Draft | None = None) -> None:
        """Record that we refused mail, at MAIL or RCPT without a draft."""

    def passed(self, service: str) -> None:
        """Count mail that is not ours."""

    def took(self, stage: str, seconds: float) -> None:
        """Add to the timing of a callback."""

    def failed(self, where: str) -> None:
        """Count a failure of our own."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What every session of a worker shares."""

    identity: Identity
    gates: tuple[Gate, ...]
    """Asked at MAIL."""
    pipeline: Pipeline
    recorder: Recorder
    load: Load
    observe: bool = False
    tolerant: bool = False
    """`milter.on_bug: accept`."""
    certificates: bool = False
    signs: bool = True
    rewrites: bool = True
    returns: bool = False
    """Whether some message may get another return path, and fields that tell of it."""
    drops: bool = False
    """Whether some message may lose recipients."""
    holds: bool = False
    """Whether some message may go to Postfix's hold queue."""
    marks: Marks | None = None
    """Where a content filter gives mail back to us (`senders.refiltered`)."""
    rcpt_gates: tuple[Gate, ...] = ()
    """Asked at each RCPT; without any nobody waits for our reply there."""
    reference: Callable[[], bytes] = field(kw_only=True)
    """Eight random bytes, anew at each call."""


class Session:
    """State of one connection; a message's state is reset at MAIL and let go at its end (D4, D31)."""

    __slots__ = ("_body", "_desk", "_fields", "_marked", "_overflow", "_quiet", "_rcpt_to", "_share", "_spurned",
                 "_whose", "broken", "client", "envelope")  # fmt: skip

    _body: bytes | BytesIO
    _overflow: bool
    _spurned: Spurned | None

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.client = Client(name="unknown", address="", port=-1)
        self._share = Share(desk.load)
        self._reset()

    def connect(self, name: str, family: int, hostaddr: Sequence[Any] | str | None) -> None:
        """`hostaddr` is (address, port, …) of an inet client, a path, or None where Postfix knows none (D1)."""
        if isinstance(hostaddr, tuple) and len(hostaddr) >= 2:
            self.client = Client(name=name, address=str(hostaddr[0]), port=int(hostaddr[1]))
        else:
            self.client = Client(name=name, address="", port=-1)

    def mail(self, ctx: milter.milterContext, *args: bytes) -> int:
        self._reset()
        desk = self._desk
        self.envelope = self._open(ctx, args)
        self._whose = desk.identity.by_envelope(self.envelope)
        full = desk.load.refusal()
        if full is not None and self.envelope.waits:
            return self._turn_away(ctx, full)
        if self._whose in (Whose.FOREIGN, Whose.RETURNED) and not self._takes_marks_off:
            desk.recorder.passed(self.envelope.service)
            return milter.ACCEPT
        return self._gate(ctx, desk.gates, None)

    def rcpt(self, ctx: milter.milterContext, *args: bytes) -> int:
        verdict = self._gate(ctx, self._desk.rcpt_gates, bare(args[0]))
        if verdict == milter.CONTINUE:
            self.recipient(*args)
        return verdict

    def recipient(self, address: bytes, *args: bytes) -> None:
        """One more that the message goes to; where nobody is asked at RCPT that is all there is to it."""
        recipient, share = bare(address), self._share
        octets = 2 * len(recipient) + (_EACH_ASKED if args else _EACH_RCPT)  # twice: the event has it as text besides
        if self._whose is not Whose.FOREIGN and (octets <= share.room or self._hold(octets)):
            share.room -= octets
            share.kept += octets
        else:
            recipient = b""  # how many there are is told of what is refused
        self._rcpt_to.append(recipient)
        if args and _quiet(args):
            self._quiet.add(recipient)

    def header(self, name: str, value: bytes) -> None:
        one = Field(name.encode(), value)
        if one.key == KEY:
            self._marked += 1
        octets, share = 2 * len(name) + len(value) + _EACH, self._share
        if self._whose is not Whose.FOREIGN and (octets <= share.room or self._hold(octets)):
            share.room -= octets
            self._fields.append(one)

    def end_of_header(self, ctx: milter.milterContext) -> int:
        """The last moment to step aside: mail that only passes through costs nothing from here on.

        What must lose marks goes on to its end, and is not kept in memory.
        """
        rcpt_to, quiet = tuple(self._rcpt_to), frozenset(self._quiet)  # once: there may be a hundred thousand
        self.envelope = self.envelope.to(rcpt_to, quiet)
        if self._whose is not Whose.OURS and not self._overflow:
            self._whose = self._by_header()
        if self._whose is not Whose.FOREIGN:
            return milter.CONTINUE
        self._let_go()
        if self._marked and self._takes_marks_off:
            return milter.CONTINUE
        return self._pass()

    def body(self, chunk: bytes) -> None:
        octets, share = len(chunk), self._share
        if self._whose is Whose.FOREIGN or not (octets <= share.room or self._hold(octets)):
            return
        share.room -= octets
        if not self._body:
            self._body = chunk
            return
        if isinstance(self._body, bytes):  # from the second chunk on in a buffer that grows: a join would need it twice
            begun = BytesIO()
            begun.write(self._body)
            self._body = begun
        self._body.write(chunk)

    def end_of_message(self, ctx: milter.milterContext) -> int:
        load, held = self._desk.load, self._share.used
        begun = load.begin(held)
        try:
            self._overflow = self._overflow or not begun
            verdict = self.fail(ctx, "session") if self.broken else self._decide(ctx)
            self._reset()
        finally:
            if begun:
                load.end(held)
        return verdict

    def abort(self) -> None:
        """Comes behind every message. One that lost recipients to us, and never came to its end, was refused."""
        envelope, lost = self.envelope, self._spurned
        if envelope is not _NOBODY or self._share.held:
            self._reset()  # first: of a client that is gone nothing else would, whatever fails
        if lost is not None:
            self._desk.recorder.refused(lost.of(envelope), lost.reply, stage=lost.stage)

    def fail(self, ctx: milter.milterContext, where: str) -> int:
        """What a bug of ours means for the client: `milter.on_bug`, now and at the end of this message."""
        self._desk.recorder.failed(where)
        self.broken = True
        self._let_go()
        return self._answer(ctx, BUG) if not self._desk.tolerant else milter.ACCEPT

    def _by_header(self) -> Whose:
        """Whose it is now that the header is there; RETURNED stays so until the mark on it is looked at."""
        if self._whose is Whose.UNDECIDED:
            reason = self._desk.identity.by_header(self._fields)
            if reason:
                log.debug("not ours: %s", reason)
            return Whose.FOREIGN if reason else Whose.OURS
        return Whose.FOREIGN if self._whose is Whose.RETURNED and not self._marked else self._whose

    @property
    def _takes_marks_off(self) -> bool:
        """Where our marks are believed nobody else's may arrive, not even on mail that is none of ours."""
        return self._desk.marks is not None and not self._desk.observe

    def _pass(self) -> int:
        self._desk.recorder.passed(self.envelope.service)
        self._reset()
        return milter.ACCEPT

    def _turn_away(self, ctx: milter.milterContext, reply: Reply) -> int:
        """There is no room. What is spared passes untouched; of the rest, mail that may be ours is written down."""
        if self._spared:
            self._desk.recorder.passed(self.envelope.service)
        elif self._whose is not Whose.FOREIGN:
            self._desk.recorder.refused(self.envelope, reply, stage="capacity")
        return self._answer(ctx, reply)

    def _decide(self, ctx: milter.milterContext) -> int:
        desk = self._desk
        if self._overflow:
            if self._spared and self._takes_marks_off:
                send(ctx, drops(NAME, self._marked))
            return self._turn_away(ctx, TOO_MUCH)
        draft = self._draft(ctx)
        if self._whose is not Whose.OURS and not self._believed(draft):
            send(ctx, drops(NAME, self._marked))
            return self._pass()
        outcome = desk.pipeline.run(draft)
        if outcome.reply is not None and not desk.observe:
            desk.recorder.refused(self.envelope, outcome.reply, stage=outcome.stage, draft=outcome.draft)
            return answer(ctx, outcome.reply)
        return self._take(ctx, outcome)

    def _believed(self, draft: Draft) -> bool:
        """Of what comes back from a content filter only that is ours whose mark holds."""
        marks = self._desk.marks
        return self._whose is Whose.RETURNED and marks is not None and marks.believe(draft)

    def _take(self, ctx: milter.milterContext, outcome: Outcome) -> int:
        """Edits first, the transaction last: a charge refused there is answered 451, and Postfix drops the edits.

        Quarantine comes behind it (D7): a message that is on record as held, and is not, is found missing and let go.
        A test that nobody shall get is recorded like other mail, and goes no further.
        """
        draft = outcome.draft
        if self._desk.observe:
            verdict = str(outcome.reply or _verdict(draft))
            draft.facts = {"observed": {"verdict": verdict, **draft.facts}}
        elif not draft.wishes.test:
            send(ctx, draft.changes)
        late = self._desk.recorder.accepted(draft)
        if late is None and draft.hold:
            ctx.quarantine(f"postmeter: {draft.hold}")
        if late is not None:
            return self._answer(ctx, late)
        return milter.DISCARD if draft.wishes.test and not self._desk.observe else milter.ACCEPT

    @property
    def _spared(self) -> bool:
        """Never refused: the null sender, whose bounce would be lost (D20, RFC 5321 4.5.5), and anybody we observe."""
        return self._desk.observe or not self.envelope.mail_from

    def _answer(self, ctx: milter.milterContext, reply: Reply) -> int:
        return milter.ACCEPT if self._spared else answer(ctx, reply)

    def _gate(self, ctx: milter.milterContext, gates: Sequence[Gate], recipient: bytes | None) -> int:
        """Early refusal: of ours that have an SMTP client (D8), never while observing.

        A queue id at MAIL means that no client waits: sendmail(1)'s mail is queued already (D2).
        """
        desk, envelope = self._desk, self.envelope
        if self._whose is not Whose.OURS or desk.observe or not envelope.waits:
            return milter.CONTINUE
        for gate in gates:
            reply = gate.ask(envelope, recipient) if envelope.mail_from or gate.bounces else None
            if reply is not None and recipient is not None:
                self._spurned = (self._spurned or Spurned(reply, gate.name)).add(recipient, self._share)
            elif reply is not None:
                desk.recorder.refused(envelope, reply, stage=gate.name)
            if reply is not None:
                return answer(ctx, reply)
        return milter.CONTINUE

    def _open(self, ctx: milter.milterContext, args: Sequence[bytes]) -> Envelope:
        """The envelope as MAIL opens it; the login exists from here on (D1)."""
        client, sender = self.client, bare(args[0])
        try:
            if self._desk.certificates:
                client = replace(client, certificate=symbol(ctx, "{cert_subject}"))
            return Envelope(
                mail_from=sender,
                args=tuple(args[1:]),
                client=client,
                login=symbol(ctx, "{auth_authen}"),
                service="local" if client.local else symbol(ctx, "{daemon_name}"),
                waits=not symbol(ctx, "i"),
            )
        except UnicodeDecodeError:  # a macro that cannot be read: `fail` still asks who sends
            self.envelope = Envelope(sender)
            raise

    def _draft(self, ctx: milter.milterContext) -> Draft:
        """What is decided about. The body is handed over: when a step replaces it, the old one is gone."""
        body, self._body = self._body, b""
        queue_id, reference = symbol(ctx, "i"), self._desk.reference()
        message = Message(self.envelope, tuple(self._fields), b"", queue_id=queue_id, time=time(), reference=reference)
        return Draft(message, body=body if isinstance(body, bytes) else body.getvalue())

    def _hold(self, octets: int) -> bool:
        """Make room for so many more octets; without any what we have of the message is let go."""
        if self._overflow or not self._share.grow(octets):
            self._let_go()
            self._overflow = True
        return not self._overflow

    def _let_go(self) -> None:
        """All but the recipients."""
        self._share.shrink()
        self._fields: list[Field] = []
        self._body = b""

    def _reset(self) -> None:
        self._share.kept = 0
        self._let_go()
        self._overflow = self.broken = False
        self._marked = 0
        self._rcpt_to: list[bytes] = []
        self._quiet: set[bytes] = set()
        self._spurned = None
        self._whose = Whose.UNDECIDED
        self.envelope = _NOBODY


def _quiet(args: Sequence[bytes]) -> bool:
    """Whether parameters of RCPT ask for no report of a failure (RFC 3461 section 4.1)."""
    asked = [arg.upper() for arg in args if arg[:7].upper() == b"NOTIFY="]
    return bool(asked) and b"FAILURE" not in asked[0]


def _verdict(draft: Draft) -> str:
    """Of a message that is not refused, as the journal says it in `mode: observe`."""
    return "discard" if draft.wishes.test else f"hold: {draft.hold}" if draft.hold else "accept"


def symbol(ctx: milter.milterContext, name: str) -> str:
    """A macro's value, empty where Postfix sent none (D3)."""
    return ctx.getsymval(name) or ""


def answer(ctx: milter.milterContext, reply: Reply) -> int:
    """Tell the client; the verdict's class always equals the code's (D10). A % is doubled: Postfix formats the text."""
    ctx.setreply(str(reply.code), reply.status, reply.line().replace("%", "%%"))
    return milter.REJECT if reply.permanent else milter.TEMPFAIL


def send(ctx: milter.milterContext, changes: Sequence[Change]) -> None:
    """The changes as calls on libmilter: one run of body chunks, then header edits, our own fields last (D7, D17)."""
    for change in ordered(changes):
        match change:
            case ReplaceBody(body):
                ctx.replacebody(body)
            case ReplaceField(name, nth, value):
                ctx.chgheader(name.decode(), nth, value.decode())
            case DropField(name, nth):
                ctx.chgheader(name.decode(), nth, None)
            case InsertField(at, new):
                ctx.addheader(new.name.decode(), new.value.decode(), at)
            case DropRecipient(address):
                ctx.delrcpt(f"<{address.decode()}>")
            case ReplaceSender(address, args):
                ctx.chgfrom(address.decode(), b" ".join(args).decode() or None)
            case _:
                raise NotImplementedError(f"no call for {change}")
