"""Each check of the doctor: silent over a host that is as it must be, and telling over one that is not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from postmeter.config.load import loads
from postmeter.config.problem import Problem
from postmeter.doctor import collect, examine, journald
from postmeter.doctor.facts import Answer, Disk, Facts, Helo, Key, Limits, Mailbox, Pointer, Policy, Sender, Site
from postmeter.doctor.facts import Trial as Trial
from postmeter.doctor.finding import Finding
from postmeter.doctor.mailer import Mailer, Service, entry, is_ours, seconds, split
from postmeter.store import database

NOW = 1_800_000_000.0
QUEUE = "/var/spool/postfix"
OURS = "{ unix:postmeter/milter.sock, default_action=tempfail, command_timeout=30s, content_timeout=300s }"
HERE = "192.0.2.1"
CONFIG = loads(
    """
dkim: {sign: [{domain: example.com, keys: [{selector: s, file: /k.pem}]}]}
bounces: {domains: {example.com: bounces@example.com}, cfbl_address: fbl@example.com}
tracking: {url: "https://click.example.com"}
"""
)
VALUES = {
    "queue_directory": QUEUE,
    "non_smtpd_milters": OURS,
    "smtpd_milters": "",
    "milter_default_action": "tempfail",
    "milter_connect_macros": "j {daemon_name} {daemon_addr} v _",
    "milter_mail_macros": "i {auth_type} {auth_authen} {auth_author}",
    "milter_end_of_data_macros": "i",
    "milter_protocol": "6",
    "milter_content_timeout": "300s",
    "milter_command_timeout": "30s",
    "message_size_limit": "10240000",
    "enable_long_queue_ids": "yes",
    "recipient_delimiter": "+",
    "mydestination": "example.com, localhost",
    "smtp_helo_name": "mail.example.com",
    "myhostname": "mail.example.com",
    "default_transport": "smtp",
}
NO: Mapping[str, str] = {}
SMTP = Service("smtp/inet", "smtpd")
CLIENT = Service("smtp/unix", "smtp")
SUBMISSION = Service("submission/inet", "smtpd", options={"smtpd_milters": OURS})
GOOD = Facts(
    config=CONFIG,
    now=NOW,
    mailer=Mailer(VALUES, services=(SMTP, SUBMISSION)),
    sockets=(Trial("postmeter answers", True),),
    stores=(Trial("the journal answers a query", True),),
    disks=(Disk("/var", 2**30, 2**20, "journal.min_free"),),
    clock=True,
    keys=(Key("s._domainkey.example.com", True, False, "right", ""),),
    senders=(Sender("example.com", HERE, "pass", 1, "v=spf1 mx -all"),),
    policies=(Policy("example.com", "example.com", {"v": "DMARC1", "p": "reject"}),),
    pointers=(Pointer(HERE, Answer(("mail.example.com",)), {"mail.example.com": Answer((HERE,))}),),
    sites=(Site("https://click.example.com", Answer((HERE,)), "", NOW + 60 * 86400),),
    mailboxes=(Mailbox("bounces@example.com", "bounces.domains", Answer(("10 mail.example.com",))),),
)


def found(facts: Facts) -> list[Finding]:
    return examine.judge(facts)


def only(facts: Facts) -> Finding:
    (finding,) = found(facts)
    return finding


def postfix(*more: Service, submission: Mapping[str, str] = NO, values: Mapping[str, str] = NO) -> Facts:
    """The good host with other settings of Postfix's, of the submission service, and with `more` services."""
    mine = replace(SUBMISSION, options={**SUBMISSION.options, **submission})
    return replace(GOOD, mailer=Mailer({**VALUES, **values}, services=(SMTP, mine, *more)))


def test_nothing_is_said_of_a_host_that_is_as_it_must_be() -> None:
    assert found(GOOD) == []


def test_every_finding_says_how_it_is_known_and_what_mends_it() -> None:
    """Over a host on which nearly everything is wrong."""
    bad = replace(
        postfix(submission={"smtpd_milters": f"{OURS}, {OURS}, unix:other"},
                values={"soft_bounce": "yes", "relayhost": "[r]"}),
        clock=False, log_limits=Limits({}), policies=(Policy("example.com"),),
        problems=(Problem("f", 3, "k", "no", "yes"),),
    )  # fmt: skip
    findings = found(bad)
    assert len(findings) >= 7
    assert all(each.what and each.known and each.fix for each in findings)
    assert [each.level for each in findings] == sorted((each.level for each in findings), key=examine._WORST.index)


@pytest.mark.parametrize(
    ("values", "level", "about", "words"),
    [
        ({"message_size_limit": "0"}, "warning", "message_size_limit", "any size"),
        ({"message_size_limit": str(2**40)}, "warning", "message_size_limit", "451 until they expire"),
        ({"enable_long_queue_ids": "no"}, "warning", "queue ids", "used again"),
        ({"recipient_delimiter": ""}, "wrong", "recipient_delimiter", "bounces@example.com does not get"),
        ({"maillog_file": "/var/log/postfix.log"}, "wrong", "delivery.log", "books reads /var/log/mail.log"),
        ({"recipient_delimiter": "-", "mydestination": "x"}, "warning", "recipient_delimiter", "is taken here"),
        ({"sender_dependent_relayhost_maps": "hash:x", "relayhost": ""}, "warning", "sender maps", "tagged"),
        ({"soft_bounce": "yes"}, "warning", "soft_bounce", "for ever"),
        ({"internal_mail_filter_classes": "bounce"}, "warning", "internal mail", "bounces"),
        ({"non_smtpd_milters": ""}, "warning", "postfix", "sendmail(1)"),
        ({"milter_protocol": "4"}, "wrong", "macros", "old milter protocol"),
        ({"milter_mail_macros": "i"}, "wrong", "macros", "{auth_authen}"),
        ({"milter_connect_macros": "j"}, "wrong", "macros", "{daemon_name}"),
        ({"relayhost": "[smtp.example.net]:587"}, "note", "smarthost", "SPF must let its addresses send"),
        ({"default_transport": "smtp:[smtp.example.net]"}, "note", "smarthost", "by [smtp.example.net]"),
        ({"transport_maps": "hash:x"}, "note", "smarthost", "another host"),
        ({"smtp_helo_name": "other.example.com"}, "warning", "ptr", "HELO other.example.com"),
        ({"smtp_generic_maps": "hash:x"}, "warning", "signatures", "smtp_generic_maps"),
        ({"smtp_body_checks": "pcre:x"}, "warning", "signatures", "smtp_body_checks"),
        ({"smtp_header_checks": "pcre:x"}, "note", "signatures", "smtp_header_checks"),
        ({"smtp_line_length_limit": "990"}, "wrong", "signatures", "lines of more than 990 octets"),
    ],
)  # fmt: skip
def test_settings_of_postfix(values: dict[str, str], level: str, about: str, words: str) -> None:
    finding = next(each for each in found(postfix(CLIENT, values=values)) if each.about == about)
    assert (finding.level, words in finding.what) == (level, True), finding


def test_what_postfix_changes_behind_a_signature_is_told_with_its_place() -> None:
    """A transport of master.cf may have its own; 998 octets a line, no limit, and mail that nobody signs are fine."""
    slow = Service("slow/unix", "smtp", options={"smtp_line_length_limit": "512"})
    finding = only(postfix(CLIENT, slow, values={"smtp_line_length_limit": "998"}))
    assert (finding.known, finding.fix) == (
        "smtp_line_length_limit = 512 (slow/unix)",
        "postconf -P -e slow/unix/smtp_line_length_limit=998 && postfix reload",
    )
    off = Service("smtp/unix", "smtp", options={"smtp_body_checks": ""})
    assert found(postfix(off, values={"smtp_body_checks": "pcre:x", "smtp_line_length_limit": "0"})) == []
    twice = postfix(CLIENT, Service("relay/unix", "smtp"), values={"smtp_line_length_limit": "512"})
    assert only(twice).known == "smtp_line_length_limit = 512 (smtp/unix)"
    unsigned = replace(CONFIG, dkim=replace(CONFIG.dkim, sign=()))
    assert "signatures" not in [each.about for each in found(replace(twice, config=unsigned))]


@pytest.mark.parametrize(
    ("options", "level", "about", "words"),
    [
        ({"smtpd_milters": ""}, "wrong", "postfix", "unmetered and unsigned"),
        ({"smtpd_milters": f"{OURS} {OURS}"}, "wrong", "order", "twice"),
        ({"smtpd_milters": f"{OURS}, unix:other.sock"}, "warning", "order", "unix:other.sock comes after"),
        ({"smtpd_milters": OURS.replace("tempfail", "accept")}, "wrong", "default_action", "half rewritten"),
        ({"smtpd_milters": "unix:postmeter/milter.sock", "milter_default_action": "accept"}, "wrong",
         "default_action", "half rewritten"),
        ({"smtpd_milters": OURS.replace("tempfail", "reject")}, "warning", "default_action", "refused for good"),
        ({"smtpd_milters": OURS.replace("tempfail", "quarantine")}, "warning", "default_action", "on hold"),
        ({"smtpd_milters": f"unix:opendkim/opendkim.sock, {OURS}"}, "warning", "order", "OpenDKIM has mail"),
        ({"smtpd_milters": f"inet:localhost:11332, {OURS}"}, "warning", "order", "breaks its signature"),
        ({"smtpd_milters": OURS.replace("300s", "5s")}, "warning", "timeouts", "waits 5 s"),
        ({"smtpd_milters": OURS.replace("300s", "1h")}, "warning", "timeouts", "waits 3600 s"),
        ({"smtpd_milters": OURS.replace("30s", "1s")}, "warning", "timeouts", "only 1 s"),
        ({"receive_override_options": "no_milters"}, "wrong", "postfix", "never asks it"),
        ({"smtpd_proxy_filter": "127.0.0.1:10025"}, "wrong", "postfix", "unmetered and unsigned"),
    ],
)  # fmt: skip
def test_how_a_service_has_the_milter(options: dict[str, str], level: str, about: str, words: str) -> None:
    finding = only(postfix(submission=options))
    assert (finding.level, finding.about, words in finding.what) == (level, about, True), finding


@pytest.mark.parametrize(
    ("service", "told"),
    [
        (SMTP, True),
        (Service("smtpd/pass", "smtpd"), True),  # behind postscreen(8)
        (Service("0.0.0.0:2525/inet", "smtpd", options={"smtpd_milters": "unix:other"}), True),
        (replace(SMTP, options={"smtpd_sasl_auth_enable": "no"}), False),
        (replace(SMTP, options={"smtpd_milters": OURS}), False),
        (Service("127.0.0.1:10025/inet", "smtpd"), False),
        (Service("[::1]:10025/inet", "smtpd"), False),
        (Service("localhost:10025/inet", "smtpd"), False),
        (Service("10.0.0.1:10025/inet", "smtpd", options={"content_filter": "", "smtpd_milters": ""}), False),
    ],
)
def test_logins_where_nothing_meters_them_are_told(service: Service, *, told: bool) -> None:
    """A login in main.cf is offered on port 25 too."""
    values = {**VALUES, "smtpd_sasl_auth_enable": "yes"}
    here = replace(GOOD, mailer=Mailer(values, services=(service, SUBMISSION)))
    assert [(each.level, each.about) for each in found(here)] == [("warning", "postfix")] * told
    if told:
        assert service.name in only(here).what
        assert only(here).fix.startswith(f"postconf -P -e {service.name}/smtpd_sasl_auth_enable=no && postfix reload")
        assert found(replace(here, mailer=Mailer(VALUES, services=(service, SUBMISSION)))) == []


def test_a_name_that_makes_strangers_senders_of_ours_is_told() -> None:
    called = {"smtpd_milters": OURS, "milter_macro_daemon_name": "ORIGINATING"}
    here = replace(GOOD, mailer=Mailer(VALUES, services=(replace(SMTP, options=called), SUBMISSION)))
    finding = only(here)
    assert (finding.level, "strangers' mail at smtp/inet" in finding.what) == ("wrong", True)
    assert finding.fix == "postconf -P -e 'smtp/inet/milter_macro_daemon_name=$myhostname' && postfix reload"
    closed = {**called, "smtpd_recipient_restrictions": "permit_mynetworks reject"}
    assert found(replace(here, mailer=Mailer(VALUES, services=(replace(SMTP, options=closed), SUBMISSION)))) == []


def test_a_submission_service_that_takes_mail_without_a_login_is_told() -> None:
    """Postfix's default lets anybody write to its own users on every port."""
    options = {**SUBMISSION.options, "milter_macro_daemon_name": "ORIGINATING"}
    finding = only(replace(GOOD, mailer=Mailer(VALUES, services=(SMTP, replace(SUBMISSION, options=options)))))
    assert (finding.level, "strangers' mail at submission/inet" in finding.what) == ("warning", True)
    assert finding.fix == (
        "postconf -P -e submission/inet/smtpd_client_restrictions=permit_mynetworks,permit_sasl_authenticated,reject"
        " && postfix reload"
    )
    for word in ("reject", "REJECT"):
        options["smtpd_relay_restrictions"] = f"permit_sasl_authenticated, {word}"
        assert found(replace(GOOD, mailer=Mailer(VALUES, services=(SMTP, replace(SUBMISSION, options=options))))) == []


def test_booleans_of_postfix_are_read_in_any_case() -> None:
    """strcasecmp(3) is how Postfix reads them."""
    loud = Service("2525/inet", "smtpd", options={"smtpd_sasl_auth_enable": "YES"})
    assert Mailer(VALUES, services=(loud,)).submissions() == [loud]
    values = {**VALUES, "smtpd_sasl_auth_enable": "Yes", "enable_long_queue_ids": "NO", "soft_bounce": "Yes"}
    here = replace(GOOD, mailer=Mailer(values, services=(SMTP, SUBMISSION)))
    assert sorted(each.about for each in found(here)) == ["postfix", "queue ids", "soft_bounce"]


def test_other_milters_before_ours_are_right() -> None:
    assert found(postfix(submission={"smtpd_milters": f"unix:dmarc.sock, {OURS}"})) == []


def test_a_postfix_without_the_milter_is_told_once() -> None:
    finding = only(postfix(submission={"smtpd_milters": ""}, values={"non_smtpd_milters": "unix:other"}))
    assert (finding.level, finding.fix) == ("wrong", "postmeter attach")


def test_no_postfix_at_all_is_unknown() -> None:
    assert only(replace(GOOD, mailer=None, mute="postconf is not there")).known == "postconf is not there"


@pytest.mark.parametrize(
    ("options", "quiet"),
    [
        ({}, False),
        ({"receive_override_options": "no_milters,no_header_body_checks"}, True),
        ({"milter_macro_daemon_name": "REFILTERED"}, True),
    ],
)
def test_what_a_content_filter_gives_back_meets_the_milter_once(options: dict[str, str], quiet: bool) -> None:
    """Nor where the service is one of senders.refiltered."""
    back = Service("10025/inet", "smtpd", options={"smtpd_milters": OURS, "content_filter": "", **options})
    facts = postfix(back, values={"content_filter": "smtp:[127.0.0.1]:10024"})
    facts = replace(facts, config=replace(CONFIG, senders=replace(CONFIG.senders, refiltered=("REFILTERED",))))
    assert ({"double filtering", "postfix"}.isdisjoint(finding.about for finding in found(facts))) is quiet


@pytest.mark.parametrize(
    ("change", "level", "about", "words"),
    [
        ({"sockets": (Trial("it answers", False, "refused"),)}, "wrong", "socket", "it answers"),
        ({"sockets": (Trial("it answers", None, "not root"),)}, "unknown", "socket", "it answers"),
        ({"stores": (Trial("Redis answers", False, "gone"),)}, "wrong", "stores", "Redis answers: it does not"),
        ({"stores": (Trial("Redis answers", None, "gone"),)}, "unknown", "stores", "Redis"),
        ({"disks": (Disk("/var", 5, 2**20, "k"),)}, "wrong", "disk", "/var has 0 MiB left"),
        ({"clock": False}, "warning", "clock", "keeps the clock"),
        ({"log_limits": Limits({})}, "note", "journald", "beyond 10000 in 30s"),
        ({"log_limits": Limits({"RateLimitBurst": "700"})}, "note", "journald", "700 in 30s: about 100 messages"),
        ({"log_limits": Limits({}, {"postfix.service": ("1min", "21")})}, "note", "journald", "21 in 1min: about 3"),
        ({"log_limits": Limits({"RateLimitBurst": "0"}, {"postfix.service": ("", "14")})}, "note", "journald", "14 in"),
        ({"disks": (Disk("/var", 2**30, 2**20, "k", 3),)}, "wrong", "disk", "3 more files"),
        ({"disks": (Disk("/var", 2**30, 2**20, "k", readonly=True),)}, "wrong", "disk", "cannot be written to"),
        ({"helo": Helo("mail", Answer())}, "wrong", "helo", "no full name"),
        ({"helo": Helo("mail.example.com", Answer())}, "wrong", "helo", "no address"),
        ({"helo": Helo("mail.example.com", Answer(silent="slow"))}, "unknown", "helo", "looked up"),
        ({"helo": Helo("mail.example.com", Answer(("192.0.2.2",)))}, "warning", "helo", "another host"),
        ({"helo": Helo("mail.example.com", Answer((HERE,)), (Sender("mail.example.com", HERE, "fail", 0, "v=spf1"),))},
         "warning", "helo", "bounces that Postfix sends fail SPF"),
        ({"problems": (Problem("f", 1, "k", "no", "yes"),)}, "wrong", "k", "no"),
        ({"problems": (Problem("f", 1, "k", "no", "yes", "warning"),)}, "warning", "k", "no"),
        ({"keys": (Key("s._domainkey.example.com", False, True, "missing", "publish it"),)}, "wrong", "dkim", "s._do"),
        ({"keys": (Key("s._domainkey.example.com", None, False, "timeout", "look"),)}, "unknown", "dkim", "s._do"),
        ({"unclear": "NAT"}, "unknown", "address", "not checked"),
        ({"senders": (Sender("example.com", HERE, "fail", 1, "v=spf1 mx -all"),)}, "wrong", "spf", "does not let"),
        ({"senders": (Sender("example.com", HERE, "none", 0),)}, "wrong", "spf", "no SPF record"),
        ({"senders": (Sender("example.com", HERE, "permerror", 11, "v=", "much"),)}, "wrong", "spf", "cannot use"),
        ({"senders": (Sender("example.com", HERE, "temperror", 1, "", "slow"),)}, "unknown", "spf", "looked up"),
        ({"senders": (Sender("example.com", HERE, "depends", 1, "v=spf1 ~all", "exists:%{l}.x"),)}, "unknown", "spf",
         "for each message anew"),
        ({"policies": (Policy("example.com"),)}, "wrong", "dmarc", "no DMARC record"),
        ({"policies": (Policy("example.com", silent="slow"),)}, "unknown", "dmarc", "looked up"),
        ({"policies": (Policy("example.com", "example.com", {"p": "none"}, count=2),)}, "wrong", "dmarc", "2 DMARC"),
        ({"policies": (Policy("example.com", "example.com", {"p": "often"}),)}, "wrong", "dmarc", "no policy"),
        ({"pointers": (Pointer(HERE, Answer()),)}, "wrong", "ptr", "has no name"),
        ({"pointers": (Pointer(HERE, Answer(silent="slow")),)}, "unknown", "ptr", "looked up"),
        ({"pointers": (Pointer(HERE, Answer(("m.example",)), {"m.example": Answer(("192.0.2.2",))}),)},
         "wrong", "ptr", "does not lead back"),
        ({"sites": (Site("https://c.example", Answer()),)}, "wrong", "tracking", "no address"),
        ({"sites": (Site("https://c.example", Answer(silent="slow")),)}, "unknown", "tracking", "looked up"),
        ({"sites": (Site("https://c.example", Answer((HERE,)), "refused"),)}, "wrong", "tracking", "does not answer"),
        ({"sites": (Site("https://c.example", Answer((HERE,)), "", NOW + 86400),)}, "warning", "tracking", "1 days"),
        ({"sites": (Site("https://c.example", Answer((HERE,)), stranger="404 Not Found"),)}, "wrong", "tracking",
         "is not `postmeter web`"),
        ({"sites": (Site("https://c.example", Answer(("192.0.2.9",)), here=False),)}, "note", "tracking", "a proxy"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer(("10 mx.example", "20 mail.example")),
                                dead=("mx.example",)),)}, "warning", "mx", "goes to mx.example, which has no address"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer(("10 mx.example",)), dead=("mx.example",)),)}, "wrong",
         "mx", "no address"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer()),)}, "wrong", "mx", "nothing can come back"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer(("0 .",))),)}, "wrong", "mx", "nothing can come back"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer(("0 ",))),)}, "wrong", "mx", "nothing can come back"),
        ({"mailboxes": (Mailbox("b@example.com", "k", Answer(silent="slow")),)}, "unknown", "mx", "looked up"),
    ],
)  # fmt: skip
def test_this_host_and_dns(change: dict[str, Any], level: str, about: str, words: str) -> None:
    finding = only(replace(GOOD, **change))
    assert (finding.level, finding.about, words in finding.what) == (level, about, True), finding


@pytest.mark.parametrize(
    "limits",
    [
        Limits({"RateLimitBurst": "0"}),
        Limits({"RateLimitIntervalSec": "0"}),
        Limits({}, {"postfix@-.service": ("1s", "10000000")}),
        Limits({"RateLimitBurst": "5"}, {"postfix@-.service": ("1s", "10000000")}),
    ],
)
def test_a_limit_that_no_host_reaches_is_none(limits: Limits) -> None:
    assert found(replace(GOOD, log_limits=limits)) == []


def test_a_journal_that_is_none_is_mended_by_what_its_error_says(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_text("no database at all, and long enough to be looked at as one: " * 20)
    facts = replace(GOOD, stores=tuple(collect.stores(loads(f"journal: {{path: {path}}}"))))
    finding = only(facts)
    assert finding.what == f"the journal {path} answers a query: it does not"
    assert (finding.known, finding.fix) == ("file is not a database", "it is no SQLite database: move it away")


def test_a_journal_that_a_newer_version_has_written_to_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    config = loads(f"journal: {{path: {path}}}")
    with contextlib.closing(database.open(path)) as book:
        assert found(replace(GOOD, stores=tuple(collect.stores(config)))) == []
        with book.transaction() as link:
            link.execute("INSERT INTO migrations VALUES ('2031-01 stars', 1.0)")
    finding = only(replace(GOOD, stores=tuple(collect.stores(config))))
    assert finding.what == f"this version knows the journal {path}: it does not"
    assert "2031-01 stars" in finding.known


def test_a_journal_that_is_not_to_be_seen_is_unknown(tmp_path: Path) -> None:
    """As to anybody but root and the daemons, where its directory is closed."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    config = loads(f"journal: {{path: {closed}/journal.db}}")
    os.seteuid(61001)
    try:
        (trial,) = collect.stores(config)
    finally:
        os.seteuid(0)
    assert (trial.ok, trial.fix) == (None, "start postmeter; run doctor as root")


def test_limits_of_units_are_read_as_systemctl_shows_them() -> None:
    """0 is what systemd shows where there is none; a unit that is not there or runs nothing has none."""
    shown = (
        "Type=oneshot\nId=postfix.service\nLoadState=loaded\nLogRateLimitIntervalUSec=0\nLogRateLimitBurst=0\n\n"
        "Type=forking\nId=postfix@-.service\nLoadState=loaded\nLogRateLimitIntervalUSec=1min 30s\nLogRateLimitBurst=0\n"
    )
    assert journald.units(shown) == {"postfix@-.service": ("1min 30s", "")}
    assert journald.units("Id=postfix.service\nLoadState=not-found\nType=\n\n") == {}
    assert journald._span("1min 30s") == 90
    assert journald._span("...") == journald._span("soon") == 30


def test_a_limit_is_lifted_by_a_number_and_not_by_nought() -> None:
    """systemd takes LogRateLimitIntervalSec=0 of a unit for none said, and journald's own limit stays."""
    fix = only(replace(GOOD, log_limits=Limits({}, {"postfix@-.service": ("", "")}))).fix
    assert "/etc/systemd/system/postfix@.service.d/" in fix
    assert "LogRateLimitBurst=10000000" in fix


def test_a_log_that_postfix_writes_where_it_is_read_is_right() -> None:
    facts = postfix(values={"maillog_file": "/var/log/mail.log"})
    assert found(facts) == []
    journal = replace(CONFIG, delivery=replace(CONFIG.delivery, log="journald"))
    assert "the systemd journal" in only(replace(facts, config=journal)).what


def test_a_log_on_standard_output_is_read_from_a_file_of_the_engine_s_only() -> None:
    facts = postfix(values={"maillog_file": "/dev/stdout"})
    finding = only(facts)
    assert (finding.about, finding.level) == ("delivery.log", "warning")
    assert "standard output" in finding.what
    named = replace(CONFIG, delivery=replace(CONFIG.delivery, log=Path("/logs/postfix-json.log")))
    assert found(replace(facts, config=named)) == []


def test_bounces_that_nobody_hands_on_are_told() -> None:
    lmtp = loads(f"bounces: {{lmtp: 'unix:{QUEUE}/postmeter/feedback.sock'}}").bounces.lmtp
    facts = replace(GOOD, config=replace(CONFIG, bounces=replace(CONFIG.bounces, lmtp=lmtp)))
    handed = {"bounces@example.com": "lmtp:unix:postmeter/feedback.sock"}
    assert found(replace(facts, routes=handed)) == []
    finding = only(replace(facts, routes=dict.fromkeys(handed, "")))
    assert (finding.about, finding.fix.split(" in ")[0]) == ("bounces", " ".join(*handed.items()))
    assert found(replace(facts, routes={"bounces@elsewhere.example": ""})) == []


def test_a_signature_of_another_domain_does_not_align() -> None:
    config = replace(CONFIG, dkim=replace(CONFIG.dkim, default_domain="example.com"))
    finding = only(replace(GOOD, config=config))
    assert (finding.level, finding.about) == ("note", "dmarc")


def test_who_signs_besides_matters_only_where_we_sign() -> None:
    facts = postfix(submission={"smtpd_milters": f"unix:opendkim.sock, {OURS}"})
    assert only(facts).about == "order"
    assert found(replace(facts, config=replace(CONFIG, dkim=replace(CONFIG.dkim, sign=())))) == []


def test_what_was_tried_counts_more_than_what_modes_seem_to_say() -> None:
    problem = Problem("f", 1, "milter.socket_group", "Postfix could not write", "usermod")
    assert found(replace(GOOD, problems=(problem,))) == []
    for sockets in ((), (Trial("it answers", None, "not root"),)):
        assert "milter.socket_group" in {
            each.about for each in found(replace(GOOD, problems=(problem,), sockets=sockets))
        }


def test_the_record_that_mends_spf_is_the_old_one_with_the_address() -> None:
    sender = Sender("example.com", "2001:db8::1", "softfail", 1, "v=spf1 mx ~all")
    assert only(replace(GOOD, senders=(sender,))).fix == 'example.com. IN TXT "v=spf1 ip6:2001:db8::1 mx ~all"'


def test_behind_a_smarthost_our_address_is_not_judged() -> None:
    refused = Sender("example.com", HERE, "fail", 1, "v=spf1 -all")
    facts = replace(postfix(values={"relayhost": "[r]"}), senders=(refused,),
                    pointers=(Pointer(HERE, Answer()),))  # fmt: skip
    assert [finding.about for finding in found(facts)] == ["smarthost"]


@pytest.mark.parametrize(
    ("base", "tags", "aligned"),
    [
        ("bounces@example.com", {}, True),
        ("bounces@news.example.com", {}, True),
        ("bounces@news.example.com", {"aspf": "s"}, False),
        ("bounces@example.net", {}, False),
        ("bounces@notexample.com", {}, False),
    ],
)
def test_whether_the_return_path_aligns(base: str, tags: dict[str, str], aligned: bool) -> None:
    config = replace(CONFIG, bounces=replace(CONFIG.bounces, domains={"example.com": base}))
    policy = Policy("example.com", "example.com", {"p": "none", **tags})
    facts = replace(GOOD, config=config, policies=(policy,), mailer=None)
    assert ("dmarc" not in {finding.about for finding in found(facts)}) is aligned


def test_strict_dkim_alignment_leaves_domains_below_out() -> None:
    (entry,) = CONFIG.dkim.sign
    config = replace(CONFIG, dkim=replace(CONFIG.dkim, sign=(replace(entry, subdomains=True),)))
    policy = Policy("example.com", "example.com", {"p": "none", "adkim": "s"})
    assert only(replace(GOOD, config=config, policies=(policy,))).about == "dmarc"


def test_a_complaint_address_of_another_domain_gets_no_reports() -> None:
    config = replace(CONFIG, bounces=replace(CONFIG.bounces, cfbl_address="fbl@other.example"))
    assert only(replace(GOOD, config=config)).about == "cfbl_address"


@pytest.mark.parametrize(
    ("raw", "expanded", "about", "fix"),
    [
        ("unix:a, $m, unix:b", f"unix:a, {OURS}, unix:b", "order", "smtpd_milters=unix:a,unix:b,$m'"),
        ("$m, $m", f"{OURS}, {OURS}", "order", "/smtpd_milters=$m'"),
        ("unix:opendkim, $m", f"unix:opendkim, {OURS}", "order", "/smtpd_milters=$m'"),
        ("$both", f"{OURS}, unix:b", "order", "name postmeter as the last"),
    ],
)
def test_a_list_is_mended_by_a_command_in_its_own_words(raw: str, expanded: str, about: str, fix: str) -> None:
    """Where they can be told apart."""
    service = replace(SUBMISSION, raw={"smtpd_milters": raw}, options={"smtpd_milters": expanded})
    finding = only(replace(GOOD, mailer=Mailer(VALUES, own={"m": OURS}, services=(SMTP, service))))
    assert (finding.about, fix in finding.fix) == (about, True), finding.fix


def test_an_option_is_mended_where_it_stands() -> None:
    accepting = OURS.replace("tempfail", "accept")
    for raw, known, fix in (
        ("$m", {"m": accepting}, f"postconf -e 'm={OURS}' && postfix reload"),
        (accepting, {}, f"-o {{ smtpd_milters = {OURS} }}' && postfix reload"),
        ("$other", {}, "write default_action=tempfail there"),
    ):
        service = replace(SUBMISSION, raw={"smtpd_milters": raw}, options={"smtpd_milters": accepting})
        finding = only(replace(GOOD, mailer=Mailer(VALUES, own=known, services=(SMTP, service))))
        assert finding.fix.endswith(fix), finding.fix


@pytest.mark.parametrize("named", [False, True])
def test_what_mends_a_list_undoes_nothing_that_mends_it(named: bool) -> None:
    """Whichever of the commands is run last, all that is wrong with the list is mended."""
    bad = "{ unix:postmeter/milter.sock, default_action=accept, command_timeout=1s, content_timeout=5s }"
    raw, expanded = f"{'$m' if named else bad}, unix:b", f"{bad}, unix:b"
    service = replace(SUBMISSION, raw={"smtpd_milters": raw}, options={"smtpd_milters": expanded})
    findings = found(replace(GOOD, mailer=Mailer(VALUES, own={"m": bad}, services=(SMTP, service))))
    assert {finding.about for finding in findings} == {"default_action", "order", "timeouts"}
    (fix,) = {finding.fix for finding in findings}
    assert fix.count(OURS) == 1
    assert ("unix:b,$m" if named else "unix:b, {") in fix
    assert fix.endswith(" && postfix reload")


# --- Postfix's words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a, b  c,d", ["a", "b", "c", "d"]),
        ("{ unix:a, x=y }, b", ["{ unix:a, x=y }", "b"]),
        ("{a},{b {c}}", ["{a}", "{b {c}}"]),
    ],
)
def test_lists_are_parted_as_postfix_does(text: str, words: list[str]) -> None:
    assert split(text) == words


def test_options_of_a_milter() -> None:
    assert entry("{ unix:a b = c, d=e }").options == {"b": "c", "d": "e"}
    assert (entry("{unix:a}").address, entry("inet:h:1").address, entry("{}").address) == ("unix:a", "inet:h:1", "")


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("unix:postmeter/milter.sock", True),
        ("unix:/postmeter/milter.sock", True),
        ("unix:/var/spool/postfix/postmeter/milter.sock", True),
        ("unix:./postmeter//milter.sock", True),
        ("unix:other/milter.sock", False),
        ("inet:127.0.0.1:8891", False),
    ],
)
def test_our_socket_under_its_names(address: str, ours: bool) -> None:
    """In a chroot an absolute path begins at the queue directory."""
    assert is_ours(address, CONFIG.milter.listen, QUEUE) is ours


def test_our_port_under_its_names() -> None:
    listen = loads("milter: {listen: 'inet:127.0.0.1:8891'}").milter.listen
    assert is_ours("inet:127.0.0.1:8891", listen, QUEUE)
    assert is_ours("inet:localhost:8891", listen, QUEUE)
    assert not is_ours("inet:127.0.0.1:8892", listen, QUEUE)
    assert not is_ours("inet:localhost", listen, QUEUE)


@pytest.mark.parametrize(("text", "value"), [("30", 30), ("5m", 300), ("1h", 3600), ("soon", 0), ("", 0)])
def test_times_of_postfix(text: str, value: float) -> None:
    assert seconds(text) == value
