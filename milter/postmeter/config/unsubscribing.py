"""What would keep one-click unsubscribe from working although `tracking.unsubscribe` is on: warnings, for mail goes on.

Looks at the configuration alone. RFC 8058 sections 3.1 and 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from postmeter.config.load import Loaded
from postmeter.config.problem import Problem

_SIGNED = ("list-unsubscribe", "list-unsubscribe-post")


def of_unsubscribes(loaded: Loaded) -> Iterator[Problem]:
    """At the line that switches it on, or at that of what it misses."""
    on = [(path, url) for path, unsubscribe, url in _sections(loaded) if unsubscribe]
    for path, url in on:
        if not url:
            yield loaded.warning(path, "has no effect without tracking.url", "give the web server's https address")
        elif not str(url).startswith("https:"):
            what = f"{url} is not https, so no List-Unsubscribe is added (RFC 8058 section 3.1)"
            yield loaded.warning(path, what, "use https")
    if not on:
        return
    headers = loaded.config.dkim.headers
    missing = [] if isinstance(headers, str) else sorted({*_SIGNED} - {rule.name for rule in headers})
    if missing:
        what = "mail programs offer one click only where the signature covers both fields (RFC 8058 section 4)"
        yield loaded.warning("dkim.headers", what, f"add {', '.join(missing)}")
    told = any("unsubscribed" in hook.events for hook in loaded.config.webhooks)
    if loaded.config.suppression.observe and not told:
        what = "who unsubscribes is recorded, and written to all the same while suppression only observes"
        fix = "set suppression.observe: false, or have a webhook told of `unsubscribed` and take them off your lists"
        yield loaded.warning(on[0][0], what, fix)


def _sections(loaded: Loaded) -> Iterator[tuple[str, bool, object]]:
    """Of each section of tracking that says something of it: where, whether it is on, and its url."""
    tracking = loaded.config.tracking
    yield "tracking.unsubscribe", tracking.unsubscribe, tracking.url
    for kind, overrides in (("domains", tracking.domains), ("logins", tracking.logins)):
        for name, keys in overrides.items():
            said = _said(keys)
            if said:
                on = keys.get("unsubscribe", tracking.unsubscribe)
                yield f"tracking.{kind}.{name}.{said}", on is True, keys.get("url", tracking.url)


def _said(keys: Mapping[str, object]) -> str:
    return next((key for key in ("unsubscribe", "url") if key in keys), "")
