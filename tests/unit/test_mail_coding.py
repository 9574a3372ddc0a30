"""Edits in encoded octets, judged by quopri, base64 and a plain splice of the decoded ones."""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from postmeter.mail import anew, coding
from postmeter.mail.coding import Edit

pieces = st.sampled_from(
    [b"a", b"word ", b"=", b"\xc3\xa4", b"\r\n", b"http://example.com/?a=b", b"\t", b".", b"x" * 70]
)
documents = st.lists(pieces, max_size=40).map(b"".join)


@st.composite
def edited(draw: st.DrawFn) -> tuple[bytes, list[Edit]]:
    """A document and edits in it, in order."""
    document = draw(documents)
    places = sorted(draw(st.sets(st.integers(0, len(document)), max_size=8)))
    places = [at for at in places if document[at - 1 : at + 1] != b"\r\n"]  # a link never cuts a line end in two
    news = st.sampled_from([b"https://click.example.com/" + b"A" * 200, b"x", b"a=b", b"a b ", b"=" * 80, b"\xff\xfe"])
    edits = [Edit(start, end, draw(news)) for start, end in zip(places[::2], places[1::2], strict=False)]
    return document, edits


def plainly(document: bytes, edits: Sequence[coding.Plain]) -> bytes:
    """The same edits from the last to the first: no arithmetic to get wrong."""
    for start, end, new in reversed(edits):
        document = document[:start] + new + document[end:]
    return document


def made(raw: bytes, change: anew.Change) -> bytes:
    return plainly(raw, [(start, end, octets(new)) for start, end, new in change.edits])


def octets(new: bytes | anew.Anew) -> bytes:
    """What is written where it stands, of the length that was told before."""
    if isinstance(new, bytes):
        return new
    into = BytesIO()
    assert new.write(into)
    assert len(into.getvalue()) == len(new)
    return into.getvalue()


@given(edited(), st.sampled_from([b"\r\n", b"\n"]), st.integers(30, 76))
def test_quoted_printable_decodes_to_the_edited_document(
    given_: tuple[bytes, list[Edit]], eol: bytes, width: int
) -> None:
    """And its lines stay within 76 wherever they were."""
    document, edits = given_
    if eol == b"\n":
        document = document.replace(b"\r\n", b"\n\n")  # as long, so that the edits stay where they are
    raw = quoted(document, eol, width)
    assert coding.decode(raw, "quoted-printable") == document
    changed = anew.change(raw, document, "quoted-printable", edits)
    assert changed is not None
    assert quopri.decodestring(made(raw, changed)) == plainly(document, edits)
    assert all(len(line) <= 76 for line in re.split(rb"\r?\n", made(raw, changed)))


ODD = [b"=33", b"=3D", b"=\r\n", b"=\n", b"\r\n", b"=61", b"3", b"33ab", b"D3", b"ab", b'"']


@given(st.lists(st.sampled_from(ODD), max_size=14).map(b"".join), st.data())
def test_an_edit_finds_its_place_among_needless_escapes_and_breaks_anywhere(raw: bytes, data: st.DataObject) -> None:
    """Where the digits of an escape look like the text that is looked for, too."""
    document = quopri.decodestring(raw)
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(document))] * 2)))
    assume(all(document[at - 1 : at + 1] != b"\r\n" for at in (start, end)))
    edits = [Edit(start, end, b"new")]
    body = b"before" + raw + b"=\r\nnew"
    changed = anew.change(body, document, "quoted-printable", edits, start=6, end=6 + len(raw))
    assert changed is not None
    whole = made(body, changed)
    assert whole.startswith(b"before")
    assert whole.endswith(b"=\r\nnew")
    assert quopri.decodestring(whole[6:-6]) == plainly(document, edits)


def lined(document: bytes, eol: bytes, width: int) -> bytes:
    """In base64, with nothing behind the last line."""
    text = base64.b64encode(document)
    return eol.join(text[at : at + width] for at in range(0, len(text), width))


def quoted(document: bytes, eol: bytes, width: int) -> bytes:
    """An encoder of our own, with soft line breaks in other places than binascii's."""
    lines = []
    for line in document.split(eol):
        atoms = [b"%c" % octet if 33 <= octet <= 126 and octet != 61 else b"=%02X" % octet for octet in line]
        out, column = b"", 0
        for atom in atoms:
            if column + len(atom) > width - 1:
                out, column = out + b"=" + eol, 0
            out, column = out + atom, column + len(atom)
        lines.append(out)
    return eol.join(lines)


@given(edited())
def test_only_lines_with_an_edit_change_in_quoted_printable(given_: tuple[bytes, list[Edit]]) -> None:
    """What stands before the line of the first edit and behind the line of the last stays octet for octet."""
    document, edits = given_
    raw = quoted(document, b"\r\n", 60)
    changed = anew.change(raw, document, "quoted-printable", edits)
    assert changed is not None
    if not edits:
        assert made(raw, changed) == raw
        return
    before = quoted(document[: edits[0].start], b"\r\n", 60)
    after = document[edits[-1].end :].partition(b"\r\n")[2]
    assert made(raw, changed).startswith(before[: before.rfind(b"\n") + 1])
    if b"\r\n" in document[edits[-1].end :]:
        assert made(raw, changed).endswith(quoted(after, b"\r\n", 60))


@given(edited(), st.sampled_from([b"\r\n", b"\n"]), st.sampled_from([60, 64, 76]), st.booleans())
def test_base64_decodes_to_the_edited_document(
    given_: tuple[bytes, list[Edit]], eol: bytes, width: int, ends: bool
) -> None:
    """In lines as long as they were, with the line ends it had."""
    document, edits = given_
    lines = lined(document, eol, width)
    raw = lines + eol * ends
    assert coding.decode(raw, "base64") == document
    changed = anew.change(raw, document, "base64", edits)
    assert changed is not None
    assert base64.b64decode(made(raw, changed)) == plainly(document, edits)
    assert made(raw, changed).endswith(eol) == ends
    if len(lines) > width:
        assert max(map(len, re.split(rb"\r?\n", made(raw, changed)))) <= width


@given(edited(), st.sampled_from(sorted(coding.IDENTITY)))
def test_other_encodings_are_spliced_or_encoded_as_a_whole(given_: tuple[bytes, list[Edit]], encoding: str) -> None:
    """The latter only where a line with an edit would pass 998, and equal when decoded."""
    document, edits = given_
    changed = anew.change(document, document, encoding, edits)
    expected = plainly(document, edits)
    assert changed is not None
    if changed.encoding == encoding:
        assert made(document, changed) == expected
        assert not edits or longest(expected) <= 998 or longest(document) > 998
    else:
        assert longest(expected) > 998
        raw = made(document, changed)
        quoted = changed.encoding == "quoted-printable"
        assert (quopri.decodestring(raw) if quoted else base64.b64decode(raw)) == expected


def longest(document: bytes) -> int:
    return max(map(len, document.split(b"\r\n")))


def test_a_line_of_998_octets_may_stay() -> None:
    line = b"x" * 990 + b"\r\n"
    fits = anew.change(line, line, "7bit", [Edit(0, 0, b"y" * 8)])
    passes = anew.change(line, line, "7bit", [Edit(0, 0, b"y" * 9)])
    assert fits is not None
    assert passes is not None
    assert (fits.encoding, passes.encoding) == ("7bit", "quoted-printable")


@pytest.mark.parametrize("raw", [b"=", b"a=ZZ", b"==", b"a= \r\nb", b"=\rx\n", b"=4", b"x=\r", b"=ZZ=\rab\n"])
def test_broken_quoted_printable_is_not_decoded(raw: bytes) -> None:
    assert coding.decode(raw, "quoted-printable") is None


@given(st.lists(st.sampled_from([*b"=\r\n3Dx", b"=\r\n", b"=3D", b"=\n"]), max_size=12))
def test_quoted_printable_is_decoded_only_where_the_rules_are_kept(pieces: list[int | bytes]) -> None:
    """The judge is the grammar: an equals sign begins an escape or ends a line (RFC 2045 section 6.7)."""
    raw = b"".join(piece if isinstance(piece, bytes) else bytes([piece]) for piece in pieces)
    kept = not re.search(rb"=(?![0-9A-Fa-f]{2}|\r?\n)", raw)
    assert (coding.decode(raw, "quoted-printable") is not None) == kept


@pytest.mark.parametrize("raw", [b"YQ", b"YQ==YQ==", b"Y Q==", b"YQ==\r\n--", b"Y*Q=", b"=YQ=", b"YQ==\r\r\n"])
def test_broken_base64_is_not_decoded(raw: bytes) -> None:
    assert coding.decode(raw, "base64") is None


def test_unknown_encodings_are_not_decoded() -> None:
    assert [coding.decode(b"x", name) for name in ("", "x-uuencode", "quoted/printable", "8 bit")] == [None] * 4


def test_mixed_line_ends_are_not_made_quoted_printable() -> None:
    """binascii would make them one kind: another difference than the edit."""
    line = b"a\r\nb\n" + b"x" * 990
    assert anew.change(line, line, "8bit", [Edit(6, 6, b"y" * 20)]) is None
    assert binascii.b2a_qp(line, istext=True) != line


@given(edited(), st.sampled_from([b"\r\n", b"\n"]), st.sampled_from([30, 57, 76]), st.integers(2, 60))
def test_pieces_of_any_size_come_out_as_one(
    given_: tuple[bytes, list[Edit]], eol: bytes, width: int, size: int
) -> None:
    document, edits = given_
    lines = lined(document, eol, width)
    raws = {"base64": eol + lines + eol, "quoted-printable": quoted(document, b"\r\n", width), "8bit": document}
    for encoding, raw in raws.items():
        whole = anew.change(raw, document, encoding, edits)
        assert whole is not None
        body, end = b"before" + raw + b"behind", 6 + len(raw)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(coding, "PIECE", size)
            patched.setattr(anew, "PIECE", size)
            assert coding.decode(body, encoding, start=6, end=end) == document
            changed = anew.change(body, document, encoding, edits, start=6, end=end)
        if whole.encoding == encoding:
            assert changed is not None
            assert made(body, changed) == b"before" + made(raw, whole) + b"behind"
        else:
            assert changed is None or changed.encoding == whole.encoding


@given(edited(), st.sampled_from([b"\r\n", b"\n"]), st.integers(1, 76), st.booleans())
def test_what_is_written_later_tells_what_stood_there(
    given_: tuple[bytes, list[Edit]], eol: bytes, width: int, ends: bool
) -> None:
    document, edits = given_
    lines = lined(document, eol, width)
    longer = Edit(len(document), len(document), b"y" * 999)
    for raw, encoding, wanted in ((eol * ends + lines + eol, "base64", edits), (document, "8bit", [*edits, longer])):
        new = later(raw, document, encoding, wanted)
        assert new.back is not None
        assert new.back(octets(new)) == raw


@given(edited(), st.sets(st.integers(1, 500), max_size=5), st.sampled_from([b"\r\n", b"\n", b"\n\n", b"\n\r\n"]))
@example((b"fifteen octets.", [Edit(0, 1, b"F")]), {8, 12}, b"\n")  # as many lines as it had been, and as long
def test_of_lines_that_are_not_alike_it_tells_nothing_rather_than_something_else(
    given_: tuple[bytes, list[Edit]], cuts: set[int], eol: bytes
) -> None:
    document, edits = given_
    text = base64.b64encode(document)
    places = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    raw = eol.join(text[start:end] for start, end in pairwise(places))
    new = later(raw, document, "base64", edits)
    assert new.back is None or new.back(octets(new)) == raw


def later(raw: bytes, document: bytes, encoding: str, edits: Sequence[Edit]) -> anew.Anew:
    """What is to be written there, beside other parts that are large."""
    body, others = b"before" + raw + b"behind", coding.PIECE + 1
    changed = anew.change(body, document, encoding, edits, start=6, end=6 + len(raw), others=others)
    assert changed is not None
    [(_, _, new)] = changed.edits
    assert isinstance(new, anew.Anew)
    return new


@given(edited(), st.integers(1, 40))
def test_edits_fit_while_no_line_with_one_grows_too_long(given_: tuple[bytes, list[Edit]], most: int) -> None:
    document, edits = given_
    after, shift, held = plainly(document, edits), 0, set()
    for start, end, new in edits:
        held.add(after.count(b"\n", 0, start + shift))
        shift += len(new) - (end - start)
    lines = [line.removesuffix(b"\r") for line in after.split(b"\n")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coding, "MAX_LINE", most)
        assert coding.fits(document, edits) == all(len(lines[at]) <= most for at in held)


@given(st.lists(st.sampled_from([*b"YQ=*\r\n", b"YWJj", b"YQ==", b"\r\n"]), max_size=12), st.integers(2, 9))
def test_what_is_broken_is_not_decoded_in_pieces_either(pieces: list[int | bytes], size: int) -> None:
    """More "=" behind a whole group than it needs: binascii may pass over that, at the end of pieces it does not."""
    raw = b"".join(piece if isinstance(piece, bytes) else bytes([piece]) for piece in pieces)
    whole = [coding.decode(raw, encoding) for encoding in ("quoted-printable", "base64")]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coding, "PIECE", size)
        cut = [coding.decode(raw, encoding) for encoding in ("quoted-printable", "base64")]
    assert cut == whole or (cut == [whole[0], None] and re.search(rb"(?:[^=\s]\s*){4}=", raw))


@given(st.binary(max_size=60).map(lambda end: b"\r\n" * 3 + end + b"\r\n" * 3), st.integers(0, 9), st.integers(0, 9))
def test_the_content_ends_before_the_last_line_ends(octets: bytes, start: int, less: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(coding, "_TAIL", 4)
        end = len(octets) - less
        assert octets[start : coding.content_end(octets, start, end)] == octets[start:end].rstrip(b"\r\n")


def test_what_is_large_is_spliced_like_what_is_small() -> None:
    octets = bytes(range(256)) * 8192
    edits = [Edit(0, 5, b"first"), Edit(1_000_000, 1_000_000, b"put in"), Edit(2_000_000, len(octets), b"")]
    assert coding.splice(octets, edits) == b"first" + octets[5:1_000_000] + b"put in" + octets[1_000_000:2_000_000]
    assert coding.splice(octets, [Edit(0, len(octets), b"all")]) == b"all"
