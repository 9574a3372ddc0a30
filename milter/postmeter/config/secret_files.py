"""The files of secrets that tokens are made with: who needs which, who may read them, and whether they can be read.

Looks and changes nothing; knows no token. Tracking's are for the milter and the web server, those of bounces and marks
for the milter alone: whoever holds them can have mail signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from postmeter.config import permissions
from postmeter.config.load import Loaded
from postmeter.config.permissions import READ, Fault, Person, unreadable
from postmeter.config.problem import Problem
from postmeter.config.schema import Config
from postmeter.token import parse_secrets


def of_tracking(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """`tracking.secrets`, where some section of tracking has a url."""
    path = loaded.config.tracking.secrets
    if not any(True for _ in tracked_urls(loaded.config)):
        return
    make = f"make it: mkdir -p {path.parent} && (umask 027; openssl rand -hex 32 > {path})"
    fault = unreadable(path, me, make) or _shared(path, "0640") or _for_web(loaded, me) or _malformed(path)
    if fault:
        yield loaded.problem("tracking.secrets", fault.what, fault.fix)


def of_bounces(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """`bounces.secrets`, where marks or tags are made."""
    path = loaded.config.bounces.secrets
    if not (loaded.config.senders.refiltered or tags_returns(loaded.config)):
        return
    make = f"make it: mkdir -p {path.parent} && (umask 077; openssl rand -hex 32 > {path}; chown {me.name} {path})"
    fault = unreadable(path, me, make) or _shared(path, "0600") or _not_for_web(loaded) or _malformed(path)
    if fault:
        yield loaded.problem("bounces.secrets", fault.what, fault.fix)
    elif _known_to_web(loaded):
        what = f"a secret of {path} is in tracking.secrets too: the web server could have any mail signed"
        yield loaded.warning("bounces.secrets", what, f"put another in its place: openssl rand -hex 32 > {path}")


def tags_returns(config: Config) -> bool:
    """Whether some message may bear a tag by which what comes back of it is known."""
    bounces = config.bounces
    return bool(bounces.domains or bounces.feedback_id or bounces.cfbl_address)


def tracked_urls(config: Config) -> Iterator[tuple[str, str]]:
    """The path and the value of each tracking.url that is set, those of single domains and logins too."""
    tracking = config.tracking
    if tracking.url:
        yield "tracking.url", tracking.url
    for kind, overrides in (("domains", tracking.domains), ("logins", tracking.logins)):
        for name, keys in overrides.items():
            if keys.get("url"):
                yield f"tracking.{kind}.{name}.url", str(keys["url"])


def _shared(path: Path, good: str) -> Fault | None:
    """Secrets are for their owner and, where the web server needs them, for its group; nobody else."""
    state = path.stat()
    if state.st_mode & 0o027:
        return Fault(path, f"{path} is open to others ({permissions.mode(state)})", f"chmod {good} {path}")
    return None


def _for_web(loaded: Loaded, me: Person) -> Fault | None:
    """Whether the user that root makes of the web server can read them."""
    path, name = loaded.config.tracking.secrets, loaded.config.web.user
    if name is None or me.uid != 0:
        return None
    user = permissions.person(name)
    if user is None:
        return None  # told by its own key
    if not permissions.may(user, path.stat(), READ):
        group = permissions.group_name(user.gid)
        return Fault(path, f"{name} may not read {path}", f"chgrp {group} {path} && chmod 0640 {path}")
    return permissions.barrier(path, user)


def _not_for_web(loaded: Loaded) -> Fault | None:
    """Links are all that the web server may make: a mark has mail signed."""
    path, name = loaded.config.bounces.secrets, loaded.config.web.user
    user = permissions.person(name) if name else None
    if user is not None and permissions.may(user, path.stat(), READ):
        return Fault(path, f"{name}, the web server's user, may read {path}", f"chmod 0600 {path}")
    return None


def _known_to_web(loaded: Loaded) -> bool:
    """Whoever knows a secret makes every kind of token with it."""
    try:
        texts = [path.read_text("ascii") for path in (loaded.config.bounces.secrets, loaded.config.tracking.secrets)]
        ours, webs = (set(parse_secrets(text)) for text in texts)
    except (OSError, ValueError):  # there is none, or it is told elsewhere what is wrong with it
        return False
    return bool(ours & webs)


def _malformed(path: Path) -> Fault | None:
    try:
        parse_secrets(path.read_text("ascii", "backslashreplace"))
    except (OSError, ValueError) as error:
        fix = f"mend that line, for the others are needed; or, where there is none: openssl rand -hex 32 >> {path}"
        return Fault(path, f"{path}: {error}", fix)
    return None
