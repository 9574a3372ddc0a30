"""Views of text in any charset: what looks like ASCII in them is that character for a decoder, too."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postmeter.mail.charset import view

CHARSETS = ["utf-16le", "utf-16be", "iso-2022-jp", "iso-2022-kr", "utf-8", "shift_jis", "big5"]
WORDS = st.lists(
    st.sampled_from(["<a href='x'>", "Text ", "日本語", "カナ", "한국어", "ä€", "\r\n", "&amp;", '"', "𝄞"]),
    max_size=12,
).map("".join)


@given(WORDS, st.sampled_from(CHARSETS))
@example("日本語", "utf-16le")
def test_ascii_in_a_view_is_ascii_at_that_place_of_the_text(text: str, charset: str) -> None:
    """And what is put there is all that a decoder finds changed. UTF-16 without any is taken for something else."""
    text = text.encode(charset, "ignore").decode(charset)
    octets = text.encode(charset)
    seen = view(octets, charset)
    if charset.startswith("utf-16") and text and all(char > "\xff" for char in text):
        assert seen is None
        return
    assert seen is not None
    found = bytes(octet for octet in seen.octets if octet < 0x80).decode("ascii")
    if charset not in ("shift_jis", "big5", "utf-8"):
        assert found == "".join(char for char in text if char < "\x80")
    for at, octet in enumerate(seen.octets):
        if octet < 0x40:
            place = seen.place(at)
            assert octets[place : place + seen.width] == seen.write(bytes([octet]))
            changed = (octets[:place] + seen.write(b"|") + octets[place:]).decode(charset)
            assert changed.replace("|", "", 1) == text


@pytest.mark.parametrize("charset", ["utf-16le", "utf-16be", "iso-2022-jp", "iso-2022-kr"])
def test_what_is_put_at_a_place_is_all_that_changes_for_a_decoder(charset: str) -> None:
    text = "日本 <a href='x'>語</a> end" if charset != "iso-2022-kr" else "한국 <a href='x'>어</a> end"
    octets = text.encode(charset)
    seen = view(octets, charset)
    assert seen is not None
    at = seen.octets.index(b"'x'") + 1
    start, end = seen.place(at), seen.place(at + 1)
    changed = octets[:start] + seen.write(b"https://example.com/") + octets[end:]
    assert changed.decode(charset) == text.replace("'x'", "'https://example.com/'")


def test_utf_16_goes_by_its_label_or_its_mark() -> None:
    for text, label in (("\ufeffa", "utf-16le"), ("\ufeffa", "utf-16be"), ("a", "utf-16be")):
        seen = view(text.encode(label), label)
        assert seen is not None
        assert seen.octets[-1:] == b"a"
    marked = view("\ufeffä<".encode("utf-16be"), "UTF-16")
    assert marked is not None
    assert (marked.octets, marked.utf8(1, 3), marked.known) == (b"\xff\xe4<", "ä<".encode(), True)


@pytest.mark.parametrize(
    ("octets", "charset"),
    [
        (b"a\0b\0", "utf-16"),  # no mark: readers guess
        (b"\xfe\xff\0a", "utf-16le"),  # the other order
        (b"a\0b", "utf-16le"),  # half a unit
        (b"\xff\xfea\0", "utf-8"),  # browsers believe the mark
        (b"a", "utf-7"),
        (b"a", "utf-32"),
        (b"a", "hz-gb-2312"),
        (b"a", "x-unknown"),
        (b"a\x1b$B<a", "us-ascii"),  # Japanese that says nothing of it
        (b"\x1b$B<a\r\n\x1b(B", "iso-2022-jp"),  # not back at the end of its line
        (b"\x1b$B<a", "iso-2022-jp"),
        (b"\x1b.A", "iso-2022-jp"),
        (b"\x0ea\x0f", "iso-2022-jp"),
        (b"\x0ea\n\x0f", "iso-2022-kr"),
    ],
)
def test_text_that_decoders_read_differently_has_no_view(octets: bytes, charset: str) -> None:
    assert view(octets, charset) is None


def test_roman_has_two_characters_that_are_not_ascii() -> None:
    seen = view(b"\x1b(Ja~b\\\x1b(B", "iso-2022-jp")
    assert seen is not None
    assert seen.octets == b"\xff\xff\xffa\xffb\xff\xff\xff\xff"


@pytest.mark.parametrize("charset", ["utf-16le", "utf-16be"])
def test_a_page_that_is_wrongly_called_utf_16_has_no_view(charset: str) -> None:
    """Programs that guess show it; what would be written into it in UTF-16 would be seen."""
    page = b"<html><body>Hello to you!</body></html>\r\n "
    assert len(page) % 2 == 0
    assert view(page, charset) is None
    assert view(page.decode().encode(charset), charset) is not None
