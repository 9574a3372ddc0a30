"""Whatever a report says, it changes something only for those whom that very message went to, and once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
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

names = st.sampled_from([*RECIPIENTS, "reader@EXAMPLE.net", "stranger@example.org", "", "@", "reader"]) | st.text()
claims = st.builds(
    Returned, recipient=names, original=names, action=st.sampled_from(["failed", "delayed", "delivered"]),
    status=st.text(), diagnostic=st.text(), hard=st.booleans(),
)  # fmt: skip
reports = st.builds(
    Report, kind=st.sampled_from(KINDS), recipients=st.lists(claims, max_size=4).map(tuple),
    feedback_type=st.sampled_from(["", "abuse", "not-spam"]), original_rcpt=st.lists(names, max_size=3).map(tuple),
)  # fmt: skip
circumstances = st.builds(
    Circumstances, source=st.just("digest"), time=st.just(2.0), named=st.booleans(), by_hand=st.booleans(),
    everything=st.booleans(),
)  # fmt: skip
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
