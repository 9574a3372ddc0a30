"""Every line of Postfix's log is understood as Postfix wrote it, and nothing that stands in a log can do harm."""

from __future__ import annotations

import json
import re
import string
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeAlias

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from postmeter.delivery.postfixlog import Line, entry, parse
from postmeter.delivery.wording import LONGEST
from tests import corpora

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Summer time from the last Sunday of March to the last of October, at 01:00 UTC."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read(text: str, *, tag: str = "postfix/smtp[7]", names: tuple[str, ...] = ("postfix",)) -> Line:
    line = parse(f"Nov 22 12:00:00 mx {tag}: {text}".encode(), now=NOW, names=names)
    assert line is not None
    return line


def said(text: str, *, tag: str = "postfix/smtp[7]") -> tuple[str, str, dict[str, str]]:
    line = read(text, tag=tag)
    return line.queue_id, line.what, dict(line.values)


# -- who and when -----------------------------------------------------------------------------------------------------


def test_a_line_says_who_wrote_it_where_and_when() -> None:
    line = parse(b"Nov 22 12:00:01 mx1 postfix/qmgr[4711]: 4WxyzB1zzzzz0: removed", now=NOW)
    assert line is not None
    assert (line.host, line.instance, line.service, line.daemon, line.pid) == ("mx1", "postfix", "", "qmgr", 4711)
    assert line.time == datetime(2026, 11, 22, 11, 0, 1, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("tag", "instance", "service", "daemon"),
    [
        ("postfix/submission/smtpd[1]", "postfix", "submission", "smtpd"),
        ("postfix/smtps/smtpd[1]", "postfix", "smtps", "smtpd"),
        ("postfix-out/smtp[1]", "postfix-out", "", "smtp"),
        ("postfix-out/submission/smtpd[1]", "postfix-out", "submission", "smtpd"),
        ("mail/out/lmtp[1]", "mail/out", "", "lmtp"),
        ("mail/lmtp[1]", "mail", "", "lmtp"),
        ("postfix/smtp", "postfix", "", "smtp"),
    ],
)
def test_instances_and_services_are_told_by_the_tag(tag: str, instance: str, service: str, daemon: str) -> None:
    line = read("0F5383D: removed", tag=tag, names=("postfix", "mail", "postfix-out", "mail/out"))
    assert (line.instance, line.service, line.daemon) == (instance, service, daemon)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"Nov 22 12:00:00 mx postfix-in/smtp[1]: 0F5383D: removed",
        b"Nov 22 12:00:00 mx postfixer/smtp[1]: 0F5383D: removed",
        b"Nov 22 12:00:00 mx dovecot: imap: postfix/smtp[1]: 0F5383D: removed",
        b"Nov 22 12:00:00 mx systemd-journald[1]: Suppressed 12 messages from ssh.service",
        b"Nov 22 12:00:00 mx last message repeated 2 times",
        b"Nov 31 12:00:00 mx postfix/smtp[1]: 0F5383D: removed",
        b"Nov 22 24:00:00 mx postfix/smtp[1]: 0F5383D: removed",
        b"anN 22 12:00:00 mx postfix/smtp[1]: 0F5383D: removed",
        b"2026-11-31T12:00:00Z mx postfix/smtp[1]: 0F5383D: removed",
        b"0F5383D: removed",
    ],
)
def test_what_is_not_postfix_or_has_no_time_is_foreign(line: bytes) -> None:
    assert parse(line, now=NOW) is None


@pytest.mark.parametrize(
    ("stamp", "now", "meant"),
    [
        ("Nov 22 13:00:00", (2026, 11, 22, 12, 0), (2026, 11, 22, 12, 0)),
        ("Dec 31 23:59:59", (2027, 1, 1, 0, 0), (2026, 12, 31, 22, 59)),
        ("Jan  1 00:00:01", (2026, 12, 31, 22, 59), (2026, 12, 31, 23, 0)),  # its clock is ahead of ours
        ("Nov 24 13:00:00", (2026, 11, 22, 12, 0), (2025, 11, 24, 12, 0)),
        ("Feb 29 01:00:00", (2026, 11, 22, 12, 0), (2024, 2, 29, 0, 0)),
        ("Feb 29 01:00:00", (2103, 11, 22, 12, 0), (2096, 2, 29, 0, 0)),
        ("Jul 15 01:28:08", (2026, 11, 22, 12, 0), (2026, 7, 14, 23, 28)),  # summer time
        ("Oct 25 02:30:00", (2026, 10, 25, 0, 31), (2026, 10, 25, 0, 30)),  # shown twice: the first time
        ("Oct 25 02:30:00", (2026, 10, 25, 1, 31), (2026, 10, 25, 1, 30)),  # and the second
        ("Mar 29 02:30:00", (2026, 11, 22, 12, 0), (2026, 3, 29, 1, 30)),  # never shown
    ],
)
def test_a_stamp_without_a_year_is_the_nearest_before_now(
    stamp: str, now: tuple[int, ...], meant: tuple[int, ...]
) -> None:
    moment = datetime(*now, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]
    line = parse(f"{stamp} mx postfix/qmgr[1]: 0F5383D: removed".encode(), now=moment)
    assert line is not None
    assert line.time // 60 * 60 == datetime(*meant, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


AUTUMN = datetime(2026, 10, 25, 1, tzinfo=UTC).timestamp()  # clocks go from 03:00 back to 02:00


@given(st.lists(st.integers(1, 3500), min_size=1, max_size=40), st.integers(0, 20 * 86400), st.integers(0, 59))
def test_the_hour_that_comes_twice_is_told_by_what_was_written_before(waits: list[int], late: int, early: int) -> None:
    """A log is in order, but for what two daemons write at one moment; read at once or much later."""
    when = since = AUTUMN - 5400
    for wait in waits:
        when += wait
        for meant in (when, when - early):
            shown = time.strftime("%b %d %H:%M:%S mx postfix/qmgr[1]: x", time.localtime(meant))
            line = parse(shown.encode(), now=when + late, since=since)
            assert line is not None
            assert line.time == meant
            since = max(since, line.time)


@settings(max_examples=100)
@given(st.integers(0, 4_000_000_000), st.integers(0, 360 * 86400))
def test_a_stamp_that_local_clocks_showed_within_a_year_is_found_again(now: int, ago: int) -> None:
    shown = time.localtime(now - ago)
    line = parse(time.strftime("%b %d %H:%M:%S mx postfix/qmgr[1]: x", shown).encode(), now=now)
    assert line is not None
    assert time.localtime(line.time)[:6] == shown[:6]
    assert line.time - (now - ago) in (0, 3600, -3600)
    assert line.time <= now + 60


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("2026-11-22T12:00:00Z", 0.0),
        ("2026-11-22T13:00:00.250000+01:00", 0.25),
        ("2026-11-22T06:30:00.5-05:30", 0.5),
        ("2026-11-22T13:00:00", 0.0),
    ],
)
def test_stamps_of_rfc_3339_are_exact(stamp: str, seconds: float) -> None:
    line = parse(f"{stamp} mx postfix/qmgr[1]: 0F5383D: removed".encode(), now=0.0)
    assert line is not None
    assert line.time == NOW + seconds


def test_a_priority_before_the_stamp_is_skipped() -> None:
    line = parse(b"<22>Nov 22 12:00:00 mx postfix/qmgr[1]: 0F5383D: removed", now=NOW)
    assert line is not None
    assert line.what == "removed"


@pytest.mark.parametrize("head", ["mx mail.info", "mx syslog.err", "<mail.info> mx", "<2.6> mx"])
def test_a_priority_beside_the_host_is_skipped(head: str) -> None:
    """BusyBox writes it behind the host, FreeBSD's syslogd -v before it."""
    line = parse(f"Nov 22 12:00:00 {head} postfix/qmgr[1]: 0F5383D: removed".encode(), now=NOW)
    assert line == parse(b"Nov 22 12:00:00 mx postfix/qmgr[1]: 0F5383D: removed", now=NOW)


@pytest.mark.parametrize("head", ["mx says", "a.b mx", "mx mail.info x", "mx mail.info mail.info", "<a b> mx"])
def test_other_words_before_a_tag_are_a_foreign_message(head: str) -> None:
    assert parse(f"Nov 22 12:00:00 {head} postfix/qmgr[1]: 0F5383D: removed".encode(), now=NOW) is None


@pytest.mark.parametrize("head", ["<22>1 ", "1 "])
@pytest.mark.parametrize(
    "data", ["-", '[timeQuality tzKnown="1"]', '[a@1 b="\\] - \\" ["][c]'], ids=["none", "one", "two, escaped"]
)
@pytest.mark.parametrize("before", [" ", "  ", " \ufeff"], ids=["plain", "rsyslog", "marked"])
def test_a_line_of_rfc_5424_says_the_same(head: str, data: str, before: str) -> None:
    """As syslog-ng writes it, and rsyslog where it is told to leave the daemon's name whole."""
    who, said = "mx postfix/submission/smtpd", "0F5383D: client=c[192.0.2.1]"
    line = parse(f"{head}2026-11-22T13:00:00.25+01:00 {who} 4711 - {data}{before}{said}".encode(), now=0)
    assert line == parse(f"2026-11-22T12:00:00.25Z {who}[4711]: {said}".encode(), now=0)
    assert line is not None
    assert (line.what, line.service, line.pid, line.time) == ("client", "submission", 4711, NOW + 0.25)


@pytest.mark.parametrize(
    "rest", ["", "-", "- - - - - -", "2026-11-22T12:00:00Z mx postfix/smtp 7 -", "2026-11-22T12:00:00Z mx cron 7 - - x",
             "2026-11-22T12:00:00Z mx postfix/smtp 7 - [a", "2026-11-22T12:00:00Z mx postfix 7 - - x"]
)  # fmt: skip
def test_what_only_begins_like_rfc_5424_is_none_of_postfix_s(rest: str) -> None:
    assert parse(f"<22>1 {rest}".encode(), now=NOW) is None


_SAID = "0F5383D: to=<\"a\\b\"@example.com>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (é)"
_OUTSIDE = "2026-11-22T12:00:00.123456789Z"


@pytest.mark.parametrize("inside", ["Nov 22 04:00:00 ", "2026-11-22T04:00:00.5+01:00 ", "Nov 22 04:00:00.25 ", ""])
@pytest.mark.parametrize("engine", ["docker", "cri"])
def test_a_line_from_a_container_is_as_old_as_its_engine_says(engine: str, inside: str) -> None:
    """Docker's json-file driver and Kubernetes: the clock inside may have another zone."""
    line = f"{inside}mx postfix/smtp[7]: {_SAID}"
    docker = json.dumps({"log": f"{line}\n", "stream": "stdout", "attrs": {"tag": "x"}, "time": _OUTSIDE},
                        separators=(",", ":"))  # fmt: skip
    told = parse((docker if engine == "docker" else f"{_OUTSIDE} stdout F {line}").encode(), now=0)
    assert told == parse(f"{_OUTSIDE} mx postfix/smtp[7]: {_SAID}".encode(), now=0)
    assert told is not None
    assert told.what == "delivery"


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        (f"Nov 22 13:00:00 [postfix/smtp] {_SAID}", 0),  # metalog
        (f"Nov 22 13:00:00 postfix/smtp[7]: {_SAID}", 7),  # BusyBox, syslogd -S
        (f"{_OUTSIDE} stderr F postfix/smtp[7]: {_SAID}", 7),
    ],
)
def test_a_line_without_a_host_says_all_the_rest(line: str, pid: int) -> None:
    told = parse(line.encode(), now=NOW)
    asked = parse(f"2026-11-22T12:00:00Z mx postfix/smtp[{pid}]: {_SAID}".encode(), now=0)
    assert told is not None
    assert asked is not None
    assert told._replace(time=int(told.time)) == asked._replace(host="")


def test_a_fraction_behind_an_old_stamp_is_passed_over() -> None:
    """journalctl -o short-precise, and syslog-ng's frac-digits()."""
    told = parse(f"Nov 22 13:00:00.123456 mx postfix/smtp[7]: {_SAID}".encode(), now=NOW)
    assert told == parse(f"Nov 22 13:00:00 mx postfix/smtp[7]: {_SAID}".encode(), now=NOW) is not None


@pytest.mark.parametrize(
    "line",
    [
        "Nov 22 12:00:00 mx [postfix/smtp] 0F5383D: removed",
        "Nov 22 12:00:00 cron[1]: postfix/smtp[1]: 0F5383D: removed",
        f"{_OUTSIDE} stdout P mx postfix/smtp[1]: 0F5383D: removed",
        f"{_OUTSIDE} stdout F {_OUTSIDE} stdout F mx postfix/smtp[1]: 0F5383D: removed",
        '{"log":"mx postfix/smtp[1]: 0F5383D: removed"}',
        '{"log":"postfix","log":1,"time":2}',
        '{"log":"postfix","time":[]}',
        '{"log":"postfix' + '{"log":' * 3000,
        '{"log":"postfix","time":' + "[" * 60_000,
        '{"log":"postfix","time":' + "1" * 60_000 + "}",
    ],
)
def test_what_only_looks_wrapped_is_foreign(line: str) -> None:
    assert "postfix" in line  # or else it is not looked at
    assert parse(line.encode(), now=NOW) is None


def test_half_a_character_in_a_container_s_line_is_borne() -> None:
    said = f"mx postfix/smtp[7]: {_SAID}".replace("é", "\ud800")
    line = parse(json.dumps({"log": said, "time": _OUTSIDE}, separators=(",", ":")).encode(), now=NOW)
    assert line is not None
    assert line.values["text"] == "\\ud800"


def test_an_entry_of_the_journal_says_the_same_as_its_line() -> None:
    text = "4F1A: to=<a@example.com>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=deferred (é \ud800)"
    line = entry(NOW, "mx", "postfix/submission/smtp", 7, f"0F5383{text}")
    assert line == entry(NOW, "mx", "postfix/submission/smtp", 7, f"0F5383{text}".encode("utf-8", "backslashreplace"))
    assert line is not None
    assert (line.what, line.service, line.queue_id) == ("delivery", "submission", "0F53834F1A")


# -- what it says -----------------------------------------------------------------------------------------------------

IDS = ("0F5383D", "C3FDF1D1C9E", "48rT2v1hQrz1J0N", "4WxyzB1zzzzz0", "ED06590130AA1C9D6D862")
NO_IDS = ("F53D", "warning", "NOQUEUE", "statistics", "4104e3d", "48rT2v1hQr1J0N", "DEAD-BEEF", "ÄÖÜABC", "A" * 41)


@pytest.mark.parametrize("queue_id", IDS)
def test_short_and_long_queue_ids_are_known(queue_id: str) -> None:
    assert said(f"{queue_id}: removed", tag="postfix/qmgr[1]") == (queue_id, "removed", {})


@pytest.mark.parametrize("word", NO_IDS)
def test_other_words_are_no_queue_ids(word: str) -> None:
    assert read(f"{word}: removed", tag="postfix/qmgr[1]").queue_id == ""


DELIVERY = "to=<a@example.net>, relay=mx.example.net[2001:db8::1]:25, delay=1, delays=0.1/0/0.5/0.4, dsn=2.0.0, status="


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sent (250 2.0.0 Ok: queued as 153053D)", {"queued_as": "153053D"}),
        ("sent (250 from MTA(smtp:[::1]:10025): 250 2.0.0 Ok: queued as 4WxyzB1zzzzz0)", {"queued_as": IDS[3]}),
        ("sent (forwarded as 0F5383D)", {"queued_as": "0F5383D"}),
        ("sent (250 <a@example.net> Saved (in [1]))", {"text": "250 <a@example.net> Saved (in [1])"}),
        ("bounced (host x[::1] said: 550 5.1.1 no (in reply to RCPT TO command))", {"stage": "RCPT TO"}),
        ("deferred (host x[::1] said: 451 4 (in reply to end of DATA command))", {"stage": "end of DATA"}),
        ("deferred (host x[::1] said: (in reply to RCPT TO command) (in reply to DATA command))", {"stage": "DATA"}),
        ("sent (250 OK), status=bounced (not this)", {"status": "sent", "text": "250 OK), status=bounced (not this"}),
    ],
)  # fmt: skip
def test_what_the_other_side_said_is_kept_with_what_it_means(text: str, expected: dict[str, str]) -> None:
    line = read(f"0F5383D: {DELIVERY}{text}")
    assert line.what == "delivery"
    assert expected.items() <= line.values.items()
    assert {"dsn": "2.0.0", "relay": "mx.example.net[2001:db8::1]:25"}.items() <= line.values.items()


# A daemon and what it says; below it queue id and what, then the values.
SAYINGS = """
smtpd: 0F5383D: client=h.example[::1], sasl_method=PLAIN, sasl_username=joe, orig_queue_id=C3FDF1D1C9E, orig_client=x
  0F5383D client
  client=h.example[::1] | sasl_method=PLAIN | sasl_username=joe | orig_queue_id=C3FDF1D1C9E | orig_client=x

pickup: 0F5383D: uid=1000 from=<joe> orig_id=C3FDF1D1C9E
  0F5383D uid
  uid=1000 | from=joe | orig_id=C3FDF1D1C9E

qmgr: 0F5383D: from=<joe@example.com>, size=1234, nrcpt=2 (queue active)
  0F5383D queued
  from=joe@example.com | size=1234 | nrcpt=2

qmgr: 0F5383D: from=<>, status=force-expired, returned to sender
  0F5383D expired
  from= | status=force-expired

postsuper: 0F5383D: requeued
  0F5383D requeued

postsuper: 0F5383D: placed on hold
  0F5383D held

postsuper: 0F5383D: released from hold
  0F5383D released

cleanup: 0F5383D: milter-hold: END-OF-MESSAGE from h[::1]: milter triggers HOLD action; from=<a@b> to=<c@d> proto=ESMTP
  0F5383D hold
  stage=END-OF-MESSAGE | client=h[::1] | reply=milter triggers HOLD action | from=a@b | to=c@d | proto=ESMTP | by=milter

cleanup: 0F5383D: reject: header Subject: from me; from=<x> from local; from=<a@b> to=<c@d>: 5.7.1 content rejected
  0F5383D rejected
  stage=header | text=Subject: from me; from=<x> from local | from=a@b | to=c@d | reply=5.7.1 content rejected

smtpd: 0F5383D: milter-reject: RCPT from h[::1]: 550 5.7.1 no; from=<> to=<c@d> proto=SMTP helo=<h>
  0F5383D milter_reject
  stage=RCPT | client=h[::1] | reply=550 5.7.1 no | from= | to=c@d | proto=SMTP | helo=h

smtpd: NOQUEUE: reject: CONNECT from h[::1]: 554 5.7.1 no; proto=SMTP
  - reject
  stage=CONNECT | client=h[::1] | reply=554 5.7.1 no | proto=SMTP

smtpd: NOQUEUE: reject_warning: RCPT from h[::1]: 554 5.7.1 no; proto=SMTP
  - other

cleanup: warning: 9BECF3F19D: virtual_alias_maps map lookup problem for x -- message not accepted, try again later
  9BECF3F19D warning
  level=warning | text=virtual_alias_maps map lookup problem for x -- message not accepted, try again later

smtpd: message repeated 3 times: [ 0F5383D: client=h[::1]]
  0F5383D client
  client=h[::1] | repeated=3

smtpd: message repeated 3 times: [message repeated 2 times: [ 0F5383D: client=h[::1]]]
  - other
  repeated=3

qmgr: 0F5383D: removed#015#012
  0F5383D removed
"""


@pytest.mark.parametrize("saying", SAYINGS.strip().split("\n\n"))
def test_what_daemons_say_is_told_apart(saying: str) -> None:
    line, heading, *values = saying.splitlines()
    daemon, _, message = line.partition(": ")
    queue_id, what = heading.split()
    expected = dict(pair.split("=", 1) for pair in values[0].strip().split(" | ")) if values else {}
    found = said(message, tag=f"postfix/{daemon}[1]")
    assert (found[0] or "-", *found[1:]) == (queue_id, what, {key: value.strip() for key, value in expected.items()})


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("smtp", ""),
        ("smtp", "0F5383D"),
        ("smtp", "0F5383D:"),
        ("smtp", "0F5383D: "),
        ("smtp", "0F5383D: to=<adm"),
        ("smtp", "0F5383D: to=<a@b>, relay=none, delay=1, delays=1/0/0/0, dsn=4.4.1, status=defe"),
        ("qmgr", "0F5383D: from=<a@b>, size=12"),
        ("cleanup", "0F5383D: message-id=<1234@exam"),
        ("pickup", "0F5383D: uid=10"),
        ("smtpd", "0F5383D: client="),
    ],
)
def test_a_cut_line_is_called_broken(tag: str, text: str) -> None:
    assert read(text, tag=f"postfix/{tag}[1]").what == "broken"


_NEXT = "postfix/smtp[8]: 4WxyzB1zzzzz0: "
_BOUNCED = "to=<b@example.net>, relay=x[::1]:25, delay=1, delays=1/0/0/0, dsn=5.1.1, status=bounced (no such user)"


@pytest.mark.parametrize("stamp", ["Nov 22 12:00:00", "2026-11-22T12:00:00.123456+01:00"])
def test_a_line_that_ran_into_a_cut_one_says_nothing_of_its_recipient(stamp: str) -> None:
    """A full disk or a crash ends a line anywhere, and the next one is written behind it."""
    whole = "0F5383D: to=<a@example.com>, orig_to=<c@example.com>, relay=mx.example.com[192.0.2.1]:25, conn_use=2, "
    whole += "delay=1, delays=1/0/0/0, dsn=2.0.0, status=sent"
    for cut in range(whole.index(">") + 1, len(whole)):
        line = read(f"{whole[:cut]}{stamp} mx {_NEXT}{_BOUNCED}")
        assert (line.queue_id, line.what) == ("0F5383D", "broken"), cut


_ENDED = "from=<b@example.com>, status=expired, returned to sender"


@pytest.mark.parametrize("next_line", [_ENDED, "from=<b@example.com>, size=12, nrcpt=3 (queue active)"])
def test_what_ran_into_a_cut_envelope_neither_ends_it_nor_counts_for_it(next_line: str) -> None:
    whole = "0F5383D: from=<a@example.com>, size=1234, nrcpt=2 (queue active)"
    for cut in range(whole.index(", size") + 1, whole.index("nrcpt=") + 6):
        assert read(f"{whole[:cut]}Nov 22 12:00:00 mx postfix/qmgr[1]: {next_line}").what == "broken", cut
    for cut in range(whole.index("nrcpt=") + 6, len(whole)):
        assert read(f"{whole[:cut]}Nov 22 12:00:00 mx postfix/qmgr[1]: {next_line}").what != "expired", cut


@pytest.mark.parametrize("before", ["", "Nov 22 12:00:00 mx postfix/smtp[7]: 0F5383D: to=<a@exa", "x"])
@pytest.mark.parametrize("end", ["", "\n", "\0\n"])
def test_behind_a_hole_a_line_is_whole_again(before: str, end: str) -> None:
    """After a crash of the host zeros stand where a line was being written."""
    line = parse(f"{before}{chr(0) * 50}Nov 22 12:00:01 mx {_NEXT}{_BOUNCED}{end}".encode(), now=NOW)
    assert line == parse(f"Nov 22 12:00:01 mx {_NEXT}{_BOUNCED}".encode(), now=NOW) is not None


def test_a_hole_with_nothing_behind_it_leaves_what_stood_before() -> None:
    line = parse(b"Nov 22 12:00:01 mx postfix/smtp[7]: 0F5383D: to=<a@exa\0\0\0mple", now=NOW)
    assert line is not None
    assert (line.queue_id, line.what) == ("0F5383D", "broken")


@pytest.mark.parametrize(
    ("line", "count"),
    [
        (b"Nov 22 12:00:00 mx systemd-journald[9]: Suppressed 4567 messages from postfix@-.service", "4567"),
        (b"Nov 22 12:00:00 mx systemd-journald[9]: Suppressed 12 messages from /system.slice/postfix.service", "12"),
        (b"Nov 22 12:00:00 mx rsyslogd: imuxsock[pid 77]: begin to drop messages due to rate-limiting", "0"),
        (b"Nov 22 12:00:00 mx rsyslogd: imuxsock lost 421 messages from pid 77 due to rate-limiting", "421"),
        (b"Nov 22 12:00:00 mx rsyslogd: imjournal: 99 messages lost due to rate-limiting (20000 allowed)", "99"),
    ],
)  # fmt: skip
def test_dropped_lines_are_told_with_their_number(line: bytes, count: str) -> None:
    found = parse(line, now=NOW)
    assert found is not None
    assert (found.what, found.values["count"], found.instance) == ("suppressed", count, "")


# -- addresses and texts that look like something else ----------------------------------------------------------------


def quoted(local: str) -> str:
    """As Postfix writes a local part in its log (quote_821_local.c): quoted where it is no dot-atom."""
    if re.fullmatch(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*", local):
        return local
    return '"' + re.sub(r'(["\\\r\n])', r"\\\1", local) + '"'


LOCALS = st.text(st.sampled_from(string.ascii_letters + string.digits + " \"\\<>,;=@()[]'"), min_size=1, max_size=30)
ADDRESSES = st.builds(
    lambda local, domain: f"{quoted(local)}@{domain}", LOCALS, st.sampled_from(["example.com", "x.y"])
)
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
SECONDS = st.sampled_from(["0", "0.01", "1.2", "63495"])


@st.composite
def deliveries(draw: st.DrawFn) -> dict[str, str]:
    values = {"to": draw(ADDRESSES)}
    if draw(st.booleans()):
        values["orig_to"] = draw(ADDRESSES)
    values["relay"] = draw(
        st.sampled_from(["none", "local", "mx.example.com[192.0.2.1]:25", "x[private/lmtp]", "m[::1]:25"])
    )
    if draw(st.booleans()):
        values["conn_use"] = str(draw(st.integers(2, 99)))
    values["delay"] = draw(SECONDS)
    values["delays"] = "/".join(draw(st.lists(SECONDS, min_size=4, max_size=4)))
    if draw(st.booleans()):
        values["tls"] = draw(st.sampled_from(["may?", "dane/!requiretls:nostarttls", "(dane)"]))
    values["dsn"] = draw(st.sampled_from(["2.0.0", "4.4.1", "5.1.1"]))
    values["status"] = draw(st.sampled_from(["sent", "deferred", "bounced", "undeliverable-but-not-cached"]))
    values["text"] = draw(TEXTS)
    return values


def written(queue_id: str, values: dict[str, str]) -> str:
    """As log_adhoc.c writes it."""
    line = f"{queue_id}: to=<{values['to']}>"
    if "orig_to" in values:
        line += f", orig_to=<{values['orig_to']}>"
    for key in ("relay", "conn_use", "delay", "delays", "tls", "dsn"):
        if key in values:
            line += f", {key}={values[key]}"
    return line + f", status={values['status']} ({values['text']})"


@settings(max_examples=100)
@given(st.sampled_from(IDS), deliveries())
@example(
    IDS[0],
    {
        "to": '"a>, relay=gmail.com[::1]:25, delay=0, delays=0/0/0/0, dsn=2.0.0, status=sent (x"@example.com',
        "relay": "none", "delay": "1", "delays": "1/0/0/0", "dsn": "5.1.1", "status": "bounced", "text": "user unknown",
    },
)  # fmt: skip
def test_a_delivery_is_read_as_it_was_written(queue_id: str, values: dict[str, str]) -> None:
    line = read(written(queue_id, values), tag="postfix/smtp[7]")
    assert (line.queue_id, line.what) == (queue_id, "delivery")
    assert {key: value for key, value in line.values.items() if key not in ("stage", "queued_as")} == values


@settings(max_examples=50)
@given(st.sampled_from(IDS), ADDRESSES | st.just(""), st.integers(0, 10**12), st.integers(1, 10**6))
def test_an_envelope_is_read_as_it_was_written(queue_id: str, sender: str, size: int, count: int) -> None:
    found = said(f"{queue_id}: from=<{sender}>, size={size}, nrcpt={count} (queue active)", tag="postfix/qmgr[1]")
    assert found == (queue_id, "queued", {"from": sender, "size": str(size), "nrcpt": str(count)})


TAGS = ("smtp", "smtpd", "cleanup", "qmgr", "bounce", "postsuper", "pickup", "local")
ABOUT = ("to=<", "from=<", "reject: ", "client=", "uid=", "message-id=<", "warning: ")
STARTS = (
    *(f"0F5383D: {start}" for start in ABOUT),
    *("", "NOQUEUE: ", "warning: ", "message repeated ", "message repeated 2 times: [", "Trusted TLS connection "),
)


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_no_bytes_raise(raw: bytes) -> None:
    for start in ("", "Nov 22 12:00:00 ", "2026-11-22T12:00:00Z mx ", "<22>", "1 ", "1 - - - - [", "1 - - - - - "):
        parse(start.encode() + raw, now=NOW)


@settings(max_examples=100)
@given(st.sampled_from(TAGS), st.sampled_from(STARTS), st.binary(max_size=120))
@example("smtp", "0F5383D: to=<", b'"')
def test_no_message_raises_and_none_carries_what_could_harm(tag: str, start: str, raw: bytes) -> None:
    line = parse(b"Nov 22 12:00:00 mx postfix/" + tag.encode() + b"[1]: " + start.encode() + raw, now=NOW)
    assert line is not None
    for text in (line.queue_id, *line.values, *line.values.values()):
        text.encode("utf-8")
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", text)


def test_a_reply_without_end_is_cut() -> None:
    assert len(read(f"0F5383D: {DELIVERY}sent (250 {'x' * 50_000})").values["text"]) == LONGEST


def test_a_hole_of_zeros_before_a_line_is_skipped() -> None:
    line = parse(b"\0" * 5000 + b"Nov 22 12:00:00 mx postfix/qmgr[1]: 0F5383D: removed", now=NOW)
    assert line is not None
    assert line.what == "removed"


# -- logs that nobody here wrote --------------------------------------------------------------------------------------


Sample: TypeAlias = tuple[str, str, str, dict[str, str]]


@pytest.fixture(scope="module")
def grok() -> list[Sample]:
    """Name, daemon, message and expected fields of each sample of whyscream's patterns."""
    corpora.need()
    found = []
    for path in sorted((corpora.folder() / "log-whyscream-grok" / "test").glob("*.yaml")):
        sample = yaml.load(path.read_text(), getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        daemon = re.sub(r"\W|POSTFIX", "", sample["pattern"]).strip("_").lower()
        found.append((path.name, daemon, sample["data"], sample["results"]))
    assert len(found) == 191
    return found


# Their field: ours, where the text is the same.
SAME = {
    "postfix_status": "status",
    "postfix_from": "from",
    "postfix_bounce_queueid": "new_id",
    "postfix_bounce_recipient": "notified",
    "postfix_bounce_reason": "kind",
    "postfix_tls_trustlevel": "trust",
    "postfix_tls_version": "protocol",
    "postfix_tls_cipher": "cipher",
}
RESPONSES = {"smtp_response", "local_response", "pipe_response", "error_response"}
ACTIONS = {"reject": "reject", "milter-reject": "milter_reject", "discard": "discard"}
SUPER = {"removed": "removed", "requeued": "requeued", "placed on hold": "held", "released from hold": "released"}


def compare(line: Line, results: dict[str, str]) -> Iterator[tuple[str, object, object]]:
    """Field, what they say, what we say: of every field that we use."""
    values = line.values
    if "postfix_queueid" in results:
        yield "queueid", results["postfix_queueid"].replace("NOQUEUE", ""), line.queue_id
    if line.what in ("other", "broken", "warning"):
        return
    for key, value in results.items():
        name = key.removeprefix("postfix_")
        if key in SAME:
            yield key, value, values.get(SAME[key])
        elif name in RESPONSES:
            yield key, value, values.get("text")
        elif name == "keyvalue_data":
            for pair in re.findall(r"(?:^|, | )(\w+)=(<[^>]*>|[^,\s]*(?: [^,=\s]+(?=$))?)", value.rstrip(",")):
                yield pair[0], re.sub("^<(.*)>$", r"\1", pair[1]), values.get(pair[0])
        elif name == "message-id":
            yield key, value, re.sub("^<(.*)>$", r"\1", values["message_id"])
        elif name in ("action", "proxy_result"):
            yield key, ACTIONS[value], line.what
        elif name == "postsuper_action":
            yield key, SUPER[value], line.what
        elif name in ("smtp_stage", "proxy_smtp_stage"):
            yield key, value, values["stage"]
        elif name in ("status_message", "status_code", "status_code_enhanced", "proxy_message"):
            yield key, True, value in values["reply"]
        elif name in ("client_hostname", "client_ip"):
            yield key, True, value in values["client"]
        elif name in ("relay_hostname", "relay_ip"):
            yield key, True, value in values["relay"]


def test_every_field_that_we_use_is_read_as_whyscream_reads_it(
    grok: list[tuple[str, str, str, dict[str, str]]],
) -> None:
    wrong, compared = [], Counter[str]()
    for name, daemon, message, results in grok:
        line = entry(NOW, "mx", f"postfix/{daemon}", 1, message)
        assert line is not None
        for field, theirs, ours in compare(line, results):
            compared[line.what] += 1
            if theirs != ours:
                wrong.append((name, field, theirs, ours))
    assert wrong == []
    assert compared["delivery"] > 100
    assert {"client", "uid", "queued", "expired", "removed", "notification", "message_id", "tls"} <= set(compared)
    assert {"reject", "milter_reject", "discard", "requeued", "held", "released"} <= set(compared)


def test_lines_of_whyscream_that_tell_of_no_message_are_other(grok: list[Sample]) -> None:
    """What we make nothing of: nobody's delivery, acceptance or refusal among it, and nothing is called broken."""
    for name, daemon, message, results in grok:
        line = entry(NOW, "mx", f"postfix/{daemon}", 1, message)
        assert line is not None
        assert line.what != "broken", name
        if line.what == "other":
            assert "postfix_status" not in results, name
            assert results.get("postfix_action") in (None, "filter", "reject_warning"), name
            assert "status=" not in message, name


ORACLE = (
    ("delivery", r": to=<[^>]*>,.* status=\w+ \("),
    ("removed", r"qmgr\[\d+\]: [0-9A-F]+: removed$"),
    ("queued", r"qmgr\[\d+\]: [0-9A-F]+: from=<[^>]*>, size="),
    ("message_id", r"cleanup\[\d+\]: [0-9A-F]+: message-id="),
    ("milter_reject", r": milter-reject: "),
    ("reject", r": reject: "),
    ("client", r"smtpd\[\d+\]: [0-9A-F]+: client="),
    ("uid", r"pickup\[\d+\]: [0-9A-F]+: uid="),
    ("notification", r" notification: "),
)


def test_a_log_of_postfix_with_milters_is_counted_as_a_plain_search_counts_it() -> None:
    corpora.need()
    path = corpora.folder() / "log-milter-manager" / "mail-20090715-1.log"
    lines = path.read_bytes().splitlines()
    found = Counter(line.what if (line := parse(raw, now=NOW)) else "foreign" for raw in lines)
    text = [line for line in path.read_text("utf-8", "replace").splitlines() if re.match(r".{15} \w+ postfix/", line)]
    expected = {what: sum(re.search(pattern, line) is not None for line in text) for what, pattern in ORACLE}
    assert {what: found[what] for what in expected} == expected
    assert found["foreign"] == len(lines) - len(text) == 3864
    assert found["broken"] == 0
    assert sum(found.values()) == 5000
