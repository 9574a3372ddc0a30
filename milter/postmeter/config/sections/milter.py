"""`milter` and `senders`: where Postfix finds us, how much we take on, and whose mail is ours."""

from __future__ import annotations

from dataclasses import dataclass

from postmeter.config import forms, values
from postmeter.config.readers import choice, listing, optional, table, word_or
from postmeter.config.section import setting
from postmeter.config.values import Network, SocketAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class Milter:
    listen: SocketAddress = setting(
        forms.socket_address,
        "unix:/var/spool/postfix/postmeter/milter.sock",
        "Where Postfix finds the milter; in main.cf this default is unix:postmeter/milter.sock (relative: works "
        "chrooted or not). With inet:HOST:PORT any local process can have anything signed under any login.",
        example="inet:127.0.0.1:8891",
    )
    trust_network: bool = setting(forms.boolean, "false", "true allows an inet address that is not loopback.")
    socket_mode: int = setting(forms.mode, "0660", "File mode of the socket.")
    socket_group: str | None = setting(
        optional(forms.word),
        "postfix",
        "Group of the socket; ignored where it does not exist or we may not set it.",
    )
    workers: int | str = setting(
        word_or("auto", other=forms.whole(1, 256)),
        "auto",
        "Processes that share the socket; auto is one per CPU that we may use (CPUAffinity=, a container's cpuset).",
    )
    max_sessions: int = setting(forms.whole(1), "1000", "Sessions of one worker; one more gets 451 4.3.2.")
    max_memory: int = setting(
        forms.size(1024**2),
        "512M",
        "Messages held at one time by a worker; what does not fit gets 451 4.3.1.",
    )
    message_size_limit: int | str = setting(
        word_or("auto", other=forms.size()),
        "auto",
        "auto is Postfix's own (postconf at start), 0 is none: no change may make a message outgrow it.",
    )
    drain: float = setting(forms.duration(), "60s", "How long a stop waits for messages in flight.")
    linger: float = setting(
        forms.duration(),
        "6m",
        "How long sessions that are open at a reload or a restart may go on, with what they began with.",
    )
    on_bug: str = setting(choice("tempfail", "accept"), "tempfail", "What a client gets when we fail ourselves.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Senders:
    """Which mail is ours; one match is enough, and all other mail passes untouched."""

    authenticated: bool = setting(forms.boolean, "true", "Clients with a SASL login.")
    certificates: bool = setting(
        forms.boolean, "false", "Clients with a verified certificate: the sender is its common name."
    )
    daemon_names: tuple[str, ...] = setting(
        forms.words, ["ORIGINATING"], "smtpd services whose mail is ours (milter_macro_daemon_name)."
    )
    networks: tuple[Network, ...] = setting(
        forms.networks,
        ["127.0.0.0/8", "::1"],
        "Clients without a login, and sendmail(1): ours only if submitted here (no Received field with SMTP or LMTP in "
        "it) and we hold a key for the From domain or senders.from names it.",
    )
    refiltered: tuple[str, ...] = setting(
        forms.words,
        [],
        "Services that get mail back from a content filter; only there our mark is believed.",
        example="[REFILTERED]",
    )
    from_: dict[str, tuple[str, ...] | str] = setting(
        table(
            values.word, word_or("any", other=listing(forms.domain)), "a mapping of logins to lists of domains, or any"
        ),
        {},
        "A login may put its own domain on its mail, and those listed here; logins without a domain: any we hold a key "
        "for, until they are listed. The login may be a glob; of several entries that name a login all count.",
        example='{shop@example.com: [example.com, shop.example], "*@example.org": [example.org], "*": any}',
    )
    from_mismatch: str = setting(
        choice("unsigned", "report", "reject"),
        "unsigned",
        "What happens to a From domain that the login may not use: unsigned, report (sign and count) or reject "
        "(550 5.7.1). A From of no, several or unclear addresses has no domain: such mail leaves unsigned whatever is "
        "set here.",
    )
