"""The step that understands what senders ask for in fields: what is obeyed, removed, discarded and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter import metrics
from postmeter.config.schema import Tracking
from postmeter.explain import explain
from postmeter.mail.apply import apply
from postmeter.mail.draft import Draft, Wishes
from postmeter.mail.message import Envelope, Field, Message
from postmeter.mail.reply import Reply
from postmeter.submission.pipeline import Pipeline, Stage
from postmeter.tracking import services, switches
from postmeter.tracking.bulk import is_bulk

MIGRATION = (Path(__file__).parent.parent.parent / "docs/migration.md").read_text()
BASE = "https://click.example.com"
OTHER = [Field(b"From", b" a@example.com"), Field(b"Subject", b" hello"), Field(b"X-Mailer", b" m")]


def draft_of(
    *fields: tuple[str, str], login: str = "a@example.com", sender: bytes = b"a@example.com", to: str = "b@example.net"
) -> Draft:
    header = [Field(name.encode(), b" " + value.encode()) for name, value in fields]
    envelope = Envelope(sender, rcpt_to=tuple(to.encode().split()), login=login)
    between = [*OTHER[:1], *header, *OTHER[1:]]
    message = Message(envelope, tuple(between), b"x\r\n", queue_id="4X", time=0.0, reference=b"12345678")
    return Draft(message, from_domain="example.com")


def run(draft: Draft, **keys: Any) -> Reply | None:
    """The step; what is left of the header is what Postfix will make of the changes."""
    reply = switches.step(Tracking(**{"url": BASE, **keys}))(draft)
    left = b"".join(field.wire() for field in draft.fields)
    assert apply(draft.message, draft.changes).startswith(left + b"\r\n")
    return reply


def asked(*fields: tuple[str, str], **keys: Any) -> Wishes:
    draft = draft_of(*fields)
    assert run(draft, **keys) is None
    assert draft.fields == OTHER
    return draft.wishes


def smtpapi(**keys: object) -> tuple[str, str]:
    return "X-SMTPAPI", json.dumps(keys)


def filters(**keys: dict[str, object]) -> tuple[str, str]:
    return smtpapi(filters={name: {"settings": settings} for name, settings in keys.items()})


def msys(**keys: object) -> tuple[str, str]:
    return "X-MSYS-API", json.dumps(keys)


# --- tracking

CLICKS = [
    (("X-Mailgun-Track-Clicks", "yes"), "html+text"),
    (("X-Mailgun-Track-Clicks", "True"), "html+text"),
    (("x-mailgun-track-clicks", "HTMLONLY"), "html"),
    (("X-Mailgun-Track-Clicks", "no"), "off"),
    (("X-Mailgun-Track", "yes"), "html"),
    (("X-Mailgun-Track", "no"), "off"),
    (filters(clicktrack={"enable": 1}), "html"),
    (filters(clicktrack={"enable": "1", "enable_text": True}), "html+text"),
    (filters(clicktrack={"enable": 0, "enable_text": True}), "off"),
    (filters(opentrack={"enable": 0}), None),
    (("X-PM-TrackLinks", "None"), "off"),
    (("X-PM-TrackLinks", "HtmlAndText"), "html+text"),
    (("X-PM-TrackLinks", "HtmlOnly"), "html"),
    (("X-PM-TrackLinks", "TextOnly"), "off"),
    (("X-Mailjet-TrackClick", "0"), "off"),
    (("X-Mailjet-TrackClick", "1"), "html"),
    (("X-MC-Track", "opens, clicks_htmlonly"), "html"),
    (("X-MC-Track", "clicks_all"), "html+text"),
    (("X-MC-Track", "clicks_textonly"), "off"),
    (("X-MC-Track", "opens"), None),
    (msys(options={"click_tracking": False}), "off"),
    (msys(options={"click_tracking": True}), "html"),
    (("X-Postmeter-Track", "off"), "off"),
    (("X-Postmeter-Track", "clicks"), "html"),
    (("X-Postmeter-Track", "html+text, opens"), "html+text"),
    (("X-Postmeter-Track", "opens"), "off"),
    (("X-Postmeter-Track", "All"), "html"),
    (("X-Postmeter-Track", "everything"), None),
    (("X-Mailgun-Track-Clicks", "perhaps"), None),
    (("X-Mailgun-Track-Clicks", ""), None),
]


@pytest.mark.parametrize(("field", "clicks"), CLICKS)
def test_everyones_words_for_clicks_are_understood(field: tuple[str, str], clicks: str | None) -> None:
    assert asked(field).clicks == clicks


@pytest.mark.parametrize(
    ("field", "opens"),
    [
        (("X-Mailgun-Track-Opens", "yes"), True),
        (("X-Mailgun-Track-Opens", "no"), False),
        (("X-Mailgun-Track", "no"), False),
        (filters(opentrack={"enable": 1}), True),
        (filters(opentrack={"enable": 0}), False),
        (("X-PM-TrackOpens", "true"), True),
        (("X-PM-TrackOpens", "false"), False),
        (("X-Mailjet-TrackOpen", "1"), True),
        (("X-Mailjet-TrackOpen", "0"), False),
        (("X-MC-Track", "opens"), True),
        (("X-MC-Track", "none"), False),
        (("X-MC-Track", "clicks"), None),
        (msys(options={"open_tracking": False}), False),
        (("X-Postmeter-Track", "clicks"), False),
        (("X-Postmeter-Track", "clicks, opens"), True),
        (("X-PM-TrackOpens", "maybe"), None),
    ],
)
def test_everyones_words_for_opens_are_understood(field: tuple[str, str], opens: bool | None) -> None:
    assert asked(field).opens is opens


def test_on_means_as_configured_and_something_where_that_is_nothing() -> None:
    assert asked(("X-Postmeter-Track", "all"), links="html+text").clicks == "html+text"
    assert asked(("X-Postmeter-Track", "all"), links="off").clicks == "html"


def test_ours_wins_and_of_others_that_by_which_least_is_tracked() -> None:
    others = [("X-Mailgun-Track-Clicks", "yes"), ("X-PM-TrackLinks", "HtmlOnly"), ("X-Mailjet-TrackOpen", "1")]
    wishes = asked(*others, ("X-Mailgun-Track-Opens", "no"))
    assert (wishes.clicks, wishes.opens) == ("html", False)
    wishes = asked(*others, ("X-Mailgun-Track", "no"), ("X-Postmeter-Track", "html+text, opens"))
    assert (wishes.clicks, wishes.opens) == ("html+text", True)
    wishes = asked(("X-Postmeter-Track", "all"), ("X-Postmeter-Track", "off"))
    assert (wishes.clicks, wishes.opens) == ("off", False)


# --- names

NAMES = [
    ([("X-Postmeter-Campaign", "spring"), ("X-Postmeter-Tag", "a, b")], "spring", ("a", "b")),
    ([("X-Mailjet-Campaign", "May 2027")], "May 2027", ()),
    ([("X-Mailgun-Tag", "one, still one"), ("X-Mailgun-Tag", "two")], "one, still one", ("one, still one", "two")),
    ([("X-MC-Tags", "a,b ,, c")], "a", ("a", "b", "c")),
    ([("X-PM-Tag", "welcome")], "welcome", ("welcome",)),
    ([("X-Mailin-Tag", "t")], "t", ("t",)),
    ([smtpapi(category=["x", "y", 7])], "x", ("x", "y", "7")),
    ([smtpapi(category="x")], "x", ("x",)),
    ([msys(campaign_id="c", tags=["t"])], "c", ("t",)),
    ([("X-SES-MESSAGE-TAGS", "campaign=book, shop=1")], "book", ()),
    ([("X-Mailgun-Tag", "a"), ("X-Mailjet-Campaign", "c"), ("X-Postmeter-Tag", "b")], "c", ("b", "a")),
    ([("X-Mailgun-Tag", "=?utf-8?q?gr=C3=BCn?=\r\n =?utf-8?b?IGJsYXU=?=")], "grün blau", ("grün blau",)),
    ([("X-Mailgun-Tag", "a\x07\u202eb")], "ab", ("ab",)),
]


@pytest.mark.parametrize(("fields", "campaign", "tags"), NAMES)
def test_campaign_and_tags_are_told_with_the_message(
    fields: list[tuple[str, str]], campaign: str, tags: tuple[str, ...]
) -> None:
    draft = draft_of(*fields)
    assert run(draft) is None
    assert (draft.wishes.campaign, draft.wishes.tags) == (campaign, tags)
    assert draft.facts.get("campaign") == campaign
    assert draft.facts.get("tags", []) == list(tags)
    assert is_bulk(draft, Tracking())


def test_bulk_is_told_by_fields_that_are_removed() -> None:
    """Before the step as behind it, and with fields of which nothing is understood."""
    for field in (("X-SES-Configuration-Set", "news"), ("X-Mailjet-DeduplicateCampaign", "0"), ("X-Mailgun-Tag", "")):
        draft = draft_of(field)
        assert is_bulk(draft, Tracking())
        run(draft, switches="none")
        assert draft.fields == OTHER
        assert is_bulk(draft, Tracking())
    draft = draft_of(("X-PM-TrackOpens", "true"))
    run(draft)
    assert not is_bulk(draft, Tracking())


@pytest.mark.parametrize(
    ("field", "data"),
    [
        (("X-PM-Metadata-Order-ID", "17"), {"order-id": "17"}),
        (("X-Mailgun-Variables", '{"a": 1, "b": {"c": [true, null]}}'), {"a": "1", "b": '{"c": [true, null]}'}),
        (smtpapi(unique_args={"order": "12345", "n": 3}), {"order": "12345", "n": "3"}),
        (msys(metadata={"pet": "Spot", "has": True}), {"pet": "Spot", "has": "true"}),
        (("X-MC-Metadata", '{"user": "7"}'), {"user": "7"}),
        (("X-SES-MESSAGE-TAGS", "a=1,b=2"), {"a": "1", "b": "2"}),
        (("X-MJ-CustomID", "77"), {"CustomID": "77"}),
        (("X-Mailin-custom", "a:1|b:2"), {"custom": "a:1|b:2"}),
    ],
)
def test_a_senders_own_data_is_told_again_with_every_event(field: tuple[str, str], data: dict[str, str]) -> None:
    draft = draft_of(field)
    assert run(draft) is None
    assert draft.facts["metadata"] == data


def test_of_data_no_more_is_kept_than_is_good_for_a_journal() -> None:
    draft = draft_of(*[(f"X-PM-Metadata-{number}", "x" * 500) for number in range(9)])
    assert run(draft) is None
    kept = draft.facts["metadata"]
    assert isinstance(kept, dict)
    assert list(kept) == ["0", "1", "2", "3"]
    assert any("left out" in note.text for note in draft.notes)
    draft = draft_of(("X-MC-Tags", ",".join(f"{number:0200}" for number in range(50, 150))))
    assert run(draft) is None
    assert (len(draft.wishes.tags), len(draft.wishes.tags[0])) == (1, 100)


# --- whose


def test_whose_fields_count_and_that_they_go_in_any_case() -> None:
    field = ("X-Mailgun-Track-Clicks", "no")
    for whose, counts in [("all", True), ("none", False), (("a@example.com",), True), (("c@example.com",), False)]:
        assert asked(field, switches=whose).clicks == ("off" if counts else None)
    assert asked(field, logins={"a@example.com": {"switches": "none"}}).clicks is None
    draft = draft_of(field, login="")
    run(draft, switches=("a@example.com",))
    assert draft.wishes == Wishes()
    assert draft.figures == {("switches_total", (switches.DISBELIEVED,)): 1}


def test_without_a_url_only_fields_of_ours_are_understood_or_removed() -> None:
    """A relay behind us may be whom the others are meant for."""
    fields = [("X-Mailgun-Track", "no"), ("X-Mailgun-Drop-Message", "yes"), ("X-MC-SendAt", "2030-01-01 00:00:00")]
    draft = draft_of(*fields, ("X-Postmeter-Campaign", "spring"))
    assert run(draft, url=None) is None
    assert [field.name for field in draft.fields if field not in OTHER] == [name.encode() for name, _ in fields]
    assert draft.wishes == Wishes(campaign="spring")
    draft = draft_of(*fields)
    assert run(draft, url=None, domains={"example.com": {"url": BASE}}) is not None


# --- tests

TESTS = [
    ("X-Mailgun-Drop-Message", "yes"),
    ("X-Mailgun-Drop-Message", "True"),
    ("X-Sib-Sandbox", "drop"),
    ("X-Postmeter-Test", "yes"),
    smtpapi(mail_settings={"sandbox_mode": {"enable": True}}),
]


@pytest.mark.parametrize("field", TESTS)
def test_a_test_goes_to_nobody_and_costs_nothing(field: tuple[str, str]) -> None:
    draft = draft_of(field)
    draft.hold = "brake"
    assert run(draft) is None
    assert (draft.wishes.test, draft.free, draft.hold) == (True, "test", "")
    assert draft.facts["discarded"] == field[0]


@pytest.mark.parametrize("field", TESTS)
def test_a_test_that_does_not_count_is_refused_rather_than_sent(field: tuple[str, str]) -> None:
    draft = draft_of(field)
    reply = run(draft, switches="none")
    assert reply is not None
    assert (reply.code, reply.status) == (550, "5.6.0")
    assert field[0] in reply.text
    assert (draft.wishes.test, draft.free) == (False, "")
    assert run(draft_of(field), switches="none", foreign_headers="ignore") is None


@pytest.mark.parametrize("field", [("X-Mailgun-Drop-Message", "no"), ("X-Postmeter-Test", "0"), ("X-Sib-Sandbox", "")])
def test_no_test_is_sent(field: tuple[str, str]) -> None:
    assert not asked(field).test


@pytest.mark.parametrize("field", [("X-Mailgun-Drop-Message", "perhaps"), ("X-Sib-Sandbox", "yes")])
def test_perhaps_a_test_is_neither_sent_nor_lost(field: tuple[str, str]) -> None:
    assert str(run(draft_of(field))) == f"550 5.6.0 {field[0]} cannot be read"


# --- what cannot be done here

FOREIGN = [
    (smtpapi(sub={"%name%": ["Ben"]}), "X-SMTPAPI (sub)"),
    (smtpapi(section={":a": "b"}), "X-SMTPAPI (section)"),
    (smtpapi(send_at=1409348513), "X-SMTPAPI (send_at)"),
    (smtpapi(send_each_at=[1409348513]), "X-SMTPAPI (send_each_at)"),
    (smtpapi(asm_group_id=7), "X-SMTPAPI (asm_group_id)"),
    (smtpapi(to=["b@example.net", "c@example.net"]), "X-SMTPAPI (to)"),
    (smtpapi(to="c@example.net"), "X-SMTPAPI (to)"),
    (filters(footer={"enable": 1}), "X-SMTPAPI (filters.footer)"),
    (filters(bcc={"enable": 1, "email": "c@example.net"}), "X-SMTPAPI (filters.bcc)"),
    (filters(subscriptiontrack={"enable": 1}), "X-SMTPAPI (filters.subscriptiontrack)"),
    (filters(opentrack={"enable": 1, "replace": "%o%"}), "X-SMTPAPI (filters.opentrack.replace)"),
    (("X-SMTPAPI", '{"sub": {"a": ["b"]'), "X-SMTPAPI cannot be read"),
    (("X-SMTPAPI", "[1]"), "X-SMTPAPI cannot be read"),
    (("X-SMTPAPI", "[" * 30000), "X-SMTPAPI cannot be read"),
    (("X-Mailgun-Recipient-Variables", '{"b@example.net": {}}'), "X-Mailgun-Recipient-Variables"),
    (("X-Mailgun-Deliver-By", "Fri, 25 Oct 2030 23:10:10 -0000"), "X-Mailgun-Deliver-By"),
    (("X-Mailgun-Time-Zone-Localize", "02:00PM"), "X-Mailgun-Time-Zone-Localize"),
    (("X-Mailgun-Template-Name", "t"), "X-Mailgun-Template-Name"),
    (("X-Mailgun-Require-TLS", "yes"), "X-Mailgun-Require-TLS"),
    (("X-MC-MergeVars", '{"a": "b"}'), "X-MC-MergeVars"),
    (("X-MC-Template", "t|main"), "X-MC-Template"),
    (("X-MC-SendAt", "2030-01-01 00:00:00"), "X-MC-SendAt"),
    (("X-MC-BccAddress", "c@example.net"), "X-MC-BccAddress"),
    (("X-MJ-TemplateID", "7"), "X-MJ-TemplateID"),
    (("X-MJ-TemplateLanguage", "1"), "X-MJ-TemplateLanguage"),
    (("X-MJ-Vars", "{}"), "X-MJ-Vars"),
    (("X-Mailjet-DeduplicateCampaign", "true"), "X-Mailjet-DeduplicateCampaign"),
    (("X-SES-List-Management-Options", "list; topic=a"), "X-SES-List-Management-Options"),
    (msys(cc=[{"email": "c@example.net"}]), "X-MSYS-API (cc)"),
    (msys(bcc=[{"email": "c@example.net"}]), "X-MSYS-API (bcc)"),
    (msys(archive=[{"email": "c@example.net"}]), "X-MSYS-API (archive)"),
    (msys(options={"start_time": "2030-01-01T00:00:00Z"}), "X-MSYS-API (options.start_time)"),
]


@pytest.mark.parametrize(("field", "named"), FOREIGN)
def test_what_cannot_be_done_here_is_refused_and_named(field: tuple[str, str], named: str) -> None:
    for whose in ("all", "none"):
        reply = run(draft_of(field), switches=whose)
        assert reply is not None
        assert (reply.code, reply.status) == (550, "5.6.0")
        assert reply.text.startswith(named)


@pytest.mark.parametrize(("field", "named"), FOREIGN)
def test_or_it_is_taken_off_and_told(field: tuple[str, str], named: str) -> None:
    draft = draft_of(field)
    assert run(draft, foreign_headers="ignore") is None
    assert draft.fields == OTHER
    assert draft.figures == {("switches_total", (switches.IGNORED,)): 1}
    assert draft.notes[0].step == "switches"


@pytest.mark.parametrize(
    "field",
    [
        smtpapi(to=["B@example.net"], sub={}, send_at=None),
        smtpapi(to=["Bob <b@example.net>"]),
        filters(footer={"enable": 0}, bcc={}),
        ("X-Mailjet-DeduplicateCampaign", "0"),
        ("X-Mailgun-Require-TLS", "no"),
        ("X-MJ-TemplateLanguage", "False"),
        ("X-MC-PreserveRecipients", "false"),
        ("X-MC-SendAt", ""),
        ("X-Mailgun-Dkim", "no"),
        msys(options={"sandbox": False, "transactional": True}, substitution_data={"a": 1}),
    ],
)
def test_what_changes_nothing_is_no_reason_to_refuse(field: tuple[str, str]) -> None:
    assert asked(field) == Wishes()


def test_recipients_who_must_not_see_each_other_are_not_shown() -> None:
    """The one service sends each a mail of his own, by default; the other if asked."""
    both = "b@example.net c@example.net"
    assert run(draft_of(smtpapi(to=both.split()), to=both)) is not None
    field = ("X-MC-PreserveRecipients", "no")
    reply = run(draft_of(field, to="b@example.net c@example.net"))
    assert reply is not None
    assert "every recipient would see the others" in reply.text


def test_many_reasons_are_told_in_one_line() -> None:
    reply = run(draft_of(*[field for field, _ in FOREIGN]))
    assert reply is not None
    assert "; and " in reply.text


def test_a_bounce_is_never_refused() -> None:
    """RFC 5321 section 4.5.5. A test stays one: it says itself that nobody shall get it."""
    draft = draft_of(("X-MC-SendAt", "2030-01-01 00:00:00"), sender=b"")
    outcome = Pipeline([Stage("switches", switches.step(Tracking(url=BASE)))]).run(draft)
    assert outcome.reply is None
    assert "never a bounce" in outcome.draft.notes[-1].text
    assert outcome.draft.fields == OTHER


# --- the fields themselves


def test_a_field_that_anothers_signature_covers_stays() -> None:
    """It is obeyed all the same; fields that no signature covers go."""
    signature = ("DKIM-Signature", "v=1; a=rsa-sha256; h=From:\r\n\tX-Mailgun-Tag : x-mc-tags; bh=x; b=x")
    arc = ("ARC-Message-Signature", "i=1;h=x-pm-tag;b=")
    fields = [("X-Mailgun-Tag", "a"), ("X-Mailgun-Track", "no"), ("X-PM-Tag", "b")]
    draft = draft_of(signature, arc, *fields)
    assert run(draft) is None
    left = [field.key for field in draft.fields if field not in OTHER]
    assert left == [b"dkim-signature", b"arc-message-signature", b"x-mailgun-tag", b"x-pm-tag"]
    assert (draft.wishes.clicks, draft.wishes.tags) == ("off", ("a", "b"))
    assert draft.figures["switches_total", (switches.KEPT,)] == 2


def test_mail_that_was_here_before_or_is_our_own_is_left_alone() -> None:
    draft = draft_of(("X-Postmeter-Track", "off"))
    draft.free = "marked"
    assert run(draft) is None
    assert draft.changes == []


def test_more_fields_than_can_be_taken_off_are_refused_at_once() -> None:
    """Each costs Postfix a look through the header; and JSON of ten megabytes is not read."""
    fields = [("X-SMTPAPI", '{"category": "' + "x" * 50000 + '"}')] * 101
    draft = draft_of(*fields)
    reply = run(draft)
    assert str(reply) == "550 5.6.0 more than 100 fields for services that send mail"
    assert run(draft_of(*fields[:100])) is None


def test_explain_tells_what_became_of_each_field() -> None:
    draft = draft_of(("X-PM-TrackOpens", "true"), ("X-Mailgun-Dkim", "no"), ("X-Mailgun-Drop-Message", "yes"))

    class Ours:
        def by_envelope(self, envelope: Envelope) -> None:
            return None

    told = explain(
        draft.message,
        who=Ours(),  # type: ignore[arg-type]
        pipeline=Pipeline([Stage("switches", switches.step(Tracking(url=BASE)))]),
    )
    assert told.verdict == "discard"
    assert [note.text for note in told.notes] == [
        "X-PM-TrackOpens: removed; opens on",
        "X-Mailgun-Dkim: removed; nothing to be done here",
        "X-Mailgun-Drop-Message: removed; a test, delivered to nobody",
    ]


def test_every_result_is_a_known_figure() -> None:
    (known,) = [meaning for meaning in metrics.METRICS if meaning.name == "switches_total"]
    assert known.known["result"] == switches.RESULTS


def test_every_field_is_found_by_how_it_begins() -> None:
    """Others are not even looked up."""
    assert all(key.startswith(services.PREFIX) for key in (*services.SWITCHES, b"x-pm-metadata-a"))


def test_the_manual_names_every_field() -> None:
    """docs/migration.md, "Header fields of other services"."""
    told = {name.lower() for name in re.findall(r"`(X-[A-Za-z-]+)", MIGRATION)}
    stems = {name.rstrip("-") for name in told if name.endswith("-")}
    for switch in services.SWITCHES.values():
        name = switch.name.decode().lower()
        assert name in told or any(name.startswith(stem + "-") for stem in stems), name


# --- whatever is in them

_NAMES = [switch.name.decode() for switch in services.SWITCHES.values()] + ["X-PM-Metadata-a", "x-pm-metadata-"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["filters", "clicktrack", "settings", "enable", "to", "sub", "category", "unique_args", "tags"]
            )
            | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)
_VALUES = (
    st.binary(max_size=40)
    | st.sampled_from([b"yes", b"no", b"drop", b"=?utf-8?b?/w==?=", b"=?x?q?a?=", b"=?idna?q?a?=", b"a=b,,=", b"{"])
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.text(max_size=10).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
_FIELDS = st.lists(
    st.builds(Field, st.sampled_from(_NAMES).map(str.encode), _VALUES)
    | st.builds(
        Field,
        st.sampled_from([b"X-Mailgun-Sid", b"X-Mailer", b"X-PM-Meta", b"X-Postmeter-Mark", b"DKIM-Signature", b"X"]),
        _VALUES | st.sampled_from([b" h=x-mailgun-tag:from; h=x-pm-tag", b"h=;h"]),
    ),
    max_size=8,
)


@given(fields=_FIELDS, whose=st.sampled_from(["all", "none"]), sender=st.sampled_from([b"", b"a@example.com"]))
def test_nothing_in_a_header_raises_and_what_is_not_known_stays(fields: list[Field], whose: str, sender: bytes) -> None:
    """What is left is there in its order; the facts can be written down; a second look finds nothing to do."""
    envelope = Envelope(sender, rcpt_to=(b"b@example.net",))
    draft = Draft(Message(envelope, tuple(fields), b"", queue_id="4X", time=0.0, reference=b"12345678"))
    reply = run(draft, switches=whose, foreign_headers="ignore")
    assert reply is None
    assert len(json.dumps(draft.facts).encode()) < 10_000
    json.dumps(draft.facts, ensure_ascii=False).encode()
    known = [field for field in fields if services.find(field.key)]
    strangers = [field for field in fields if not services.find(field.key)]
    kept = [field for field in draft.fields if services.find(field.key)]
    assert [field for field in draft.fields if not services.find(field.key)] == strangers
    assert sum(draft.figures.values()) == len(known)
    assert draft.figures.get(("switches_total", (switches.KEPT,)), 0) == len(kept)
    again = Draft(Message(envelope, tuple(draft.fields), b"", queue_id="4X", time=0.0, reference=b"12345678"))
    run(again, switches=whose, foreign_headers="ignore")
    assert again.changes == []
