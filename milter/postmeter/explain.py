"""What would happen to a message and why, told without doing any of it: the steps of the milter run over a file.

Knows nothing of files, arguments or terminals. Nothing is charged, recorded or sent; reading the ledger is left to the
pipeline it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import unified_diff

from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft, Note
from postmeter.mail.message import Message
from postmeter.mail.reply import Reply
from postmeter.submission.identity import Identity, Whose
from postmeter.submission.mark import Marks
from postmeter.submission.pipeline import Gate, Pipeline


@dataclass(frozen=True, slots=True)
class Explanation:
    """`verdict` is accept, hold, discard, refuse or pass (not ours); `before` and `after` are whole messages."""

    verdict: str
    notes: tuple[Note, ...]
    before: bytes
    after: bytes
    reply: Reply | None = None

    def diff(self) -> str:
        """A unified diff of the wire forms; what is not printable ASCII is shown as \\xNN."""
        before, after = (_lines(raw) for raw in (self.before, self.after))
        return "\n".join(unified_diff(before, after, "as submitted", "as it would leave", lineterm="", n=2))


def explain(
    message: Message, *, who: Identity, pipeline: Pipeline, marked: Marks | None = None, gates: Sequence[Gate] = (),
    full: Callable[[Draft], Reply | None] = lambda draft: None,
) -> Explanation:  # fmt: skip
    """Run a message that has come to its end through the same decisions as the milter's.

    `gates` are asked at RCPT. `full` answers for one that would be held, where no more of its sender may be.
    """
    before = apply(message, ())
    draft = Draft(message)
    reason = _foreign(draft, who, marked)
    if reason:
        return Explanation("pass", (Note("identity", f"not ours, passes untouched: {reason}"),), before, before)
    refused = _refused(message, who, gates)
    left = tuple(one for one in message.envelope.rcpt_to if one not in refused)
    draft.notes += [Note(gate, f"refused at RCPT: {reply}") for gate, reply in refused.values()]
    if refused and not left:
        return Explanation("refuse", tuple(draft.notes), before, before, next(iter(refused.values()))[1])
    draft.message = replace(message, envelope=message.envelope.to(left, message.envelope.quiet))
    outcome = pipeline.run(draft)
    reply = outcome.reply or (full(outcome.draft) if outcome.draft.hold else None)
    notes = tuple(outcome.draft.notes)
    if reply is not None:
        return Explanation("refuse", notes, before, before, reply)
    verdict = "discard" if outcome.draft.wishes.test else "hold" if outcome.draft.hold else "accept"
    return Explanation(verdict, notes, before, apply(message, outcome.draft.changes))


def as_text(explanation: Explanation, *, diff: bool) -> Iterator[str]:
    """Lines for people."""
    width = max((len(note.step) for note in explanation.notes), default=0)
    for note in explanation.notes:
        yield f"{note.step:<{width}}  {note.text}"
    yield {
        "accept": "Accepted.",
        "discard": "Accepted, and delivered to nobody: a test.",
        "hold": "Accepted, into Postfix's hold queue.",
        "pass": "Passed on, untouched.",
        "refuse": f"Refused: {explanation.reply}",
    }[explanation.verdict]
    if diff:
        yield explanation.diff() or "Nothing changes."


def as_json(explanation: Explanation, *, diff: bool) -> dict[str, object]:
    """The same for programs."""
    told: dict[str, object] = {
        "verdict": explanation.verdict,
        "reply": str(explanation.reply) if explanation.reply else None,
        "notes": [{"step": note.step, "text": note.text} for note in explanation.notes],
    }
    return told | ({"diff": explanation.diff()} if diff else {})


def _foreign(draft: Draft, who: Identity, marked: Marks | None) -> str:
    """Why the message would not be ours; empty when it would."""
    whose = who.by_envelope(draft.message.envelope)
    if whose is Whose.FOREIGN:
        return "no login, no service of ours, no trusted network"
    if whose is Whose.RETURNED:
        return "" if marked is not None and marked.believe(draft) else "back from a filter without a mark that holds"
    return who.by_header(draft.message.fields) if whose is Whose.UNDECIDED else ""


def _refused(message: Message, who: Identity, gates: Sequence[Gate]) -> dict[bytes, tuple[str, Reply]]:
    """Whom a client is refused at RCPT, by which gate and how: it may give up there, or go on with the others."""
    envelope = message.envelope
    if not envelope.waits or not envelope.mail_from or who.by_envelope(envelope) is not Whose.OURS:
        return {}
    asked = [(recipient, gate, gate.ask(envelope, recipient)) for recipient in envelope.rcpt_to for gate in gates]
    return {recipient: (gate.name, reply) for recipient, gate, reply in asked if reply is not None}


def _lines(raw: bytes) -> list[str]:
    text = raw.decode("ascii", "backslashreplace").replace("\r\n", "\n")
    return ["".join(_visible(char) for char in line) for line in text.split("\n")]


def _visible(char: str) -> str:
    return char if char.isprintable() or char == "\t" else repr(char)[1:-1]
