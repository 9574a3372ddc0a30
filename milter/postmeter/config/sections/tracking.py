"""`tracking` and `web`: which links are changed, and the server that answers them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from postmeter.config import forms, values
from postmeter.config.readers import choice, listing, optional, table, word_or
from postmeter.config.section import overrides, setting
from postmeter.config.values import InetAddress, Network

_GLOBAL = frozenset({"secrets", "domains", "logins"})  # what cannot differ between domains or logins


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracking:
    url: str | None = setting(
        optional(forms.origin),
        None,
        "The web server of tracked links (http works, with a warning); null turns links, opens and unsubscribe off.",
        example="https://click.example.com",
    )
    secrets: Path = setting(
        forms.path,
        "/etc/postmeter/tracking.secrets",
        "A file with one secret a line, 64 hexadecimal digits, newest first; older ones still open old links. Mode "
        "0640, group of the web user.",
    )
    mail: str = setting(
        choice("bulk", "all"),
        "bulk",
        "bulk has a campaign header or List-Unsubscribe, or its login or From is listed here; never a reply, never "
        "Auto-Submitted.",
    )
    bulk_senders: tuple[str, ...] = setting(
        listing(forms.login_or_address),
        [],
        "Logins and From addresses whose mail is bulk.",
        example='[newsletter@example.com, "@news.example.com"]',
    )
    links: str = setting(choice("off", "html", "html+text"), "html", "off, html or html+text.")
    opens: bool = setting(forms.boolean, "false", "One image at the end of the HTML tells that it was read.")
    unsubscribe: bool = setting(
        forms.boolean,
        "false",
        "true adds List-Unsubscribe and List-Unsubscribe-Post (RFC 8058) to bulk mail with one recipient.",
    )
    unsubscribe_mailto: str | None = setting(
        optional(forms.address),
        None,
        "Delivered to `postmeter feedback`, or to bounces.lmtp; List-Unsubscribe names it besides the page.",
        example="unsubscribe@example.com",
    )
    privacy: str = setting(
        choice("totals", "pseudonymous", "recipients"),
        "totals",
        "What opens and clicks may say about a person.",
    )
    switches: tuple[str, ...] | str = setting(
        word_or("all", "none", other=forms.words),
        "all",
        "Whose X-Postmeter-*, X-Mailgun-Track … fields count: all, none or a list of logins; they are removed in any "
        "case.",
    )
    foreign_headers: str = setting(
        choice("refuse", "ignore"),
        "refuse",
        "Another service's header that decides what is sent, when or to whom and that we cannot honour.",
    )
    skip_hosts: tuple[str, ...] = setting(
        listing(forms.host_pattern), [], "Links to these hosts stay.", example='["*.example.net"]'
    )
    skip_links: tuple[str, ...] | str = setting(
        word_or("default", other=listing(forms.line)),
        "default",
        "Links that look like a reset or login; or a list of words.",
    )
    max_links: int = setting(forms.whole(1), "1000", "With more the message stays as it is.")
    max_size: int = setting(forms.size(1), "10M", "A larger message stays as it is.")
    honeypot: bool = setting(forms.boolean, "false", "One hidden link that only robots follow.")
    domains: dict[str, dict[str, object]] = setting(
        table(values.domain, overrides(lambda: Tracking, without=_GLOBAL), "a mapping of domains to keys"),
        {},
        "Per From domain, the same keys.",
        example="{shop.example: {url: https://go.shop.example}}",
    )
    logins: dict[str, dict[str, object]] = setting(
        table(values.word, overrides(lambda: Tracking, without=_GLOBAL), "a mapping of logins to keys"),
        {},
        "Per login, the same keys.",
        example="{alice@example.com: {links: off}}",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    listen: InetAddress = setting(
        forms.inet, "127.0.0.1:8587", "Put your TLS proxy in front, or give certificate and key."
    )
    certificate: Path | None = setting(
        optional(forms.path), None, "A certificate with its chain, PEM; read again when it is renewed."
    )
    key: Path | None = setting(optional(forms.path), None, "Its private key, PEM.")
    proxies: tuple[Network, ...] = setting(
        forms.networks, ["127.0.0.1", "::1"], "Whose X-Forwarded-For and -Proto are believed."
    )
    hosts: tuple[str, ...] = setting(
        listing(forms.domain), [], "Host names of earlier days under which old links still answer."
    )
    workers: int = setting(forms.whole(1, 256), "1", "Processes.")
    user: str | None = setting(optional(forms.word), None, "Whom `postmeter run`, started as root, makes of it.")
    robots: Path | str = setting(word_or("default", other=forms.path), "default", "Or a file of agents and networks.")
    max_request: int = setting(forms.size(1024), "16k", "The largest request.")
    timeout: float = setting(forms.duration(0.1), "10s", "The longest request.")
