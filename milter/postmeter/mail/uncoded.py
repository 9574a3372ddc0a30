"""A message's octets as they stand and with every coding undone, for whoever looks for words in it.

Asks no header what is coded how, so that nothing broken hides anything: quoted-printable is undone throughout (RFC 2045
section 6.7), base64 wherever lines look like it (section 6.8), and so are encoded words (RFC 2047). Of what was not
coded that makes nonsense, which harms no search. Pure, and linear in the input.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from itertools import groupby

_SOFT = re.compile(rb"=[ \t]*\r?\n")
_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_WORD = re.compile(rb"=\?[^?\s]{1,80}\?[bB]\?([A-Za-z0-9+/=]+)\?=")


def readings(raw: bytes) -> Iterator[bytes]:
    """Four of them."""
    yield raw
    yield _OCTET.sub(lambda found: bytes.fromhex(found[1].decode()), _SOFT.sub(b"", raw))
    yield b"".join(_decoded(found[1]) for found in _WORD.finditer(raw))
    lines = (line.strip() for line in raw.split(b"\n"))
    blocks = groupby(lines, lambda line: line != b"" and _BASE64.fullmatch(line) is not None)
    yield b"\n".join(_decoded(b"".join(block)) for coded, block in blocks if coded)


def _decoded(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text)
    except binascii.Error:
        return b""
