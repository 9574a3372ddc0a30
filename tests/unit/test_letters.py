"""What people are told: everything that they need, and nothing of what a client put into its name."""

from __future__ import annotations

import email
import email.policy
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.books import letters
from postmeter.books.letters import Letter
from postmeter.books.mailing import Mailer
from postmeter.config.schema import InetAddress
from postmeter.events import Braked, Warned

WARNED = Warned(
    source="warned:sender:alice@example.com:80:1", time=1_793_700_000.0, login="alice@example.com", level="sender",
    key="alice@example.com", unit="recipients", window=86_400, limit=500, text="500 recipients/day", used=401,
    percent=80,
)  # fmt: skip
BRAKED = Braked(
    source="braked:alice@example.com:1", time=1_793_700_000.0, login="alice@example.com", observed=False,
    action="defer", recipients=412, usual=20, signs=("network", "strangers"),
    evidence="from 203.0.113.9\n390 of 412 new",
)  # fmt: skip
MAILER = Mailer(InetAddress("127.0.0.1", 25), "postmaster@example.com", "mail.example.com")


def digest(*warnings: Warned, room: float | None = None) -> Letter:
    return letters.digest(warnings, host="mail.example.com", room=lambda event: room)


def test_a_warning_says_who_what_how_much_of_what_when_and_which_command() -> None:
    letter = digest(WARNED, room=1_793_703_600.0)
    assert letter.subject == "postmeter on mail.example.com: alice@example.com reached 80%"
    for said in (
        "alice@example.com has used 401 of 500 recipients in the last day.",
        "80% or more of its limit, 500 recipients/day, on 2026-11-03 at 10:00:00 UTC",
        "There is room again on 2026-11-03 at 11:00:00 UTC.",
        "postmeter quota show alice@example.com",
        "postmeter quota set alice@example.com LIMITS --until WHEN",
        "postmeter freeze alice@example.com",
    ):
        assert said in letter.text


@pytest.mark.parametrize(
    ("room", "said"),
    [(0.0, "There is still room."), (None, "Room comes back as what was sent grows older than that.")],
)
def test_room_is_said_only_where_it_is_known(room: float | None, said: str) -> None:
    assert said in digest(WARNED, room=room).text


def test_an_account_that_reached_two_thresholds_is_told_once_with_the_last() -> None:
    full = replace(WARNED, used=500, percent=100)
    letter = digest(WARNED, full)
    assert "500 of 500 recipients" in letter.text
    assert "401 of 500" not in letter.text
    assert letter.subject.endswith("alice@example.com reached 100%")


def test_a_refusal_for_want_of_room_is_not_told_as_a_full_account() -> None:
    assert "498 of 500 recipients in the last day, and a message found no room." in digest(
        replace(WARNED, used=498, percent=100)
    ).text


@pytest.mark.parametrize(
    ("level", "key", "said"),
    [
        ("domain", "example.com", "From domain example.com has used"),
        ("domain", "", "Mail without a From domain of its own has used"),
        ("network", "192.0.2.0/24", "Network 192.0.2.0/24 has used"),
        ("total", "", "All mail together has used"),
    ],
)
def test_other_levels_say_what_they_count_and_who_sent_last(level: str, key: str, said: str) -> None:
    text = digest(replace(WARNED, level=level, key=key)).text
    assert said in text
    assert "The last to send was alice@example.com." in text


def test_bytes_are_told_as_sizes() -> None:
    letter = digest(replace(WARNED, unit="bytes", limit=1 << 30, used=900 << 20, text="1G/day"))
    assert "has used 900M of 1G in the last day." in letter.text


def test_ten_thousand_accounts_are_one_letter_of_a_size_to_read() -> None:
    letter = digest(*(replace(WARNED, key=f"user{number}@example.com") for number in range(10_000)))
    assert letter.subject == "postmeter on mail.example.com: 10000 quota warnings"
    assert letter.text.count(" has used ") == 50
    assert "And 9950 more: postmeter quota show" in letter.text
    assert "postmeter freeze LOGIN" in letter.text


def test_the_sender_is_told_in_words_of_his_own() -> None:
    letter = letters.personal([WARNED], host="mail.example.com", room=lambda event: 0.0)
    assert letter.subject == "You have used 80% of what you may send"
    assert "You have used 401 of 500 recipients in the last day." in letter.text
    assert "change it, and tell whoever runs this mail server" in letter.text
    assert "postmeter quota" not in letter.text


def test_an_alarm_brings_the_evidence_and_the_way_out() -> None:
    letter = letters.alarm([BRAKED], host="mail.example.com")
    assert letter.subject == "postmeter on mail.example.com: alice@example.com is stopped, 412 recipients in an hour"
    for said in (
        "412 recipients in an hour, where up to 20 are usual",
        "a network that it never used, recipients that it never wrote to",
        "from 203.0.113.9\n390 of 412 new\n",
        "Its mail is refused for now (451)",
        "postmeter quota release alice@example.com\n",
        "postmeter quota release alice@example.com --delete",
    ):
        assert said in letter.text


def test_an_alarm_that_only_watches_says_so() -> None:
    letter = letters.alarm([replace(BRAKED, observed=True)], host="mail.example.com")
    assert "would be stopped" in letter.subject
    assert "Nothing was done" in letter.text


NAMES = st.text(max_size=300) | st.from_regex(r"[\r\n\0\x1b; ]*[A-Za-z-]+: ?x[\r\n]+\.[\r\n]+", fullmatch=True)


@given(NAMES, NAMES)
def test_no_name_adds_a_line_to_a_header_or_a_command_to_a_shell(login: str, key: str) -> None:
    """A message read back by Python's parser has our fields and no others; a command line has the words we meant."""
    for letter in (
        digest(replace(WARNED, login=login, key=key)),
        letters.alarm([replace(BRAKED, login=login, evidence=key)], host="mail.example.com"),
    ):
        raw = MAILER.compose(letter, to=["a@example.com"], ident="0" * 32, about=login, now=0.0).as_bytes()
        read = email.message_from_bytes(raw, policy=email.policy.default)
        assert sorted(name.lower() for name in read) == sorted(FIELDS)
        assert read["To"] == "a@example.com"
        assert len(read["Subject"].splitlines()) == 1
        for line in letter.text.splitlines():
            if line.startswith("  postmeter freeze"):
                assert shlex.split(line, comments=True)[:2] == ["postmeter", "freeze"]
                assert len(shlex.split(line.removesuffix(" --queue"), comments=True)) == 3


@pytest.mark.parametrize(
    "name", ["=?utf-8?q?all_is_well?=", "=?utf-8?q?=0D=0ABcc:_eve@example.org?=", "ü=?utf-8?b?AA==?= =?x?q?=0A?="]
)
def test_no_name_is_decoded_on_its_way_into_a_subject(name: str) -> None:
    """Whoever reads it sees what the client sent, and not what that stands for in RFC 2047."""
    letter = digest(replace(WARNED, login=name, key=name))
    raw = MAILER.compose(letter, to=["a@example.com"], ident="0" * 32, about="x", now=0.0).as_bytes()
    shown = str(email.message_from_bytes(raw, policy=email.policy.default)["Subject"])
    assert "".join(shown.split()) == "".join(letter.subject.split())


def test_every_command_in_a_letter_is_one_of_ours() -> None:
    """Parsed as typed, with a word for what a person has to fill in."""
    from postmeter.cli.main import _parse

    texts = digest(WARNED).text + letters.alarm([BRAKED], host="mail.example.com").text
    commands = [line.strip() for line in texts.splitlines() if line.startswith("  postmeter ")]
    assert len(commands) == 7
    for command in commands:
        words = shlex.split(command.replace("LIMITS", "'100 recipients/day'").replace("WHEN", "2d"))
        assert _parse(words[1:])[0].name == words[1]


FIELDS = [
    "from", "to", "subject", "date", "message-id", "auto-submitted", "x-postmeter-notice",
    "content-type", "content-transfer-encoding", "mime-version",
]  # fmt: skip


def test_a_notice_is_marked_as_what_it_is() -> None:
    letter = Letter("postmeter: täglich", "größer\n")
    raw = MAILER.compose(letter, to=["a@example.com", "b@example.com"], ident="ab" * 16, about="x", now=1e9).as_bytes()
    read = email.message_from_bytes(raw, policy=email.policy.default)
    assert raw.isascii(), "no hop has to change it"
    assert read["Auto-Submitted"] == "auto-generated"
    assert read["X-Postmeter-Notice"] == "ab" * 16
    assert read["From"] == "postmeter <postmaster@example.com>"
    assert read["Date"] == "Sun, 09 Sep 2001 01:46:40 +0000"
    assert read["Message-ID"].endswith("@mail.example.com>")
    assert read.get_content().splitlines() == ["größer"]


def test_a_letter_sent_again_bears_its_message_id_again() -> None:
    def message_id(about: str) -> str:
        return str(MAILER.compose(Letter("a", "b"), to=["a@b"], ident="c", about=about, now=0.0)["Message-ID"])

    assert message_id("warnings [1]") == message_id("warnings [1]") != message_id("warnings [1, 2]")
