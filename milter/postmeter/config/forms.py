"""The readers that sections are made of: a name for each kind of value a key may take.

Knows no key; what a text must look like is in `values`.
"""

from __future__ import annotations

from postmeter.config import amounts, values
from postmeter.config.readers import Reader, bounded, listing, scalar

boolean = scalar("true or false", amounts.boolean)
word = scalar("a name", values.word)
line = scalar("a text on one line", values.line)
path = scalar("an absolute path", values.path)
mode = scalar("a file mode", amounts.octal_mode)
limit = scalar("a limit", amounts.limit)
limits = listing(limit)
network = scalar("a network", values.network)
networks = listing(network)
domain = scalar("a domain name", values.domain)
domain_glob = scalar("a domain name or a glob of them", values.domain_glob)
selector = scalar("a selector", values.selector)
host_pattern = scalar("a host name", values.host_pattern)
address = scalar("a mail address", values.address)
addresses = listing(address)
login_or_address = scalar("a login, a mail address or @domain", values.login_or_address)
address_or_domain = scalar("a mail address or @domain", values.address_or_domain)
resolver = scalar("an IP address, perhaps with a port", values.resolver)
inet = scalar("HOST:PORT", values.inet)
socket_address = scalar("unix:PATH or inet:HOST:PORT", values.socket_address)
origin = scalar("a web address", values.origin)
url = scalar("a web address", values.url)
percent = scalar("a percentage", amounts.percent)
decimal = scalar("a number", amounts.decimal)
words = listing(word)


def duration(least: float = 0.0, most: float | None = None) -> Reader[float]:
    return bounded("a duration", amounts.duration, least=least, most=most, show=amounts.duration_text)


def size(least: int = 0, most: int | None = None) -> Reader[int]:
    return bounded("a size", amounts.size, least=least, most=most, show=amounts.size_text)


def whole(least: int = 0, most: int | None = None) -> Reader[int]:
    return bounded("a whole number", amounts.whole, least=least, most=most)
