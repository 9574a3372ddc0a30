"""The wiring: which parts a daemon is made of, in which order mail goes through them.

The one place that knows all rooms. Decides nothing about mail.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass

from postmeter.cli.config import key_problems
from postmeter.config.check import tracked_urls
from postmeter.config.load import Loaded
from postmeter.config.problem import ConfigError
from postmeter.config.schema import Config
from postmeter.store.database import Database
from postmeter.store.settle import Settler
from postmeter.submission import keys, signing
from postmeter.submission.identity import Identity
from postmeter.submission.notice import Notices
from postmeter.submission.pipeline import Pipeline, Stage
from postmeter.submission.quota import Quotas
from postmeter.token import Mint, parse_secrets
from postmeter.tracking import links

log = logging.getLogger(__name__)

POSTFIX_DEFAULT_LIMIT = 10_240_000  # message_size_limit in postconf(5)
UNLIMITED = 1 << 62
_ASK = ("-h", "message_size_limit")
_PATIENCE = 10  # seconds for postconf(1), which reads a file


@dataclass(frozen=True, slots=True)
class Material:
    """What is read from files before a worker is forked, and shared by all of one generation."""

    config: Config
    keyring: keys.Keyring
    mint: Mint | None
    size_limit: int


def prepare(loaded: Loaded) -> Material:
    """Read keys, secrets and Postfix's size limit; ConfigError names what cannot be read."""
    config = loaded.config
    try:
        keyring = keys.load(config.dkim)
    except keys.KeyProblem:
        raise ConfigError([problem for problem in key_problems(loaded) if problem.severity == "error"]) from None
    return Material(config, keyring, _mint(loaded), _size_limit(config))


def notices(config: Config) -> Notices:
    """Opened when the first notice comes in."""
    path, sync = config.journal.path, config.journal.sync
    return Notices(Database(path, sync=sync, readonly=True), Database(path, sync=sync, readonly=False))


def identity(material: Material, own: Notices) -> Identity:
    return Identity(material.config.senders, material.keyring.holds, own.has_id)


def pipeline(material: Material, *, who: Identity, own: Notices, quotas: Quotas) -> Pipeline:
    """The steps, as in docs/flow.md. A bug in `links` spares the message, in any other it is refused for now."""
    config = material.config
    stages = [
        Stage("identity", who.step),
        Stage("from", who.check_from),
        Stage("notice", own.step),
        Stage("quota", quotas.check),
        *_tracking(material),
        Stage("signing", signing.step(config.dkim, material.keyring, may_sign=who.why_unsigned)),
    ]
    return Pipeline(stages, tolerant=config.milter.on_bug == "accept")


def settler(config: Config) -> Settler:
    """The way to the journal; to be opened after the fork."""
    journal = config.journal
    return Settler(journal.path, sync=journal.sync, host=journal.host or socket.gethostname())


def reference() -> bytes:
    return secrets.token_bytes(8)


def _tracking(material: Material) -> list[Stage]:
    if material.mint is None:
        return []
    step = links.step(material.config.tracking, material.mint, size_limit=material.size_limit)
    return [Stage("links", step, spare=True)]


def _mint(loaded: Loaded) -> Mint | None:
    """Secrets are needed only where some section of `tracking` has a url."""
    if not any(True for _ in tracked_urls(loaded.config)):
        return None
    path = loaded.config.tracking.secrets
    try:
        return Mint(parse_secrets(path.read_text("ascii")))
    except (OSError, ValueError) as error:
        fix = f"make it: openssl rand -hex 32 > {path}"
        raise ConfigError([loaded.problem("tracking.secrets", f"{path}: {error}", fix)]) from None


def _size_limit(config: Config) -> int:
    """Octets that no message may outgrow. `auto` asks Postfix, and takes its default where there is none to ask."""
    wanted = config.milter.message_size_limit
    limit = _postfix_limit() if isinstance(wanted, str) else wanted
    return limit or UNLIMITED


def _postfix_limit() -> int:
    program = shutil.which("postconf", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        return POSTFIX_DEFAULT_LIMIT
    try:
        asked = subprocess.run([program, *_ASK], capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        log.warning("postconf does not tell message_size_limit, its default is taken: %s", error)
        return POSTFIX_DEFAULT_LIMIT
    text = asked.stdout.strip()
    return int(text) if text.isdigit() else POSTFIX_DEFAULT_LIMIT
