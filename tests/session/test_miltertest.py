"""What OpenDKIM's own t-sign scripts ask of it, asked of postmeter by the same program: Debian's miltertest(8).

The scripts lie in tests/miltertest, written anew; each names the ones whose intent it has. tests/README.md lists what
those ask and postmeter refuses. Every signature that a script has seen is then shown to three verifiers.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab import verify
from tests.lab.keys import records
from tests.lab.product import Postmeter

SCRIPTS = Path(__file__).parents[1] / "miltertest"
FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
SIGNATURE = re.compile(r"^From:(.*)\n(DKIM-Signature:(?:.*\n)+?)\.$", re.MULTILINE)


pytestmark = pytest.mark.usefixtures("needs_miltertest", "needs_verifiers")


class Milter:
    """A daemon with keys for five domains; `seen` are the signatures that scripts saw, as fields of their message."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.postmeter = Postmeter({"senders": {"from": {"*": "any"}, "networks": ["127.0.0.0/8"]}, **settings})
        keys = [
            ("gone.example", "gone", "rsa"),
            ("example.com", "test", "rsa"),
            ("other.example", "other", "rsa"),
            ("below.example", "below", "rsa"),
            ("two.example", "e", "ed25519"),
            ("two.example", "r", "rsa"),
        ]
        self.keys = [self.postmeter.key(*key) for key in keys]
        for entry in self.postmeter.settings["dkim"]["sign"]:
            entry["subdomains"] = entry["domain"] == "below.example"

    def run(self, script: str, **given: str) -> str:
        """A script that must end well; what it printed."""
        names = {"socket": self.postmeter.milter.removeprefix("unix:"), "here": str(SCRIPTS), **given}
        definitions = [word for name, value in names.items() for word in ("-D", f"{name}={value}")]
        command = ["miltertest", *definitions, "-s", str(SCRIPTS / script)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60)
        said = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert (done.returncode, done.stderr) == (0, b""), f"{script}: {said}\n{self.postmeter.log()}"
        return said

    def judged(self, said: str) -> int:
        """Show every signature that a script has printed to all verifiers; how many they accepted, each of them all."""
        signed = [_message(sender, field) for sender, field in SIGNATURE.findall(said)]
        refused = [str(verdict) for verdict in verify.verify_all(signed, records(*self.keys)) if not verdict.accepted]
        assert not [each for each in refused if "not known to it" not in each]
        return len(signed)


def _message(sender: str, field: str) -> bytes:
    """The message of session.lua with one signature; miltertest puts a space before each value."""
    head = f"{field}From: {sender}\nDate: Tue, 22 Dec 2009 13:04:12 -0800\nSubject: Signing test\n\n"
    return f"{head}This is a test!\n".replace("\r\n", "\n").replace("\n", "\r\n").encode()


@contextmanager
def started(settings: dict[str, Any]) -> Iterator[Milter]:
    milter = Milter(settings)
    with milter.postmeter:
        yield milter


@pytest.fixture(scope="module")
def milter() -> Iterator[Milter]:
    # Room for one key: what is loaded at the start is forgotten when the next domain comes.
    with started({"dkim": {"canonicalization": "relaxed/simple", "key_cache": 1}}) as it:
        yield it


@pytest.mark.parametrize("form", FORMS)
def test_a_message_is_signed_in_every_form(form: str) -> None:
    """t-sign-rs, t-sign-ss, t-sign-ss-all; the hash of the body is the one that OpenDKIM's own scripts know."""
    with started({"dkim": {"canonicalization": form}}) as milter:
        assert milter.judged(milter.run("sign.lua", form=form)) == 1


@pytest.mark.parametrize(("script", "signatures"), [
    ("chunks.lua", 1), ("tables.lua", 4), ("multiple.lua", 2), ("macro.lua", 2), ("network.lua", 1),
])  # fmt: skip
def test_a_script_ends_well_and_its_signatures_verify(milter: Milter, script: str, signatures: int) -> None:
    assert milter.judged(milter.run(script)) == signatures


@pytest.mark.parametrize("client", ["192.0.2.1", "2001:db8::1"])
def test_mail_of_others_is_let_go_at_mail(milter: Milter, client: str) -> None:
    """t-dontsign, t-peer: no login, no service of ours, no network of ours."""
    milter.run("not_ours.lua", client=client)


def test_mail_with_a_doubtful_from_leaves_unsigned_and_is_counted(milter: Milter) -> None:
    """t-verify-double-from answers 4xx to it; we let it go as it is, for nobody could mend it by sending it again."""
    milter.run("double_from.lua")
    for reason, count in [("several_from", 2), ("no_from", 1), ("unclear_from", 1)]:
        milter.postmeter.wait_figure(count, "dkim_unsigned_total", reason=reason)


def test_a_key_that_cannot_be_used_is_answered_451_and_spoils_nothing_else(milter: Milter) -> None:
    milter.run("tables.lua")  # whatever was kept of it is forgotten
    milter.keys[0].file.unlink()
    milter.run("bad_key.lua")


def test_x_and_i_are_written_as_asked() -> None:
    with started({"dkim": {"expire": "30d", "identity": "login"}}) as milter:
        assert milter.judged(milter.run("expire_identity.lua")) == 2
