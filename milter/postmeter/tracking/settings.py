"""The section `tracking` as it is for one sender: what `domains` and `logins` say differently is put in its place.

Knows no other section. A login's words beat its From domain's, because a login is proved and a From field is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Generic, TypeVar

from postmeter.config.schema import Tracking
from postmeter.token import host_of

T = TypeVar("T")


class Sections(Generic[T]):
    """What `build` makes of the section of a sender, made once for each way in which sections can differ."""

    def __init__(self, tracking: Tracking, build: Callable[[Tracking], T]) -> None:
        self._tracking = tracking
        self._build = build
        self._logins = {name.lower(): name for name in tracking.logins}
        self._made: dict[tuple[str, str], T] = {}
        differs = tracking.domains or tracking.logins
        self._only = None if differs else build(tracking)

    def of(self, from_domain: str, login: str) -> T:
        """For a From domain, empty when there is none such, and a login in any case, empty without one."""
        if self._only is not None:
            return self._only
        key = (
            from_domain if from_domain in self._tracking.domains else "",
            self._logins.get(login.lower(), ""),
        )
        if key not in self._made:
            self._made[key] = self._build(effective(self._tracking, *key))
        return self._made[key]


def effective(tracking: Tracking, from_domain: str, login: str) -> Tracking:
    """The section with the overrides of this From domain and this login."""
    overrides = {**tracking.domains.get(from_domain, {}), **tracking.logins.get(login, {})}
    changes: dict[str, object] = {**overrides, "domains": {}, "logins": {}}
    return replace(tracking, **changes)  # type: ignore[arg-type]  # config read them by the same readers


def own_hosts(tracking: Tracking) -> frozenset[str]:
    """The hosts of every URL that links of ours can have."""
    urls = [tracking.url, *(over.get("url") for over in (*tracking.domains.values(), *tracking.logins.values()))]
    return frozenset(host_of(url) for url in urls if isinstance(url, str))
