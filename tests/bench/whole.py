"""postmeter with every step on and keys for ten domains, without a Postfix.

Knows nothing of what is measured.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.bench.rows import SETTINGS
from tests.lab.folder import give
from tests.lab.product import Postmeter, merge

DOMAINS = 10
_EVERY_STEP = {
    "milter": {"message_size_limit": "200M"},
    "suppression": {"observe": False, "mail": "all"},
    "quota": {"brake": {"mode": "observe"}},
    "tracking": {"max_size": "200M", "max_links": 50, "opens": True, "unsubscribe": True},
}


def working(settings: Mapping[str, Any], folder: Path, *, daemons: Sequence[str]) -> Postmeter:
    """Not yet started; the settings go on top."""
    ours = Postmeter(merge(merge(SETTINGS, _EVERY_STEP), settings), daemons=daemons, folder=folder)
    for domain in ("example.com", *(f"d{nth}.example.com" for nth in range(1, DOMAINS))):
        ours.key(domain, "bench")
    secrets = ours.secrets()
    tags = shutil.copy2(secrets, secrets.with_name("bounces.secrets"))
    shutil.chown(tags, ours.user)
    ours.settings["bounces"] = {"domains": {"example.com": "bounces@example.com"}, "secrets": str(tags)}
    return ours


@contextmanager
def running(settings: Mapping[str, Any], *, daemons: Sequence[str] = ("milter", "books")) -> Iterator[Postmeter]:
    """Started, in a folder of its own that goes with it."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="postmeter-bench-", dir="/var/tmp"))
        yield stack.enter_context(working(settings, give(Path(folder), "root") / "postmeter", daemons=daemons))


def socket_of(ours: Postmeter) -> Path:
    """Where its milter listens."""
    return Path(ours.milter.removeprefix("unix:"))
