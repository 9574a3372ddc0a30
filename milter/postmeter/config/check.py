"""What only the machine can tell about a configuration, before the first message is accepted.

Files, modes, users, sockets; looks and changes nothing. Private keys are judged where they are loaded, by those who
sign. Each complaint stands at the line of its key.
"""

from __future__ import annotations

import errno
import grp
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from postmeter.config import nobody, permissions, rules, tls
from postmeter.config.amounts import DAY
from postmeter.config.load import Loaded
from postmeter.config.outgoing import of_webhooks
from postmeter.config.permissions import ENTER, READ, WRITE, Fault, Person
from postmeter.config.problem import Problem
from postmeter.config.remote import of_store
from postmeter.config.returning import of_returns
from postmeter.config.schema import Config, InetAddress, SocketAddress, UnixAddress
from postmeter.config.secret_files import of_bounces, of_tracking, tags_returns, tracked_urls
from postmeter.config.shipping import of_shipping
from postmeter.config.unsubscribing import of_unsubscribes

Daemon: TypeAlias = Literal["milter", "web", "books"]

_RETURNS = 7 * DAY  # Postfix tries for 5 days (maximal_queue_lifetime), and so do others
_LONGEST_SOCKET = 107  # unix(7): sun_path has 108 bytes, the last one is NUL


def check(
    config: Config | Loaded, *, daemon: Daemon = "milter", me: Person | None = None, mail_owner: str = "postfix"
) -> list[Problem]:
    """What would keep that daemon, run by `me`, from its work. A `Loaded` lets complaints name file and line.

    `mail_owner` is the user that Postfix runs as (postconf(5)); where there is none such, nothing is asked of it.
    """
    loaded = config if isinstance(config, Loaded) else Loaded(config, "configuration")
    me = me or permissions.myself()
    found = [*_clashes(loaded)]
    if daemon == "milter":
        found += [*_listen(loaded, me, mail_owner), *rules.problems(loaded, me), *nobody.problems(loaded)]
        found += [*_refiltered(loaded), *of_bounces(loaded, me), *of_unsubscribes(loaded)]
        found += of_returns(loaded)
    if daemon != "books":
        found += [*_urls(loaded), *of_tracking(loaded, me)]
    if daemon == "web" or (daemon == "milter" and any(tracked_urls(loaded.config))):
        found += _web_user(loaded, me)
    if daemon == "books":
        found += [*of_webhooks(loaded, me), *of_shipping(loaded, me)]
        found += of_bounces(loaded, me) if tags_returns(loaded.config) else ()
        found += _lmtp(loaded, me, mail_owner)
    if daemon == "web":
        found += tls.of_web(loaded, me)
    if daemon != "web":
        found += [*_journal(loaded, me), *_kept(loaded), *of_store(loaded, me)]
    return sorted(found, key=lambda problem: problem.line)


def whose(config: Config) -> Person:
    """Whom to check for: ourselves, or, for root, the user that the state directory belongs to."""
    me = permissions.myself()
    return permissions.owner(config.journal.path.parent) or me if me.uid == 0 else me


def cannot_bind(loaded: Loaded, path: str, address: SocketAddress, error: OSError) -> Problem:
    """For the daemon that finds at bind(2) what no look beforehand can tell."""
    if error.errno == errno.EADDRINUSE:
        return loaded.problem(
            path, f"{address} is in use", f"stop what listens there ({_finder(address)}), or change it"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return loaded.problem(path, f"{address} is no address of this host", "give one that `ip address` shows")
    if error.errno == errno.EACCES and isinstance(address, InetAddress):
        return loaded.problem(path, f"{address} is a port for root alone", "give a port above 1023")
    return loaded.problem(path, f"cannot listen on {address}: {error.strerror or error}", "give another address")


def _finder(address: SocketAddress) -> str:
    return f"ss -xlp src {address.path}" if isinstance(address, UnixAddress) else f"ss -tlnp sport = :{address.port}"


def _listen(loaded: Loaded, me: Person, mail_owner: str) -> Iterator[Problem]:
    milter = loaded.config.milter
    if isinstance(milter.listen, UnixAddress):
        yield from _unix(loaded, "milter.listen", milter.listen.path, me, mail_owner)
    elif not milter.listen.loopback and not milter.trust_network:
        what = f"{milter.listen} can be reached from the network, and whoever connects can have anything signed"
        yield loaded.problem(
            "milter.listen", what, "listen on 127.0.0.1 or unix:PATH, or set milter.trust_network: true"
        )


def _lmtp(loaded: Loaded, me: Person, mail_owner: str) -> Iterator[Problem]:
    """An address on the network is no worse than port 25, where anybody may send what looks like a bounce."""
    address = loaded.config.bounces.lmtp
    if isinstance(address, UnixAddress):
        yield from _unix(loaded, "bounces.lmtp", address.path, me, mail_owner)


def _clashes(loaded: Loaded) -> Iterator[Problem]:
    """Two of our own sockets on one port."""
    config = loaded.config
    listeners = (
        ("milter.listen", config.milter.listen),
        ("web.listen", config.web.listen),
        ("metrics.listen", config.metrics.listen),
        ("bounces.lmtp", config.bounces.lmtp),
    )
    taken: dict[SocketAddress, str] = {}
    for path, address in listeners:
        if address in taken:
            here, other = (path, taken[address]) if loaded.line(path) else (taken[address], path)
            fix = "give another path" if isinstance(address, UnixAddress) else "give another port"
            yield loaded.problem(here, f"{address} is {other} already", fix)
        elif address is not None:
            taken[address] = path


def _unix(loaded: Loaded, key: str, path: Path, me: Person, mail_owner: str) -> Iterator[Problem]:
    if len(str(path).encode()) > _LONGEST_SOCKET:
        what = f"a socket's path has at most {_LONGEST_SOCKET} bytes, this one {len(str(path).encode())}"
        yield loaded.problem(key, what, "choose a shorter path")
        return
    fault = _place(path, me, f"install -d -o {me.name} -g {mail_owner} -m 2750 {path.parent}") or _taken(path)
    if fault:
        yield loaded.problem(key, fault.what, fault.fix)
        return
    group = _socket_group(loaded)
    if group is None and loaded.config.milter.socket_group and "milter.socket_group" in loaded.lines:
        what = f"there is no group {loaded.config.milter.socket_group}"
        yield loaded.warning("milter.socket_group", what, "make it, or name another or null")
    postfix = permissions.person(mail_owner)
    if postfix is not None:
        yield from _reachable(loaded, key, postfix, path, _group_of_new(path, me, group), ours=me)


def _place(path: Path, me: Person, make: str) -> Fault | None:
    """Why `me` could not make or replace a file of that path; `make` is the command for a directory to be."""
    fault = permissions.barrier(path, me)
    if fault:
        return fault if fault.path.exists() else Fault(fault.path, fault.what, f"make it: {make}")
    if not permissions.may(me, path.parent.stat(), WRITE | ENTER):
        return Fault(path.parent, f"{me.name} may not write in {path.parent}", f"chown {me.name} {path.parent}")
    return None


def _taken(path: Path) -> Fault | None:
    if path.exists() and not path.is_socket():
        return Fault(path, f"{path} is there and is not a socket", "move it away, or choose another path")
    return None


def _socket_group(loaded: Loaded) -> int | None:
    name = loaded.config.milter.socket_group
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        return None


def _reachable(loaded: Loaded, key: str, postfix: Person, path: Path, group: int, *, ours: Person) -> Iterator[Problem]:
    """Whether smtpd and cleanup can walk to the socket and connect to it, which takes the right to write (unix(7))."""
    fault = permissions.barrier(path, postfix)
    if fault:
        yield loaded.problem(key, f"Postfix cannot reach the socket: {fault.what}", fault.fix)
    mode = loaded.config.milter.socket_mode
    if postfix.uid == ours.uid or mode >> (3 if group in postfix.gids else 0) & WRITE:
        return
    name = permissions.group_name(group)
    what = f"Postfix could not write to a socket of group {name} and mode {mode:04o}"
    if not mode >> 3 & WRITE:
        yield loaded.problem("milter.socket_mode", what, 'write "0660"')
    else:
        wanted = permissions.group_name(postfix.gid)
        fix = f"usermod -a -G {wanted} {ours.name}" if ours.uid else f"write {wanted}"
        yield loaded.problem("milter.socket_group", what, fix)


def _group_of_new(path: Path, me: Person, wanted: int | None) -> int:
    """The socket's group: the one asked for if `me` may give it away, or else as open(2) tells."""
    if wanted is not None and (me.uid == 0 or wanted in me.gids):
        return wanted
    state = path.parent.stat()
    return state.st_gid if state.st_mode & stat.S_ISGID else me.gid


def _refiltered(loaded: Loaded) -> Iterator[Problem]:
    """A service is either where our users submit mail, or where a content filter gives it back."""
    senders = loaded.config.senders
    for service in senders.refiltered:
        if service in senders.daemon_names:
            what = f"{service} stands in senders.daemon_names too: mail there would be ours only with a mark"
            yield loaded.problem("senders.refiltered", what, "give the services two names (milter_macro_daemon_name)")


def _urls(loaded: Loaded) -> Iterator[Problem]:
    for path, url in tracked_urls(loaded.config):
        if url.startswith("http:"):
            what = "links over http can be read and changed on their way"
            yield loaded.warning(path, what, "use https as soon as there is a certificate")


def _web_user(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """Whom root makes of the tracking server."""
    name = loaded.config.web.user
    if name and me.uid == 0 and permissions.person(name) is None:
        yield loaded.problem("web.user", f"there is no user {name}", f"adduser --system --group {name}")


def _journal(loaded: Loaded, me: Person) -> Iterator[Problem]:
    path = loaded.config.journal.path
    fault = _place(path, me, f"install -d -o {me.name} -m 0750 {path.parent}")
    if fault is None and path.exists():
        fault = _unwritable(path, me)
    if fault:
        yield loaded.problem("journal.path", fault.what, fault.fix)


def _kept(loaded: Loaded) -> Iterator[Problem]:
    """What was forgotten cannot be had back, and elsewhere 0 is never."""
    keep, addresses = loaded.config.journal.keep, loaded.config.journal.keep_addresses
    if keep < _RETURNS:
        what = "events are deleted before all that comes back has come: it belongs to no message then"
        yield loaded.warning("journal.keep", what, "give 7d or more; for good is 36500d")
    if not addresses:
        what = "0 makes hashes of all recipients at once"
        yield loaded.warning("journal.keep_addresses", what, "give how long traces shall name them; for good is 36500d")


def _unwritable(path: Path, me: Person) -> Fault | None:
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        return Fault(path, f"{path} is not a file", "name a file that may be made there")
    if not permissions.may(me, state, READ | WRITE):
        return Fault(path, f"{me.name} may not write {path}", f"chown {me.name} {path}")
    return None
