"""Some busy minutes, for pictures of the dashboards: newsletters, invoices, a quota that is too small, servers that put
off or refuse, readers and robots, complaints, a DNS that forgets a key.

`python -m tests.lab.busy MINUTES ANSWERS.json` lets it happen on a real Postfix under a real Prometheus, then asks what
the panels of packaging/grafana ask (pictures.py there draws it). Nobody's mail leaves the machine.
"""

from __future__ import annotations

import contextlib
import http.client
import math
import random
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from tests.lab.client import Client, RefusedError
from tests.lab.dns import NameServer
from tests.lab.folder import CLONE
from tests.lab.keys import records
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.ports import free_port
from tests.lab.postfix import LOGINS
from tests.lab.product import Postmeter
from tests.lab.prometheus import Prometheus
from tests.lab.reports import arf, dsn
from tests.lab.sink import Delivery

_PROVIDERS = ("gmail.com", "gmail.com", "outlook.com", "yahoo.com", "icloud.com", "mail.example.net")
_BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"
_FOLLOWED = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-User": "?1"}
_LOOKED = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
_SOON = 62.0  # seconds after a message before a person is believed to be one
_PAGE = (
    '<p>Spring is here. <a href="https://shop.example/spring">look</a> or <a href="https://shop.example/sale">save</a>,'
    ' <a href="https://shop.example/late">be late</a> or <a href="https://shop.example/reset?token=1">log in</a>.</p>'
    "\r\n"
)


class Busy:
    """The half hour; chance is the same each time."""

    def __init__(self, lab: Lab, dns: NameServer, seconds: float) -> None:
        self.lab, self.dns, self.seconds = lab, dns, seconds
        self.chance = random.Random(7)
        self.began = time.monotonic()
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._lost: dict[str, str] = {}
        self._seen = 0
        self._unwilling: list[str] = []  # who complained or left, and an old list writes to again
        lab.sink.answer = self.answer

    @property
    def share(self) -> float:
        """Of the time that has passed."""
        return (time.monotonic() - self.began) / self.seconds

    def run(self) -> None:
        number = 0
        while self.share < 1:
            number += 1
            self.mail(number)
            self.readers()
            self.zone()
            # Waves of newsletters over what programs send all day.
            busy = 0.5 + 0.5 * math.sin(self.share * 5 * math.pi - 1)
            time.sleep(0.12 + 0.5 * (1 - busy) * self.chance.random())

    # --- what is sent

    def mail(self, number: int) -> None:
        whom = f"reader{number}@{self.chance.choice(_PROVIDERS)}"
        kind = self.chance.random()
        if kind < 0.04:
            whom = f"gone-{number}@{self.chance.choice(_PROVIDERS)}"
        elif kind < 0.05:
            whom = f"full-{number}@{self.chance.choice(_PROVIDERS)}"
        if self._unwilling and number % 20 == 0:
            whom = self.chance.choice(self._unwilling)
        bulk = ["X-Campaign: spring"] if kind < 0.75 else []
        sender = "news@shop.example" if kind < 0.3 else ALICE
        if number % 27 == 0:
            self.lab.postfix.sendmail(letter(sender="cron@example.com"), "-f", "cron@example.com", whom)
            return None
        if number % 40 == 0:
            bulk = [*bulk, "X-Mailgun-Track: no"]
        if kind > 0.97:
            return self.send(letter(sender="ceo@elsewhere.example"), ALICE, whom)
        if kind > 0.88:
            return self.send(letter(sender=BOB), BOB, whom)
        return self.send(letter(_PAGE, html=True, sender=sender, fields=bulk), ALICE, whom)

    def send(self, message: bytes, login: str, whom: str) -> None:
        with (
            contextlib.suppress(RefusedError),
            Client(self.lab.postfix.ports["submission"], login=(login, LOGINS[login])) as client,
        ):
            client.send(message, mail_from=login, rcpt_to=[whom])

    def answer(self, recipient: bytes) -> str:
        """Outlook puts off for a while, Yahoo a little all the time, some are gone."""
        if recipient.startswith(b"gone"):
            return "550 5.1.1 no such user"
        if recipient.startswith(b"full"):
            return "552 5.2.2 mailbox full"
        slow = {b"outlook.com": 0.9 if 0.35 < self.share < 0.55 else 0.0, b"yahoo.com": 0.15}
        late = random.random() < slow.get(recipient.rpartition(b"@")[2], 0)
        return "451 4.7.500 server busy" if late else "250 2.1.5 ok"

    # --- what comes of it

    def readers(self) -> None:
        """Of what has arrived since, and of what was put off until now."""
        arrived = self.lab.sink.deliveries[self._seen :]
        self._seen += len(arrived)
        for each in arrived:
            self.reader(each)
        now = time.monotonic()
        due = [act for when, act in self._later if when <= now]
        self._later = [(when, act) for when, act in self._later if when > now]
        for act in due:
            with contextlib.suppress(OSError, RefusedError):
                act()

    def reader(self, arrived: Delivery) -> None:
        page = arrived.body.replace(b"=\r\n", b"").replace(b"=3D", b"=").decode("utf-8", "replace")
        links = re.findall(r'https://click\.example\.com(/c/[^"]+)"', page)
        image = re.search(r'https://click\.example\.com(/o/[^"]+)"', page)
        if not links or image is None:
            return
        address = f"8.{self.chance.randrange(256)}.{self.chance.randrange(256)}.{self.chance.randrange(1, 255)}"
        mood = self.chance.random()
        if mood < 0.08:  # a scanner follows all of them at once
            self.later(1, lambda: self.scan(links, address))
        if mood < 0.35:
            self.later(_SOON, lambda: self.ask(image[1], _LOOKED, address))
        if mood < 0.15:
            self.later(_SOON + 5, lambda: self.ask(links[0], _FOLLOWED, address))
        if 0.35 < mood < 0.36:
            self.later(_SOON, lambda: self.complain(arrived))
        if 0.36 < mood < 0.375:
            self.later(_SOON, lambda: self.leave(arrived, address))
        if 0.375 < mood < 0.385:
            self.later(5, lambda: self.bounce(arrived))

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds * (1 + self.chance.random()), act))

    def ask(self, path: str, fields: dict[str, str], address: str, body: str | None = None) -> None:
        link = http.client.HTTPConnection("127.0.0.1", self.lab.postmeter.ports["web"], timeout=20)
        proxied = {"Host": "click.example.com", "X-Forwarded-For": address, "X-Forwarded-Proto": "https"}
        with contextlib.closing(link):
            link.request("GET" if body is None else "POST", path, body=body, headers={
                **proxied, "User-Agent": _BROWSER, **fields,
            })  # fmt: skip
            link.getresponse().read()

    def scan(self, paths: list[str], address: str) -> None:
        for path in paths:
            self.ask(path, _FOLLOWED, address)

    def leave(self, arrived: Delivery, address: str) -> None:
        (value,) = arrived.values(b"List-Unsubscribe")
        path = urllib.parse.urlsplit(value.decode().strip(" <>")).path
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        self._unwilling.append(arrived.rcpt_to[0].decode())
        self.ask(path, kind, address, "List-Unsubscribe=One-Click")

    def complain(self, arrived: Delivery) -> None:
        whom = arrived.rcpt_to[0].decode()
        self._unwilling.append(whom)
        raw = arf(whom, return_path=arrived.mail_from.decode())
        self.lab.send(raw, login="", service="transit", mail_from="", rcpt_to=["fbl@example.com"])

    def bounce(self, arrived: Delivery) -> None:
        to = arrived.mail_from.decode()
        raw = dsn(arrived.rcpt_to[0].decode(), to=to)
        self.lab.send(raw, login="", service="transit", mail_from="", rcpt_to=[to])

    def zone(self) -> None:
        """For a tenth of the time DNS has lost a key."""
        if 0.6 < self.share < 0.7 and not self._lost:
            name = "e._domainkey.shop.example"
            self._lost = {name: self.dns.records.pop(name)}
        if self.share > 0.7 and self._lost:
            self.dns.records |= self._lost


def make(dns: NameServer) -> Lab:
    lmtp = f"inet:127.0.0.1:{free_port()}"
    postmeter = Postmeter(
        {
            "dkim": {"check_every": "20s", "resolvers": [f"127.0.0.1:{dns.port}"]},
            "senders": {"from": {ALICE: ["example.com", "shop.example"]}},
            "quota": {
                "limits": ["100000 recipients/day"], "rules": [{"login": BOB, "limits": ["12 recipients/minute"]}],
            },
            "suppression": {"observe": False},
            "tracking": {
                "url": "https://click.example.com", "opens": True, "unsubscribe": True, "privacy": "recipients",
            },
        },
        daemons=("milter", "web", "books"),
    )  # fmt: skip
    for domain in ("example.com", "shop.example", "example.org"):
        for selector, algorithm in (("r", "rsa"), ("e", "ed25519")):
            dns.records |= records(postmeter.key(domain, selector, algorithm))
    secret = postmeter.secrets()
    postmeter.settings["bounces"] = {
        "domains": {"example.com": "bounces@example.com", "shop.example": "bounces@example.com"}, "lmtp": lmtp,
        "secrets": str(secret), "cfbl_address": "fbl@example.com",
    }  # fmt: skip
    maps = f"inline:{{ {{ bounces@example.com = lmtp:{lmtp} }}, {{ fbl@example.com = lmtp:{lmtp} }} }}"
    often = {"queue_run_delay": "15s", "minimal_backoff_time": "15s", "maximal_backoff_time": "60s"}
    lab = Lab(postmeter=postmeter, sendmail=True, postfix={"recipient_delimiter": "+", "transport_maps": maps, **often})
    postmeter.settings["delivery"] = {"log": str(lab.postfix.log_file)}
    postmeter.settings["notify"] = {"smtp": f"127.0.0.1:{lab.sink.port}", "from": "postmaster@example.com"}
    return lab


def main(minutes: float, answers: Path) -> None:
    with NameServer() as dns, make(dns) as lab, Prometheus(lab.postmeter.ports["metrics"]) as prometheus:
        Busy(lab, dns, minutes * 60).run()
        asks = [sys.executable, str(CLONE / "packaging/grafana/pictures.py"), "ask"]
        where = [f"http://127.0.0.1:{prometheus.port}", str(int(minutes * 60))]
        answers.write_bytes(subprocess.run([*asks, *where], check=True, stdout=subprocess.PIPE).stdout)


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]))
