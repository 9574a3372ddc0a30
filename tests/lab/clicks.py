"""Links of the judge's messages (`link_oracle`), followed over HTTP through a real tracking server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from urllib.parse import urlsplit

from tests.lab import redirects
from tests.link_oracle import BASE, HOST, SECRET


@contextmanager
def open_server() -> Iterator[HTTPConnection]:
    """One connection to a tracking server that has the secret of the judge's links."""
    with redirects.opened() as place:
        place.secret, place.more = SECRET, f", hosts: [{HOST}]"
        place.write()
        place.keep_secrets(SECRET)
        with place.running():
            yield place.connect()


def target(url: str, web: HTTPConnection) -> str:
    """Where the tracking server leads who asks for exactly this."""
    assert url.startswith(f"{BASE}/c/"), url
    web.request("GET", urlsplit(url).path, headers={"Host": HOST})
    response = web.getresponse()
    response.read()
    assert response.status == 302, url
    return response.headers["Location"]
