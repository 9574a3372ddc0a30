"""Postfix's other settings that postmeter depends on.

Plain functions from facts to findings. postconf(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from postmeter.config.maillog import MAIL_LOG
from postmeter.config.schema import InetAddress, SocketAddress
from postmeter.doctor import mending
from postmeter.doctor.facts import Facts
from postmeter.doctor.finding import NOTE, WARNING, WRONG, Finding
from postmeter.doctor.mailer import Mailer, Service, is_yes, split
from postmeter.mail.coding import MAX_LINE

_BY_SENDER = (
    "sender_dependent_default_transport_maps", "sender_dependent_relayhost_maps", "sender_canonical_maps",
    "canonical_maps", "smtp_generic_maps", "sender_bcc_maps",
)  # fmt: skip
_ALTER = {"smtp_generic_maps": WARNING, "smtp_body_checks": WARNING, "smtp_header_checks": NOTE,
          "smtp_mime_header_checks": NOTE, "smtp_nested_header_checks": NOTE}  # fmt: skip
"""What smtp(8) alters comes behind every milter. Checks of fields are mostly for those that no signature covers."""

_LINES = "smtp_line_length_limit"
_LOCAL = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains", "relay_domains")


def size(facts: Facts) -> Iterator[Finding]:
    """A message that a worker cannot hold is put off again and again."""
    text = facts.mailer.value("message_size_limit") if facts.mailer else ""
    if not text.isdigit():
        return
    limit, room = int(text), facts.config.milter.max_memory
    if limit == 0 or limit > room:
        what = f"Postfix takes messages of {f'up to {limit} octets' if limit else 'any size'}, postmeter holds {room}"
        fix = f"postconf -e message_size_limit={room} && postfix reload, or raise milter.max_memory"
        yield Finding(WARNING, "message_size_limit", f"{what}: larger ones get 451 until they expire",
                      f"message_size_limit = {text}; milter.max_memory", fix)  # fmt: skip
    ours = facts.config.milter.message_size_limit
    if isinstance(ours, int) and limit and (ours == 0 or ours > limit):
        what = "a message that we make larger may be refused by Postfix after it was charged"
        known = f"milter.message_size_limit is {ours or 'none'}, Postfix's {limit}"
        yield Finding(WRONG, "message_size_limit", what, known, "milter.message_size_limit: auto")


def long_ids(facts: Facts) -> Iterator[Finding]:
    if facts.mailer and not is_yes(facts.mailer.value("enable_long_queue_ids") or "yes"):
        what = "queue ids are used again within seconds, and the log is joined to the journal by them"
        fix = "postconf -e enable_long_queue_ids=yes && postfix reload"
        yield Finding(WARNING, "queue ids", what, "enable_long_queue_ids = no", fix)


def delimiter(facts: Facts) -> Iterator[Finding]:
    """Without it every bounce to ADDRESS+TOKEN is an unknown recipient."""
    if facts.mailer is None:
        return
    bounces, has = facts.config.bounces, facts.mailer.value("recipient_delimiter")
    if bounces.delimiter in has:
        return
    for base in sorted(set(bounces.domains.values())):
        domain = base.rpartition("@")[2]
        here = domain in _names(facts.mailer)
        what = f"{base}{'' if here else f', if {domain} is taken here,'} does not get what comes to its tagged forms"
        known = f"recipient_delimiter = {has}; bounces.delimiter is {bounces.delimiter}"
        fix = f"postconf -e recipient_delimiter={has}{bounces.delimiter} && postfix reload"
        yield Finding(WRONG if here else WARNING, "recipient_delimiter", what, known, fix)


def returns(facts: Facts) -> Iterator[Finding]:
    """Bounces that come in here have to be handed on to the books."""
    lmtp = facts.config.bounces.lmtp
    if facts.mailer is None or lmtp is None:
        return
    for base, transport in facts.routes.items():
        if transport or base.rpartition("@")[2] not in _names(facts.mailer):
            continue
        what = f"what comes to {base} is delivered like other mail, unless an alias hands it to `postmeter feedback`"
        known = f"postmap -q {base}: no entry in transport_maps ({facts.mailer.value('transport_maps') or 'empty'})"
        fix = f"{base} lmtp:{_lmtp(facts.mailer, lmtp)} in a table of transport_maps (contrib/postfix/README.md)"
        yield Finding(WARNING, "bounces", what, known, fix)


def _lmtp(mailer: Mailer, address: SocketAddress) -> str:
    """As lmtp(8) finds it, chrooted or not: a path from the queue directory on."""
    if isinstance(address, InetAddress):
        return f"inet:{address}"
    return f"unix:{os.path.relpath(address.path, mailer.value('queue_directory'))}"


def _names(mailer: Mailer) -> set[str]:
    return {name for key in _LOCAL for name in split(mailer.value(key))}


def by_sender(facts: Facts) -> Iterator[Finding]:
    """What looks at the sender finds the tag behind the name."""
    if facts.mailer is None or not facts.config.bounces.domains:
        return
    used = [name for name in _BY_SENDER if facts.mailer.value(name)]
    if used:
        what = "maps that look at the sender see the tagged return path of bulk mail, and not the author's address"
        bases = ", ".join(sorted(set(facts.config.bounces.domains.values())))
        fix = f"give {bases} and its tagged forms the entries they need, in {', '.join(used)}"
        yield Finding(WARNING, "sender maps", what, ", ".join(f"{name} is set" for name in used), fix)


def altered(facts: Facts) -> Iterator[Finding]:
    """What Postfix changes on the way out it changes under the signature."""
    mailer, dkim = facts.mailer, facts.config.dkim
    if mailer is None or not (dkim.sign or dkim.opendkim_tables):
        return
    for name, level in _ALTER.items():
        if places := [place for place, value, _ in _leaving(mailer, name) if value]:
            what = f"{name} changes mail after it was signed: where that is signed text, the signature breaks"
            fix = "change it before the milter: canonical_maps, header_checks, body_checks"
            yield Finding(level, "signatures", what, f"{name} is set ({', '.join(places)})", fix)
    told = set()
    for place, limit, service in _leaving(mailer, _LINES):
        fix = mending.given(service, _LINES, str(MAX_LINE)) if service else f"postconf -X {_LINES} && postfix reload"
        if limit.isdigit() and 0 < int(limit) < MAX_LINE and fix not in told:
            told.add(fix)
            what = f"Postfix breaks lines of more than {limit} octets, and the signature of mail that has one"
            yield Finding(WRONG, "signatures", what, f"{_LINES} = {limit} ({place})", fix)


def _leaving(mailer: Mailer, name: str) -> Iterator[tuple[str, str, Service | None]]:
    """Each smtp(8), what a parameter is there, and the service itself where it has a value of its own."""
    for each in (each for each in mailer.services if each.program == "smtp"):
        yield each.name, mailer.value(name, each), each if name in each.options else None


def soft_bounce(facts: Facts) -> Iterator[Finding]:
    if facts.mailer and is_yes(facts.mailer.value("soft_bounce")):
        what = "refusals for good are turned into temporary ones: clients come back for ever"
        yield Finding(WARNING, "soft_bounce", what, "soft_bounce = yes", "postconf -X soft_bounce && postfix reload")


def bounce_mail(facts: Facts) -> Iterator[Finding]:
    """Bounces that Postfix itself makes should not meet milters (postconf(5), internal_mail_filter_classes)."""
    classes = facts.mailer.value("internal_mail_filter_classes") if facts.mailer else ""
    if classes:
        fix = "postconf -X internal_mail_filter_classes && postfix reload"
        what = "bounces that Postfix makes go through the milters"
        yield Finding(WARNING, "internal mail", what, f"internal_mail_filter_classes = {classes}", fix)


def logging(facts: Facts) -> Iterator[Finding]:
    """Postfix's log is read where Postfix writes it (MAILLOG_README)."""
    file = facts.mailer.value("maillog_file") if facts.mailer else ""
    where = facts.config.delivery.log
    if file == "/dev/stdout" and not isinstance(where, Path):
        what = "Postfix writes its log to standard output: nothing is known of deliveries"
        fix = "name the file in which the engine of the container keeps that, or have Postfix write one (maillog_file)"
        yield Finding(WARNING, "delivery.log", what, f"delivery.log is {where}", fix)
    if not file.startswith("/") or file == "/dev/stdout":
        return
    read = where if isinstance(where, Path) else MAIL_LOG if where == "auto" else None
    if read != Path(file):
        what = f"Postfix writes its log to {file}, and books reads {read or 'the systemd journal'}"
        known = f"maillog_file = {file}; delivery.log is {where}"
        yield Finding(WRONG, "delivery.log", f"{what}: nothing is known of deliveries", known,
                      f"delivery: {{log: {file}}}")  # fmt: skip


CHECKS = (size, long_ids, delimiter, returns, by_sender, altered, soft_bounce, bounce_mail, logging)
