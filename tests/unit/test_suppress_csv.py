"""CSV lists: what each service exports is understood, ours round-trips, and no file can do harm."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.cli.suppresscsv import Defaults, UnreadableError, moment, plain, read, safe, write
from postmeter.store.suppression import REASONS, Suppression, line

NOW = 1_800_000_000.0
MAY = 1715019118.0  # Mon, 06 May 2024 18:11:58 UTC


def understood(
    text: str, *, scope: str = "", reason: str = "", until: Callable[[str], float | None] = lambda reason: None
) -> tuple[list[Suppression], list[str]]:
    told: list[str] = []
    defaults = Defaults(scope, reason, NOW, until)
    found = list(read(io.StringIO(text, newline=""), defaults, lambda number, why: told.append(f"{number}: {why}")))
    return found, told


def short(found: list[Suppression]) -> list[tuple[str, str, str, float, str]]:
    return [(one.address, one.scope, one.reason, one.since, one.evidence) for one in found]


SERVICES = {
    "Mailgun bounces": (
        "address,code,error,created_at\r\n"
        'a@x.example,550,"5.1.1 <a@x.example>: unknown, sorry","Mon, 06 May 2024 18:11:58 UTC"\r\n',
        ("a@x.example", "everywhere", "bounced", MAY, "5.1.1 <a@x.example>: unknown, sorry"),
    ),
    "SendGrid bounces": (
        "status,reason,email,created\n5.1.1,550 5.1.1 no such user,a@x.example,1715019118\n",
        ("a@x.example", "everywhere", "bounced", MAY, "550 5.1.1 no such user"),
    ),
    "SendGrid invalid addresses": (
        "reason,email,created\nMail domain mentioned in email address is unknown,a@x.example,1715019118\n",
        ("a@x.example", "everywhere", "bounced", MAY, "Mail domain mentioned in email address is unknown"),
    ),
    "SendGrid spam reports": (
        "ip,email,created\n192.0.2.1,a@x.example,1715019118\n",
        ("a@x.example", "everywhere", "complained", MAY, ""),
    ),
    "Postmark": (
        "EmailAddress,SuppressionReason,Origin,CreatedAt\na@x.example,SpamComplaint,Recipient,2024-05-06T14:11:58-04:00\n",
        ("a@x.example", "everywhere", "complained", MAY, ""),
    ),
    "Postmark, by hand": (
        "EmailAddress,SuppressionReason,Origin,CreatedAt\na@x.example,ManualSuppression,Customer,2024-05-06T18:11:58Z\n",
        ("a@x.example", "everywhere", "manual", MAY, ""),
    ),
    "Amazon SES": (
        "EmailAddress,Reason,LastUpdateTime\na@x.example,BOUNCE,2024-05-06T18:11:58+00:00\n",
        ("a@x.example", "everywhere", "bounced", MAY, ""),
    ),
    "Amazon SES, as it imports": ("a@x.example,COMPLAINT\n", ("a@x.example", "everywhere", "complained", NOW, "")),
    "with a byte order mark": (
        "\ufeffEmail Address,Suppression Reason\na@x.example,HardBounce\n",
        ("a@x.example", "everywhere", "bounced", NOW, ""),
    ),
}


@pytest.mark.parametrize("whose", SERVICES)
def test_a_services_file_is_understood_by_its_header(whose: str) -> None:
    text, wanted = SERVICES[whose]
    found, told = understood(text)
    assert told == []
    assert short(found) == [wanted]


def test_unsubscribes_need_a_scope() -> None:
    """They are for one list or sender, and a service does not say which of ours that is."""
    text = 'address,tags,created_at\na@x.example,*,"Mon, 06 May 2024 18:11:58 UTC"\n'
    found, told = understood(text)
    assert found == []
    assert told == ["2: a@x.example: an unsubscribe is for one list or sender: add --scope"]
    found, told = understood(text, scope="domain:example.com")
    assert short(found) == [("a@x.example", "domain:example.com", "unsubscribed", MAY, "")]


@pytest.mark.parametrize("text", ["email,created\na@x.example,1715019118\n", "a@x.example\nb@x.example\n"])
def test_a_file_that_does_not_say_why_needs_a_reason(text: str) -> None:
    with pytest.raises(UnreadableError, match="add --reason"):
        understood(text)
    found, told = understood(text, reason="manual")
    assert {one.reason for one in found} == {"manual"}
    assert not told


def test_a_temporary_refusal_suppresses_nobody() -> None:
    found, told = understood("status,reason,email,created\n4.7.1,later,a@x.example,1715019118\n")
    assert found == []
    assert told == ["2: a@x.example: a temporary refusal suppresses nobody"]


def test_how_long_is_the_reasons() -> None:
    found, _ = understood("a@x.example,BOUNCE\nb@x.example,COMPLAINT\n", until=lambda why: {"bounced": 1.0}.get(why))
    assert [one.until for one in found] == [1.0, None]


HOSTILE = [
    "",
    "\n\n\n",
    "\x00\x00",
    '"' * 9,
    "address,scope,reason\n" + '"' + "x" * 200_000,
    "address,scope,reason\na@x.example,everywhere,manual\n" + "y" * 100_000 + "@x.example,everywhere,manual\n",
    "address,reason,scope\na@x.example,manual,'; DROP TABLE suppressions; --\n",
    "address,reason,scope\na@x.example,manual,list:x\n",
    "address,reason,scope\na@x.example,shrug,everywhere\n",
    "address,reason,since\na@x.example,manual,yesterday\n",
    "address,reason,since\na@x.example,manual,99999-01-01T00:00:00\n",
    "address,reason\na@x.example\r\nBcc: b@y.example,manual\n",
    "address,reason\n<script>@x.example,manual\n",
    "address,reason\n,manual\nno address,manual\n@,manual\na@b@c,manual\n",
    "EmailAddress,Reason\n" + ",".join("z" * 500) + "\n",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_file_ends_in_words(text: str) -> None:
    """Nothing is taken that is no address with a reason and a scope, and nothing raises but what is told."""
    try:
        found, told = understood(text, reason="")
    except UnreadableError:
        return
    for one in found:
        assert one.address.count("@") == 1
        assert one.reason in REASONS
        assert one.address.isprintable()
    assert all(len(why) < 500 and why.isprintable() for why in told)


@given(st.text(max_size=300), st.sampled_from(["", "manual"]))
def test_no_text_raises(text: str, reason: str) -> None:
    for header in ("", "address,reason,scope,since,until,count\n"):
        try:
            understood(header + text, reason=reason, scope="everywhere")
        except UnreadableError:
            continue


words = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=40).map(lambda text: line(text))
made = st.builds(
    Suppression,
    address=st.sampled_from(
        ["a@x.example", "=cmd@x.example", "+b@x.example", "'=c@x.example", "-@x.example", "hash:" + "0a" * 16]
    ),
    scope=st.sampled_from(["everywhere", "domain:example.com", "from:news@example.com", "list:example.com/weekly"]),
    reason=st.sampled_from(REASONS),
    since=st.integers(0, 2**31).map(float),
    until=st.none() | st.integers(0, 2**31).map(lambda at: at + 0.5),
    evidence=words | words.map("=HYPERLINK({})".format) | words.map("'@{}".format),
    count=st.integers(1, 10**6),
    provider=st.sampled_from(["", "Google", "=Yahoo"]),
)


@given(st.lists(made, max_size=8))
def test_what_we_write_we_read_the_same(suppressions: list[Suppression]) -> None:
    file = io.StringIO(newline="")
    write(file, suppressions)
    found, told = understood(file.getvalue(), until=lambda reason: 1.0)
    assert (found, told) == (suppressions, [])


@given(st.text(max_size=20))
def test_no_field_is_a_formula(field: str) -> None:
    """What a remote server said is opened in a spreadsheet."""
    assert not safe(field).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert plain(safe(field)) == field


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2024-05-06T18:11:58Z", MAY),
        ("2024-05-06 18:11:58", MAY),
        ("2024-05-06 18:11:58 UTC", MAY),
        ("1715019118", MAY),
        ("Mon, 06 May 2024 18:11:58 GMT", MAY),
        ("Mon, 06 May 2024 20:11:58 +0200", MAY),
        ("2024-05-06", 1714953600.0),
        ("", None),
        ("never", None),
        ("Mon, 99 May 2024 20:11:58 +0200", None),
    ],
)
def test_a_date_as_services_write_it(text: str, wanted: float | None) -> None:
    assert moment(text) == wanted
