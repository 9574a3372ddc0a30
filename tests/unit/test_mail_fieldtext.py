"""The text of header values: against the email package, and linear whatever is in them."""

from __future__ import annotations

from email.header import Header, decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail.fieldtext import text

_PRINTABLE = st.text(st.characters(blacklist_categories=("C", "Z")), min_size=1, max_size=120)


@given(said=_PRINTABLE, charset=st.sampled_from(["utf-8", "iso-8859-1", "iso-2022-jp", "us-ascii"]))
def test_what_the_email_package_writes_is_read_as_it_reads_it(said: str, charset: str) -> None:
    """Folded over several lines and encoded words."""
    try:
        said.encode(charset)
    except UnicodeEncodeError:
        charset = "utf-8"
    wire = Header(said, charset, maxlinelen=60, header_name="X-Mailgun-Tag").encode(linesep="\n")
    if "=?" in said and charset == "us-ascii":  # not encoded by it, though it looks so
        return
    assert text(b" " + wire.encode()) == str(make_header(decode_header(wire))).strip()


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b" a\n\tb\r\n c ", "a\tb c"),
        (b" gr\xc3\xbcn", "gr\u00fcn"),
        (b" gr\xfcn", "gr\u00fcn"),
        (b" =?UTF-8*de?Q?gr=C3=BCn?=", "gr\u00fcn"),
        (b" =?utf-8?q?a_b?=\n =?utf-8?b?Yw==?= d", "a bc d"),
        (b" =?utf-8?b?A?= =?utf-8?q?=FF?= =?x-none?q?a?= =?zlib?q?a?= =?idna?q?a?=",
         "=?utf-8?b?A?==?utf-8?q?=FF?==?x-none?q?a?==?zlib?q?a?==?idna?q?a?="),
        (b"", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_decoded_stays(value: bytes, said: str) -> None:
    assert text(value) == said


@given(value=st.binary(max_size=60) | st.text("=?qBb utf-8\n\xfc", max_size=60).map(str.encode))
def test_nothing_raises(value: bytes) -> None:
    assert "\n" not in text(value)
