"""A line of Postfix's log in a rare form, told in the common one: `stamp host tag: message`.

Containers put their engine's stamp before what Postfix writes to standard output: Docker's json-file driver, and the
CRI log of Kubernetes (`stamp stdout F line`; a `P` is a piece of a longer one, and left alone). That stamp counts, for
it has a zone. metalog puts the tag into brackets; it and BusyBox's `syslogd -S` leave the host out, then it is empty;
`journalctl -o short-precise` and syslog-ng's frac-digits() add a fraction to the old stamp, which is dropped. Knows
nothing of what the line says.
"""

from __future__ import annotations

import json
import re

_OLD = r"[A-Z][a-z]{2} [ 0-3]\d \d\d:\d\d:\d\d"
_ISO = r"\d{4}-\d\d-\d\dT[^ ]{5,30}"
_HEAD = re.compile(
    rf"(?P<stamp>{_OLD}|{_ISO})(?:\.\d{{1,9}})?(?: std(?:out|err) F(?: (?:{_OLD}|{_ISO}))?(?:\.\d{{1,9}})?)? "
    r"(?:\[(?P<tag>[^ ]{1,400})\] |(?P<bare>[^ ]{1,400}: ))?"
)


def common(text: str) -> str | None:
    """None for a line of another form still."""
    if text[:8] == '{"log":"':
        text = _docker(text)
    head = _HEAD.match(text)
    if head is None:
        return None
    who = f" {head['tag']}: " if head["tag"] else f" {head['bare']}" if head["bare"] else ""
    return f"{head['stamp']} {who}{text[head.end() :]}"


def _docker(text: str) -> str:
    """As the CRI log has it; empty for what is no such object."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    line, stamp = entry.get("log"), entry.get("time")
    return f"{stamp} stdout F {line}" if isinstance(line, str) and isinstance(stamp, str) else ""
