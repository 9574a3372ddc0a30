"""The certificate of the tracking server: whether it and its key are there, fit together, and who may read them.

Looks and changes nothing. ssl.SSLContext.load_cert_chain tells whether they fit.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

from postmeter.config import permissions
from postmeter.config.load import Loaded
from postmeter.config.permissions import READ, Person, unreadable
from postmeter.config.problem import Problem


def of_web(loaded: Loaded, me: Person) -> Iterator[Problem]:
    """`web.certificate` and `web.key`."""
    web = loaded.config.web
    if web.certificate is None or web.key is None:
        if web.certificate is not None:
            yield loaded.problem("web.certificate", "a certificate without its key", "name its key in web.key")
        elif web.key is not None:
            yield loaded.problem("web.key", "a key without its certificate", "name it in web.certificate")
        return
    for path, file in (("web.certificate", web.certificate), ("web.key", web.key)):
        fault = unreadable(file, me, f"put it there, or change {path}")
        if fault:
            yield loaded.problem(path, fault.what, fault.fix)
            return
    if web.key.stat().st_mode & 0o007:
        yield loaded.problem("web.key", f"{web.key} is open to others", f"chmod o= {web.key}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(web.certificate, web.key, password=str)
    except (OSError, ValueError) as error:
        what = f"{web.certificate} and {web.key} cannot be used: {getattr(error, 'reason', '') or error}"
        yield loaded.problem("web.certificate", what, "PEM, the server's own first, and its key without a password")
    yield from _renewals(loaded, me, web.certificate, web.key)


def _renewals(loaded: Loaded, me: Person, *files: Path) -> Iterator[Problem]:
    """Root reads them once, before it becomes the user who has to read their successors."""
    name = loaded.config.web.user
    user = permissions.person(name) if name and me.uid == 0 else None
    for path, file in zip(("web.certificate", "web.key"), files, strict=True):
        if user and (permissions.barrier(file, user) or not permissions.may(user, file.stat(), READ)):
            what = f"{user.name} may not read {file}: a renewed one would not be noticed before a restart"
            yield loaded.warning(path, what, f"let the group {permissions.group_name(user.gid)} read it")
