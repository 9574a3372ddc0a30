"""Where a link leads and whether it may be tracked: the rules about one URL, each skip with its reason.

Knows nothing of HTML's tags or of messages. A target is what a browser would ask for (url.spec.whatwg.org section 4.4),
in ASCII; what browsers could read differently is not tracked, for a link that leads elsewhere is worse than one that
is not counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote

from postmeter.config.schema import Tracking
from postmeter.mail.html import attribute_text

LONGEST = 1900
"""Characters of a URL that is tracked: with our own around it, it stays within what servers and programs take."""

DEFAULT_WORDS = (
    "2fa", "accedi", "access token", "account recovery", "activate", "activation", "activer", "aktivieren", "api key",
    "auth", "bestaetigen", "bestätigen", "conferma", "confirm", "confirmar", "confirmation", "confirmer", "connexion",
    "contrasena", "contraseña", "credential", "credentials", "einloggen", "forgot", "freischalten", "haslo", "hasło",
    "iniciar sesion", "iniciar sesión", "inloggen", "jwt", "kennwort", "log in", "logon", "magic", "magic link", "mfa",
    "mot de passe", "oauth", "oauth2", "one time", "otp", "passcode", "passwd", "password", "password reset",
    "passwort", "pwd", "recover", "recovery", "recuperar", "redefinir", "reimposta", "reinitialiser", "reset",
    "reset password", "restablecer", "réinitialiser", "secret", "senha", "session", "sessionid", "sid", "sign in",
    "sso", "token", "two factor", "verifica", "verificar", "verification", "verifier", "verify", "vérifier",
    "wachtwoord", "zuruecksetzen", "zurücksetzen",
)  # fmt: skip
"""`skip_links: default`. A link that holds one of them as a word of its own, in any case, percent-encoded or not, is
left alone; words of several parts may be written together or with one sign between (`sign in`: signin, sign-in)."""

# Reasons for one link
SWITCHED_OFF = "switched_off"  # by an attribute of the link
RELATIVE = "relative"  # no scheme: fragments, paths, //host
SCHEME = "scheme"  # mailto, tel, cid, javascript, data …
TEMPLATE = "template"  # a merge tag that nobody filled in
MALFORMED = "malformed"  # browsers could read it differently
TOO_LONG = "too_long"
UNSUBSCRIBE = "unsubscribe"
URL_TEXT = "url_text"  # shows a URL: another one behind it looks like phishing
SKIPPED_HOST = "skipped_host"  # tracking.skip_hosts
OWN_LINK = "own_link"  # is a tracked link already
LOGIN_LIKE = "login_like"  # tracking.skip_links
LONG_LINE = "long_line"  # text whose line would be too long for a mail
REASONS = (
    SWITCHED_OFF, RELATIVE, SCHEME, TEMPLATE, MALFORMED, TOO_LONG, UNSUBSCRIBE, URL_TEXT, SKIPPED_HOST, OWN_LINK,
    LOGIN_LIKE, LONG_LINE,
)  # fmt: skip

_RAW_LONGEST = 20 * LONGEST  # no character of a URL needs a longer reference
_SIMPLE = re.compile(r"(?i:https?)://([A-Za-z0-9._-]+)(?::[0-9]{1,5})?(?:[/?#][A-Za-z0-9/?#&=;:.,_~!$'()*+@%-]*)?")
_ABSOLUTE = re.compile(r"(?i:https?)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:[/?#][!-~]*)?")
_BASE = re.compile(
    r"(?P<scheme>(?i:https?))://(?P<host>[A-Za-z0-9._-]+(?::[0-9]{1,5})?)(?P<path>(?:/[A-Za-z0-9/&=;:.,_~!$'()*+@%-]*)?)"
    r"(?<!/\.)(?<!/\.\.)(?:[?#].*)?"
)
_REFERENCE = re.compile(r"[A-Za-z0-9/?&=;:.,_~!$'()*+@%-][A-Za-z0-9/?#&=;:.,_~!$'()*+@%-]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_TEMPLATE = re.compile(r"\{\{|\}\}|\{%|\$\{|#\{|<%|%>|\*\||\|\*|%%|%\[|\[\[|\]\]|\[%|##")
_STOPS = re.compile(r"[][\\^`{|}]")  # RFC 3986 has none of them in a URL as they stand: some programs end one there
_DROPPED = dict.fromkeys(map(ord, "\t\n\r"))
_BLANK_END = (" \n", " \r")  # RFC 2045 section 6.7 (3): not every decoder takes that space off
_EDGES = "".join(map(chr, range(1, 33)))  # C0 control or space; HTML has made another character of a NUL
_PRINTABLE = "".join(map(chr, range(33, 127)))
_UNSUBSCRIBE = re.compile(  # sorted by first letter: few are tried at each place
    rb"a(?:bmeld|bbestell|ustrag|nnulla(?:re)?[^a-z]{0,2}(?:l[^a-z]{1,3})?iscri|fmeld|vregistr)"
    rb"|cancel(?:ar[^a-z]{0,2}suscri|la(?:re)?[^a-z]{0,2}(?:l[^a-z]{1,3})?iscri)"
    rb"|d(?:(?:e|[^a-z]{0,3})s(?:abonn|inscri)|esuscri|a(?:r(?:[mst]e)?|te)[^a-z]{1,2}de[^a-z]{1,2}baja|isiscri)"
    rb"|opt[-_. ]?out|u(?:nsub|itschrij)|wypisz"
)
_BARE_URL = re.compile(  # U+FFFD stands for letters of a charset that is not UTF-8
    r"(?:(?:[\w\ufffd-]+\.)+(?:(?:[^\W\d_]|\ufffd){2,24}|xn--[a-z0-9-]+)|[0-9]{1,3}(?:\.[0-9]{1,3}){3})(?::[0-9]+)?"
    r"(?:[/?#]\S*)?",
    re.IGNORECASE,
)
_FILE = re.compile(  # names of files, in which no domain ends (publicsuffix.org)
    r"[^/:?#]*\.(?:pdf|docx?|xlsx?|pptx?|od[tsp]|rtf|txt|csv|ics|vcf|jpe?g|png|gif|svg|webp|epub|html?)",
    re.IGNORECASE,
)
_UNSEEN = dict.fromkeys(map(ord, "\xad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"))  # may break a line there, or not
_AROUND = "".join(char for char in map(chr, range(33, 127)) if not char.isalnum())


def target_of(value: bytes, *, utf8: bool, base: str = "") -> tuple[str, str]:
    """The URL that an attribute's value leads to, and why not: one of the two is empty.

    `utf8` tells that the document is declared as UTF-8: then other octets than ASCII, and a query's characters, are
    known to mean what a browser takes them for. `base` is what the document's relative links are relative to.
    """
    if len(value) > _RAW_LONGEST:
        return "", TOO_LONG
    if not value.isascii() and not utf8:
        return "", MALFORMED
    try:
        text = attribute_text(value.decode())
    except UnicodeDecodeError:
        return "", MALFORMED
    return _target(text, utf8=utf8, base=base)


def target_in_text(url: str) -> tuple[str, str]:
    """The same for a URL that stands in plain text, in ASCII."""
    target, reason = _target(url, utf8=False, base="")
    return ("", MALFORMED) if target and _STOPS.search(url) else (target, reason)


def _target(text: str, *, utf8: bool, base: str) -> tuple[str, str]:
    simple = _SIMPLE.fullmatch(text) and "%%" not in text
    url, reason = (text, "") if simple else _odd_target(text, utf8=utf8, base=base)
    return ("", TOO_LONG) if len(url) > LONGEST else (url, reason)


def _odd_target(text: str, *, utf8: bool, base: str) -> tuple[str, str]:
    text = text.strip(_EDGES)
    unsure = any(end in text.replace("\t", "") for end in _BLANK_END)
    text = text.translate(_DROPPED)
    if _TEMPLATE.search(text):
        return "", TEMPLATE
    scheme = _SCHEME.match(text)
    if not scheme:
        url = joined(base, text) if base else ""
        return (url, "") if url else ("", RELATIVE)
    if scheme[1].lower() not in ("http", "https"):
        return "", SCHEME
    url = "" if unsure else _in_ascii(text, utf8=utf8)
    return (url, "") if _ABSOLUTE.fullmatch(url) else ("", MALFORMED)


def joined(base: str, reference: str) -> str:
    """A relative link made absolute; empty where it is none, or leads within the page, or might lead elsewhere.

    Segments of dots stay: who follows the link takes them away from the whole, which comes to the same.
    """
    parts = _BASE.fullmatch(base)
    if not parts or "%2e" in base.lower() or not _REFERENCE.fullmatch(reference):
        return ""
    scheme, host, path = parts.group("scheme", "host", "path")
    if reference.startswith("//"):
        url = f"{scheme}:{reference}"
    elif reference.startswith("/"):
        url = f"{scheme}://{host}{reference}"
    elif reference.startswith("?"):
        url = f"{scheme}://{host}{path or '/'}{reference}"
    else:
        url = f"{scheme}://{host}{path[: path.rfind('/') + 1] or '/'}{reference}"
    return url if _SIMPLE.fullmatch(url) else ""


def _in_ascii(text: str, *, utf8: bool) -> str:
    """Spaces and foreign characters percent-encoded; empty where the document's charset decides how.

    Controls are encoded nowhere, and a host holds no "%", so that both end as malformed.
    """
    before, mark, fragment = text.partition("#")
    query = before.partition("?")[2]
    if any(ord(char) < 32 or ord(char) == 127 for char in text) or not (utf8 or query.isascii()):
        return ""
    return quote(before, safe=_PRINTABLE) + mark + quote(fragment, safe=_PRINTABLE)


def shows_url(text: bytes) -> bool:
    """Whether the visible text of a link holds a URL, or is a host name or a path there, whatever signs are around."""
    if b"." not in text:
        return False
    return b"://" in text or b"www." in text.lower() or _is_bare_url(text.decode("utf-8", "replace"))


def _is_bare_url(text: str) -> bool:
    words = text.translate(_UNSEEN).split()
    if len(words) > 1:
        words = [word for word in words if any(char.isalnum() or char == "\ufffd" for char in word)]
    word = words[0].strip(_AROUND) if len(words) == 1 else ""
    return _BARE_URL.fullmatch(word) is not None and not _FILE.fullmatch(word)


class Rules:
    """The rules of one tracking section."""

    __slots__ = ("_hosts", "_own", "_words", "tracking")

    def __init__(self, tracking: Tracking, own: frozenset[str]) -> None:
        words = DEFAULT_WORDS if isinstance(tracking.skip_links, str) else tracking.skip_links
        self.tracking = tracking
        self._own = _hosts(own, behind="/[cou]/")  # the host may serve other pages, too
        self._hosts = _hosts(tracking.skip_hosts)
        self._words = _words(words)

    def judge(self, value: bytes, utf8: bool, base: str = "") -> tuple[str, str]:
        """The URL of an attribute's value and why it is not tracked, from the URL alone: one of the two is empty."""
        url, reason = target_of(value, utf8=utf8, base=base)
        reason = reason or self.refuse(url)
        return ("", reason) if reason else (url, "")

    def judge_text(self, url: bytes) -> tuple[str, str]:
        """The same of a URL in plain text, in ASCII."""
        target, reason = target_in_text(url.decode("ascii"))
        reason = reason or self.refuse(target)
        return ("", reason) if reason else (target, "")

    def refuse(self, url: str) -> str:
        """Why no link to this URL is tracked, or nothing."""
        lower = (unquote(url) if "%" in url else url).lower()
        if self._own and self._own.match(lower):
            return OWN_LINK
        if self._hosts and self._hosts.match(lower):
            return SKIPPED_HOST
        if _UNSUBSCRIBE.search(lower.encode()):
            return UNSUBSCRIBE
        return LOGIN_LIKE if self._words and self._words.search(lower) else ""


def says_unsubscribe(text: bytes) -> bool:
    return _UNSUBSCRIBE.search(text.lower()) is not None


def refuse_text(text: bytes) -> str:
    """Why a link with this visible text is not tracked, or nothing."""
    if says_unsubscribe(text):
        return UNSUBSCRIBE
    return URL_TEXT if shows_url(text) else ""


def _hosts(patterns: Iterable[str], *, behind: str = r"(?:[/?#]|\Z)") -> re.Pattern[str] | None:
    """URLs of these hosts, any port; `*.example.net` is every host below example.net, not itself."""
    hosts = [re.escape(host.lower()).replace(r"\*\.", "[^/?#:]+[.]", 1) for host in patterns]
    return re.compile(f"https?://(?:{'|'.join(hosts)})[.]?(?::[0-9]*)?{behind}") if hosts else None


def _words(words: Sequence[str]) -> re.Pattern[str] | None:
    """URLs with one of these words; sorted by their first letter, so that few are tried at each place."""
    by_letter: dict[str, list[str]] = {}
    for word in words:
        pieces = word.lower().split()
        pattern = "[^a-z0-9]?".join(map(re.escape, pieces))
        if pieces:
            by_letter.setdefault(pieces[0][0], []).append(pattern[len(re.escape(pieces[0][0])) :])
    letters = [f"{re.escape(letter)}(?:{'|'.join(rest)})" for letter, rest in by_letter.items()]
    return re.compile(f"[^a-z0-9](?:{'|'.join(letters)})(?![a-z0-9])") if letters else None
