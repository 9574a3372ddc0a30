"""What one line of the log says about one recipient of a message of ours, as an event.

Pure. An event's source is a digest of what the line says about which message, not of where or when it was read: the
same line in the live log, in its compressed rotation and in the systemd journal is one event, whatever their stamps. No
two attempts share it, for `delay` grows from one to the next. RFC 3464 section 2.3.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from postmeter.delivery.postfixlog import Line
from postmeter.events import Bounced, Deferred, Expired, Sent, Unknown, Untaken
from postmeter.mail.said import gone
from postmeter.mail.scope import canonical
from postmeter.store.lives import Life

STATES = {"sent": "sent", "deferred": "deferred", "bounced": "bounced", "SOFTBOUNCE": "deferred"}
"""Of a recipient, by `status=` (postconf(5), soft_bounce); address probes have others, and are no deliveries."""

_SAID = ("to", "orig_to", "relay", "delay", "delays", "dsn", "status", "text")
_REMOTE = ("smtp", "lmtp")
_SHORT = 320  # characters of what is remembered (RFC 5321 section 4.5.3.1: 64, an @ and 255), so that memory is bounded


def name(address: str) -> str:
    """By which the log and the sender's own spelling of an address are the same (RFC 5321 section 4.1.2, quoting)."""
    return _remembered(address) if len(address) <= _SHORT else _name(address)


def _name(address: str) -> str:
    local, at, domain = address.rpartition("@")
    if len(local) > 1 and local[0] == local[-1] == '"':
        local = local[1:-1].replace("\\", "")
    return canonical(f"{local}{at}{domain}")


_remembered = lru_cache(2048)(_name)  # one line asks several times, and so do all lines about a recipient


def delivery(
    life: Life, address: str, line: Line, *, final: str, provider: str, tls: str, time: float, alone: bool = True
) -> Sent | Deferred | Bounced:
    """Of a line whose `status` is one of `STATES`, for the recipient that the sender named `address`.

    Not `alone`: that is an alias of several, and what is wrong with one of them is not wrong with it.
    """
    said = line.values
    state = STATES[said["status"]]
    told: dict[str, Any] = {
        "time": time,
        "queue_id": life.queue_id,
        "reference": life.reference,
        "login": life.login,
        "from_domain": life.from_domain,
        "recipient": address,
        "campaign": life.campaign,
        "source": source(life, line, *(said.get(key, "") for key in _SAID)),
        "final": final,
        "relay": said.get("relay", ""),
        "provider": provider,
        "dsn": said.get("dsn", ""),
        "text": said.get("text", ""),
        "delay": seconds(said.get("delay", "")),
        "delays": delays(said),
        "tls": tls,
    }
    if state == "bounced":
        at_rcpt = line.daemon in _REMOTE and said.get("stage", "").startswith("RCPT TO")
        return Bounced(**told, hard=alone and gone(told["dsn"], told["text"], at_rcpt=at_rcpt))
    return Sent(**told) if state == "sent" else Deferred(**told)


def expired(life: Life, address: str, final: str, line: Line, *, provider: str, time: float) -> Expired:
    """Postfix gave this recipient up."""
    return Expired(
        **_of(life, address, time),
        source=source(life, line, "expired", address, final),
        final=final if final != name(address) else "",
        provider=provider,
        text=line.values.get("status", ""),
    )


def unknown(life: Life, address: str, *, why: str, time: float) -> Unknown:
    """Nobody will ever say."""
    return Unknown(**_of(life, address, time), source=f"unknown:{life.reference}:{canonical(address)}", why=why)


def untaken(life: Life, *, why: str, time: float) -> Untaken:
    """Postfix has refused it after we had taken it."""
    return Untaken(
        source=f"untaken:{life.reference}",
        time=time,
        queue_id=life.queue_id,
        reference=life.reference,
        login=life.login,
        from_domain=life.from_domain,
        recipients=tuple(recipient.address for recipient in life.recipients.values()),
        campaign=life.campaign,
        why=why,
    )


def kept(event: Sent) -> dict[str, Any]:
    """For later."""
    return asdict(event)


def again(plain: Mapping[str, Any]) -> Sent:
    """What `kept` gave, also after it was JSON."""
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Sent(**values)


def _of(life: Life, address: str, time: float) -> dict[str, Any]:
    return {
        "time": time,
        "queue_id": life.queue_id,
        "reference": life.reference,
        "login": life.login,
        "from_domain": life.from_domain,
        "recipient": address,
        "campaign": life.campaign,
    }


def source(life: Life, line: Line, *said: str) -> str:
    """One event's, of a line that says this."""
    parts = (life.reference, line.instance, line.queue_id, str(line.pid), *said)
    return f"log:{blake2b(chr(0).join(parts).encode('utf-8', 'backslashreplace'), digest_size=16).hexdigest()}"


def count(text: str) -> int:
    """A number in a line; 0 for what is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def seconds(text: str) -> float:
    """A time in a line; 0 for what is none. More than a year is a clock that was stepped."""
    try:
        found = float(text)
    except ValueError:
        return 0.0
    return found if 0 <= found < 31_622_400 else 0.0


def delays(said: Mapping[str, str]) -> tuple[float, ...]:
    """`delays=a/b/c/d`; empty where it is not that."""
    text = said.get("delays", "")
    return _delays(text) if len(text) <= _SHORT else ()


@lru_cache(256)
def _delays(text: str) -> tuple[float, ...]:
    parts = text.split("/")
    return tuple(map(seconds, parts)) if len(parts) == 4 else ()
