"""What the mail systems of today send back, each in its own way, is read as a person would read it.

tests/data/came_back was written for this test after what these systems are known to send; names are made up.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postmeter.feedback.reading import Report, read

FOLDER = Path(__file__).parent.parent / "data" / "came_back"

BOUNCES = {
    "gmail-no-such-address": ("5.1.1", True),
    "gmail-mailbox-full": ("5.2.2", False),
    "gmail-account-disabled": ("5.2.1", True),
    "gmail-unsolicited": ("5.7.1", False),
    "exchange-online-unknown-recipient": ("5.1.10", True),
    "exchange-online-access-denied": ("5.4.1", False),
    "exchange-restricted-group": ("5.7.133", False),
    "exchange-in-house-german-words": ("5.1.1", True),
    "outlook-com-blocked": ("5.7.1", False),
    "hotmail-by-postfix": ("5.5.0", False),
    "yahoo-no-such-user": ("5.0.0", False),
    "postfix-of-several-lines-to-mail": ("5.1.1", False),
    "yahoo-user-gone": ("5.1.1", False),
    "icloud-no-such-user": ("5.1.1", True),
    "proofpoint-sendmail": ("5.1.1", True),
    "mimecast-policy": ("5.0.0", False),
    "barracuda-in-words": ("5.7.1", False),
    "exim-unrouteable": ("5.1.1", True),
    "exim-retry-timeout": ("4.4.7", False),
    "qmail": ("5.1.1", True),
    "zimbra-quota": ("4.2.2", False),
    "postfix-greylisted-for-five-days": ("4.7.1", False),
    "postfix-no-host": ("5.4.4", False),
    "gmx-dmarc": ("5.0.0", False),
    "t-online": ("5.0.0", False),
    "yandex": ("5.7.1", False),
    "mail-ru": ("5.1.1", False),
    "qq": ("5.1.1", False),
    "orange-in-french": ("5.1.1", True),
    "domino": ("5.1.1", True),
    "amazon-ses": ("5.1.1", True),
    "google-groups": ("5.0.0", False),
    "wp-in-polish": ("5.1.1", True),
    "exchange-in-dutch-words-alone": ("5.1.1", True),
    "exchange-in-swedish-words-alone": ("5.1.1", True),
    "exchange-in-spanish-words-alone": ("5.1.1", True),
    "libero-in-italian": ("5.2.1", True),
    "netease": ("5.1.1", False),
    "uol-in-portuguese": ("5.1.1", True),
    "virus-notice": ("5.7.1", False),
    "exchange-2003-in-german-words": ("5.1.1", True),
    "exchange-mailbox-full-in-japanese": ("5.2.2", False),
    "exchange-online-in-html-alone": ("5.1.10", True),
    "exchange-online-another-server-full": ("5.0.350", False),
    "exchange-group-closed-to-strangers": ("5.7.193", False),
    "groupwise-in-words": ("5.1.1", True),
    "hmailserver-in-words": ("5.1.1", True),
    "mailenable-in-words": ("5.1.1", True),
    "smartermail-in-words": ("5.1.1", True),
    "lotus-in-words-a-loop": ("5.4.6", False),
    "mdaemon-transcript": ("5.1.1", True),
    "xmail-in-words": ("5.1.1", True),
    "cisco-esa-unknown-address": ("5.1.1", True),
    "cisco-esa-expired": ("5.4.7", False),
    "communigate-quota": ("5.0.0", False),
    "courier": ("5.0.0", True),
    "exim-after-mail-from": ("5.1.1", False),
    "haraka": ("5.1.1", True),
    "james": ("5.1.1", True),
    "mox": ("5.1.1", True),
    "opensmtpd": ("5.1.1", True),
    "powermta": ("5.1.1", True),
    "stalwart": ("5.1.1", True),
    "sun-messaging-server": ("5.1.1", True),
    "korean-in-words": ("5.1.1", True),
    "korean-without-a-code": ("5.1.1", True),
    "status-in-a-part-of-no-type": ("5.1.1", True),
}
"""The status that is shown, and whether the address is at fault."""
OTHERS = {
    "gmail-delay": "delayed",
    "exim-delay": "delayed",
    "exchange-delay": "delayed",
    "sendmail-warning": "delayed",
    "postfix-success": "relayed",
    "exchange-relayed": "relayed",
    "outlook-out-of-office": "automatic",
    "outlook-german-no-marks": "automatic",
    "gmail-vacation": "automatic",
    "sieve-vacation": "automatic",
    "french-out-of-office": "automatic",
    "left-the-company-from-a-mailbox": "automatic",
    "ticket-system": "automatic",
    "challenge": "automatic",
    "receipt-read": "receipt",
    "receipt-deleted-unread": "receipt",
    "a-person-answers": "other",
    "mailman-probe": "automatic",
    "yahoo-complaint": "complaint",
    "comcast-complaint": "complaint",
    "fastmail-complaint-with-the-header-alone": "complaint",
    "microsoft-jmrp": "complaint",
    "a-provider-that-reads-cfbl-address": "complaint",
    "not-junk-after-all": "other",
    "dmarc-failure": "other",
    "mailman-waits-for-approval": "automatic",
    "quarantine-digest": "automatic",
    "a-postmaster-writes": "other",
    "a-postmaster-explains-a-refusal": "other",
    "a-person-without-a-return-path": "other",
    "boxbe": "automatic",
    "spamarrest": "automatic",
    "a-newsletter-about-parcels": "other",
    "a-delay-in-words": "delayed",
    "dmarc-aggregate": "other",
    "an-abuse-desk-answers": "automatic",
    "a-list-expanded": "relayed",
    "opensmtpd-warning": "delayed",
    "powermta-delay": "delayed",
    "complaint-with-a-name-blacked-out": "complaint",
    "complaint-with-the-header-of-the-message": "complaint",
    "opt-out-report": "other",
    "authentication-failure": "other",
    "a-person-forwards-a-complaint": "other",
    "tls-report-from-a-mail-system": "other",
    "dmarc-aggregate-from-a-mail-system": "other",
    "mailing-list-holds-it": "other",
}


def come(name: str) -> Report:
    return read((FOLDER / f"{name}.eml").read_bytes())


@pytest.mark.parametrize(("name", "expected"), BOUNCES.items(), ids=BOUNCES)
def test_bounces_are_read_as_they_are_meant(name: str, expected: tuple[str, bool]) -> None:
    found = come(name)
    told = [(one.recipient, one.status, one.hard) for one in found.recipients]
    assert (found.kind, told) == ("bounce", [("reader@example.net", *expected)])


def handed_over(name: str) -> Report:
    """As it comes by LMTP: Postfix writes no Return-Path then, and tells the sender beside the message."""
    raw = (FOLDER / f"{name}.eml").read_bytes()
    field = re.search(rb"^Return-Path: *<(.*)>\n", raw.partition(b"\n\n")[0] + b"\n", re.MULTILINE)
    sender = field[1].decode() if field else {"a-newsletter-about-parcels": "shop@example.org"}.get(name, "")
    return read(raw.replace(field[0], b"", 1) if field else raw, sender=sender)


@pytest.mark.parametrize("name", BOUNCES)
def test_bounces_that_come_by_lmtp_are_read_alike(name: str) -> None:
    found = handed_over(name)
    assert (found.kind, found.recipients) == ("bounce", come(name).recipients)


@pytest.mark.parametrize(("name", "kind"), OTHERS.items(), ids=OTHERS)
def test_what_is_no_bounce_is_none_by_lmtp_either(name: str, kind: str) -> None:
    assert handed_over(name).kind == kind


@pytest.mark.parametrize(("name", "kind"), OTHERS.items(), ids=OTHERS)
def test_what_is_no_bounce_is_told_from_them(name: str, kind: str) -> None:
    found = come(name)
    assert found.kind == kind, found.why
    assert not any(one.hard for one in found.recipients)
    if kind == "complaint":
        assert found.message_id == "<m1@example.com>"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"From: postmaster@", b"From: Erika Svensson <erika@"),
        (b"#550 5.1.1 ", b"#5.1.1 "),
        (b"#550 5.1.1 ", b"#550 "),
    ],
    ids=["a person", "no reply", "no status"],
)
def test_a_refusal_in_unknown_words_is_a_mail_system_s_with_code_and_status(old: bytes, new: bytes) -> None:
    bounce = (FOLDER / "exchange-in-swedish-words-alone.eml").read_bytes()
    assert bounce.count(old) == 1
    changed = bounce.replace(old, new + b"kund.example>\nX-Was: " if b"Erika" in new else new)
    assert (read(bounce).kind, read(changed).kind) == ("bounce", "other")


def test_every_message_of_the_folder_is_judged() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {*BOUNCES, *OTHERS}


def test_white_space_is_no_part_of_a_feedback_id() -> None:
    """RFC 9477 section 4.2: it may be folded anywhere."""
    assert come("a-provider-that-reads-cfbl-address").cfbl_feedback_id == "abcdefg"
