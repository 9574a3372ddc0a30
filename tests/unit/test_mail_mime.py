"""Parts and where their bytes lie: RFC 2046 and its broken forms; mail of others is in session/test_mail_corpora.py."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.mail import mime, parameters, reading
from postmeter.mail.mime import Part


def leaves(raw: bytes) -> tuple[tuple[Part, ...], bytes]:
    fields, body = reading.read(raw)
    return mime.leaves(fields, body), body


def mixed(*lines: str, boundary: str = "b") -> bytes:
    return "\r\n".join([f"Content-Type: multipart/mixed; boundary={boundary}", "", *lines]).encode()


def kinds(raw: bytes) -> list[tuple[str, str]]:
    return [(part.path, part.kind) for part in leaves(raw)[0]]


def texts(raw: bytes) -> list[bytes]:
    parts, body = leaves(raw)
    return [body[part.body_start : part.end] for part in parts]


@dataclass(frozen=True)
class Tree:
    """A message as it was meant, before it was written down."""

    boundary: str
    children: tuple[Tree | bytes, ...]


text = st.lists(st.sampled_from([b"", b"a", b"--", b"--x", b"-- 1", b"Content-Type: a/b", b" \t", b"\xff"]), max_size=4)
leaf = text.map(b"\r\n".join)
trees = st.recursive(
    leaf,
    lambda inner: st.builds(
        Tree, st.from_regex(r"[a-z]{1,2}[A-Z'()+_,./:=?-]{0,3}[a-z]", fullmatch=True), st.tuples(inner, inner)
    ),
    max_leaves=6,
)


def write(tree: Tree | bytes, path: str, eol: bytes) -> tuple[bytes, list[tuple[str, bytes]]]:
    """The part with its header, and the leaves that must be found in it. Boundaries are made unlike each other."""
    if isinstance(tree, bytes):
        body = tree.replace(b"\r\n", eol)
        return b"Content-Type: text/x" + eol + eol + body, [(path or "1", body)]
    boundary = f"{tree.boundary}{path}.".encode()
    out = b'Content-Type: multipart/mixed; boundary="' + boundary + b'"' + eol + eol + b"preamble"
    found: list[tuple[str, bytes]] = []
    for number, child in enumerate(tree.children, 1):
        raw, inner = write(child, f"{path}.{number}" if path else str(number), eol)
        out += eol + b"--" + boundary + eol + raw
        found += inner
    return out + eol + b"--" + boundary + b"--" + eol + b"epilogue", found


@given(trees, st.sampled_from([b"\r\n", b"\n"]))
def test_parts_are_found_where_they_were_written(tree: Tree | bytes, eol: bytes) -> None:
    """Nested multiparts, boundaries that begin alike, bodies that look like boundaries and fields; CRLF or bare LF."""
    raw, expected = write(tree, "", eol)
    head, _, body = raw.partition(eol + eol)
    fields, _ = reading.read(head + b"\r\n\r\n")
    assert [(part.path, body[part.body_start : part.end]) for part in mime.leaves(fields, body)] == expected


@given(st.binary(max_size=300), st.lists(st.sampled_from([b"\r\n--b\r\n", b"--b--", b"Content-Type: multipart/mixed; "
    b"boundary=b", b"\n\n", b"--b \n", b"(", b'"', b";"])))  # fmt: skip
def test_parts_never_overlap_and_stay_within_the_body(junk: bytes, pieces: list[bytes]) -> None:
    """Whatever comes: spans in order, within the body, the header before the body."""
    body = junk + b"".join(pieces) + junk
    at = 0
    for part in mime.leaves(reading.read(mixed())[0], body):
        assert at <= part.start <= part.body_start <= part.end <= len(body)
        at = part.end


def test_a_message_without_type_is_one_plain_part() -> None:
    assert kinds(b"From: a@example.com\r\n\r\nhello") == [("1", "text/plain")]


def test_without_close_delimiter_the_last_part_ends_with_the_body() -> None:
    assert texts(mixed("--b", "", "one", "--b", "", "two")) == [b"one", b"two"]


def test_text_behind_the_close_delimiter_is_no_part() -> None:
    assert texts(mixed("--b", "", "one", "--b--", "", "--b", "", "two")) == [b"one"]


def test_a_delimiter_needs_the_start_of_a_line_and_nothing_but_white_space_behind_it() -> None:
    assert texts(mixed("--b", "", "x --b", "--bb", "--b x", "--b \t", "", "two", "--b--")) == [
        b"x --b\r\n--bb\r\n--b x",
        b"two",
    ]


def test_a_multipart_without_its_boundary_is_broken() -> None:
    for raw in (mixed("no delimiter"), b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\nx\r\n--b--"):
        (part,), _ = leaves(raw)
        assert part.broken
        assert part.multipart


@pytest.mark.parametrize("encoding", ["quoted-printable", "Base64", "7-bit"])
def test_a_transfer_encoding_of_a_multipart_is_not_heeded(encoding: str) -> None:
    """RFC 2045 section 6.4 forbids it, PHPMailer and Zend_Mail wrote it for years, and readers ignore it."""
    inner = ["Content-Type: multipart/alternative; boundary=c", "", "--c", "Content-Transfer-Encoding: 7bit", "", "one"]
    raw = f"Content-Transfer-Encoding: {encoding}\r\n".encode() + mixed("--b", *inner, "--c--", "--b--")
    (part,), _ = leaves(raw)
    assert texts(raw) == [b"one"]
    assert (part.path, part.encoding, part.broken) == ("1.1", "7bit", False)


@pytest.mark.parametrize("inner", [[], ["Content-Type: multipart/mixed; boundary=c", "", "--c"]])
def test_a_part_that_may_have_the_encoding_of_the_multipart_around_it_is_broken(inner: list[str]) -> None:
    """It names none, and some readers take that one for its own."""
    raw = b"Content-Transfer-Encoding: base64\r\n" + mixed("--b", *inner, "Content-Type: text/html", "", "x", "--b--")
    (part,), _ = leaves(raw)
    assert part.kind == "text/html"
    assert part.broken


def test_an_encoded_multipart_is_not_cut() -> None:
    (part,), _ = leaves(b"Content-Transfer-Encoding: base64\r\n" + mixed("LS1iDQoNCngNCi0tYi0t"))
    assert part.multipart
    assert part.broken


def test_a_header_that_can_be_read_in_two_ways_is_broken() -> None:
    """Two types, a line that is no field, a quote that does not end: programs disagree on each."""
    for header in (
        ["Content-Type: text/html", "Content-Type: text/plain"],
        ["Content-Type: text/html", "what is this"],
        ['Content-Type: text/html; charset="utf-8'],
    ):
        (part,), _ = leaves(mixed("--b", *header, "", "x", "--b--"))
        assert part.broken, header


def test_a_part_tells_its_encoding_and_where_it_says_so() -> None:
    (part,), body = leaves(mixed("--b", "content-transfer-encoding:  BASE64 ", "", "eA==", "--b--"))
    assert part.encoding == "base64"
    assert part.encoding_span is not None
    assert body[slice(*part.encoding_span)] == b"  BASE64 \r"


def test_an_encoding_with_a_comment_is_none_that_we_know() -> None:
    """MIME::Tools and the email package take the comment for a part of the name."""
    (part,), _ = leaves(mixed("--b", "Content-Transfer-Encoding: base64 (why)", "", "eA==", "--b--"))
    assert part.encoding == "base64 (why)"


def test_white_space_before_a_colon_is_no_field_that_we_read() -> None:
    """MIME::Tools, Email::MIME and the email package all read such a part as text/plain."""
    (part,), _ = leaves(mixed("--b", "Content-Type : text/html", "", "x", "--b--"))
    assert part.broken


@pytest.mark.parametrize("delimiter", ["\r--b", "--b\r", "--b--\r"])
def test_a_lone_cr_at_a_delimiter_is_not_cut_at(delimiter: str) -> None:
    """It ends a line for some readers: they would find a part where we see the text of the one before."""
    line = f"y{delimiter}" if delimiter.startswith("\r") else f"{delimiter}y"
    (part,), _ = leaves(mixed("--b", "", "x", line, "", "--b--"))
    assert (part.kind, part.broken) == ("multipart/mixed", True)


def test_parts_of_an_attached_multipart_are_attachments() -> None:
    inner = ["Content-Disposition: attachment", "", "--c", "Content-Disposition: inline", "", "x", "--c--", "--b--"]
    (part,), _ = leaves(mixed("--b", "Content-Type: multipart/related; boundary=c", *inner))
    assert part.disposition == "attachment"


def test_parts_know_what_is_around_them() -> None:
    inner = ["--b", "Content-Type: multipart/signed; boundary=c", "", "--c", "", "x", "--c--", "--b--"]
    assert [part.enclosing for part in leaves(mixed(*inner))[0]] == [("multipart/mixed", "multipart/signed")]


def test_a_digest_holds_messages() -> None:
    raw = b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nFrom: a@example.com\r\n\r\nx\r\n--b--"
    assert kinds(raw) == [("1", "message/rfc822")]


def test_depth_and_number_of_parts_are_bounded() -> None:
    """What is too deep or too many is one part that cannot be cut."""
    deep = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth) for depth in range(200)
    )
    (part,), _ = leaves(deep)
    assert part.path.count(".") == mime.MAX_DEPTH - 1
    assert part.broken
    (many,), _ = leaves(mixed(*["--b", "", "x"] * (mime.MAX_PARTS + 1)))
    assert many.broken


@pytest.mark.parametrize(
    ("raw", "token", "params"),
    [
        (b" text/html", "text/html", {}),
        (b" TEXT/HTML; Charset=UTF-8;", "text/html", {"charset": "UTF-8"}),
        (b' text/html;\n charset="utf-8" (really; "so")', "text/html", {"charset": "utf-8"}),
        (b' (a (nested) one) text/html; a="x;y\\"z"; b=1', "text/html", {"a": 'x;y"z', "b": "1"}),
        (b" text/html; charset*=us-ascii'en'utf%2D8", "text/html", {"charset": "utf-8"}),
        (b' text/html; name*1*=%20b; name*0="a"', "text/html", {"name": "a b"}),
        (b" text/html; nothing; =x", "text/html", {}),
    ],
)
def test_values_are_read_with_quotes_comments_and_rfc_2231(raw: bytes, token: str, params: dict[str, str]) -> None:
    assert parameters.read(raw) == parameters.Value(token, params)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" text/html charset=utf-8",
        b' text/html; charset="utf-8',
        b" text/html; (",
        b" text/html; charset=a; charset=b",
        b" text/html; charset=a; charset*=''b",
        b" multipart/mixed; boundary*1=b",
        b" text/html; charset=utf-8 x",
        b' multipart/mixed; boundary=""b""',
    ],
)
def test_values_that_can_be_read_in_two_ways_are_not_read(raw: bytes) -> None:
    assert parameters.read(raw) is None


@given(st.binary(max_size=200))
def test_any_value_is_read_or_refused(raw: bytes) -> None:
    found = parameters.read(raw)
    assert found is None or found.token == found.token.lower()


def test_a_header_without_a_type_means_what_the_multipart_around_it_says() -> None:
    """RFC 2046 section 5.1.5; each time it comes, in whatever order, and at whatever place."""
    lines = ["--b", "X: 1", "", "text", "--b", "X: 1", "", "more", "--b--"]
    digest = mixed(*lines).replace(b"mixed", b"digest")
    for raw, kind in [(mixed(*lines), "text/plain"), (digest, "message/rfc822"), (mixed(*lines), "text/plain")]:
        assert kinds(raw) == [("1", kind), ("2", kind)]
        assert texts(raw) == [b"text", b"more"]


def test_a_transfer_encoding_is_found_where_it_stands_in_each_part() -> None:
    header = ["Content-Type: text/plain", "Content-Transfer-Encoding: 8bit", ""]
    parts, body = leaves(mixed("--b", *header, "one", "--b", *header, "two", "--b--"))
    spans = [part.encoding_span for part in parts]
    assert spans[0] != spans[1]
    assert [body[span[0] : span[1]].strip() for span in spans if span] == [b"8bit", b"8bit"]
