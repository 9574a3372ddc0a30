"""Text of any charset as a reader of ASCII can take it: what is ASCII at its place, everything else one octet above.

Knows nothing of what the text says. Most charsets keep ASCII where it is: such text is its own view. In UTF-16 a view
has one octet for each unit; in ISO-2022 (RFC 1468, RFC 1557) the octets of other sets, which look like ASCII, are
covered. Text that decoders read in different ways, and UTF-7, has no view: nobody may change what he cannot place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

_ASCII_INSIDE = re.compile(  # charsets in which an octet below 0x40 is always that ASCII character
    r"(?:|us-ascii|ascii|ansi_x3\.4-1968|utf-?8|iso[-_]?8859[-_][0-9]{1,2}(?:-[ei])?|latin-?[0-9]{1,2}"
    r"|windows-(?:125[0-8]|874|31j|949)|cp-?(?:125[0-8]|437|850|852|866|874|932|936|949|950)|ibm(?:437|850|852|866)"
    r"|koi8-[ru]|koi8-ru|macintosh|x-mac-[a-z]+|tis-620|viscii|gb2312|gbk|gb18030|big5(?:-hkscs)?|euc-(?:jp|kr|cn|tw)"
    r"|ks_c_5601-1987|shift[-_]jis|sjis|x-sjis)"
)
_UTF_16 = {"utf-16": "", "utf-16le": "le", "utf-16be": "be"}
_MARKS = {b"\xff\xfe": "le", b"\xfe\xff": "be"}
_COVER = 0xFF
_ISO_2022 = {  # what leads back to ASCII or nearly so, what leads away
    "iso-2022-jp": (rb"\x1b\([BJ]", rb"\x1b(?:\$[@B]|\(I|\$\(D)"),
    "iso-2022-kr": (rb"\x0f", rb"\x0e"),
}
_AWAY = {  # text in another set with the shifts around it; it has to end within its line
    name: re.compile(rb"%s[^\r\n]*?(?:%s|(\Z|[\r\n]))" % (away, back)) for name, (back, away) in _ISO_2022.items()
}
_DESIGNATOR = {"iso-2022-jp": b"", "iso-2022-kr": rb"\x1b\$\)C|"}  # what SO leads to; not always at a line start
_SHIFT = {name: re.compile(_DESIGNATOR[name] + b"|".join(pair)) for name, pair in _ISO_2022.items()}
_CONTROLS = re.compile(rb"[\x0e\x0f\x1b]")
_ROMAN = b"\x1b(J"  # as ASCII but for two characters: the yen sign and the overline
_NO_ROMAN = re.compile(rb"[\\~]")
_ESCAPED = re.compile(rb"\x1b[($]")


@dataclass(frozen=True, slots=True)
class View:
    """`octets` to look at, and the way back: their places in the text, `width` octets of text to each."""

    octets: bytes
    text: bytes
    charset: str
    width: int = 1
    known: bool = True
    """Whether `utf8` gives what is meant, and not merely what stands there."""

    def place(self, at: int) -> int:
        """Where in the text that octet of the view is."""
        return at * self.width

    def utf8(self, start: int, end: int) -> bytes:
        """That piece as it would stand in a document in UTF-8, or where this is not known as it stands."""
        if self.width == 1:
            return self.octets[start:end]
        return self.text[2 * start : 2 * end].decode(self.charset, "replace").encode()

    def write(self, ascii_text: bytes) -> bytes:
        """ASCII in the charset of the text."""
        return ascii_text if self.width == 1 else ascii_text.decode("ascii").encode(self.charset)


def view(text: bytes, charset: str) -> View | None:
    """None where the charset is unknown, or the text is such that decoders could differ."""
    charset = charset.strip().lower()
    if charset in _UTF_16:
        return _wide(text, charset)
    if text[:2] in _MARKS:  # browsers believe the mark, others the label
        return None
    if charset in _ISO_2022:
        return _shifted(text, charset)
    if not _ASCII_INSIDE.fullmatch(charset) or (b"\x1b" in text and _ESCAPED.search(text)):
        return None
    return View(text, text, charset, known=charset in ("utf-8", "utf8"))


def _wide(text: bytes, charset: str) -> View | None:
    """UTF-16 in the order of its label, or of its mark; where they differ, or tell nothing, readers guess."""
    marked = _MARKS.get(text[:2], "")
    order = _UTF_16[charset] or marked
    if len(text) % 2 or not order or marked not in ("", order):
        return None
    high, low = (text[1::2], text[::2]) if order == "le" else (text[::2], text[1::2])
    if high and b"\0" not in high:  # no ASCII in it, or another charset's
        return None
    if high.strip(b"\0"):
        low = bytes(unit if not above else _COVER for above, unit in zip(high, low, strict=True))
    return View(low, text, f"utf-16-{order}", 2)


def _shifted(text: bytes, charset: str) -> View | None:
    """Other sets are covered. A shift in a place of its own, or one that does not end in its line, is in doubt."""
    if _strays(text, charset) or any(found[1] is not None for found in _AWAY[charset].finditer(text)):
        return None
    whole = BytesIO(text)
    with whole.getbuffer() as octets:  # covered in place: as pieces a text of many shifts takes twenty times its size
        _cover(octets, _AWAY[charset].finditer(text))
        _cover(octets, _SHIFT[charset].finditer(octets))
        if _ROMAN in text:
            _cover(octets, _NO_ROMAN.finditer(octets))
    return View(whole.getvalue(), text, charset, known=False)


def _strays(text: bytes, charset: str) -> bool:
    """Whether a control character stands outside the shifts of that charset."""
    at = 0
    for found in _SHIFT[charset].finditer(text):
        if _CONTROLS.search(text, at, found.start()):
            return True
        at = found.end()
    return _CONTROLS.search(text, at) is not None


def _cover(octets: memoryview, places: Iterable[re.Match[bytes]]) -> None:
    for found in places:
        octets[found.start() : found.end()] = bytes([_COVER]) * (found.end() - found.start())
