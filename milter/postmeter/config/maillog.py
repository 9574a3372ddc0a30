"""Whether the user that keeps the books may read Postfix's log, be it a file or the systemd journal.

Looks and changes nothing. A unit of systemd may give its daemon groups that the user itself does not have
(systemd.exec(5), SupplementaryGroups); journalctl(1) says which groups read the journal.
"""

from __future__ import annotations

import grp
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from postmeter.config import permissions
from postmeter.config.load import Loaded
from postmeter.config.permissions import Person
from postmeter.config.problem import Problem

MAIL_LOG = Path("/var/log/mail.log")
"""What rsyslog writes in Debian."""

UNITS = tuple(Path(folder, "systemd/system") for folder in ("/etc", "/run", "/usr/lib", "/lib"))
_READERS = ("systemd-journal", "adm", "wheel")
_JOURNALS = (Path("/var/log/journal"), Path("/run/log/journal"))


def of_log(
    loaded: Loaded, me: Person, *, units: Iterable[Path] = UNITS, mail_log: Path | None = None
) -> Iterator[Problem]:
    """`delivery.log`, for `me` with the groups that a unit of the books would add."""
    where, mail_log = loaded.config.delivery.log, mail_log or MAIL_LOG
    reader = replace(me, gids=me.gids | _added(me, units))
    if isinstance(where, Path):
        yield from _of_file(loaded, where, reader)
    elif where == "journald" and shutil.which("journalctl") is None:
        yield loaded.warning("delivery.log", "there is no journalctl to read the journal with", "name Postfix's file")
    elif not _reads_journal(reader) and (where == "journald" or not os.path.exists(mail_log)):
        if any(each.exists() for each in _JOURNALS):
            what = f"{me.name} may not read the systemd journal: nothing will be known of deliveries"
            yield loaded.warning("delivery.log", what, _join("systemd-journal", me))
    elif where == "auto" and os.path.exists(mail_log) and not _reads_journal(reader):
        yield from _of_file(loaded, mail_log, reader)


def _of_file(loaded: Loaded, path: Path, reader: Person) -> Iterator[Problem]:
    if not os.path.exists(path) and permissions.barrier(path, reader) is None:
        what = f"there is no {path}: nothing is known of deliveries until something writes it"
        fix = "see where Postfix logs (postconf maillog_file; ls /var/log), or write journald"
        yield loaded.warning("delivery.log", what, fix)
        return
    fault = permissions.unreadable(path, reader, "")
    if fault:
        group = permissions.group_name(path.stat().st_gid) if os.path.exists(path) else ""
        shared = bool(group) and group != "root" and path.stat().st_mode & 0o040
        fix = _join(group, reader) if shared else fault.fix
        yield loaded.warning("delivery.log", f"{fault.what}: nothing will be known of deliveries", fix)


def _join(group: str, me: Person) -> str:
    return f"usermod -a -G {group} {me.name}, then restart postmeter books"


def _reads_journal(who: Person) -> bool:
    return who.uid == 0 or bool(who.gids & set(_ids(_READERS)))


def _added(me: Person, units: Iterable[Path]) -> frozenset[int]:
    """Groups that the unit gives; of the first that is there, as systemd.unit(5) chooses, with its drop-ins."""
    folders = [folder for folder in units if (folder / "postmeter-books.service").is_file()][:1]
    files = [folder / "postmeter-books.service" for folder in folders]
    files += [drop for folder in units for drop in sorted(folder.glob("postmeter-books.service.d/*.conf"))]
    lines = [line.strip().partition("=") for file in files for line in _text(file).splitlines()]
    if folders and me.name not in [value.strip() for name, _, value in lines if name.strip() == "User"]:
        return frozenset()
    words = (value.split() for name, _, value in lines if name.strip() == "SupplementaryGroups")
    return frozenset(_ids(word for group in words for word in group))


def _text(file: Path) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError:
        return ""


def _ids(names: Iterable[str]) -> Iterator[int]:
    for name in names:
        try:
            yield grp.getgrnam(name).gr_gid
        except KeyError:
            continue
