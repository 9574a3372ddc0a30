"""Reading what comes back: reports built by the email package, mail that is none, and octets of any kind."""

from __future__ import annotations

import re
import string
from email.message import EmailMessage
from email.mime.base import MIMEBase
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postmeter.feedback import dsn
from postmeter.feedback.reading import Report, read
from postmeter.feedback.report import KINDS
from postmeter.mail import said
from postmeter.mail.hardness import HARD

LETTERS = string.ascii_letters + string.digits
LOCALS = st.text(LETTERS + "!#$%&'*/?^_`{|}~-", min_size=1, max_size=20)
ADDRESSES = st.builds(lambda local, host: f"{local}@{host}.example", LOCALS, st.text(LETTERS, min_size=1, max_size=10))
ACTIONS = ("failed", "delayed", "delivered", "relayed", "expanded")
STATUSES = st.builds("{}.{}.{}".format, st.integers(4, 5), st.integers(0, 7), st.integers(1, 40))


@cache
def original() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "news@example.com"
    message["To"] = "reader@example.net"
    message["Message-ID"] = "<relay@example.org>"
    message["Received"] = "from a by b"
    message["Message-ID2"] = "no"
    message["Feedback-ID"] = "spring:news:example.com:postmeter"
    message["CFBL-Address"] = "fbl@example.com; report=arf"
    message["CFBL-Feedback-ID"] = "111:222"
    message["Subject"] = "News"
    message.set_content("Hello")
    return message


def twice() -> bytes:
    """The original with another's Message-ID above its own."""
    return original().as_bytes().replace(b"Message-ID2: no", b"Message-ID: <ours@example.com>")


def part(kind: str, text: str) -> MIMEBase:
    """A part as its type says, unlike what email's generators make of message/delivery-status."""
    main, _, sub = kind.partition("/")
    made = MIMEBase(main, sub)
    made.set_payload(text)
    return made


def report(status: str, *, returned: bytes = b"", kind: str = "delivery-status", words: str = "It failed.") -> bytes:
    whole = MIMEMultipart("report", report_type=kind)
    whole["From"] = "MAILER-DAEMON@mx.example.net"
    whole["To"] = "news@example.com"
    whole["Subject"] = "Undelivered Mail Returned to Sender"
    whole.attach(MIMEText(words))
    whole.attach(MIMEText("@STATUS@"))
    if returned:
        whole.attach(MIMEMessage(original()))
    raw = whole.as_bytes()
    types = re.compile(
        rb'Content-Type: text/plain; charset="us-ascii"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 7bit'
    )
    second = list(types.finditer(raw))[1]
    raw = raw[: second.start()] + f"Content-Type: message/{kind}".encode() + raw[second.end() :]
    raw = raw.replace(b"@STATUS@", status.encode())
    return raw.replace(original().as_bytes(), returned) if returned else raw


def one(fields: str, *, words: str = "It failed.") -> Report:
    return read(report(f"Reporting-MTA: dns; mx.example.net\n\n{fields}\n", words=words))


def test_the_builder_builds_reports() -> None:
    """The test of the test: email finds the parts again."""
    import email

    kinds = [part.get_content_type() for part in email.message_from_bytes(report("A: b", returned=twice())).walk()]
    assert kinds[:3] == ["multipart/report", "text/plain", "message/delivery-status"]
    assert "message/rfc822" in kinds


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(ADDRESSES, st.sampled_from(ACTIONS), STATUSES), min_size=1, max_size=8),
    st.sampled_from(["rfc822; {}", "rfc822;{}", "RFC822; <{}>", "utf-8; {}"]),
    st.booleans(),
)
def test_a_built_delivery_status_is_read_as_it_was_built(
    rows: list[tuple[str, str, str]], form: str, crlf: bool
) -> None:
    groups = [f"Final-Recipient: {form.format(to)}\nAction: {action}\nStatus: {status}" for to, action, status in rows]
    raw = report("Reporting-MTA: dns; mx.example.net\n\n" + "\n\n".join(groups) + "\n", returned=twice())
    found = read(raw.replace(b"\n", b"\r\n") if crlf else raw)
    assert [(one.recipient, one.action, one.status) for one in found.recipients] == rows
    assert found.reporting == "mx.example.net"
    assert found.message_id == "<ours@example.com>"
    actions = {action for _, action, _ in rows}
    expected = "bounce" if "failed" in actions else "delayed" if "delayed" in actions else "relayed"
    assert found.kind == expected
    for one in found.recipients:
        assert not one.hard or (one.action == "failed" and one.status in HARD)


@given(st.binary(max_size=3000))
@settings(max_examples=60, deadline=None)
def test_any_octets_are_answered(raw: bytes) -> None:
    assert read(raw).kind in KINDS


PIECES = [
    b"From: MAILER-DAEMON@x.example\r\n",
    b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
    b"Content-Type: message/delivery-status\r\n",
    b"Content-Type: message/feedback-report\r\n",
    b"\r\n",
    b"\r\n--b\r\n",
    b"Feedback-Type: abuse\r\n",
    b"Final-Recipient: rfc822; a@b.example\r\n",
    b"Action: failed\r\n",
    b"Status: 5.1.1\r\n",
    b"Diagnostic-Code: smtp; 550 5.1.1 unknown\r\n",
    b"Message-ID: <a@b>\r\n",
    b"Subject: Undeliverable\r\n",
    b"\x00\xff",
    b"<a@b.example>: 550 5.1.1 no such user\r\n",
    b"could not be delivered to ",
    b"--- a copy of the message\r\n",
    b" \r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"=?utf-8?q?=ff?=",
    b"Content-Type: text/html; charset=utf-7\r\n",
    b"&#9999999;",
    b"X-Failed-Recipients: a@b.example,\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"\\x{110000}\\x{d800}",
    b"--b--\r\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(max_examples=60, deadline=None)
def test_pieces_of_reports_in_any_order_give_bounded_text_of_one_line(pieces: list[bytes]) -> None:
    found = read(b"".join(pieces))
    for one in found.recipients:
        for text in (one.recipient, one.original, one.status, one.diagnostic, one.reporting, one.remote):
            assert len(text) <= 2000
            assert text.isprintable() or not set(text) & set("\r\n\0\x85\u2028")
        assert not one.hard or found.kind == "bounce"
    assert all("\n" not in text and "\r" not in text for text in (found.subject, found.message_id, found.why))


def test_addresses_of_any_script_are_read() -> None:
    """RFC 6533 section 3: as UTF-8, and as utf-8-addr-xtext."""
    assert dsn.address("utf-8; jörg@bücher.example") == "jörg@bücher.example"
    assert dsn.address(r"utf-8; j\x{F6}rg@example.com") == "jörg@example.com"
    assert dsn.address(r"utf-8; j\x{D800}rg@example.com") == r"j\x{D800}rg@example.com"
    raw = report(
        "Final-Recipient: utf-8; jörg@bücher.example\nAction: failed\nStatus: 5.1.1", kind="global-delivery-status"
    )
    assert read(raw).recipients[0].recipient == "jörg@bücher.example"


def test_original_recipients_come_out_of_xtext() -> None:
    """RFC 3461 section 4: + and = are escaped; what looks like another escape is part of an address."""
    found = one(
        "Original-Recipient: rfc822;a+2Bb@example.com\nFinal-Recipient: rfc822;a+ab@example.com\nAction: failed"
    )
    assert (found.recipients[0].original, found.recipients[0].recipient) == ("a+b@example.com", "a+ab@example.com")


def test_the_envelope_id_is_read() -> None:
    raw = report(
        "Original-Envelope-Id: q+2Bx\nReporting-MTA: dns; a.example\n\n"
        "Final-Recipient: rfc822;a@b.example\nAction: failed"
    )
    assert read(raw).envid == "q+x"


@pytest.mark.parametrize(
    ("status", "diagnostic", "hard"),
    [
        ("5.1.1", "smtp; 550 5.1.1 user unknown", True),
        ("5.1.3", "smtp; 501 5.1.3 bad address", True),
        ("5.1.6", "smtp; 551 5.1.6 moved", True),
        ("5.1.10", "smtp; 556 5.1.10 null mx", True),
        ("5.2.1", "smtp; 550 5.2.1 mailbox disabled", True),
        ("5.0.0", "smtp; 550 no such user here", True),
        ("5.2.1", "smtp; 550 5.2.1 receiving mail at a rate that prevents", False),
        ("5.2.2", "smtp; 552 5.2.2 mailbox full", False),
        ("5.7.1", "smtp; 550 5.7.1 blocked by reputation", False),
        ("5.1.1", "smtp; 550 5.7.1 blocked", False),
        ("5.4.4", "X-Postfix; Host not found", False),
        ("5.4.6", "X-Postfix; mail loops back to myself", False),
        ("4.1.1", "smtp; 450 4.1.1 unknown for now", False),
        ("5.1.1", "smtp; 550 5.1.1 no (in reply to MAIL FROM command)", False),
        ("5.0.0", "smtp; 550 user unknown (in reply to end of DATA command)", False),
        ("4.0.0", "smtp; no such user", False),
        ("5.0.0", "smtp; 551 <a@b.example> is a deactivated mailbox", True),
        ("5.0.0", "X-Postfix; [b.example]: Name or service not known", False),
        ("5.0.0", "smtp; the address: no valid MX hosts", False),
        ("5.0.0", "smtp; 550-Verification failed for <n@example.com> 550-No such user 550 Sender verify failed", False),
        ("5.0.0", "X-Postfix; host mx said: 550 HELO invalid (in reply to RCPT TO command)", False),
        ("5.0.0", "smtp; 550 Too many invalid recipients", False),
        ("5.0.0", "smtp; 550 this user does not accept mail from you", False),
        ("5.0.0", "smtp; 550 <user@unknown.example>: go away", False),
        ("5.0.0", "smtp; 550 user not found:a@b.example", True),
    ],
)
def test_hard_is_what_says_that_nobody_is_there(status: str, diagnostic: str, hard: bool) -> None:
    found = one(
        f"Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: {status}\nDiagnostic-Code: {diagnostic}"
    )
    assert (found.kind, found.recipients[0].hard) == ("bounce", hard)


EXIM = "SMTP error from remote mail server after"


@pytest.mark.parametrize(
    ("words", "reply", "hard"),
    [
        (f"{EXIM} RCPT TO:<a@b.example>", "550 no such user", True),
        (f"{EXIM} pipelined RCPT TO:<a@b.example>", "550 no such user", True),
        (f"{EXIM} MAIL FROM:<n@example.com> SIZE=2048", "550 5.1.1 no such user", False),
        (f"{EXIM} pipelined MAIL FROM:<n@example.com> SIZE=2048", "550 5.1.1 no such user", False),
        (f"{EXIM} HELO mx.example.net", "550 5.1.1 no such user", False),
        (f"{EXIM} EHLO mx.example.net", "550 5.1.1 no such user", False),
        (f"{EXIM} end of data", "550 no such user", False),
        (f"{EXIM} pipelined end of data", "550 no such user", False),
        (f"{EXIM} sending data block", "550 no such user", False),
        (f"{EXIM} pipelined sending data block", "550 no such user", False),
        (f"{EXIM} pipelined end of data", "550 5.1.1 no such user", True),
    ],
)
def test_what_exim_sent_before_the_answer_tells_whom_it_is_about(words: str, reply: str, hard: bool) -> None:
    """Only the words for people say so; `pipelined` stands before what exim did not wait to hear the answer of."""
    row = f"Action: failed\nFinal-Recipient: rfc822;a@b.example\nStatus: 5.0.0\nDiagnostic-Code: smtp; {reply}"
    found = one(row, words=f"  a@b.example\n    host mx.b.example [192.0.2.1]\n    {words}:\n    {reply}\n")
    assert [each.hard for each in found.recipients] == [hard]


@pytest.mark.parametrize(
    ("command", "status", "hard"),
    [
        ("RCPT TO:<a@b.example>", "5.1.1", True),
        ("MAIL FROM:<n@example.com>", "5.1.1", False),
        ("EHLO mx.example.com", "5.1.1", False),
        ("RCPT TO:<a@b.example>", "5.0.0", True),
        ("DATA", "5.0.0", False),
    ],
)
def test_what_stalwart_calls_the_refused_command_tells_whom_it_is_about(command: str, status: str, hard: bool) -> None:
    code = f" ({status})" if status != "5.0.0" else ""
    words = f"<a@b.example> (host 'mx.b.example' rejected command '{command}' with code 550{code} 'unknown user')"
    row = f"Final-Recipient: <a@b.example>\nAction: failed\nStatus: {status}\nDiagnostic-Code: smtp; 550 unknown user"
    assert [each.hard for each in one(row, words=words).recipients] == [hard]


@pytest.mark.parametrize(
    ("diagnostic", "hard"),
    [
        ("550 Access from 192.0.2.1 blocked, see the blocklist", False),
        ("550 <a@b.example> mailbox is full", False),
        ("550 max message size exceeded", False),
        ("554 rejected by our policies", False),
        ("550 blocked: 5.1.1 unknown user", True),
        ("550 <a@b.example> recipient rejected", True),
        ("550 no such user", True),
        ("550 a@b.example...User unknown", True),
    ],
)
def test_words_that_mean_something_else_outweigh_a_status_put_over_them(diagnostic: str, hard: bool) -> None:
    """Sendmail has 5.1.1 for every 550 to RCPT."""
    row = "Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: SMTP; "
    found = one(row + diagnostic)
    assert (found.recipients[0].status, found.recipients[0].hard) == ("5.1.1", hard)


def test_a_transcript_of_two_servers_gives_the_status_of_the_one_that_refused() -> None:
    words = "<a@b.example>\n\n451 4.4.1 reply: read error from mx1.b.example.\n<<< 550 unknown user\n"
    row = "Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.0.0\nDiagnostic-Code: SMTP; 550 unknown user"
    found = one(row, words=words).recipients[0]
    assert (found.status, found.reply, found.hard) == ("5.0.0", "550", True)


def test_where_the_final_recipient_is_a_program_the_original_one_is_meant() -> None:
    found = one(
        "Original-Recipient: rfc822;a@b.example\nFinal-Recipient: rfc822;@store.b.example:24@lmtp-daemon\n"
        "Action: failed\nStatus: 4.2.2\nDiagnostic-Code: lmtp;550 4.2.2 Over quota"
    )
    assert [(one.recipient, one.status, one.reply) for one in found.recipients] == [("a@b.example", "4.2.2", "550")]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ("Status: 5.0.0\nX-Supplementary-Info: <mx.b.example #5.0.0 smtp; 550 no such user>", ("5.0.0", "550", True)),
        ("Status: 5.5.0\nX-Supplementary-Info: < #5.5.0 smtp;552 full>\nDiagnostic-Code: smtp; 550 5.1.1 unknown",
         ("5.1.1", "550", True)),
        ("Status: 5.1.1\nX-Supplementary-Info: <mx #5.1.1 smtp;550\n 5.7.1 blocked>", ("5.1.1", "550", False)),
        ("Status: 5.4.4\nX-Supplementary-Info: ", ("5.4.4", "", False)),
    ],
)  # fmt: skip
def test_without_a_diagnostic_that_of_exchange_is_read(fields: str, told: tuple[str, str, bool]) -> None:
    found = one(f"Final-recipient: RFC822; a@b.example\nAction: failed\n{fields}").recipients[0]
    assert (found.status, found.reply, found.hard) == told


def test_a_type_that_is_said_twice_is_no_part_of_the_address() -> None:
    found = one(
        "Final-Recipient: rfc822; c@b.example\nOriginal-Recipient: rfc822; RFC822;a@b.example\n"
        "Action: failed\nStatus: 5.1.1"
    )
    assert [(one.recipient, one.original) for one in found.recipients] == [("c@b.example", "a@b.example")]


def test_a_delay_is_never_hard() -> None:
    found = one("Final-Recipient: rfc822; a@b.example\nAction: delayed\nStatus: 5.1.1")
    assert (found.kind, found.recipients[0].hard) == ("delayed", False)


def test_a_vague_status_gives_way_to_the_line_of_that_recipient() -> None:
    words = "a@x.example: 550 5.1.1 unknown\nb@x.example: 552 5.2.2 full\n"
    rows = "Final-Recipient: rfc822; {}@x.example\nAction: failed\nStatus: 5.0.0\n\n"
    found = one(rows.format("a") + rows.format("b"), words=words)
    assert [(one.status, one.reply, one.hard) for one in found.recipients] == [
        ("5.1.1", "550", True),
        ("5.2.2", "552", False),
    ]


def test_blank_lines_in_the_wrong_place_split_no_recipient() -> None:
    found = one("Final-Recipient: rfc822; a@b.example\n\nAction: failed\nStatus: 5.1.1")
    assert [(one.recipient, one.action, one.status) for one in found.recipients] == [("a@b.example", "failed", "5.1.1")]


def test_recipients_without_a_blank_line_between_them_are_several() -> None:
    row = "Final-Recipient: rfc822; {}@b.example\nAction: failed\nStatus: 5.1.{}\n"
    found = one(row.format("a", 1) + row.format("b", 2))
    assert [(one.recipient, one.status) for one in found.recipients] == [
        ("a@b.example", "5.1.1"),
        ("b@b.example", "5.1.2"),
    ]


ARF = (
    "Feedback-Type: {}\nUser-Agent: FBL/1\nVersion: 1\n"
    "Original-Mail-From: <b+t@example.com>\nOriginal-Rcpt-To: <r@x.example>\n"
)


@pytest.mark.parametrize("kind", ["abuse", "Abuse", "abuse (junk button)", "abuse;"])
def test_abuse_is_a_complaint(kind: str) -> None:
    found = read(report(ARF.format(kind), kind="feedback-report", returned=twice()))
    assert (found.kind, found.feedback_type, found.original_rcpt) == ("complaint", "abuse", ("r@x.example",))
    assert (found.message_id, found.original_from) == ("<ours@example.com>", "b+t@example.com")
    assert found.feedback_id == "spring:news:example.com:postmeter"
    assert (found.cfbl_address, found.cfbl_feedback_id, found.user_agent) == ("fbl@example.com", "111:222", "FBL/1")


MAILBOX = (b"From b@example.com Thu Feb  1 11:22:53 2024\n", b"From a\n>From a\n", b"X-A: b\n>From a\n", b"\n\n", b"")


@pytest.mark.parametrize("above", MAILBOX)
def test_a_line_of_a_mailbox_in_a_header_hides_no_field(above: bytes) -> None:
    found = read(above + report(ARF.format("abuse"), kind="feedback-report", returned=above + twice()))
    assert (found.kind, found.message_id) == ("complaint", "<ours@example.com>")


@pytest.mark.parametrize("kind", ["not-spam", "fraud", "virus", "other", "auth-failure", "opt-out", ""])
def test_other_feedback_is_no_complaint(kind: str) -> None:
    found = read(report(ARF.format(kind), kind="feedback-report", returned=twice()))
    assert (found.kind, found.feedback_type) == ("other", kind)


def test_what_returns_no_message_is_no_complaint() -> None:
    assert read(report(ARF.format("abuse"), kind="feedback-report")).kind == "other"


def test_a_receipt_is_no_bounce() -> None:
    text = (
        "Final-Recipient: rfc822; a@b.example\nAction: failed\n"
        "Disposition: automatic-action/MDN-sent-automatically; deleted\n"
    )
    assert read(report(text, kind="disposition-notification")).kind == "receipt"


ANSWERS = {
    "vacation": (
        "From: a@b.example\nSubject: Out of office: hello",
        "I am away. Mail to me is not delivered to anyone else.",
    ),
    "marked": (
        "From: a@b.example\nSubject: hello\nAuto-Submitted: auto-replied",
        "I left; a@b.example: 550 user unknown.",
    ),
    "gone": (
        "From: a@b.example\nReturn-Path: <>\nSubject: Automatic reply: News",
        "My mailbox a@b.example could not be reached",
    ),
    "without a sender": (
        "From: Ann <a@b.example>\nReturn-Path: <>\nSubject: Re: News\nAuto-Submitted: auto-replied",
        "I left. Mail to a@b.example can not be delivered: user unknown.",
    ),
    "challenge": ("From: a@b.example\nSubject: Please confirm your message", "Click to prove that you are human."),
    "german": ("From: a@b.example\nSubject: Abwesenheitsnotiz: Re: News", "Ich bin nicht da."),
}


@pytest.mark.parametrize(("fields", "text"), ANSWERS.values(), ids=ANSWERS)
def test_answers_that_nobody_wrote_are_no_bounces(fields: str, text: str) -> None:
    assert read(f"{fields}\n\n{text}\n".encode()).kind == "automatic"


@pytest.mark.parametrize(
    "subject",
    [
        "Automatische Antwort:", "Automatisch antwoord:", "Autosvar:", "Automatisk svar:",
        "Automatiskt svar:", "Automaattinen vastaus:", "Réponse automatique:", "Respuesta automática:",
        "Resposta automática:", "Risposta automatica:", "Autoodpowiedź:", "Odpowiedź automatyczna:",
        "Automatická odpověď:", "Automatikus válasz:", "Răspuns automat:", "Otomatik yanıt:",
        "Автоматический ответ:", "Автоответ:", "Автоматична відповідь:", "Αυτόματη απάντηση:", "自動応答:",
        "自动答复:", "自动回复:", "自動回覆:", "자동 회신:", "Re: 자동 응답:",
        "Frånvarande:", "Fravær:", "Poissa:", "Ofis Dışında:", "Nieobecność:", "Вне офиса:", "Εκτός γραφείου:",
        "Ausente:", "Ausência temporária:", "Fora do escritório:", "Nicht im Büro:", "V nepřítomnosti:", "부재 중:",
        "外出自动回复:",
    ],
)  # fmt: skip
def test_mail_programs_of_many_tongues_call_an_automatic_answer_one(subject: str) -> None:
    """Some servers strip the fields that say so; the subject stays."""
    assert read(f"From: a@b.example\nSubject: {subject} Hello\n\n-\n".encode()).kind == "automatic"


ORDINARY = {
    "a letter": ("From: a@b.example\nSubject: Lunch", "I could not deliver the cake to b@c.example, sorry."),
    "an answer about a bounce": (
        "From: a@b.example\nReturn-Path: <a@b.example>\nIn-Reply-To: <1@b.example>\n"
        "Subject: Re: Undelivered Mail Returned to Sender",
        "> <x@y.example>: 550 5.1.1 user unknown\nMy message could not be delivered, why?",
    ),
    "a newsletter": ("From: shop@b.example\nSubject: Delivery is free", "We deliver to users at c@d.example"),
    "nothing": ("", ""),
}


@pytest.mark.parametrize(("fields", "text"), ORDINARY.values(), ids=ORDINARY)
def test_ordinary_mail_is_nothing_that_came_back(fields: str, text: str) -> None:
    assert read(f"{fields}\n\n{text}\n".encode()).kind == "other"


@pytest.mark.parametrize(
    "fields",
    [
        "Subject: Re: Undelivered Mail Returned to Sender\nIn-Reply-To: <1@b.example>",
        "Subject: FW: Undelivered Mail Returned to Sender",
        "Subject: WG: Undelivered Mail Returned to Sender",
        "Subject: Fwd: Undelivered Mail Returned to Sender",
    ],
)
def test_a_letter_that_quotes_a_delivery_status_is_none(fields: str) -> None:
    status = "Final-Recipient: rfc822; a@b.example\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no"
    text = f"From: Bob <bob@c.example>\n{fields}\n\nIt could not be delivered, why?\n\n{status}\n".encode()
    assert read(text, sender="bob@c.example").kind == "other"
    bounce = text.replace(b"Bob <bob@", b"<mailer-daemon@").replace(b"In-Reply-To", b"X")
    assert read(bounce, sender="").kind == "bounce"


IN_WORDS = {
    "behind a line": "I was not able to deliver your message to:\n\n<r@x.example>:\n550 5.1.1 no such user\n",
    "in a row": "The following addresses failed:\n\n  r@x.example\n    host mx said: 550 5.1.1 user unknown\n",
    "a transcript": "Not delivered:\n>>> RCPT To:<r@x.example>\n<<< 550 5.1.1 <r@x.example>... User unknown\n",
    "a tongue that we do not speak": "Zprávu nebylo možné doručit:\n\n<r@x.example>\n550 5.1.1 není zde\n",
    "a sentence": "Your mail could not be delivered to r@x.example because 550 5.1.1 the user is unknown.\n",
}


@pytest.mark.parametrize("words", IN_WORDS.values(), ids=IN_WORDS)
def test_bounces_in_words_name_recipient_status_and_reply(words: str) -> None:
    head = "From: Mail Delivery System <mailer-daemon@mx.example.net>\nTo: news@example.com\nSubject: -\n\n"
    tail = "\n--- Below this line is a copy of the message.\n\nReceived: x\nFrom: news@example.com\n"
    tail += "Message-ID: <m@example.com>\n\nz@z.example\n"
    found = read((head + words + tail).encode())
    assert [(one.recipient, one.status, one.reply, one.hard) for one in found.recipients] == [
        ("r@x.example", "5.1.1", "550", True)
    ]
    assert (found.kind, found.message_id) == ("bounce", "<m@example.com>")


TONGUES = {
    "Danish": ("Kan ikke leveres: News", "Meddelelsen kunne ikke leveres til følgende modtagere:"),
    "Finnish": ("Ei voi toimittaa: News", "Viestiä ei voitu toimittaa seuraaville vastaanottajille:"),
    "French": ("Échec de remise : News", "La remise a échoué pour les destinataires suivants :"),
    "German": ("Unzustellbar: News", "Ihre Nachricht hat einige oder alle Empfänger nicht erreicht."),
    "Greek": ("Ανεπίδοτο: News", "Δεν ήταν δυνατή η παράδοση του μηνύματος:"),
    "Hungarian": ("Kézbesíthetetlen: News", "Az üzenet kézbesítése az alábbi címzetteknek nem sikerült:"),
    "Italian": ("Non recapitabile: News", "Impossibile recapitare il messaggio ai seguenti destinatari:"),
    "Korean": ("배달되지 않음: News", "다음 받는 사람에게 배달하지 못했습니다:"),
    "Polish": ("Niedostarczalne: News", "Dostarczenie wiadomości do następujących adresatów nie powiodło się:"),
    "Russian": ("Недоставлено: News", "Не удалось доставить сообщение следующим получателям:"),
    "simple Chinese": ("未送达: News", "您的邮件未能送达以下收件人："),
    "Spanish": ("No se puede entregar: News", "Error de entrega a los siguientes destinatarios:"),
    "Turkish": ("Teslim edilemiyor: News", "Aşağıdaki alıcılara teslim edilemedi:"),
    "one that nobody knows": ("Xyzzy: News", "Plugh plover:"),
}


@pytest.mark.parametrize(("subject", "words"), TONGUES.values(), ids=TONGUES)
@pytest.mark.parametrize("day", ["02.11.2026 10:00", "am 02.11.2026 10:00", "le 02/11/2026 10:00", "2026-11-02"])
def test_old_exchange_is_understood_in_whatever_tongue_it_speaks(subject: str, words: str, day: str) -> None:
    """It names the recipients, each with a date, and the status below; the rest is in its administrator's tongue."""
    rows = [f"      {name}@x.example {day}\n            <mx.x.example #{said}>\n"
            for name, said in (("a", "5.1.1"), ("b", "5.2.2 smtp;552 5.2.2"))]  # fmt: skip
    head = f"From: postmaster@x.example\nTo: n@example.com\nSubject: {subject}\n\n{words}\n\n"
    found = read((head + "".join(rows)).encode(), sender="")
    told = [(one.recipient[0], one.status, one.hard) for one in found.recipients]
    assert (found.kind, told) == ("bounce", [("a", "5.1.1", True), ("b", "5.2.2", False)])


@pytest.mark.parametrize(
    "words",
    [
        "받는사람 : r@x.example\n실패사유 : 존재하지 않는 사용자입니다.\n",
        "宛先： r@x.example\n宛先不明のため\n",
        "收件人: r@x.example\n该用户不存在\n",
        "Alıcı: r@x.example\nKullanıcı bulunamadı\n",
    ],
)
def test_a_daemon_that_says_in_its_tongue_that_nobody_is_there_needs_no_code(words: str) -> None:
    found = read(f"From: MAILER-DAEMON@x.example\nTo: n@example.com\nSubject: -\n\n{words}".encode())
    assert [(one.recipient, one.status, one.hard) for one in found.recipients] == [("r@x.example", "5.1.1", True)]


def test_a_report_on_tls_is_no_bounce_whoever_sends_it() -> None:
    """RFC 8460: it counts sessions that failed, and may come from a mail system without a sender."""
    raw = report("", kind="tlsrpt", words="Report Domain: example.com. 2 sessions failed, delivery failure 550.")
    assert read(raw, sender="").kind == "other"


def test_every_part_with_a_delivery_status_counts() -> None:
    """RFC 6522 has one; some systems make one for each recipient."""
    first = "Reporting-MTA: dns; x.example\n\nFinal-Recipient: rfc822; a@x.example\nAction: failed\nStatus: 5.1.1\n"
    raw = report(first)
    whole, _, end = raw.decode().rpartition("\n--")
    boundary = end.strip().removesuffix("--")
    second = first.replace("a@x", "b@x").replace("5.1.1", "5.2.2")
    raw = f"{whole}\n--{boundary}\nContent-Type: message/delivery-status\n\n{second}\n--{end}".encode()
    assert [(one.recipient[0], one.status) for one in read(raw).recipients] == [("a", "5.1.1"), ("b", "5.2.2")]


BESIDE = {
    "what cannot be understood": ("<a@x.example>:\nIt has gone fishing.\n\n<b@x.example>:\n550 5.1.1 no such user\n",
                                  [("a", "5.0.0", "", False), ("b", "5.1.1", "550", True)]),
    "another one's number": ("<a@x.example>:\nno such user\n\n<b@x.example>:\n452 later\n",
                             [("a", "5.1.1", "", True), ("b", "4.0.0", "452", False)]),
    "one reason for all": ("<a@x.example>\n<b@x.example>\n\nReason: 550 5.1.1 user unknown\n",
                           [("a", "5.1.1", "550", True), ("b", "5.1.1", "550", True)]),
}  # fmt: skip


@pytest.mark.parametrize(("words", "expected"), BESIDE.values(), ids=BESIDE)
def test_what_is_said_of_one_recipient_is_not_said_of_another(
    words: str, expected: list[tuple[str, str, str, bool]]
) -> None:
    head = "From: MAILER-DAEMON@mx.example.net\nSubject: failure notice\n\nNot able to deliver to the following.\n\n"
    found = read((head + words + "\n--- Below this line is a copy of the message.\n\nFrom: n@example.com\n").encode())
    told = [(one.recipient[0], one.status, one.reply, one.hard) for one in found.recipients]
    assert told == expected


def test_a_refusal_in_a_tongue_that_we_do_not_speak_is_of_somebody() -> None:
    raw = "From: MAILER-DAEMON@mx.example\nTo: n@x.example\nSubject: 系统\n\nไม่พบ r@x.example ในระบบ\n550 err\n"
    found = read(raw.encode())
    assert (found.kind, [(one.recipient, one.hard) for one in found.recipients]) == ("bounce", [("", False)])


def test_words_that_promise_another_attempt_are_a_delay() -> None:
    raw = b"From: mailer-daemon@mx.example\nSubject: Warning: message delayed\n\n"
    raw += b"Not yet delivered to:\n\n <r@x.example>: 451 busy\n"
    found = read(raw)
    assert (found.kind, [one.action for one in found.recipients]) == ("delayed", ["delayed"])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ("the mailbox is full", "5.2.2"),
        ("user over quota", "5.2.2"),
        ("unknown user", "5.1.1"),
        ("no such user here", "5.1.1"),
        ("listed in a blocklist, user unknown to us", "5.7.1"),
        ("relaying denied", "5.7.1"),
        ("Unable to find user: <a@b.example>", "5.1.1"),
        ("we could not locate the mailbox", "5.1.1"),
        ("cannot find an address of the host", ""),
        ("message is too big", "5.3.4"),
        ("Host or domain name not found", "5.1.2"),
        ("account has been disabled", "5.2.1"),
        ("hello", ""),
        ("user does not exist", "5.1.1"),
        ("User unknown in relay recipient table", "5.1.1"),
        ("Connection timed out", "4.4.7"),
        ("mailbox exceeds allowed size", "5.2.2"),
        ("Mailbox size limit exceeded", "5.2.2"),
        ("maximum message size exceeded", "5.3.4"),
        ("Name or service not known", "5.1.2"),
        ("this mailbox does not accept messages from strangers", "5.7.1"),
        ("<user@unknown.example> said hello", ""),
    ],
)
def test_words_mean_a_status(words: str, status: str) -> None:
    assert said.meaning(words) == status


@pytest.mark.parametrize(
    ("words", "reply"),
    [
        ("550 no", "550"),
        ("said: 452-4.2.2 full", "452"),
        ("port 550 of 10.0.5.7", ""),
        ("in 2550 days", ""),
        ("x <<< 554 y", "554"),
    ],
)
def test_reply_codes_are_found_where_servers_put_them(words: str, reply: str) -> None:
    assert said.said(words).reply == reply
