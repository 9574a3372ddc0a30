"""A second host is three files of the first: configuration, tracking secrets, keys."""

from __future__ import annotations

import http.client
import re
import shutil
from contextlib import closing
from typing import Any

import yaml

from tests.lab import verify
from tests.lab.keys import records
from tests.lab.lab import Lab, letter
from tests.lab.product import Postmeter

LINK = '<p><a href="https://shop.example/?a=1&amp;b=2">look</a></p>\r\n'
PAGE = letter(LINK, html=True, fields=["X-Campaign: spring"])


def copied(first: Postmeter) -> Postmeter:
    """Another host. In a lab all hosts are one machine, so places and ports are its own; nothing else is."""
    second = Postmeter(daemons=("milter", "books"))
    shutil.copytree(first.folder / "keys", second.folder / "keys")
    shutil.copy2(first.folder / "tracking.secrets", second.folder)
    for path in (second.folder / "tracking.secrets", second.folder / "keys", *(second.folder / "keys").iterdir()):
        shutil.chown(path, second.user)  # as tar and rsync do by name
    text = first.config.read_text().replace(str(first.folder), str(second.folder))
    settings: dict[str, Any] = yaml.safe_load(text)
    own = {section: second.settings[section] for section in ("milter", "metrics", "web")}
    second.settings = {**settings, **own, "journal": {**settings["journal"], "host": "second"}}
    return second


def test_it_signs_with_the_same_keys_and_its_links_open_on_the_first(
    needs_postfix: None, needs_verifiers: None
) -> None:
    first = Postmeter({"tracking": {"url": "https://click.example.com"}}, daemons=("milter", "web", "books"))
    keys = [first.key("example.com", "r"), first.key("example.com", "e", "ed25519")]
    first.secrets()
    with first, Lab(postmeter=copied(first)) as second:
        arrived = second.deliver(PAGE)
        assert len(arrived.values(b"dkim-signature")) == 2
        verdicts = verify.verify_all([arrived.data], records(*keys))
        assert [str(verdict) for verdict in verdicts if not verdict.accepted] == []
        link = re.search(r"https://click\.example\.com(/c/[^\"]+)\"", _text(arrived.body))
        assert link is not None, arrived.body
        assert _follow(first, link[1]) == (302, "https://shop.example/?a=1&b=2")
        first.wait_figure(1, "clicks_total")
        assert first.events() == [], "the first host has never heard of the message"


def _text(body: bytes) -> str:
    return body.replace(b"=\r\n", b"").replace(b"=3D", b"=").decode()


def _follow(host: Postmeter, path: str) -> tuple[int, str | None]:
    with closing(http.client.HTTPConnection("127.0.0.1", host.ports["web"], timeout=20)) as link:
        link.request("GET", path, headers={"Host": "click.example.com", "X-Forwarded-Proto": "https"})
        answer = link.getresponse()
        return answer.status, answer.getheader("Location")
