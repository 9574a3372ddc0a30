"""Whatever a report says, it changes something only for those whom that very message went to, and once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.events import Bounced, Complained, Submitted
from postmeter.feedback.judging import Circumstances, Known, judge
from postmeter.feedback.report import BOUNCE, COMPLAINT, KINDS, Report, Returned
from postmeter.mail.scope import canonical

RECIPIENTS = ("Reader@example.net", "other@example.net")
MESSAGE = Submitted(
    source="eom:4X:1", time=1.0, queue_id="4X", reference="00" * 8, message_id="<1@example.com>", login="alice",
    sender="alice", service="ORIGINATING", mail_from="alice@example.com", from_domain="example.com",
    recipients=RECIPIENTS, size=1,
)  # fmt: skip

# What is believed must be as likely as what is not: else hardly a report would change anything.
names = st.sampled_from([*RECIPIENTS, "reader@EXAMPLE.net", "stranger@example.org", "", "@", "reader", "\0ä "])
claims = st.builds(
    Returned, recipient=names, original=names, action=st.sampled_from(["failed", "failed", "delayed", "delivered"]),
    status=st.text(max_size=9), diagnostic=st.text(max_size=9), hard=st.booleans(),
)  # fmt: skip
reports = st.builds(
    Report, kind=st.sampled_from([BOUNCE, COMPLAINT, *KINDS]), recipients=st.lists(claims, max_size=4).map(tuple),
    feedback_type=st.sampled_from(["", "", "abuse", "not-spam"]), original_rcpt=st.lists(names, max_size=3).map(tuple),
)  # fmt: skip
circumstances = st.builds(
    Circumstances, source=st.just("digest"), time=st.just(2.0), named=st.sampled_from([True, True, False]),
    by_hand=st.booleans(), everything=st.booleans(),
)  # fmt: skip
NAMED = Circumstances(source="digest", time=2.0, named=True)
FAILED = tuple(Returned(recipient=name, action="failed", hard=True) for name in (*RECIPIENTS, "stranger@example.org"))
ACCUSED = Report(kind=COMPLAINT, feedback_type="abuse", original_rcpt=(*RECIPIENTS, RECIPIENTS[0].lower(), "reader"))
endings = st.dictionaries(
    st.sampled_from([canonical(name) for name in RECIPIENTS]),
    st.frozensets(st.sampled_from(["sent", "bounced", "expired", "complained"])),
)


def among(recipients: tuple[str, ...]) -> dict[str, str]:
    return {name.lower(): name for name in recipients}


def known(recipients: tuple[str, ...], recorded: dict[str, frozenset[str]]) -> Known:
    names = among(recipients)
    return Known(replace(MESSAGE, recipients=recipients), lambda name: names.get(name.lower(), ""), recorded)


@given(reports, circumstances, endings, st.sampled_from([RECIPIENTS, RECIPIENTS[:1]]))
@example(Report(kind=BOUNCE, recipients=FAILED), NAMED, {}, RECIPIENTS)
@example(Report(kind=BOUNCE, recipients=FAILED), NAMED, {canonical(RECIPIENTS[0]): frozenset({"expired"})}, RECIPIENTS)
@example(ACCUSED, NAMED, {}, RECIPIENTS)
@example(ACCUSED, NAMED, {canonical(RECIPIENTS[0]): frozenset({"complained"})}, RECIPIENTS)
def test_no_report_reaches_beyond_its_message(
    report: Report, told: Circumstances, recorded: dict[str, frozenset[str]], recipients: tuple[str, ...]
) -> None:
    verdict = judge(report, known(recipients, recorded), told)
    named = [event.recipient for event in verdict.events if isinstance(event, Bounced | Complained)]
    assert len(named) == len(verdict.events) == len(set(named)) == len({event.source for event in verdict.events})
    assert set(named) <= set(recipients)
    for event in verdict.events:
        assert isinstance(event, Bounced | Complained)
        before = recorded.get(canonical(event.recipient), frozenset())
        if isinstance(event, Bounced):
            assert report.kind == BOUNCE
            assert told.named
            assert not before & {"bounced", "expired"}
            claim = [one for one in report.recipients if one.action == "failed"]
            assert event.hard in {one.hard for one in claim}
        else:
            assert report.kind == COMPLAINT
            assert "complained" not in before
            assert told.named or event.recipient.lower() in {name.lower() for name in report.original_rcpt}
    assert told.named or not verdict.pass_on
    assert verdict.events or verdict.pass_on or verdict.kept or verdict.result == "repeated"


Recorded = dict[str, frozenset[str]]


def of(report: Report, *, recorded: Recorded | None = None, named: bool = True) -> tuple[str, list[str]]:
    """The result, and whom it is told of."""
    verdict = judge(report, known(RECIPIENTS, recorded or {}), replace(NAMED, named=named))
    return verdict.result, [event.recipient for event in verdict.events if isinstance(event, Bounced | Complained)]


def test_a_bounce_is_told_of_each_of_its_message_s_recipients_once_and_needs_the_tag() -> None:
    bounced = Report(kind=BOUNCE, recipients=FAILED)
    ended = {canonical(name): frozenset({kind}) for name, kind in zip(RECIPIENTS, ("expired", "bounced"), strict=True)}
    assert of(bounced) == ("bounce", [*RECIPIENTS])
    assert of(bounced, recorded={canonical(RECIPIENTS[0]): frozenset({"sent"})}) == ("bounce", [*RECIPIENTS])
    assert of(bounced, recorded={canonical(RECIPIENTS[0]): frozenset({"bounced"})}) == ("bounce", [RECIPIENTS[1]])
    assert of(bounced, recorded=ended) == ("repeated", [])
    assert of(bounced, named=False) == ("untrusted", [])
    assert of(replace(bounced, recipients=tuple(replace(one, action="delayed") for one in FAILED))) == ("untrusted", [])


def test_a_complaint_is_told_of_whom_it_names_and_without_a_name_of_the_only_one() -> None:
    assert of(ACCUSED) == of(ACCUSED, named=False) == ("complaint", [*RECIPIENTS])
    assert of(ACCUSED, recorded={canonical(RECIPIENTS[1]): frozenset({"complained"})}) == ("complaint", [RECIPIENTS[0]])
    again = {canonical(name): frozenset({"complained"}) for name in RECIPIENTS}
    assert of(ACCUSED, recorded=again) == ("repeated", [])
    assert of(replace(ACCUSED, feedback_type="not-spam")) == ("unclear", [])
    blackened = replace(ACCUSED, original_rcpt=())
    assert of(blackened) == of(replace(ACCUSED, original_rcpt=("reader",))) == ("untrusted", [])
    only = known(RECIPIENTS[:1], {})
    [event] = judge(blackened, only, NAMED).events
    assert isinstance(event, Complained)
    assert event.recipient == RECIPIENTS[0]
    assert judge(blackened, only, replace(NAMED, named=False)).events == ()
    assert judge(replace(blackened, original_rcpt=("reader",)), only, NAMED).events == ()


def test_a_complaint_with_a_name_blacked_out_is_of_the_only_recipient_at_that_domain() -> None:
    """RFC 6590 section 3: the domain stays, and letters that only the provider understands stand for the name."""
    domain = RECIPIENTS[0].rpartition("@")[2]
    blackened = replace(ACCUSED, original_rcpt=(f"8ZF3a=@{domain.upper()}",))
    [event] = judge(blackened, known(RECIPIENTS[:1], {}), NAMED).events
    assert isinstance(event, Complained)
    assert event.recipient == RECIPIENTS[0]
    assert judge(blackened, known(RECIPIENTS, {}), NAMED).events == ()
    assert judge(blackened, known(RECIPIENTS[:1], {}), replace(NAMED, named=False)).events == ()
    elsewhere = replace(ACCUSED, original_rcpt=("8ZF3a=@elsewhere.example",))
    assert judge(elsewhere, known(RECIPIENTS[:1], {}), NAMED).events == ()


def test_a_bounce_that_names_nobody_is_that_of_the_only_recipient() -> None:
    report = Report(kind=BOUNCE, recipients=(Returned(recipient="", hard=True),))
    told = Circumstances(source="digest", time=2.0, named=True)
    [event] = judge(report, known(RECIPIENTS[:1], {}), told).events
    assert isinstance(event, Bounced)
    assert event.recipient == RECIPIENTS[0]
    assert judge(report, known(RECIPIENTS, {}), told).events == ()


def test_a_bounce_written_by_hand_or_not_understood_reaches_the_sender() -> None:
    other = Report(kind="other")
    told = Circumstances(source="digest", time=2.0, named=True)
    unclear = judge(other, known(RECIPIENTS, {}), told)
    assert (unclear.pass_on, bool(unclear.kept)) == (True, True)
    by_hand = judge(other, known(RECIPIENTS, {}), replace(told, by_hand=True))
    assert (by_hand.pass_on, by_hand.kept) == (True, "")
