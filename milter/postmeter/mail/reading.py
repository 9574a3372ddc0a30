"""A message file taken apart as Postfix's cleanup(8) would hand it to a milter.

Pure; changes no octet but line ends. RFC 5322 section 2.2, Postfix's is_header(3); mbox's `From ` line is dropped.
"""

from __future__ import annotations

import re

from postmeter.mail.message import Field

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)


def read(raw: bytes) -> tuple[tuple[Field, ...], bytes]:
    """Fields and body; a line that is no field begins the body (RFC 5322 does not allow it, mail has it)."""
    lines = crlf(raw).split(b"\r\n")
    if lines and lines[0].startswith(b"From "):
        del lines[0]
    fields: list[Field] = []
    for number, line in enumerate(lines):
        if line == b"":
            return tuple(fields), b"\r\n".join(lines[number + 1 :])
        match = _FIELD.fullmatch(line)
        if line[:1] in (b" ", b"\t") and fields:
            fields[-1] = Field(fields[-1].name, fields[-1].value + b"\n" + line)
        elif match:
            fields.append(Field(match[1], match[2]))
        else:
            return tuple(fields), b"\r\n".join(lines[number:])
    return tuple(fields), b""


def crlf(raw: bytes) -> bytes:
    """Every line end as CRLF; a CR that ends no line stays (D36). What has them already is not copied."""
    if raw.count(b"\n") == raw.count(b"\r\n"):
        return raw
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
