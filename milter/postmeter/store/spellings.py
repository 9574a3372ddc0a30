"""The ways in which one address may stand in texts and files: to find it, and to put something else in its place.

In any case, with its domain as A- or U-label, quoted, as a return path holds it (VERP, `local=domain`), and as URLs
(RFC 3986 section 2.1) and JSON (RFC 8259 section 7) write letters. Knows nothing of where it is looked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote

_json = json.JSONEncoder().encode


class Spellings:
    """Of one address, given in one or several forms. `whole` finds it as a whole, and not as a part of another's."""

    def __init__(self, *addresses: str) -> None:
        forms = sorted(form for address in addresses for form in _forms(address))
        self.whole = _whole(forms)
        plain = [form for form in forms if form.isascii()]
        self._marks = {mark.lower() for form in plain for mark in (form, _json(form)[1:-1])}
        self._octets = {mark.encode() for mark in self._marks}
        others = [form for form in forms if not form.isascii()]
        self._odd = re.compile("|".join(map(_letters, others))) if others else None
        self._odd_octets = re.compile(b"|".join(map(_letters_in_octets, others))) if others else None
        self.longest = max(sum(max(len(_octets(way)) for way in _ways(char)) for char in form) for form in forms)
        """Octets of the longest of them."""

    def may_be_in(self, low: str) -> bool:
        """False where it certainly is not in this text, which is in lower case: quick."""
        return any(mark in low for mark in self._marks) or bool(self._odd and self._odd.search(low))

    def may_be_in_octets(self, low: bytes) -> bool:
        """The same of octets, of which those that are ASCII are in lower case."""
        return any(mark in low for mark in self._octets) or bool(self._odd_octets and self._odd_octets.search(low))


def _forms(address: str) -> set[str]:
    """The ways to write it, in lower case; letters beyond ASCII have more (`_ways`)."""
    local, at, domain = address.rpartition("@")
    if not at:
        return {address}
    domains = {domain, _u_labels(domain)}
    found = {f"{local}{sign}{each}" for each in domains for sign in ("@", "=", "%40")}
    found |= {f'"{local}"@{each}' for each in domains}
    return found | {_quoted(f"{local}@{each}") for each in domains}


def _whole(forms: Iterable[str]) -> re.Pattern[str]:
    """Another's address may begin or end as this one. A return path has words of its own before it."""
    plain, verp = ("|".join(_letters(form) for form in forms if ("=" in form) == is_verp) for is_verp in (False, True))
    return re.compile(rf"(?:(?<![\w.+-])(?:{plain})|(?<![^\W_])(?:{verp}))(?![\w-]|\.\w)", re.IGNORECASE)


def _ways(char: str) -> list[str]:
    """To write one letter. A capital beyond ASCII has other octets, which nobody's lower() finds in a file."""
    if char.isascii():
        return [char, f"\\{char}"] if char in '"\\' else [char]
    cases = dict.fromkeys(case for case in (char, char.lower(), char.upper()) if len(case) == 1)
    return [way for case in cases for way in (case, _json(case)[1:-1], quote(case, errors="replace").lower())]


def _letters(form: str) -> str:
    return "".join(f"(?:{'|'.join(map(re.escape, _ways(char)))})" for char in form)


def _letters_in_octets(form: str) -> bytes:
    return b"".join(b"(?:%s)" % b"|".join(re.escape(_octets(way)) for way in _ways(char)) for char in form)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _quoted(text: str) -> str:
    return "".join(quote(char, safe="").lower() if char.isascii() else char for char in text)


def _u_labels(domain: str) -> str:
    """As people write it (RFC 5890 section 2.3.2.1); what is no A-label stays."""
    labels = []
    for label in domain.split("."):
        try:
            labels.append(label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label)
        except UnicodeError:
            labels.append(label)
    return ".".join(labels)
