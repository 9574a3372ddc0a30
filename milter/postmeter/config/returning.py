"""What would keep bounces and complaints from coming back, or from being known again (`bounces`).

Looks at the configuration alone. RFC 5321 section 4.5.3.1.1, RFC 7208 and 7489 (SPF alignment), RFC 9477 section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from postmeter.config.load import Loaded
from postmeter.config.problem import Problem
from postmeter.mail.address import domain
from postmeter.tag import LENGTH, LOCAL_PART, fits


def of_returns(loaded: Loaded) -> Iterator[Problem]:
    """At the line of what is wrong."""
    bounces = loaded.config.bounces
    for name, base in bounces.domains.items():
        path = f"bounces.domains.{name}"
        if not fits(base):
            what = f"{base} has no room for a tag: what stands before the @ has {LOCAL_PART} octets at most"
            yield loaded.problem(path, what, f"shorten it to {LOCAL_PART - LENGTH - 1}")
        elif not _aligned(domain(base), name):
            what = f"{base} is not of {name}, so SPF says nothing for DMARC any more"
            yield loaded.warning(path, what, f"give an address of {name} or of a domain below it")
    yield from _unsigned(loaded)


def _aligned(one: str, other: str) -> bool:
    """As DMARC's relaxed alignment has it where neither is a public suffix (RFC 7489 section 3.1.2)."""
    return f".{one}".endswith(f".{other}") or f".{other}".endswith(f".{one}")


def _unsigned(loaded: Loaded) -> Iterator[Problem]:
    """Google reads Feedback-ID, and others CFBL-Address, only where a signature covers it."""
    bounces, headers = loaded.config.bounces, loaded.config.dkim.headers
    wanted = ["feedback-id"] if bounces.feedback_id else []
    wanted += ["cfbl-address", "cfbl-feedback-id"] if bounces.cfbl_address else []
    missing = [] if isinstance(headers, str) else sorted({*wanted} - {rule.name for rule in headers})
    if missing:
        yield loaded.warning(
            "dkim.headers",
            f"it leaves {', '.join(missing)} unsigned, which nobody believes then",
            f"add {', '.join(missing)}",
        )
