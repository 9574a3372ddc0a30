"""The values that the rooms exchange: a message as Postfix handed it over, and what we want changed in it.

Knows nothing of libmilter, of configuration or of storage. Bytes stay bytes: an address or a header value may hold any
octet, and whoever needs text for a log or a journal asks `address.text` for it (RFC 5321, RFC 5322, RFC 6531).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias


@dataclass(frozen=True, slots=True, init=False)
class Field:
    """A header field as it stood on the wire.

    `value` is everything behind the colon, leading space included (SMFIP_HDR_LEADSPC), without the final line end;
    folded lines are separated by a bare LF, as Postfix hands them to a milter and wants them back.
    """

    name: bytes
    value: bytes
    key: bytes = field(init=False, repr=False, compare=False)
    """The name in lower case, for comparisons (RFC 5322 section 1.2.2): made once, and asked for a dozen times."""

    def __init__(self, name: bytes, value: bytes) -> None:
        put = object.__setattr__
        put(self, "name", name)
        put(self, "value", value)
        put(self, "key", name.lower())

    def wire(self) -> bytes:
        """The field as it goes over SMTP: CRLF between folded lines and at the end."""
        return self.name + b":" + self.value.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") + b"\r\n"


@dataclass(frozen=True, slots=True)
class Client:
    """Who talked to Postfix. `port` 0 means that nobody did: the message came by sendmail(1) (cleanup_milter.c)."""

    name: str = "localhost"
    address: str = "127.0.0.1"
    port: int = 0
    certificate: str = ""
    """Common name of a client certificate that Postfix verified; empty without one."""
    local: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "local", self.port == 0)


@dataclass(frozen=True, slots=True)
class Envelope:
    """The SMTP transaction so far. Addresses are bare: no angle brackets; the null sender is empty (RFC 5321 4.5.5)."""

    mail_from: bytes
    args: tuple[bytes, ...] = ()
    rcpt_to: tuple[bytes, ...] = ()
    client: Client = Client()
    login: str = ""
    """{auth_authen}: the SASL login name, empty without one."""
    service: str = "local"
    """{daemon_name}: the smtpd service; `local` for sendmail(1)."""
    quiet: frozenset[bytes] = frozenset()
    """Recipients for whom the client wants no report of a failure (RFC 3461 section 4.1: NOTIFY without FAILURE)."""
    waits: bool = True
    """Whether an SMTP client waits for our reply: not for sendmail(1)'s mail, which is queued already (D2, D42)."""
    name: str = field(init=False, repr=False, compare=False)
    """Who answers for it: the login, or else the name on the client's certificate, empty without either. In lower case,
    so that spelling gains nobody a quota."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", (self.login or self.client.certificate).lower())

    def to(self, rcpt_to: tuple[bytes, ...], quiet: frozenset[bytes]) -> Envelope:
        """The same with all its recipients, which MAIL does not know yet."""
        return Envelope(self.mail_from, self.args, rcpt_to, self.client, self.login, self.service, quiet, self.waits)


@dataclass(frozen=True, slots=True)
class Message:
    """One message at its end. `body` has CRLF line ends as received; `time` is seconds since the epoch, UTC."""

    envelope: Envelope
    fields: tuple[Field, ...]
    body: bytes
    queue_id: str
    time: float
    reference: bytes
    """Eight random bytes that stand for this message in tokens and in the journal."""
    keys: frozenset[bytes] = field(init=False, repr=False, compare=False)
    """The names of its fields in lower case: most steps look for some that hardly any message has."""
    _size: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        header = sum([len(one.name) + len(one.value) + 3 for one in self.fields])
        object.__setattr__(self, "keys", frozenset([one.key for one in self.fields]))
        object.__setattr__(self, "_size", header + 2 + len(self.body))

    def size(self) -> int:
        """Octets of header and body as they go over SMTP (RFC 1870)."""
        return self._size


class Span(NamedTuple):  # one a link
    """Octets `start` to `end` of a changed body, which were `old`: a view of the body before, if most of it.

    Of what is large, how to make it of those octets: held itself, it would be there twice.
    """

    start: int
    end: int
    old: bytes | memoryview | Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class PartChange:
    """What was done to one body part: its MIME path ("1.2"), the reason, how many links or parts it was done to.

    With all `spans` of a body in place of what stands there now it is the body it was (`apply.undo`).
    """

    path: str
    reason: str
    count: int
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class ReplaceBody:
    body: bytes
    parts: tuple[PartChange, ...] = ()


@dataclass(frozen=True, slots=True)
class InsertField:
    """`at` counts delivered fields from the top; 0 is above Postfix's own Received (D12)."""

    at: int
    field: Field


@dataclass(frozen=True, slots=True)
class ReplaceField:
    """`nth` counts from 1 the fields of that name as they were received (D12)."""

    name: bytes
    nth: int
    value: bytes


@dataclass(frozen=True, slots=True)
class DropField:
    name: bytes
    nth: int


@dataclass(frozen=True, slots=True)
class ReplaceSender:
    address: bytes
    args: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class DropRecipient:
    address: bytes


Change: TypeAlias = ReplaceBody | InsertField | ReplaceField | DropField | ReplaceSender | DropRecipient
