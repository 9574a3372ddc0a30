"""The wiring: which parts a daemon is made of, in which order mail goes through them.

The one place that knows all rooms. Decides nothing about mail.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from postmeter.cli import postfix
from postmeter.cli.config import key_problems
from postmeter.config import permissions, rules
from postmeter.config.load import Loaded
from postmeter.config.problem import ConfigError
from postmeter.config.schema import Config, Tracking
from postmeter.config.secret_files import tags_returns, tracked_urls
from postmeter.events import Braked, Suppressed
from postmeter.mail.draft import Draft
from postmeter.store import accounting
from postmeter.store.accounts import Accounts
from postmeter.store.database import Database, StoreError
from postmeter.store.journal import last_release
from postmeter.store.orders import Order, Standing, put
from postmeter.store.profiles import Profiles
from postmeter.store.suppression import Lookup
from postmeter.submission import keyring, mark, returnpath, safe, signing, standing
from postmeter.submission.brake import Watch
from postmeter.submission.identity import Identity
from postmeter.submission.keyfiles import KeyProblem
from postmeter.submission.levels import Levels
from postmeter.submission.mark import Marks
from postmeter.submission.notice import Notices
from postmeter.submission.pipeline import Pipeline, Stage
from postmeter.submission.quota import Quotas
from postmeter.submission.suppress import Suppress
from postmeter.tag import Tagger
from postmeter.token import Marker, Mint, parse_secrets
from postmeter.tracking import links, switches, unsubscribe
from postmeter.tracking.bulk import is_bulk
from postmeter.tracking.settings import Sections


@dataclass(frozen=True, slots=True)
class Material:
    """What is read from files before a worker is forked, and shared by all of one generation."""

    config: Config
    keyring: keyring.Keyring
    mint: Mint | None
    marker: Marker | None
    tagger: Tagger | None
    size_limit: int
    levels: Levels


def prepare(loaded: Loaded) -> Material:
    """Read keys, secrets and Postfix's size limit; ConfigError names what cannot be read."""
    config = loaded.config
    accounting.preload(config.quota)
    try:
        ring = keyring.load(config.dkim)
    except KeyProblem as problem:
        told = [found for found in key_problems(loaded) if found.severity == "error"]
        first = loaded.problem("dkim.sign", f"{problem.path}: {problem.what}", problem.fix)
        raise ConfigError(told or [first]) from None
    limit = postfix.size_limit(config)
    return Material(config, ring, _mint(loaded), _marker(loaded), tagger(loaded), limit, levels(loaded))


def notices(config: Config) -> Notices:
    """Opened when the first notice comes in."""
    path, sync = config.journal.path, config.journal.sync
    return Notices(Database(path, sync=sync, readonly=True), Database(path, sync=sync, readonly=False))


def identity(material: Material, own: Notices) -> Identity:
    return Identity(material.config.senders, material.keyring.holds, own.has_id)


def orders(config: Config) -> Standing:
    """The orders about logins; to be asked after the fork."""
    return Standing(Database(config.journal.path, sync=config.journal.sync, readonly=True), time)


def watch(config: Config, standing: Standing) -> Watch | None:
    """What finds stolen accounts. In `mode: observe` it only looks on, as everything does."""
    brake, journal = config.quota.brake, config.journal
    if brake.mode == "off":
        return None
    settings = replace(brake, mode="observe") if config.mode == "observe" else brake
    profiles = Profiles(Database(journal.path, sync=journal.sync, readonly=True))
    return Watch(settings, profiles, prefix=config.quota.networks.prefix, released=standing.released)


def brake(config: Config) -> Callable[[Braked], None]:
    """Orders that a login be stopped until a person lets it go."""
    writer = Database(config.journal.path, sync=config.journal.sync, readonly=False)

    def stop(braked: Braked) -> None:
        put(writer, Order(kind="brake", login=braked.login, value=braked.evidence, since=braked.time))

    return stop


def suppress(config: Config, settler: Accounts | None = None) -> Suppress:
    """Who is not written to again. What a gate refused is recorded with `settler`; not to be asked across a fork."""
    journal = config.journal
    reader = Database(journal.path, sync=journal.sync, readonly=True)

    def record(event: Suppressed) -> None:
        if settler is not None:
            with contextlib.suppress(StoreError):  # the refusal itself is recorded besides, and says what is wrong
                settler.settle((), event, {}, event.time)

    observe = config.suppression.observe or config.mode == "observe"
    return Suppress(config.suppression, Lookup(reader, time), bulk=bulk(config), observe=observe, record=record)


def marks(material: Material, who: Identity, settler: Accounts | None = None) -> Marks | None:
    """None where no content filter gives mail back to us. What has expired is counted with `settler`."""
    if material.marker is None:
        return None
    journal = material.config.journal
    reader = Database(journal.path, sync=journal.sync, readonly=True)
    return Marks(
        material.marker,
        may_sign=who.why_unsigned,
        host=journal.host or socket.gethostname(),
        released=lambda queue_id: last_release(reader, queue_id),
        count=settler.add if settler is not None else lambda figures: None,
    )


def pipeline(
    material: Material,
    *,
    who: Identity,
    own: Notices,
    stops: standing.Rules,
    quotas: Quotas,
    suppress: Suppress,
    marked: Marks | None = None,
) -> Pipeline:
    """The steps, as in docs/flow.md. A bug in tracking or `make_safe` spares the message, in another it is refused."""
    config = material.config
    stages = [
        Stage("identity", who.step),
        Stage("from", who.check_from),
        Stage("notice", own.step),
        *standing.stages(stops),
        Stage("switches", switches.step(config.tracking)),
        Stage("suppression", suppress.step),
        Stage("quota", quotas.check),
        *_tracking(material),
        *_returning(material),
        *_leaving(material, marked.why_unsigned if marked else who.why_unsigned, marked),
    ]
    return Pipeline(stages, tolerant=config.milter.on_bug == "accept")


def settler(config: Config) -> Accounts:
    """The way to the quotas and the journal; to be opened after the fork."""
    return accounting.accounts(config.quota, config.journal, host=config.journal.host or socket.gethostname())


def reference() -> bytes:
    return os.urandom(8)


def nonce() -> bytes:
    return os.urandom(12)


def _tracking(material: Material) -> list[Stage]:
    if material.mint is None:
        return []
    tracking, mint, limit = material.config.tracking, material.mint, material.size_limit
    stages = [Stage("links", links.step(tracking, mint, size_limit=limit), spare=True)]
    if unsubscribe.wanted(tracking):
        leaving = unsubscribe.step(tracking, mint, nonce=nonce, size_limit=limit)
        stages.append(Stage("unsubscribe", leaving, spare=True))
    return stages


def bulk(config: Config) -> Callable[[Draft], bool]:
    """What bulk mail is, for those who may not ask `tracking`."""
    sections: Sections[Tracking] = Sections(config.tracking, lambda section: section)
    return lambda draft: is_bulk(draft, sections.of(draft.from_domain, draft.message.envelope.login))


def _returning(material: Material) -> list[Stage]:
    if material.tagger is None:
        return []
    config = material.config
    returning = returnpath.step(config.bounces, material.tagger, bulk=bulk(config), size_limit=material.size_limit)
    return [Stage("return_path", returning, spare=True)]


def _leaving(material: Material, why_unsigned: signing.MaySign, marked: Marks | None) -> list[Stage]:
    """What must be the last that happens to a message: where a content filter is between, only behind it."""
    stages = [
        *_making_safe(material, why_unsigned),
        Stage("signing", signing.step(material.config.dkim, material.keyring, may_sign=why_unsigned)),
    ]
    if marked is None:
        return [Stage("mark", mark.drop), *stages]
    return [Stage("mark", marked.step), *(replace(stage, step=mark.last_pass_only(stage.step)) for stage in stages)]


def _making_safe(material: Material, why_unsigned: signing.MaySign) -> list[Stage]:
    """Behind all that changes the body; only for mail that will be signed."""
    dkim, ring = material.config.dkim, material.keyring
    if not (dkim.make_safe and dkim.signs):
        return []

    def will_sign(draft: Draft) -> bool:
        return not why_unsigned(draft) and ring.signs(draft.from_domain, signing.local_part(draft, dkim))

    return [Stage("make_safe", safe.step(dkim, will_sign=will_sign, size_limit=material.size_limit), spare=True)]


def levels(loaded: Loaded) -> Levels:
    """The limits and rules of quotas, with the files that these name."""
    problems = list(rules.files(loaded, permissions.myself()))
    if problems:
        raise ConfigError(problems)
    return Levels(loaded.config.quota)


def _mint(loaded: Loaded) -> Mint | None:
    """Secrets are needed only where some section of `tracking` has a url."""
    if not any(True for _ in tracked_urls(loaded.config)):
        return None
    return Mint(_secrets(loaded, "tracking.secrets", loaded.config.tracking.secrets))


def _marker(loaded: Loaded) -> Marker | None:
    """Marks are made only where some service gets mail back from a content filter."""
    if not loaded.config.senders.refiltered:
        return None
    return Marker(_secrets(loaded, "bounces.secrets", loaded.config.bounces.secrets))


def tagger(loaded: Loaded) -> Tagger | None:
    """What makes and knows the tags of return paths; None where nothing comes back to us."""
    if not tags_returns(loaded.config):
        return None
    return Tagger(_secrets(loaded, "bounces.secrets", loaded.config.bounces.secrets))


def _secrets(loaded: Loaded, key: str, path: Path) -> tuple[bytes, ...]:
    try:
        return parse_secrets(path.read_text("ascii"))
    except (OSError, ValueError) as error:
        fix = f"mend that line, or make the file: openssl rand -hex 32 >> {path}"
        raise ConfigError([loaded.problem(key, f"{path}: {error}", fix)]) from None
