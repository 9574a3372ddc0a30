"""What would keep events from those who asked for them: the webhooks' urls and the files of their secrets.

Looks and changes nothing, and calls nobody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from postmeter.config.load import Loaded
from postmeter.config.permissions import Fault, Person, unfit
from postmeter.config.problem import Problem

SHORTEST = 16
"""Octets of a secret: less could be guessed by trying."""


def of_webhooks(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """Two of one url would share a position in the journal."""
    seen: set[str] = set()
    for index, hook in enumerate(loaded.config.webhooks):
        path = f"webhooks[{index}]"
        if hook.url in seen:
            yield loaded.problem(f"{path}.url", "stands there twice", "put all of its events into one entry")
        seen.add(hook.url)
        if not hook.events:
            what = "with none nothing is ever posted there"
            yield loaded.warning(f"{path}.events", what, "name some, or leave it out")
        if hook.url.startswith("http:") and not _stays_here(hook.url):
            what = "events sent by http can be read and changed on their way"
            yield loaded.warning(f"{path}.url", what, "use https")
        if hook.secret_file is not None:
            fault = _unfit(hook.secret_file, me)
            if fault:
                yield loaded.problem(f"{path}.secret_file", fault.what, fault.fix)


def _stays_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _unfit(path: Path, me: Person) -> Fault | None:
    make = f"make it: mkdir -p {path.parent} && (umask 077; openssl rand -hex 32 > {path}; chown {me.name} {path})"
    fault = unfit(path, me, make)
    if fault:
        return fault
    try:
        length = len(path.read_bytes().strip())
    except OSError as error:
        return Fault(path, f"{path}: {error.strerror}", make)
    if length < SHORTEST:
        return Fault(path, f"{path} holds {length} octets, which is too short for a secret", make)
    return None
