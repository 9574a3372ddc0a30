"""`postmeter milter`: the daemon that Postfix talks to."""

from __future__ import annotations

import gc
import logging
import os
from argparse import Namespace
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

from postmeter.cli.command import FOUND_A_PROBLEM, Command, no_arguments
from postmeter.config.check import cannot_bind, check
from postmeter.config.load import Loaded, load_with_lines
from postmeter.config.problem import ConfigError
from postmeter.config.schema import Config
from postmeter.runtime import heap, heartbeat, logs
from postmeter.runtime.kept import Kept, KeptError
from postmeter.runtime.listener import listen
from postmeter.runtime.prefork import Generation, Post, Prefork
from postmeter.store import database, migrations
from postmeter.store.database import Database, StoreError

if TYPE_CHECKING:
    from postmeter.cli.daemons import Material
    from postmeter.mail.draft import Draft
    from postmeter.store.accounts import Accounts
    from postmeter.store.orders import Standing
    from postmeter.submission.quota import Quotas
    from postmeter.submission.record import Recorder

log = logging.getLogger(__name__)

# What workers serve with, read before they are forked: by then an upgrade may have replaced it.
_NEEDED = ("postmeter.submission.server", "postmeter.submission.record", "postmeter.submission.standing",
           "postmeter.sealed")  # fmt: skip

_GIVES_BACK = 10.0  # seconds between two moments in which a worker's free memory goes back to the system


def run(args: Namespace) -> int:
    """Check everything, bind, serve until told to stop."""
    loaded = load_with_lines(args.config)
    config = loaded.config
    logs.set_up(config.log, daemon="milter")
    heap.bound()
    first = _generation(loaded)
    try:
        _prepare(database.open(config.journal.path, sync=config.journal.sync))
    except StoreError as error:
        log.error("not started: %s", error)
        return FOUND_A_PROBLEM
    try:
        listener = listen(config.milter, Kept.from_environment())
    except KeptError as error:
        raise ConfigError([loaded.problem("milter.listen", str(error), "let both name one address")]) from None
    except OSError as error:
        raise ConfigError([cannot_bind(loaded, "milter.listen", config.milter.listen, error)]) from None
    log.info("listening on %s, mode %s", config.milter.listen, config.mode)
    parent = Prefork(listener, first, reload=_reloader(config, args.config), beat=_beater(config))
    return FOUND_A_PROBLEM if parent.run() else 0


def _prepare(book: Database) -> None:
    """Closed before the fork, which no connection may cross. Mail goes on with a newer version's journal: who goes back
    in need has no other, and whether it does is soon seen."""
    with closing(book):
        newer = migrations.newer(str(name) for (name,) in book.query("SELECT name FROM migrations"))
    if newer:
        text = "%s: a newer version has been at work with it (%s): the way back is the backup from before it"
        log.warning(text, book.path, ", ".join(newer))


def _generation(loaded: Loaded) -> Generation:
    """Raises ConfigError for what would keep a worker from serving."""
    from postmeter.cli import daemons, postfix

    problems = [*check(loaded), *postfix.expiry(loaded)]
    errors = [problem for problem in problems if problem.severity == "error"]
    if errors:
        raise ConfigError(errors)
    for problem in problems:
        log.warning("%s", problem)
    material = daemons.prepare(loaded)
    milter = loaded.config.milter
    workers = processes(milter.workers)
    for name in _NEEDED:
        import_module(name)
    _share()
    return Generation(lambda post: _serve(material, post), workers, milter.drain, milter.linger)


def processes(workers: int | str) -> int:
    """How many workers that is: `auto` is one per processor that we may use (sched_setaffinity(2))."""
    return len(os.sched_getaffinity(0)) if isinstance(workers, str) else workers


def _share() -> None:
    """What the workers will have in common stays so: their collectors leave it alone. An earlier generation's goes."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _serve(material: Material, post: Post) -> None:
    """In a worker: open the journal, wire the parts, hand over to libmilter."""
    from postmeter.cli import daemons
    from postmeter.submission import standing
    from postmeter.submission.levels import may_hold
    from postmeter.submission.load import Load
    from postmeter.submission.pipeline import Gate
    from postmeter.submission.quota import Quotas
    from postmeter.submission.server import Shift, serve
    from postmeter.submission.session import Desk

    config = material.config
    settler = _open(daemons.settler(config))
    observe = config.mode == "observe"
    orders = daemons.orders(config)
    quotas = Quotas(
        config.quota, settler, levels=material.levels, override=orders.limits, look=observe, observe=observe
    )
    stops = standing.rules(orders, config.quota.brake)
    own = daemons.notices(config)
    who = daemons.identity(material, own)
    marked = daemons.marks(material, who, settler)
    recorder = _recorder(config, settler, quotas, spend=own.spend, orders=orders)
    suppress = daemons.suppress(config, settler)
    desk = Desk(
        identity=who,
        gates=(
            *standing.gates(stops),
            Gate("quota", lambda envelope, recipient: quotas.gate(envelope, recipient, time())),
        ),
        rcpt_gates=(Gate("suppression", suppress.gate),) if suppress.gates else (),
        pipeline=daemons.pipeline(
            material, who=who, own=own, stops=stops, quotas=quotas, marked=marked, suppress=suppress
        ),
        marks=marked,
        recorder=recorder,
        load=Load(max_sessions=config.milter.max_sessions, max_memory=config.milter.max_memory),
        observe=observe,
        tolerant=config.milter.on_bug == "accept",
        certificates=config.senders.certificates,
        signs=config.dkim.signs,
        drops=not config.suppression.observe,
        returns=material.tagger is not None,
        holds=may_hold(config.quota),
        rewrites=material.mint is not None or (config.dkim.signs and config.dkim.make_safe),
        reference=daemons.reference,
    )
    drain, linger = config.milter.drain, config.milter.linger
    give_back = _every(_GIVES_BACK, heap.give_back)

    def tick() -> None:
        recorder.tick()
        give_back()

    serve(desk, Shift(post.listener, post.control, drain, post.ready, tick, recorder.close, post.left, linger))


def _recorder(
    config: Config, settler: Accounts, quotas: Quotas, *, spend: Callable[[Draft], bool], orders: Standing
) -> Recorder:
    from postmeter.cli import daemons
    from postmeter.submission.record import Recorder

    return Recorder(
        settler,
        quotas,
        observe=config.mode == "observe",
        tolerant=config.journal.on_error == "accept",
        uncharged=config.quota.on_store_down == "accept",
        hold_at_most=config.quota.hold_at_most,
        spend=spend,
        watch=daemons.watch(config, orders),
        brake=daemons.brake(config),
        prefix=config.quota.networks.prefix,
    )


def _open(settler: Accounts) -> Accounts:
    """A worker of a later hour must come up without a journal too: then its failure policy holds, as for the others."""
    try:
        settler.open()
    except StoreError as error:
        log.error("the journal cannot be written: %s", error)
    return settler


def _reloader(first: Config, file: Path) -> Callable[[], Generation | None]:
    """A bad configuration changes nothing; an address that moved needs a restart, since the parent owns the socket."""

    def reload() -> Generation | None:
        try:
            loaded = load_with_lines(file)
            generation = _generation(loaded)
        except ConfigError as error:
            log.error("not reloaded, the old configuration goes on: %s", error)
            return None
        config = loaded.config
        if _fixed(config) != _fixed(first):
            log.error("not reloaded: milter.listen, its mode and group, and journal.path change by a restart only")
            return None
        logs.set_up(config.log, daemon="milter")
        return generation

    return reload


def _fixed(config: Config) -> tuple[object, ...]:
    """What is made once, by the parent."""
    milter = config.milter
    return milter.listen, milter.socket_mode, milter.socket_group, config.journal.path


def _beater(config: Config) -> Callable[[], None]:
    place = heartbeat.place(config.journal.path.parent, "milter")
    return _every(heartbeat.EVERY, lambda: heartbeat.beat(place))


def _every(seconds: float, do: Callable[[], None]) -> Callable[[], None]:
    """To be called often: does it at the first call, and then when so many seconds have passed."""
    due = 0.0

    def perhaps() -> None:
        nonlocal due
        if monotonic() >= due:
            due = monotonic() + seconds
            do()

    return perhaps


COMMANDS = (
    Command("milter", "the daemon that Postfix talks to", "postmeter milter -c postmeter.yaml", no_arguments, run),
)
