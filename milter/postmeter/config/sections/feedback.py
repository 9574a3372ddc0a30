"""`bounces`, `suppression`, `delivery`: what is learned from bounces, complaints and Postfix's log."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from postmeter.config import forms, values
from postmeter.config.problem import MistakeError, quoted
from postmeter.config.readers import choice, optional, scalar, table, word_or
from postmeter.config.section import setting
from postmeter.config.values import SocketAddress


def _delimiter(text: str) -> str:
    if not re.fullmatch(r"[+=_.#!&*-]", text):
        raise MistakeError(f"{quoted(text)} is not a delimiter", 'write one character, for example "+"')
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounces:
    domains: dict[str, str] = setting(
        table(values.domain, forms.address, "a mapping of domains to addresses"),
        {},
        "From domain: address; tags the return path ADDRESS+TOKEN.",
        example="{example.com: bounces@example.com}",
    )
    tag: str = setting(
        choice("bulk", "all"),
        "bulk",
        "bulk, or all: then every bounce is passed on to the sender on record.",
    )
    secrets: Path = setting(
        forms.path,
        "/etc/postmeter/bounces.secrets",
        "As tracking.secrets, for milter and books alone: mode 0600; the web user cannot read it. Also for "
        "senders.refiltered.",
    )
    delimiter: str = setting(scalar("one character", _delimiter), "+", "recipient_delimiter of that mail server.")
    lmtp: SocketAddress | None = setting(
        optional(forms.socket_address), None, "unix:PATH or inet:HOST:PORT, served by books."
    )
    envid: bool = setting(forms.boolean, "true", "Set ENVID where the client sent none.")
    feedback_id: bool = setting(forms.boolean, "false", "Add Feedback-ID: campaign:login:domain:postmeter.")
    cfbl_address: str | None = setting(optional(forms.address), None, "Add CFBL-Address (RFC 9477).")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    mail: str = setting(choice("bulk", "all"), "bulk", "Which mail is held back.")
    observe: bool = setting(forms.boolean, "true", "Count and refuse nobody, until you trust it.")
    hard: int = setting(forms.whole(1), "2", "So many hard bounces …")
    within: float = setting(forms.duration(), "14d", "… within this time …")
    for_: float = setting(forms.duration(), "30d", "… suppress for this time.")
    complaint: float = setting(forms.duration(), "400d", "How long a complaint suppresses; 0 is never.")
    scope: str = setting(
        choice("domain", "everywhere"),
        "domain",
        "Of bounces and complaints: that From domain, or everywhere; an unsubscribe is for its list or From address "
        "only.",
    )
    provider_limit: float = setting(
        forms.percent,
        "10%",
        "Hard bounces at one provider within an hour: no suppression for it, and an alert.",
    )
    bypass: tuple[str, ...] = setting(forms.words, [], "Logins whose X-Postmeter-Bypass-Suppression counts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    log: Path | str = setting(
        word_or("auto", "journald", other=forms.path),
        "auto",
        "auto, journald or a file; one that is not there yet is waited for.",
        example="/var/log/mail.log",
    )
    syslog_names: tuple[str, ...] = setting(
        forms.words, ["postfix"], "Names under which Postfix logs.", example="[postfix, postfix-out]"
    )
    providers: Path | str = setting(
        word_or("default", other=forms.path), "default", "Or a file: relay name pattern, provider."
    )
    forget: float = setting(forms.duration(), "14d", "A message without `removed`.")
