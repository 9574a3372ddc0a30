"""A link in real mail: followed, redirected, counted; and made dead when it must be."""

from __future__ import annotations

import http.client
import re
import urllib.parse

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab.lab import Lab, letter
from tests.lab.product import Postmeter

TARGETS = ["https://shop.example/?a=1&b=2", "https://shop.example/basket#top", "http://other.example/"]
PAGE = "".join(f'<a href="{target.replace("&", "&amp;")}">look</a>\r\n' for target in TARGETS)


@pytest.fixture(scope="module")
def lab(open_lab: OpenLab) -> Lab:
    """The tracking server runs as a user of its own, who can read neither keys nor journal."""
    postmeter = Postmeter(
        {"tracking": {"url": "https://click.example.com", "mail": "all"}},
        daemons=("milter", "web", "books"),
        web_user="www-data",
    )
    postmeter.key("example.com", "pm")
    postmeter.secrets()
    return open_lab(Lab(postmeter=postmeter))


class Reader:
    """Follows links as a browser would, behind the TLS proxy, and knows how many led anywhere."""

    def __init__(self, lab: Lab) -> None:
        self.postmeter = lab.postmeter
        self.clicks = 0
        body = lab.deliver(letter(PAGE, html=True)).body
        self.links = [link.decode() for link in re.findall(rb'href="(https://click\.example\.com/c/[^"]+)"', body)]
        assert len(self.links) == len(TARGETS), body

    def follow(self, link: str, *, host: str = "click.example.com") -> tuple[int, dict[str, str]]:
        """What the tracking server answers: status and header fields."""
        connection = http.client.HTTPConnection("127.0.0.1", self.postmeter.ports["web"], timeout=20)
        connection.request("GET", urllib.parse.urlsplit(link).path, headers={"Host": host})
        response = connection.getresponse()
        response.read()
        connection.close()
        self.clicks += response.status == 302
        return response.status, {name.lower(): value for name, value in response.getheaders()}

    def follow_all(self) -> None:
        for link in self.links:
            assert self.follow(link)[0] == 302

    def all_are_counted(self) -> None:
        self.postmeter.wait_figure(self.clicks, "clicks_total")


@pytest.fixture(scope="module")
def reader(lab: Lab) -> Reader:
    return Reader(lab)


def test_every_link_leads_where_it_led_before(reader: Reader) -> None:
    """302, not to be cached, to the very target that stood in the page; and each is counted."""
    for link, target in zip(reader.links, TARGETS, strict=True):
        status, fields = reader.follow(link)
        assert (status, fields["location"]) == (302, target)
        assert "no-store" in fields["cache-control"]
    reader.all_are_counted()


def test_clicks_made_while_the_books_are_away_are_counted_later(reader: Reader) -> None:
    """They wait in the spool; kill -9 of both daemons loses none and counts none twice."""
    reader.postmeter.kill("books")
    reader.follow_all()
    reader.postmeter.kill("web")
    reader.postmeter.start("web")
    reader.follow_all()
    reader.postmeter.start("books")
    reader.all_are_counted()


@pytest.mark.parametrize("change", ["altered", "other host", "nonsense"])
def test_what_we_did_not_make_is_not_found(reader: Reader, change: str) -> None:
    """No open redirect: one letter changed, another host's name, or no token at all."""
    link, host = reader.links[0], "click.example.com"
    if change == "altered":
        at = len(link) - 30
        link = link[:at] + ("A" if link[at] != "A" else "B") + link[at + 1 :]
    elif change == "other host":
        host = "click.example.org"
    else:
        link = "https://click.example.com/c/https://evil.example/"
    status, fields = reader.follow(link, host=host)
    assert status == 404
    assert "location" not in fields


def test_blocked_links_are_gone_within_seconds(reader: Reader) -> None:
    """A stolen account's phishing must not ruin the host's name."""
    postmeter, other = reader.postmeter, reader.links[2]
    done = postmeter.run("links", "block", "--host", "other.example")
    assert done.returncode == 0, done.stderr
    postmeter.wait_until(lambda: reader.follow(other)[0] == 410, bound=6)
    assert reader.follow(reader.links[0])[0] == 302
    assert postmeter.run("links", "unblock", "--host", "other.example").returncode == 0
    postmeter.wait_until(lambda: reader.follow(other)[0] == 302, bound=6)
    reader.all_are_counted()
