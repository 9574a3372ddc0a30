"""Whose mailboxes are behind a relay: Google's, Microsoft's … or `other`.

A dated text file of lines `pattern, provider`, ours or the operator's: `mx.example.com` is that relay, `*.example.com`
every relay below it, `@example.com` an address, which counts where the relay says nothing: no connection came about, or
all mail leaves through one host. The longest pattern that fits counts. `default` alone on a line stands for ours.
Providers are labels of metrics, so their number has a bound. Pure but for `read`; fetches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

DEFAULT = Path(__file__).with_name("providers.txt")
"""The list that comes with us."""

OTHER = "other"
MOST = 30  # different providers, with `other`
LONGEST = 1024 * 1024  # bytes of a file

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,29}")
_PATTERN = re.compile(r"(\*\.|@|)([a-z0-9_]([a-z0-9_-]{0,62})\.)*[a-z0-9]([a-z0-9-]{0,62})")
_CACHED = 4096  # relays and domains whose provider is remembered


class Providers:
    """Called with the values of a delivery."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self.patterns = dict(patterns)
        self.names = tuple(sorted({*patterns.values(), OTHER}))
        self._of_relay = lru_cache(_CACHED)(self._find_relay)
        self._of_domain = lru_cache(_CACHED)(self._find_domain)

    def __call__(self, values: Mapping[str, str]) -> str:
        relay = values.get("relay", "").partition("[")[0]
        return self._of_relay(relay[:255]) or self._of_domain(values.get("to", "").rpartition("@")[2][:255]) or OTHER

    def _find_relay(self, host: str) -> str:
        name = host.lower().rstrip(".")
        if name in self.patterns:
            return self.patterns[name]
        labels = name.split(".")
        above = (f"*.{'.'.join(labels[number:])}" for number in range(1, len(labels)))
        return next((self.patterns[pattern] for pattern in above if pattern in self.patterns), "")

    def _find_domain(self, domain: str) -> str:
        return self.patterns.get(f"@{domain.lower()}", "")


def read(path: Path | None) -> Providers:
    """Of a file, or ours. OSError when it cannot be read, ValueError, with the line, when it is no such list."""
    file = path or DEFAULT
    if file.stat().st_size > LONGEST:
        raise ValueError(f"more than {LONGEST} bytes")
    return parse(file.read_text("utf-8"))


def parse(text: str) -> Providers:
    """ValueError, which names the line, for what is no such list."""
    patterns: dict[str, str] = {}
    with_ours = False
    for number, line in _lines(text):
        if line == "default":
            with_ours = True
            continue
        pattern, provider = _pair(number, line)
        if pattern in patterns:
            raise ValueError(f"line {number}: {pattern} stands there twice")
        patterns[pattern] = provider
        if len({*patterns.values(), OTHER}) > MOST:
            raise ValueError(f"line {number}: more than {MOST - 1} providers beside {OTHER}")
    if with_ours:
        patterns = _ours_below(patterns)
    return Providers(patterns)


def _ours_below(patterns: dict[str, str]) -> dict[str, str]:
    """Our list too, as far as there is room for its providers."""
    found = dict(patterns)
    for number, line in _lines(DEFAULT.read_text("utf-8")):
        pattern, provider = _pair(number, line)
        if pattern not in found and len({*found.values(), provider, OTHER}) <= MOST:
            found[pattern] = provider
    return found


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if bare := line.partition("#")[0].strip():
            yield number, bare


def _pair(number: int, line: str) -> tuple[str, str]:
    pattern, comma, provider = (part.strip().lower() for part in line.partition(","))
    if not comma or not pattern or not provider:
        raise ValueError(f"line {number}: it takes a pattern, a comma and a provider")
    if len(pattern) > 255 or not _PATTERN.fullmatch(pattern):
        raise ValueError(
            f"line {number}: {pattern[:80]!r} is no pattern like *.example.com, mx.example.com, @example.com"
        )
    if not _NAME.fullmatch(provider):
        raise ValueError(f"line {number}: {provider[:80]!r} is no name of letters, digits, dots and hyphens")
    return pattern, provider
