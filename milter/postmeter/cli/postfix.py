"""What Postfix says of itself, as far as our settings must fit it: postconf(1), read once at the start.

Where there is no Postfix to ask, or no answer, its documented defaults are taken (postconf(5)).
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterator

from postmeter.config.amounts import duration_text
from postmeter.config.load import Loaded
from postmeter.config.problem import Problem
from postmeter.config.schema import Config

log = logging.getLogger(__name__)

UNLIMITED = 1 << 62
_DEFAULTS = {"message_size_limit": "10240000", "maximal_queue_lifetime": "5d", "bounce_queue_lifetime": "5d"}
_PATIENCE = 10  # seconds for postconf(1), which reads a file
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "": 86400}  # both lifetimes are in days
_MARGIN = 2 * 86400  # seconds on top: clocks that differ, and hops behind ours that queue too


def size_limit(config: Config) -> int:
    """Octets that no message may outgrow. `auto` asks Postfix."""
    wanted = config.milter.message_size_limit
    if not isinstance(wanted, str):
        return wanted or UNLIMITED
    [answer] = _ask("message_size_limit")
    return int(answer if answer.isdigit() else _DEFAULTS["message_size_limit"]) or UNLIMITED


def queue_lifetime() -> float:
    """Seconds after which Postfix gives a message up."""
    [answer] = _ask("maximal_queue_lifetime")
    return float(_seconds(answer))


def expiry(loaded: Loaded) -> Iterator[Problem]:
    """Whether mail could outlive its signature in Postfix's queue."""
    expire = loaded.config.dkim.expire
    if expire is None:
        return
    lifetime, stays, fix = _lifetime()
    if expire < lifetime + _MARGIN:
        yield loaded.problem("dkim.expire", f"{stays}, and its signature would not last", fix)


def retirement(loaded: Loaded) -> Iterator[Problem]:
    """Whether mail could leave Postfix's queue when the record of the key that signed it may be gone."""
    if not any(entry.keys == "auto" for entry in loaded.config.dkim.sign):
        return
    lifetime, stays, fix = _lifetime()
    if loaded.config.dkim.retire_after <= lifetime:
        yield loaded.warning("dkim.retire_after", f"{stays}, and receivers still need the record then", fix)


def oblivion(loaded: Loaded) -> Iterator[Problem]:
    """Whether a message could be forgotten that Postfix still tries to deliver; the default outlasts its default."""
    if "delivery.forget" not in loaded.lines:
        return
    lifetime, stays, fix = _lifetime()
    if loaded.config.delivery.forget <= lifetime:
        yield loaded.warning("delivery.forget", f"{stays}, and what becomes of it then would not be told", fix)


def _lifetime() -> tuple[float, str, str]:
    """Seconds that mail may be in the queue; that in words, and what to give that has to outlast it."""
    lifetime = max(map(_seconds, _ask("maximal_queue_lifetime", "bounce_queue_lifetime")))
    stays = f"mail stays up to {duration_text(lifetime)} in Postfix's queue (maximal_queue_lifetime)"
    return lifetime, stays, f"give {duration_text(lifetime + _MARGIN)} or more"


def _seconds(text: str) -> float:
    """A time as in main.cf."""
    found = re.fullmatch(r"([0-9]+)([smhdw]?)", text)
    return float(int(found[1]) * _UNITS[found[2]]) if found else _seconds(_DEFAULTS["maximal_queue_lifetime"])


def _ask(*names: str) -> list[str]:
    """The values of parameters, in their order."""
    defaults = [_DEFAULTS[name] for name in names]
    program = shutil.which("postconf", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return defaults
    try:
        asked = subprocess.run([program, "-h", *names], capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("postconf does not tell %s, the default is taken: %s", names[0], error)
        return defaults
    answers = asked.stdout.split()
    return answers if len(answers) == len(names) else defaults
