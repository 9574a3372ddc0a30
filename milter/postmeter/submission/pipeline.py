"""The way of a message through the steps, in one fixed order, each with its policy for our own bugs.

`session` runs it for Postfix, `explain` for people, `mode: observe` for those who only look on: the same list. Knows
nothing of libmilter and has no effect outside the draft (docs/flow.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from postmeter.events import Refiltered, Refused, Submitted
from postmeter.mail import address
from postmeter.mail.draft import Draft, Step
from postmeter.mail.message import Envelope
from postmeter.mail.reply import Reply
from postmeter.runtime.logs import OnceAMinute
from postmeter.token import Mark

once = OnceAMinute(logging.getLogger(__name__))

BUG = Reply(451, "4.3.0", "internal error, try again later")  # RFC 3463 X.3.0: other mail system status


@dataclass(frozen=True, slots=True)
class Gate:
    """Early refusal at MAIL (no recipient yet) or RCPT; reads only. `name` is what a refusal is recorded with.

    The envelope is as MAIL opened it, without the recipients before.

    `bounces`: the null sender is asked about as well, whose mail no step can refuse later.
    """

    name: str
    ask: Callable[[Envelope, bytes | None], Reply | None]
    bounces: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """`spare`: a bug in this step leaves the message as it was before it, instead of refusing the message for now."""

    name: str
    step: Step
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """`reply` is what the client is told, none when the message is taken; `stage` names who refused."""

    draft: Draft
    reply: Reply | None = None
    stage: str = ""


class Pipeline:
    """Runs the stages one after the other until one refuses."""

    def __init__(self, stages: Sequence[Stage], *, tolerant: bool = False) -> None:
        """`tolerant` is `milter.on_bug: accept`: what we fail at is left out instead of refused for now."""
        self._stages = tuple(stages)
        self._tolerant = tolerant

    def run(self, draft: Draft) -> Outcome:
        """The null sender is never refused: a bounce that is refused is lost (D20, RFC 5321 section 4.5.5)."""
        bounce = not draft.message.envelope.mail_from
        lenient = self._tolerant or bounce
        for stage in self._stages:
            before = draft.state() if stage.spare or lenient else None
            try:
                reply = stage.step(draft)
            except Exception as error:  # a bug in a step ends here, whatever it is (docs/operations.md)
                what = f"{stage.name} {type(error).__name__}"
                text = "%s: bug in %s"
                once.log(logging.ERROR, what, text, draft.message.queue_id, stage.name, exc_info=True)
                reply = BUG
                if before is not None:
                    reply = None
                    draft.restore(before)
                draft.count("errors_total", stage.name)
                draft.note(stage.name, "failed by a bug of ours; left out")
            if reply is not None and bounce:
                draft.note(stage.name, f"would refuse, but never a bounce: {reply}")
            elif reply is not None:
                return Outcome(draft, reply, stage.name)
        return Outcome(draft)


def submitted(draft: Draft, *, network: str = "") -> Submitted:
    """The fact that a message was taken. `network` is the client's."""
    message, envelope = draft.message, draft.message.envelope
    return Submitted(
        source=f"eom:{message.queue_id}:{message.time:.6f}",
        time=message.time,
        queue_id=message.queue_id,
        reference=message.reference.hex(),
        message_id=_message_id(draft),
        login=envelope.login,
        sender=draft.sender,
        service=envelope.service,
        mail_from=address.text(envelope.mail_from),
        from_domain=draft.from_domain,
        recipients=tuple([address.text(rcpt) for rcpt in envelope.rcpt_to]),
        size=draft.size,
        network=network,
        facts=draft.facts,
    )


def refiltered(draft: Draft, mark: Mark) -> Refiltered:
    """The fact that a message which was taken before came back, and was taken again."""
    message, envelope = draft.message, draft.message.envelope
    return Refiltered(
        source=f"back:{message.queue_id}:{message.time:.6f}",
        time=message.time,
        queue_id=message.queue_id,
        reference=mark.reference.hex(),
        first_queue_id=mark.queue_id,
        login=mark.login,
        from_domain=draft.from_domain,
        service=envelope.service,
        recipients=tuple(address.text(rcpt) for rcpt in envelope.rcpt_to),
        facts=draft.facts,
    )


def refused(envelope: Envelope, reply: Reply, *, sender: str, reason: str, time: float) -> Refused:
    """The fact that we refused mail: one event a minute for a sender and a reason, counted up."""
    return Refused(
        source=f"refused:{sender}:{reason}:{int(time // 60)}",
        time=time,
        login=envelope.login,
        sender=sender,
        service=envelope.service,
        reason=reason,
        reply=str(reply),
        recipients=len(envelope.rcpt_to),
    )


def _message_id(draft: Draft) -> str:
    for field in draft.fields:
        if field.key == b"message-id":
            return address.text(field.value).strip()
    return ""
