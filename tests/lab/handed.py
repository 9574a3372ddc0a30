"""A message as Postfix hands it to a milter: cleanup(8) and smtpd's side of the milter protocol, as far as fields go.

Folded lines are joined by LF (D14), values are cut (D15), and what is no header line ends the header.
"""

from __future__ import annotations

import re

LONGEST = 60_000  # cleanup_message.c: KLUDGE_HEADER_LIMIT
_LINE = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)\r\n")


def handed(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Names and values, and the body."""
    fields: list[tuple[bytes, bytes]] = []
    at = 0
    while match := _LINE.match(raw, at):
        fields.append((match[1], match[2].replace(b"\r\n", b"\n")[: LONGEST - len(match[1])]))
        at = match.end()
    return fields, raw[at:].removeprefix(b"\r\n")
