"""`postmeter attach`, `doctor` and `detach` on a Postfix with milters of its own: what changes, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.client import RefusedError
from tests.lab.dns import NameServer
from tests.lab.lab import Lab, letter
from tests.lab.postfix import HOST, Postfix, Service, transit
from tests.lab.product import Postmeter
from tests.lab.sink import Sink

OTHER = "{ inet:127.0.0.1:9, default_action=accept, connect_timeout=1s }"


class Bare(Lab):
    """A Postfix that has never heard of postmeter, whose own milter is down and does not matter."""

    def __init__(self) -> None:
        super().__init__({"quota": {"limits": ["1 messages/day"]}})
        users = {"smtpd_sasl_auth_enable": "yes", "smtpd_tls_security_level": "may"}
        self.postfix = Postfix(
            Service(name="submission", settings=users),
            Service(name="second", settings={**users, "smtpd_milters": "", "milter_macro_daemon_name": "SECOND"}),
            Service(name="third", settings={**users, "smtpd_milters": f"{OTHER}, inet:127.0.0.1:10"}),
            transit(smtpd_milters=""),
            sink=self.sink.transport, folder=self.postmeter.folder / "postfix",
            settings={"smtpd_milters": OTHER, "non_smtpd_milters": OTHER, "milter_default_action": "accept"},
        )  # fmt: skip

    def asked(self) -> list[str]:
        """Postfix's whole configuration as it tells it itself; -F without commands, whose options -P tells."""
        said = "".join(self.postfix.run("postconf", word).stdout.decode() for word in ("-n", "-P", "-F"))
        return [line for line in said.splitlines() if "/command = " not in line]

    def values(self, *arguments: str) -> str:
        return self.postfix.run("postconf", *arguments).stdout.decode()

    def service(self, name: str) -> str:
        return f"127.0.0.1:{self.postfix.ports[name]}/inet"

    def findings(self) -> list[dict[str, str]]:
        told = self.as_root("doctor", "--json", "--address", "192.0.2.1")
        found: list[dict[str, str]] = json.loads(told.stdout)["findings"]
        assert told.returncode == any(each["level"] == "wrong" for each in found), told.stderr
        return found


@pytest.fixture
def lab(needs_postfix: None) -> Iterator[Bare]:
    lab = Bare()
    with lab:
        yield lab


def test_mail_flows_through_it_and_afterwards_everything_is_what_it_was(lab: Bare) -> None:
    before = lab.asked()
    lab.deliver(letter())
    assert any(
        found["about"] == "postfix" and found["fix"] == f"postmeter attach --postfix {lab.postfix.config}"
        for found in lab.findings()
    )

    done = lab.as_root("attach", "--yes")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "postfix -c" in done.stdout.decode().splitlines()[-2]
    for name in ("submission", "second", "third"):
        ours = lab.values("-Ph", f"{lab.service(name)}/smtpd_milters")
        assert ours.rstrip("\n").endswith("$postmeter_milter"), ours
    assert OTHER in lab.values("-Ph", f"{lab.service('third')}/smtpd_milters")
    assert lab.values("-Ph", f"{lab.service('second')}/milter_macro_daemon_name") == "SECOND\n"
    assert lab.values("-h", "non_smtpd_milters") == f"{OTHER}, $postmeter_milter\n"
    assert lab.values("-Ph", f"{lab.service('transit')}/smtpd_milters").strip() == ""
    about = {found["about"] for found in lab.findings() if found["level"] == "wrong"}
    assert about.isdisjoint({"postfix", "socket", "default_action", "order", "macros", "stores"})

    attached = lab.asked()
    again = lab.as_root("attach", "--yes")
    assert (again.returncode, again.stdout.decode()[:7]) == (0, "nothing")
    assert lab.asked() == attached
    lab.deliver(letter())
    with pytest.raises(RefusedError, match=r"4[.]7[.]1"):  # the second message of its day
        lab.deliver(letter())

    off = lab.as_root("detach", "--yes")
    assert off.returncode == 0, off.stderr + off.stdout
    assert lab.asked() == before
    assert lab.as_root("detach", "--yes").stdout.startswith(b"nothing")
    lab.deliver(letter())


def test_nothing_is_changed_unasked_or_while_nobody_answers(lab: Bare) -> None:
    before = lab.asked()
    asked = lab.as_root("attach")
    assert (asked.returncode, b"nothing was changed" in asked.stderr) == (1, True)
    assert asked.stdout.startswith(b"# postmeter_milter is now: not set\npostconf -c ")
    lab.postmeter.stop("milter")
    refused = lab.as_root("attach", "--yes")
    assert (refused.returncode, b"clients would get 451" in refused.stderr) == (1, True)
    assert lab.asked() == before


def test_a_service_that_is_not_there_is_told(lab: Bare) -> None:
    told = lab.as_root("attach", "--yes", "--service", "submission/unix")
    assert (told.returncode, b"no smtpd is called submission/unix" in told.stderr) == (1, True)


def test_a_chrooted_service_is_tried_from_within(needs_postfix: None) -> None:
    """The socket's absolute path does not exist there: doctor says so, as clients would be told 451."""
    postmeter = Postmeter()
    jailed = Service(name="submission", chroot=True, settings={"smtpd_milters": postmeter.milter})
    with Sink() as sink, postmeter:
        postfix = Postfix(jailed, sink=sink.transport, folder=postmeter.folder / "postfix")
        postfix.write()
        told = postmeter.run(
            "doctor", "--json", "--postfix", str(postfix.config), user="root", env=postfix.environment()
        )
        found = [each for each in json.loads(told.stdout)["findings"] if each["about"] == "socket"]
        assert (told.returncode, [each["level"] for each in found]) == (1, ["wrong"])
        assert "in the chroot" in found[0]["known"]
        postfix.close()


def test_a_host_that_is_right_is_called_so(needs_postfix: None) -> None:
    """Every fact is real: Postfix, socket, journal, key and a name server; the words are a person's to read."""
    with NameServer() as server:
        resolvers = {"resolvers": [f"{server.address}:{server.port}"]}
        postmeter = Postmeter({"bounces": {"domains": {"example.com": "bounces@example.com"}}})
        key = postmeter.key("example.com", "pm1")
        secrets = postmeter.secrets()
        signs = {"sign": [{"domain": "example.com", "keys": [{"selector": "pm1", "file": str(key.file)}]}]}
        postmeter.settings["dkim"] = {**signs, **resolvers}
        postmeter.settings["bounces"]["secrets"] = str(secrets)
        postmeter.settings["delivery"] = {"log": str(postmeter.folder / "postfix/log/mail.log")}
        server.records.update(
            {
                "pm1._domainkey.example.com": key.record,
                "example.com": "v=spf1 ip4:192.0.2.1 -all",
                "_dmarc.example.com": "v=DMARC1; p=reject",
            }
        )
        server.rdata["1.2.0.192.in-addr.arpa", "PTR"] = [f"{HOST}."]
        server.rdata[HOST, "A"] = ["192.0.2.1"]
        server.rdata["example.com", "MX"] = [f"10 {HOST}."]
        settings = {"enable_long_queue_ids": "yes", "recipient_delimiter": "+", "default_transport": "smtp"}
        with Lab(postmeter=postmeter, postfix=settings, sendmail=True) as lab:
            told = lab.as_root("doctor", "--address", "192.0.2.1")
            said = told.stdout.decode()
            assert (told.returncode, "0 wrong" in said or "nothing is wrong" in said) == (0, True), said
            server.records["example.com"] = "v=spf1 mx:nowhere.example -all"
            told = lab.as_root("doctor", "--address", "192.0.2.1")
            said = told.stdout.decode()
            assert told.returncode == 1
            assert "WRONG    spf: SPF of example.com does not let 192.0.2.1 send: fail\n" in said
            assert 'fix: example.com. IN TXT "v=spf1 ip4:192.0.2.1 mx:nowhere.example -all"\n' in said
