"""Every panel of both dashboards shows something of postmeter under load to a real Prometheus, and no rule fails.

Mail, deferrals, bounces, complaints, opens, clicks, unsubscribes, refusals: what can happen happens, and its panels
must show more than 0. Those about faults that did not happen are named, with the reason: they must show 0 or nothing.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from tests.e2e.conftest import OpenLab
from tests.lab import prometheus
from tests.lab.client import RefusedError
from tests.lab.dashboards import Asked, asked
from tests.lab.dns import NameServer
from tests.lab.lab import BOB, Lab, letter
from tests.lab.ports import free_port
from tests.lab.product import Postmeter
from tests.lab.prometheus import Prometheus
from tests.lab.reports import arf, dsn
from tests.lab.sink import Delivery

pytestmark = pytest.mark.skipif(os.environ.get("POSTMETER_ALL") != "1", reason="takes two minutes: in `make all` only")

QUIET = {
    "Failures": "nothing failed",
    "Failures by place: {{where}}": "nothing failed",
    "Keys that fail": "DNS shows both",
    "Braked logins": "no account was stolen",
    "On hold": "nothing was held",
    "Stopped: logins braked, {{instance}}": "no account was stolen",
    "Stopped: messages on hold, {{instance}}": "nothing was held",
    "Store of the quotas: failures, {{instance}}": "the journal could be read",
    "Not shipped: {{instance}}": "there is no PostgreSQL",
    "Log lost: {{instance}}": "the log was whole",
    "Providers not believed: {{provider}}": "nobody refused everybody",
    "Webhooks: given up, {{instance}}": "a webhook is tried for days",
    "Suppressed by reason: {{reason}}, observed": "suppression was in force",
    "Links: clipped": "no newsletter was that long",
}
MAYBE = {"Unread log", "Log unread: {{instance}}"}
"""The log is read as fast as it is written, or not: 0 is as good as any."""

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
LOOKED = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
PAGE = '<p>News. <a href="https://shop.example/?a=1">look</a></p>\r\n'
SOON = 61  # seconds after a message before a person is believed to be one
SPAN = 300
COME_LAST = (
    'clicks_total{by="human"}', 'opens_total{by="human"}', "unsubscribes_total", "suppressed_total",
    "webhook_failures_total",
)  # fmt: skip


@dataclass
class World:
    lab: Lab
    prometheus: Prometheus
    started: float


@pytest.fixture(scope="module")
def world(open_lab: OpenLab) -> Iterator[World]:
    if reason := prometheus.missing():
        pytest.fail(f"{reason}, and here nothing may be skipped")
    with NameServer() as dns, contextlib.ExitStack() as stack:
        lab = open_lab(_lab(dns))
        lab.sink.answer = _answer
        asking = stack.enter_context(Prometheus(lab.postmeter.ports["metrics"]))
        made = World(lab, asking, time.monotonic())
        _happen(made)
        yield made


def _lab(dns: NameServer) -> Lab:
    lmtp = f"inet:127.0.0.1:{free_port()}"
    postmeter = Postmeter(
        {
            "dkim": {"check_every": "3s", "resolvers": [f"127.0.0.1:{dns.port}"]},
            "quota": {
                "limits": ["100000 recipients/day"],
                "rules": [{"login": BOB, "limits": ["3 recipients/hour"]}],
            },
            "suppression": {"observe": False},
            "tracking": {
                "url": "https://click.example.com", "opens": True, "unsubscribe": True, "privacy": "recipients",
            },
            "webhooks": [{"url": f"http://127.0.0.1:{free_port()}/", "events": ["sent"]}],
        },
        daemons=("milter", "web", "books"),
    )  # fmt: skip
    for key in (postmeter.key("example.com", "r"), postmeter.key("example.com", "e", "ed25519")):
        dns.records[key.name] = key.record
    secret = postmeter.secrets()
    postmeter.settings["bounces"] = {
        "domains": {"example.com": "bounces@example.com"}, "secrets": str(secret), "lmtp": lmtp,
        "cfbl_address": "fbl@example.com",
    }  # fmt: skip
    maps = f"inline:{{ {{ bounces@example.com = lmtp:{lmtp} }}, {{ fbl@example.com = lmtp:{lmtp} }} }}"
    lab = Lab(postmeter=postmeter, postfix={"recipient_delimiter": "+", "transport_maps": maps})
    postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
    postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.sink.port}", "from": "postmaster@example.com"}
    return lab


def _answer(recipient: bytes) -> str:
    kind = recipient.partition(b"-")[0]
    told = {b"later": "450 4.2.0 come again", b"gone": "550 5.1.1 no such user", b"full": "552 5.2.2 mailbox full"}
    return told.get(kind, "250 2.1.5 ok")


# --- what happens


def _happen(world: World) -> None:
    lab = world.lab
    for name in ("read-0", "leave-0", "back-0", "spam-0", "gone-0"):
        _newsletter(lab, name)
    sent = time.monotonic()
    with _load(lab):
        _go_wrong(lab)
        _come_back(lab)
        lab.postmeter.wait_until(lambda: b"spam-0" in lab.postmeter.run("suppress", "list").stdout, bound=60)
        lab.postmeter.wait_until(lambda: time.monotonic() > sent + SOON, bound=SOON + 10)
        _read(lab)
        # A worker looks each second whether anybody is suppressed at all: by now it has.
        _newsletter(lab, "ok-and-spam-0", "spam-0@example.net")
        for name in COME_LAST:
            _wait(world, partial(_is_there, world, f"sum(increase(postmeter_{name}[1m]))"))
        # The rates are looked at once a minute.
        for name in ("bounce_rate", "complaint_rate"):
            _wait(world, partial(_is_there, world, f"postmeter_{name}"))


@contextlib.contextmanager
def _load(lab: Lab) -> Iterator[None]:
    """Mail all the time, some of which nobody takes now and some that nobody takes ever."""
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.wait(0.1):
            number += 1
            kind = ("ok", "ok", "ok", "later", "full")[number % 5]
            _newsletter(lab, f"{kind}-{number}")

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _newsletter(lab: Lab, name: str, *others: str) -> None:
    lab.send(letter(PAGE, html=True, fields=["X-Campaign: spring"]), rcpt_to=[f"{name}@example.net", *others])


def _go_wrong(lab: Lab) -> None:
    """A login over its limit, a From that is not its own, a domain without a key, a line too long, a switch."""
    for nth in range(3):
        lab.send(letter(sender="alice@example.com" if nth else BOB), login=BOB, rcpt_to=[f"bob-{nth}@example.net"])
    with pytest.raises(RefusedError):
        lab.send(letter(sender=BOB), login=BOB)
    lab.send(letter(subject="x" * 1100), rcpt_to=["ok-long@example.net"])
    lab.send(letter(fields=["X-Mailgun-Track: no"]), rcpt_to=["ok-switch@example.net"])


def _come_back(lab: Lab) -> None:
    back, spam = _arrived(lab, "back-0"), _arrived(lab, "spam-0")
    to = back.mail_from.decode()
    lab.send(dsn("back-0@example.net", to=to), login="", service="transit", mail_from="", rcpt_to=[to])
    raw = arf("spam-0@example.net", return_path=spam.mail_from.decode())
    lab.send(raw, login="", service="transit", mail_from="", rcpt_to=["fbl@example.com"])
    lab.postmeter.wait_figure(1, "complaints_total", bound=60)


def _read(lab: Lab) -> None:
    """A person, behind the TLS proxy, looks at one message, follows its link, and leaves another list."""
    page = _arrived(lab, "read-0").body.replace(b"=\r\n", b"").replace(b"=3D", b"=")
    image, link = (re.search(rf'https://click\.example\.com(/{kind}/[^"]+)"'.encode(), page) for kind in "oc")
    assert image, page
    assert link, page
    assert _ask(lab, image[1].decode(), LOOKED) == 200
    assert _ask(lab, link[1].decode(), FOLLOWED) == 302
    (value,) = _arrived(lab, "leave-0").values(b"List-Unsubscribe")
    path = urllib.parse.urlsplit(value.decode().strip(" <>")).path
    assert _ask(lab, path, {"Content-Type": "application/x-www-form-urlencoded"}, "List-Unsubscribe=One-Click") == 200


def _ask(lab: Lab, path: str, fields: dict[str, str], body: str | None = None) -> int:
    link = http.client.HTTPConnection("127.0.0.1", lab.postmeter.ports["web"], timeout=20)
    proxied = {"Host": "click.example.com", "X-Forwarded-For": "8.8.4.4", "X-Forwarded-Proto": "https"}
    with contextlib.closing(link):
        link.request("GET" if body is None else "POST", path, body=body, headers={
            **proxied, "User-Agent": CHROME, **fields,
        })  # fmt: skip
        return link.getresponse().status


def _arrived(lab: Lab, name: str) -> Delivery:
    return lab.sink.wait_for(f"{name}@example.net".encode())


def _is_there(world: World, query: str) -> bool:
    return bool(world.prometheus.now(f"{query} > 0"))


def _wait(world: World, condition: Callable[[], bool]) -> None:
    world.lab.postmeter.wait_until(condition, bound=120)


# --- what is shown of it


def _shown(world: World, one: Asked) -> dict[str, list[float]]:
    """All values of its series, by labels, over the time since the beginning."""
    seconds = min(SPAN, int(time.monotonic() - world.started))
    query = one.filled(span=f"{SPAN}s", rate="15s")
    return world.prometheus.now(query) if one.instant else world.prometheus.over(query, seconds=seconds)


@pytest.mark.parametrize("one", asked(), ids=lambda one: f"{one.board}-{one.name}")
def test_every_panel_shows_what_happened(world: World, one: Asked) -> None:
    shown = _shown(world, one)
    loud = [labels for labels, values in shown.items() if any(values)]
    if one.name in QUIET:
        said = "".join(map(world.lab.postmeter.log, world.lab.postmeter.daemons))
        assert loud == [], f"{QUIET[one.name]}, and yet:\n{said}"
    else:
        assert shown, one.expression
        assert loud or one.name in MAYBE, one.expression


def test_what_is_quiet_is_on_a_dashboard() -> None:
    assert set(QUIET) | MAYBE <= {one.name for one in asked()}


def test_the_menus_offer_hosts_domains_and_providers(world: World) -> None:
    for label, metric, wanted in (
        ("instance", "postmeter_build_info", f"127.0.0.1:{world.lab.postmeter.ports['metrics']}"),
        ("domain", "postmeter_deliveries_total", "example.com"),
        ("provider", "postmeter_deliveries_total", "other"),
    ):
        assert wanted in world.prometheus.ask(f"label/{label}/values", **{"match[]": metric})


def test_prometheus_works_out_every_rule(world: World) -> None:
    rules = [rule for group in world.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 20
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []


def test_nobody_is_woken(world: World) -> None:
    """Mail that bounces and is refused is no failure of ours; only what says so at once could fire by now."""
    alerts = world.prometheus.ask("alerts")["alerts"]
    assert {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"} <= {"PostmeterUnsigned"}
