"""The TXT record of a DKIM key: how it is read, and whether it fits the key that we sign with.

RFC 6376 sections 3.2 and 3.6.1, RFC 8301, RFC 8463. Pure: what DNS said comes in. Strict where verifiers differ: a
record that only some of them take is said to be wrong.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_BITS, ENOUGH_BITS = 1024, 2048  # RFC 8301 section 3.2

_PIECE = 255  # octets of a character-string (RFC 1035 section 3.3)
_SPACE = " \t\r\n"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_VALUE = re.compile(r"(?:[!-:<-~](?:[ \t\r\n]*[!-:<-~])*)?")


@dataclass(frozen=True, slots=True)
class Expected:
    """What DNS has to show: k=, and what p= holds when decoded. `below`: i= may name a domain below d=."""

    kind: str
    public: bytes
    bits: int
    below: bool = False

    @property
    def encoded(self) -> str:
        return base64.b64encode(self.public).decode()

    @property
    def text(self) -> str:
        return f"v=DKIM1; k={self.kind}; p={self.encoded}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One word for what was found, and the rest in words. `ok` is None where nobody could tell."""

    word: str
    what: str = ""
    fix: str = ""
    ok: bool | None = False


class RecordError(ValueError):
    """No tag list (RFC 6376 section 3.2); `fix` tells what to write instead."""

    def __init__(self, what: str, fix: str) -> None:
        self.what, self.fix = what, fix
        super().__init__(f"{what}; {fix}")


def parse(text: str) -> dict[str, str]:
    """The tags of a record in their order, without the white space around them."""
    if "\\;" in text:
        raise RecordError("it holds backslashes", "write ; without \\ before it: your DNS editor adds its own")
    specs = text.split(";")
    if len(specs) > 1 and not specs[-1].strip(_SPACE):
        specs.pop()
    tags: dict[str, str] = {}
    for spec in specs:
        name, equals, value = (part.strip(_SPACE) for part in spec.partition("="))
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise _malformed(text, spec.strip(_SPACE))
        if name in tags:
            raise RecordError(f"{name}= stands there twice", f"leave one {name}=")
        tags[name] = value
    return tags


def _malformed(text: str, spec: str) -> RecordError:
    if '"' in text:
        return RecordError("it holds quotation marks", "leave the quotation marks out: your DNS editor adds its own")
    return RecordError(f"{spec[:40]!r} is no tag", "write tags like k=rsa, with ; between them")


def judge(found: Sequence[bytes], expected: Expected) -> Finding:
    """What the records that DNS shows under a key's name are worth; the strings of each are joined already."""
    if not found:
        return Finding("missing", "there is no TXT record", "publish it")
    if len(found) > 1:
        what = f"there are {len(found)} TXT records: verifiers take any of them (RFC 6376 section 3.6.2.2)"
        return Finding("several", what, "leave only ours")
    try:
        return _judge(parse(found[0].decode("ascii")), expected)
    except UnicodeDecodeError:
        return Finding("malformed", "it is not ASCII", "publish it again")
    except RecordError as error:
        return Finding("malformed", error.what, error.fix)


def _judge(tags: Mapping[str, str], expected: Expected) -> Finding:
    return (
        _version(tags)
        or _revoked(tags)
        or _kind(tags, expected)
        or _restricted(tags)
        or _public(tags["p"], expected)
        or _notes(tags, expected)
    )


def _version(tags: Mapping[str, str]) -> Finding | None:
    if "v" in tags and (tags["v"] != "DKIM1" or next(iter(tags)) != "v"):
        what = f"v={tags['v']}, and only v=DKIM1 as the first tag is known"
        return Finding("malformed", what, "begin it with v=DKIM1")
    return None


def _revoked(tags: Mapping[str, str]) -> Finding | None:
    if "p" not in tags:
        return Finding("malformed", "it has no p=", "publish it again")
    if not tags["p"]:
        return Finding("revoked", "p= is empty: the key was revoked", "publish p= again, or sign with a new key")
    return None


def _kind(tags: Mapping[str, str], expected: Expected) -> Finding | None:
    kind = tags.get("k", "rsa")
    if kind == expected.kind:
        return None
    what = f"k={kind}" if "k" in tags else "it has no k=, which means rsa"
    return Finding("wrong type", f"{what}, and the key is {expected.kind}", f"write k={expected.kind}")


def _restricted(tags: Mapping[str, str]) -> Finding | None:
    hashes = [word.strip(_SPACE) for word in tags.get("h", "sha256").split(":")]
    if "sha256" not in hashes:
        return Finding("wrong hash", f"h={tags['h']} leaves out sha256", "leave h= out")
    if tags.get("s", "*") not in ("*", "email"):  # a list with one of them is allowed, and not all verifiers take it
        return Finding("wrong service", f"s={tags['s']} is neither * nor email", "leave s= out")
    return None


def _public(text: str, expected: Expected) -> Finding | None:
    bare = re.sub(rf"[{_SPACE}]+", "", text)
    if expected.encoded != bare and expected.encoded.startswith(bare):
        what = f"p= ends after {len(bare)} of {len(expected.encoded)} characters"
        return Finding("malformed", what, f"publish all of it, in strings of at most {_PIECE} characters")
    try:
        public = base64.b64decode(bare, validate=True)
    except (binascii.Error, ValueError):
        return Finding("malformed", "p= is not base64", "publish it again")
    return None if public == expected.public else _other(public, expected)


def _other(public: bytes, expected: Expected) -> Finding:
    """The key itself in another form is told by name."""
    if len(public) > 100 and expected.public.endswith(public):
        what = "p= is in PKCS#1's form, which some verifiers refuse"
    elif public.endswith(expected.public):
        what = "p= is in DER's form, and RFC 8463 wants the 32 octets alone"
    else:
        return Finding("different", "p= is another key", "publish ours in its place")
    return Finding("malformed", what, "publish it as we print it")


def _notes(tags: Mapping[str, str], expected: Expected) -> Finding:
    """It fits. What is said all the same: the rest verifies, or not, by what receivers make of it."""
    if expected.kind == "rsa" and expected.bits < LEAST_BITS:
        what = f"RSA of {expected.bits} bits, which no receiver accepts"
        return Finding("too short", what, f"make an RSA key of {ENOUGH_BITS} bits")
    flags = [word.strip(_SPACE) for word in tags.get("t", "").split(":")]
    if "s" in flags and expected.below:
        what = "t=s: i= may name the signing domain alone, and with dkim.identity it may name one below"
        return Finding("strict", what, "take t=s out, or leave dkim.identity out")
    if "y" in flags:
        what = "t=y: receivers are told that this is a test, and need not heed it"
        return Finding("testing", what, "take t=y out when it verifies", ok=True)
    if expected.kind == "rsa" and expected.bits < ENOUGH_BITS:
        what = f"RSA of {expected.bits} bits, and RFC 8301 asks for {ENOUGH_BITS}"
        return Finding("short", what, f"make an RSA key of {ENOUGH_BITS} bits", ok=True)
    return Finding("right", ok=True)


def pieces(text: str) -> list[str]:
    """The text as character-strings of at most 255 octets, as a zone file holds it."""
    return [text[at : at + _PIECE] for at in range(0, max(len(text), 1), _PIECE)]


def zone_line(name: str, text: str) -> str:
    """The record for a zone file (RFC 1035 section 5.1)."""
    strings = [f'"{piece}"' for piece in pieces(text)]
    inner = strings[0] if len(strings) == 1 else "( " + "\n    ".join(strings) + " )"
    return f"{name}. IN TXT {inner}"
