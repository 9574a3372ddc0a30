"""A worker: libmilter in one process, on a listening socket that somebody else owns.

Registers on pymilter's C module (its Python classes cost a quarter of the time of a message), negotiates only what is
used, and leaves in order: it stops accepting, serves its sessions to their end, and is gone. Knows nothing of what is
decided about mail. libmilter's xxfi_negotiate page, milter-protocol; D22 to D26, D39.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, perf_counter
from typing import Any, NoReturn

import milter

from postmeter.runtime.logs import OnceAMinute
from postmeter.runtime.prefork import RETIRED
from postmeter.submission.door import Door
from postmeter.submission.pipeline import BUG
from postmeter.submission.session import Desk, Session, answer

log = logging.getLogger(__name__)
once = OnceAMinute(log)

# What may be asked of the MTA (mfapi.h SMFIF_*): add and insert fields, change the body, change fields, put on hold,
# change its return path, name macros; remove recipients.
ADD_FIELDS, CHANGE_BODY, CHANGE_FIELDS, QUARANTINE, CHANGE_SENDER, NAME_MACROS = 0x01, 0x02, 0x10, 0x20, 0x40, 0x100
DELETE_RECIPIENTS = 0x08
# What the MTA need not send or wait for (mfapi.h SMFIP_*).
NO_HELO, NO_UNKNOWN, NO_DATA = 0x02, 0x100, 0x200
NO_REPLY_CONNECT, NO_REPLY_RCPT, NO_REPLY_HEADER, NO_REPLY_BODY = 0x1000, 0x8000, 0x80, 0x80000
LEADING_SPACE = 0x100000
NO_REPLY = 7  # mfapi.h SMFIS_NOREPLY; pymilter has no name for it
AT_MAIL = 2  # mfapi.h SMFIM_ENVFROM

ACTIONS = ADD_FIELDS | CHANGE_BODY | DELETE_RECIPIENTS | CHANGE_FIELDS | QUARANTINE | CHANGE_SENDER
SILENT = NO_REPLY_CONNECT | NO_REPLY_RCPT | NO_REPLY_HEADER | NO_REPLY_BODY
STEPS = NO_HELO | NO_UNKNOWN | NO_DATA | SILENT | LEADING_SPACE

_LAST = 60.0  # seconds at most in which a session that goes on is sent away
_CALM = 20  # tenths of a second without a session, after which nobody else is on the way
_GRACE = 5  # seconds beyond, after which the kernel ends a process that hangs: the parent may be gone

Callback = Callable[..., int]
Hearer = Callable[..., None]
"""What a session does with an event that is not answered; gets the session, then the event as libmilter tells it."""
Speaker = Callable[..., int]
"""What a session answers to an event; gets the session, the context, then the event as libmilter tells it."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How a worker ends: when `control` reads anything it takes no more; the rest has `linger` or `drain` seconds."""

    listener: socket.socket
    control: int
    drain: float
    ready: Callable[[], None]
    tick: Callable[[], None]
    """Called about once a second."""
    close: Callable[[], None]
    """Called last: what is still in memory is written down."""
    left: Callable[[], None] = lambda: None
    """Called when nothing more is accepted."""
    linger: float = 0.0


def serve(desk: Desk, shift: Shift) -> NoReturn:
    """Run libmilter on the shared listener until the shift ends; never returns."""
    with tempfile.TemporaryDirectory(prefix="postmeter-") as private, _near(private) as folder:
        _register(desk, _throw_away(shift.listener, folder / "libmilter"))
        fd = _open_listener(shift.listener)
        dead = _dead_listener(folder / "dead")
    door = Door(fd, shift.listener, dead, most=desk.load.most_connections)
    shift.ready()
    Thread(target=_watch, args=(desk, shift, door), daemon=True).start()
    milter.main()
    shift.close()
    os._exit(0)


@contextmanager
def _near(folder: str) -> Iterator[Path]:
    """Another name of it, for a while: a socket's address has 108 octets (unix(7)), and TMPDIR may be longer."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _throw_away(shared: socket.socket, path: Path) -> str:
    """An address for libmilter to open, of the shared listener's family: it drops connections of any other family."""
    places = {socket.AF_UNIX: f"unix:{path}", socket.AF_INET: "inet:0@127.0.0.1", socket.AF_INET6: "inet6:0@::1"}
    return places[socket.AddressFamily(shared.family)]


def _register(desk: Desk, place: str) -> None:
    milter.setconn(place)
    milter.set_exception_policy(milter.TEMPFAIL)
    for name, callback in _callbacks(desk).items():
        getattr(milter, f"set_{name}_callback")(callback)
    # Over inet the macros of an unwanted DATA are a packet without a reply, for whose acknowledgement Nagle holds back
    # the next one: 44 ms. A reply brings it at once (D40).
    steps = STEPS if place.startswith("unix:") else STEPS & ~NO_DATA
    if desk.rcpt_gates:
        steps &= ~NO_REPLY_RCPT
    milter.register("postmeter", data=_data, negotiate=_negotiator(desk, steps))


def _open_listener(shared: socket.socket) -> int:
    """Have libmilter open its socket, and find the descriptor that it keeps to itself (D39).

    Whoever started us may have left us other listeners.
    """
    before = _listening_apart(shared)
    milter.opensocket(False)
    for fd in _listening_apart(shared) - before:
        return fd
    raise RuntimeError("libmilter's listening socket was not found")


def _listening_apart(shared: socket.socket) -> set[int]:
    return {fd for fd in map(int, os.listdir("/proc/self/fd")) if _listens_apart(fd, shared)}


def _listens_apart(fd: int, shared: socket.socket) -> bool:
    """Whether it is a listening socket of the same family, and not the shared one."""
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False  # looked at first: a duplicate that becomes no socket would stay open, of our pipes too
        with socket.socket(fileno=os.dup(fd)) as twin:
            listens = twin.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            return bool(listens) and twin.family == shared.family and twin.getsockname() != shared.getsockname()
    except OSError:  # closed by now
        return False


def _dead_listener(path: Path) -> socket.socket:
    """A listener that nobody can find: laid over the shared one, it ends accepting and leaves sessions alone (D39)."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.listen()
    dead.setblocking(False)
    return dead


def _watch(desk: Desk, shift: Shift, door: Door) -> None:
    """Wait for the end of the shift, stop accepting, let sessions end, go. What can go on no more asks to be relieved.

    libmilter's own stop would cut messages in flight (D23): `_exit` it is.
    """
    fit = True
    while not select.select([shift.control], [], [], 1.0)[0]:
        shift.tick()
        if fit and not door.look():
            fit = _leave(shift, door)
    if fit:
        _leave(shift, door)
    _see_out(desk, shift)
    shift.close()
    os._exit(0)


def _leave(shift: Shift, door: Door) -> bool:
    door.shut()
    shift.left()
    return False


def _see_out(desk: Desk, shift: Shift) -> None:
    """Until no session is left, or time is up. A stop shortens it when others were to serve in our place.

    Near the end a session that begins another message is sent away with 421; what is then still idle between two
    messages goes with the process.
    """
    word = os.read(shift.control, 1)
    patience = max(shift.linger, shift.drain) if word else shift.drain
    end, quiet = monotonic() + patience, 0
    signal.alarm(int(patience) + _GRACE)
    # Who has been let in may not have said a word yet; nobody waits for one who was relieved.
    while monotonic() < end and quiet < (_CALM if word else 3):
        desk.load.leaving = monotonic() > end - min(patience / 4, _LAST)
        quiet = quiet + 1 if desk.load.sessions == 0 else 0
        if select.select([shift.control] if word == RETIRED else [], [], [], 0.1)[0]:
            word = os.read(shift.control, 1)
            end = end if word else min(end, monotonic() + shift.drain)


def _data(ctx: milter.milterContext) -> int:
    return int(milter.CONTINUE)


def _negotiator(desk: Desk, steps: int) -> Callable[[Any, list[int]], int]:
    def negotiate(ctx: milter.milterContext, options: list[int]) -> int:
        """Ask for what is used and no more (D25); with certificates, for their name at MAIL besides (D26, D27)."""
        offered_actions, offered_steps = options[0], options[1]
        if ACTIONS & ~offered_actions or STEPS & ~offered_steps:
            log.error("the MTA offers actions %#x and steps %#x: too old, not served", offered_actions, offered_steps)
            return milter.REJECT
        desk.load.enter()
        ctx.setpriv(Session(desk))
        options[0], options[1], options[2], options[3] = _actions(desk), steps, 0, 0
        if desk.certificates and offered_actions & NAME_MACROS:
            options[0] |= NAME_MACROS
            ctx.setsymlist(AT_MAIL, "i {auth_authen} {daemon_name} {cert_subject}")
        return milter.CONTINUE

    return negotiate


def _actions(desk: Desk) -> int:
    """What the steps may do to a message, and nothing while they are only observed. Fields may have to go in any."""
    if desk.observe:
        return 0
    adds = desk.signs or desk.rewrites or desk.returns or desk.marks is not None
    wanted = (ADD_FIELDS, adds), (CHANGE_BODY, desk.rewrites), (QUARANTINE, desk.holds)
    envelope = (CHANGE_SENDER, desk.returns), (DELETE_RECIPIENTS, desk.drops)
    return CHANGE_FIELDS + sum(action for action, asked in (*wanted, *envelope) if asked)


def _callbacks(desk: Desk) -> dict[str, Callback]:
    """libmilter's callbacks. Each finds its session, and answers as the negotiation promised, whatever happens (D6)."""

    def abort(ctx: milter.milterContext) -> int:
        ctx.getpriv().abort()
        return milter.CONTINUE

    def close(ctx: milter.milterContext) -> int:
        session = ctx.getpriv()
        ctx.setpriv(None)
        if session is not None:
            try:
                session.abort()
            finally:
                desk.load.leave()
        return milter.CONTINUE

    silent: dict[str, Hearer] = {"connect": Session.connect, "header": Session.header, "body": Session.body}
    spoken: dict[str, Speaker] = {"eoh": Session.end_of_header, "eom": Session.end_of_message}
    spoken["envfrom"] = Session.mail
    if desk.rcpt_gates:
        spoken["envrcpt"] = Session.rcpt
    else:
        silent["envrcpt"] = Session.recipient
    return {
        **{name: _silent(name, hear) for name, hear in silent.items()},
        **{name: _spoken(desk, name, speak) for name, speak in spoken.items()},
        "abort": abort,
        "close": close,
    }


def _spoken(desk: Desk, name: str, speak: Speaker) -> Callback:
    """A callback that is answered: timed, and never left by an exception."""
    stage, took = {"envfrom": "mail", "envrcpt": "rcpt"}.get(name, name), desk.recorder.took

    def guarded(ctx: milter.milterContext, *args: Any) -> int:
        start = perf_counter()
        try:
            return speak(ctx.getpriv(), ctx, *args)
        except Exception as error:  # the last boundary before C: a bug becomes the policy's answer, once
            _tell(name, error)
            return _after_bug(ctx, name)
        finally:
            took(stage, perf_counter() - start)

    return guarded


def _silent(name: str, hear: Hearer) -> Callback:
    """A callback whose reply nobody waits for: a bug is kept for the end of the message."""

    def guarded(ctx: milter.milterContext, *args: Any) -> int:
        session = ctx.getpriv()
        try:
            hear(session, *args)
        except Exception as error:  # as above, but this event may not be answered (D6)
            _tell(name, error)
            if session is not None:
                session.broken = True
        return NO_REPLY

    return guarded


def _tell(name: str, error: Exception) -> None:
    """A message may have thousands of fields, and all mail the same bug."""
    once.log(logging.ERROR, f"{name} {type(error).__name__}", "bug in callback %s", name, exc_info=True)


def _after_bug(ctx: milter.milterContext, where: str) -> int:
    session = ctx.getpriv()
    if session is None:
        return answer(ctx, BUG)
    return int(session.fail(ctx, where))
