"""The text of an unstructured header value, as a person would read it.

Pure, linear in the input, and never raises: lines are unfolded (RFC 5322 section 2.2.3), encoded words decoded (RFC
2047 section 4); one that cannot be decoded stays as it stands. Octets above ASCII are UTF-8 (RFC 6532), else Latin-1.
"""

from __future__ import annotations

import binascii
import re

_ENCODED = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?\s]*)\?=")
_GAP = re.compile(r"(?<=\?=)[ \t]+(?==\?)")  # between encoded words it is not there (RFC 2047 section 6.2)
_CHARSETS = re.compile(
    r"utf-?8|us-ascii|ascii|iso-8859-\d\d?|iso-2022-(?:jp|kr)|windows-125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|euc-(?:jp|kr)|shift_jis",
    re.IGNORECASE,
)
"""Python knows more, some of which take time that grows with the square of the input."""


def text(value: bytes) -> str:
    try:
        raw = value.decode("utf-8")
    except UnicodeDecodeError:
        raw = value.decode("latin-1")
    line = raw.replace("\r", "").replace("\n", "")
    if "=?" in line:
        line = _ENCODED.sub(_decoded, _GAP.sub("", line))
    return line.strip()


def _decoded(found: re.Match[str]) -> str:
    charset, kind, encoded = found.groups()
    if not _CHARSETS.fullmatch(charset):
        return found[0]
    try:
        octets = binascii.a2b_base64(encoded) if kind in "bB" else binascii.a2b_qp(encoded, header=True)
        return octets.decode(charset)
    except (ValueError, LookupError):  # no base64, no ASCII, not of that charset; iso-8859-12 was never made
        return found[0]
