"""Whether `books` could write the new keys that `dkim.rotate_every` asks for, and the states of old ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from postmeter.config import permissions
from postmeter.config.load import Loaded
from postmeter.config.permissions import ENTER, WRITE, Person
from postmeter.config.problem import Problem

_LOOKED_AT = 100  # directories; a hundred thousand domains are not to hold up a start


def of_rotation(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """A warning for the first directory that is closed: mail is signed all the same."""
    dkim = loaded.config.dkim
    if dkim.rotate_every is None:
        return
    auto = [(nth, dkim.keys_dir / entry.domain) for nth, entry in enumerate(dkim.sign) if entry.keys == "auto"]
    if not auto:
        what = "no entry of dkim.sign says keys: auto, and others are never rotated"
        yield loaded.warning("dkim.rotate_every", what, "leave it out, or write keys: auto")
    for nth, folder in islice(auto, _LOOKED_AT):
        try:
            closed = not permissions.may(me, folder.stat(), WRITE | ENTER)
        except OSError:
            continue  # whoever loads the keys says it better
        if closed:
            what = f"{me.name} may not write in {folder}: its keys cannot be rotated"
            yield loaded.warning(f"dkim.sign[{nth}].keys", what, f"chown {me.name} {folder}")
            return
