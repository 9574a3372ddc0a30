"""`make run`: a private Postfix with postmeter as its milter, and what becomes of mail that goes through.

Exits 0 when every step held, else 1 with the reason, and leaves nothing running. On a terminal it stays up afterwards
for mail of your own. It is a use of the lab like any test; the words on the screen are all that is its own.
"""

from __future__ import annotations

import http.client
import re
import signal
import sys
import urllib.parse
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.lab import postfix, verify
from tests.lab.client import RefusedError
from tests.lab.folder import new_folder
from tests.lab.keys import DkimKey, records
from tests.lab.lab import ALICE, BOB, Lab, letter
from tests.lab.postfix import LOGINS
from tests.lab.product import Postmeter
from tests.lab.show import diff, failed, held, paint, quote, say, section
from tests.lab.sink import Delivery

BOBS_LIMIT = 3  # recipients an hour
GONE = "gone@example.net"  # whom the next hop does not know
_FIGURES = (
    "messages_total",
    "recipients_total",
    "quota_refusals_total",
    "dkim_signatures_total",
    "dkim_unsigned_total",
    "links_rewritten_total",
    "clicks_total",
    "deliveries_total",
    "bounces_total",
)


class StepError(Exception):
    """A step that did not hold."""


def main() -> int:
    """Everything; the answer is the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts us in the background has it ignored
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    if reason := postfix.missing() or verify.missing():
        failed(reason)
        return 1
    try:
        return _with_lab()
    except KeyboardInterrupt:
        failed("stopped before the end")
        return 130


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _with_lab() -> int:
    section("Starting")
    postmeter = Postmeter(folder=new_folder("demo"), daemons=("run",))
    keys = configure(postmeter)
    try:
        with Lab(postmeter=postmeter, sendmail=True) as lab:
            show(lab, keys)
    except (StepError, AssertionError, RefusedError, RuntimeError, OSError) as error:
        failed(str(error))
        return 1
    say()
    held("all of it held; nothing is left running")
    return 0


def show(lab: Lab, keys: list[DkimKey]) -> None:
    """The steps; on a terminal, then whatever the one who looks on sends."""
    held(f"a private Postfix, its milter on {lab.postmeter.milter.removeprefix('unix:')}, keys for example.com")
    try:
        Demo(lab, keys).run()
    except (StepError, AssertionError, RefusedError, OSError):
        quote("\n".join(lab.postmeter.log("run").splitlines()[-15:]), "dim")
        raise
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(KeyboardInterrupt):
            stay(lab)


def configure(postmeter: Postmeter) -> list[DkimKey]:
    """Two keys, a secret, a limit for everybody and a small one for bob."""
    keys = [postmeter.key("example.com", "demo-rsa"), postmeter.key("example.com", "demo-ed", "ed25519")]
    postmeter.secrets()
    postmeter.settings["quota"] = {
        "limits": ["500 recipients/day", "100 recipients/hour"],
        "rules": [{"login": BOB, "limits": [f"{BOBS_LIMIT} recipients/hour"]}],
    }
    postmeter.settings["senders"] = {"from": {ALICE: ["example.com"], BOB: ["example.org"]}}
    postmeter.settings["tracking"]["url"] = f"http://127.0.0.1:{postmeter.ports['web']}"
    postmeter.settings["delivery"] = {"log": str(postmeter.folder / "postfix" / "log" / "mail.log")}
    return keys


class Demo:
    """The steps, each of which raises when it does not hold."""

    def __init__(self, lab: Lab, keys: list[DkimKey]) -> None:
        self.lab = lab
        self.records = records(*keys)

    def run(self) -> None:
        newsletter = self.newsletter()
        plain = self.plain()
        self.verified(newsletter, plain)
        self.click(newsletter)
        self.over_quota()
        self.bounce()
        self.report()
        self.figures()

    def newsletter(self) -> Delivery:
        section("A newsletter from alice: signed, its links tracked")
        sent = Path(__file__).with_name("newsletter.eml").read_bytes().replace(b"\n", b"\r\n")
        arrived = self.lab.deliver(sent)
        diff(sent, arrived.as_sent)
        signatures = len(arrived.values(b"dkim-signature"))
        _hold(signatures == 2, f"it arrived with {signatures} DKIM signatures", "two: RSA and Ed25519")
        links = len(tracked_links(arrived, self.lab))
        _hold(links == 3, f"{links} links are tracked; mailto, visible addresses and unsubscribing are left alone", "3")
        return arrived

    def plain(self) -> Delivery:
        section("A plain message from alice: signed, nothing else touched")
        sent = letter("Lunch at one?\r\n", subject="lunch")
        arrived = self.lab.deliver(sent)
        _hold(arrived.as_sent.endswith(sent), "every byte she wrote arrived as it was", "that")
        return arrived

    def verified(self, newsletter: Delivery, plain: Delivery) -> None:
        section("What other people's verifiers say")
        for check in (verify.verify_opendkim, verify.verify_mail_dkim):
            for name, verdict in zip(
                ("newsletter", "plain message"), check([newsletter.data, plain.data], self.records), strict=True
            ):
                _hold(verdict.accepted, f"{name}: {verdict}", "a signature that passes")

    def click(self, arrived: Delivery) -> None:
        section("A reader follows a link")
        link = tracked_links(arrived, self.lab)[0]
        status, target = follow(link)
        quote(f"GET {link}\n{status} Location: {target}")
        _hold(status == 302 and target.startswith("https://garden.example/"), "the reader is sent on", "a redirect")
        self.lab.postmeter.wait_figure(1, "clicks_total")
        held("and the click is in the journal; as a machine's, for it was no browser that followed")

    def over_quota(self) -> None:
        section(f"Bob may write to {BOBS_LIMIT} recipients an hour")
        for nth in range(BOBS_LIMIT):
            self.lab.deliver(letter(sender=BOB, subject=f"note {nth + 1}"), login=BOB)
        held(f"{BOBS_LIMIT} messages of his were taken")
        try:
            self.lab.send(letter(sender=BOB), login=BOB)
        except RefusedError as refused:
            quote(f"{refused.step}: {refused.answer}", "yellow")
            _hold(refused.answer.code == 451, "the next one is not taken now, and his program is told when", "451")
        else:
            raise StepError("the message over the limit was taken")

    def bounce(self) -> None:
        section(f"Alice writes to {GONE}, who is not there any more")
        self.lab.sink.answer = lambda rcpt: "550 5.1.1 no such user" if rcpt == GONE.encode() else "250 2.1.5 ok"
        self.lab.send(letter(subject="are you there?"), rcpt_to=[GONE])
        self.lab.postmeter.wait_figure(1, "bounces_total", type="hard")
        quote(self.command("trace", GONE))
        held("Postfix's log told what the other server said")

    def report(self) -> None:
        section("What became of all of it")
        sent = 2 + BOBS_LIMIT
        self.lab.postmeter.wait_figure(sent, "deliveries_total", status="sent")
        page = self.command("report", "--since", "1d", "--by", "login")
        quote(page)
        delivered = re.search(rf"^  delivered +{sent} ", page, re.MULTILINE)
        _hold(delivered is not None, f"{sent} were delivered, one came back", str(sent))

    def command(self, *arguments: str) -> str:
        """What one of postmeter's commands prints."""
        done = self.lab.postmeter.run(*arguments)
        _hold(done.returncode == 0, f"postmeter {' '.join(arguments)}", done.stderr.decode())
        return done.stdout.decode()

    def figures(self) -> None:
        section("What Prometheus reads")
        wanted = tuple(f"postmeter_{name}" for name in _FIGURES)
        page = self.lab.postmeter.page()
        quote("\n".join(line for line in page.splitlines() if line.startswith(wanted) and not line.endswith(" 0.0")))
        metrics = self.lab.postmeter.metrics()
        accepted, sent = metrics.figure("messages_total", result="accepted"), 3 + BOBS_LIMIT
        _hold(accepted == sent, f"{accepted:.0f} messages accepted, as many as were sent", str(sent))


def tracked_links(arrived: Delivery, lab: Lab) -> list[str]:
    """The addresses of our tracking server in the message, soft line breaks undone."""
    text = arrived.body.replace(b"=\r\n", b"").replace(b"=3D", b"=")
    base = str(lab.postmeter.settings["tracking"]["url"]).encode()
    return [link.decode() for link in re.findall(re.escape(base) + rb'/c/[^"]+', text)]


def follow(link: str) -> tuple[int, str]:
    """One GET, not following the redirect: status and Location."""
    url = urllib.parse.urlsplit(link)
    connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=20)
    connection.request("GET", url.path)
    response = connection.getresponse()
    connection.close()
    return response.status, response.headers.get("Location", "")


def stay(lab: Lab) -> None:
    """Until Ctrl-C: say how to send mail, and tell what arrives."""
    section("Yours now")
    port = lab.postfix.ports["submission"]
    say(f"""    Send mail of your own:
      {paint(f"swaks --server 127.0.0.1:{port} --auth PLAIN --auth-user {ALICE} --auth-password {LOGINS[ALICE]}"
             f" --from {ALICE} --to you@example.net", "bold")}
    Ask postmeter:  PYTHONPATH=milter {sys.executable} -m postmeter report -c {lab.postmeter.config}
    Figures:        http://127.0.0.1:{lab.postmeter.ports["metrics"]}/metrics
    Configuration:  {lab.postmeter.config}
    Postfix's log:  {lab.postfix.log_file}
    Ctrl-C stops everything.""")
    seen = len(lab.sink.deliveries)
    while True:
        try:
            arrived = lab.sink.wait(seen + 1, bound=3600)[seen]
        except AssertionError:
            continue
        seen += 1
        subject = b" ".join(arrived.values(b"subject")).decode("utf-8", "backslashreplace")
        say(f"    arrived: {subject!r}, {len(arrived.values(b'dkim-signature'))} signatures")


def _hold(condition: bool, text: str, wanted: str) -> None:
    if not condition:
        raise StepError(f"{text}; wanted: {wanted}")
    held(text)


if __name__ == "__main__":
    sys.exit(main())
