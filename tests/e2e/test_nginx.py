"""contrib/nginx/postmeter.conf on a real nginx in front of a real `postmeter web`: TLS, addresses, methods, limits."""

from __future__ import annotations

import json
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from postmeter.doctor import outside
from postmeter.token import Mint, Unsubscribe
from tests.lab import tls
from tests.lab.folder import CLONE
from tests.lab.nginx import Nginx
from tests.lab.redirects import Place, opened

HOST = "click.example.com"
SITE = CLONE / "contrib" / "nginx" / "postmeter.conf"
LIVE = f"/etc/letsencrypt/live/{HOST}"
CLIENT = "127.0.0.2"
"""An address of loopback that is no proxy's: web.proxies has 127.0.0.1 alone."""

NO_FIELDS: Mapping[str, str] = {}
SPOOF = {"X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"}
ONE_CLICK = b"List-Unsubscribe=One-Click"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="nginx becomes another user as root alone")


class Site:
    """The proxy and what is behind it."""

    def __init__(self, place: Place, nginx: Nginx, context: ssl.SSLContext) -> None:
        self.place, self.nginx, self.context = place, nginx, context

    def ask(
        self, path: str, *, method: str = "GET", body: bytes | None = None, client: str = CLIENT,
        fields: Mapping[str, str] = NO_FIELDS, port: int = 0,
    ) -> HTTPResponse:  # fmt: skip
        """By TLS; at another `port` plain, as to the tracking server itself."""
        link = HTTPConnection(HOST, timeout=10)
        wire = socket.create_connection(("127.0.0.1", port or self.nginx.tls), 10, (client, 0))
        link.sock = wire if port else self.context.wrap_socket(wire, server_hostname=HOST)
        with closing(link):
            link.request(method, path, body=body, headers=dict(fields))
            answer = link.getresponse()
            answer.read()
        return answer

    def hits(self) -> list[dict[str, Any]]:
        """A hit is written before it is answered."""
        files = sorted((self.place.state / "spool" / "hits").glob("hits*"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened() as found:
        found.more = ", hosts: [127.0.0.1]"
        found.write(HOST)
        with found.running():
            yield found


@contextmanager
def proxied(place: Place, instead: Mapping[str, str] = NO_FIELDS) -> Iterator[Site]:
    """`instead` of texts of the site's file; one that says less than the file would be no test of it."""
    made = tls.make(place.path / "tls", host=HOST)
    here = {
        "127.0.0.1:8587": f"127.0.0.1:{place.port}",
        f"{LIVE}/fullchain.pem": str(made.server),
        f"{LIVE}/privkey.pem": str(made.server),
    }
    with Nginx(SITE, {**here, **instead}) as nginx:
        yield Site(place, nginx, ssl.create_default_context(cafile=str(made.authority)))


@pytest.fixture(scope="module")
def site(needs_nginx: None, place: Place) -> Iterator[Site]:
    with proxied(place) as found:
        yield found


def test_a_click_through_tls_leads_on_and_says_who_came(site: Site) -> None:
    before = len(site.hits())
    answer = site.ask(site.place.path_of(host=HOST))
    assert (answer.status, answer.getheader("Location")) == (302, "https://shop.example/")
    (hit,) = site.hits()[before:]
    assert (hit["address"], hit["secure"]) == (CLIENT, True), hit


def test_nobody_gives_himself_another_address(site: Site) -> None:
    """Neither through the proxy, which writes its own word behind, nor past it, where nobody is believed."""
    before = len(site.hits())
    path = site.place.path_of(host=HOST)
    assert site.ask(path, fields=SPOOF).status == 302
    assert site.ask(path, fields=SPOOF, port=site.place.port).status == 302
    through, past = site.hits()[before:]
    assert (through["address"], through["secure"]) == (CLIENT, True)
    assert (past["address"], past["secure"]) == (CLIENT, False)


def test_a_link_goes_on_letter_by_letter(site: Site) -> None:
    """Some programs escape what needs none, and gateways add parameters: nginx must not tidy up."""
    path = site.place.path_of(host=HOST)
    escaped = path[:3] + "".join(f"%{ord(char):02x}" for char in path[3:6]) + path[6:]
    assert site.ask(escaped).status == 302
    assert site.ask(f"{path}?utm_source=x&y=//z").status == 302
    assert site.ask(path[:-1]).status == 404


def test_other_methods_pass(site: Site) -> None:
    """HEAD of a link, the page of an unsubscribe, and its one-click POST."""
    assert site.ask(site.place.path_of(host=HOST), method="HEAD").status == 302
    said = Unsubscribe(b"message1", b"bob@example.net", "from:news@shop.example")
    url = Mint([site.place.secret]).unsubscribe_url(f"https://{HOST}", said, nonce=b"only used 1x")
    path = url.removeprefix(f"https://{HOST}")
    assert site.ask(path).status == 200
    assert site.ask(path, method="POST", body=ONE_CLICK, fields=FORM).status == 200
    assert site.ask(path, method="POST", body=b"x" * 20_000, fields=FORM).status == 413


def test_cookies_of_other_hosts_kill_no_link(site: Site) -> None:
    """Browsers send what example.com sets for all its hosts: more than `web.max_request`, and none of our business."""
    assert site.ask(site.place.path_of(host=HOST), fields={"Cookie": "c" * 16_300}).status == 302


def test_plain_http_is_sent_to_tls(site: Site) -> None:
    answer = site.ask("/c/anything?a=b", port=site.nginx.plain)
    assert (answer.status, answer.getheader("Location")) == (301, f"https://{HOST}/c/anything?a=b")


def test_tokens_stand_in_no_log(site: Site) -> None:
    path = site.place.path_of(host=HOST)
    assert site.ask(path).status == 302
    assert path not in site.nginx.logged() + site.nginx.error()


def test_the_doctor_finds_postmeter_behind_it_or_says_that_it_does_not(site: Site) -> None:
    seen = outside.visit(HOST, "127.0.0.1", site.nginx.tls, site.context)
    assert (seen.trouble, seen.stranger, seen.expires > 0) == ("", "", True)
    with proxied(site.place, {"127.0.0.1:8587": "127.0.0.1:1"}) as nowhere:
        seen = outside.visit(HOST, "127.0.0.1", nowhere.nginx.tls, nowhere.context)
        assert (seen.trouble, seen.stranger) == ("", "502 Bad Gateway")
    other = outside.visit("other.example.com", "127.0.0.1", site.nginx.tls, site.context)
    assert "certificate" in other.trouble.lower()


def test_a_flood_of_one_client_costs_no_other(site: Site) -> None:
    """The numbers of the file would take a thousand requests."""
    path = site.place.path_of(host=HOST)
    with proxied(site.place, {"rate=200r/s": "rate=1r/m", "burst=1000": "burst=2"}) as slow:
        assert [slow.ask(path).status for _ in range(4)] == [302, 302, 302, 429]
        assert slow.ask(path, client="127.0.0.3").status == 302
