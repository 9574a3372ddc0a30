"""Side by side with who did it before, then in its place, and back: docs/migration.md with the real programs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.bench import policyd
from tests.lab import verify
from tests.lab.client import RefusedError
from tests.lab.folder import new_folder
from tests.lab.keys import DkimKey, make_key, records
from tests.lab.lab import ALICE, Lab, attach, letter
from tests.lab.opendkim import OpenDkim
from tests.lab.postfix import Postfix, Service, submission
from tests.lab.product import Postmeter, merge


@pytest.fixture
def place(needs_postfix: None, needs_verifiers: None) -> Iterator[Path]:
    """A folder that every user may enter."""
    folder = new_folder("before")
    yield folder
    shutil.rmtree(folder)


class Beside(Lab):
    """A Postfix that has had something else for long; `milters` stand in front of ours, `postfix` is in main.cf."""

    def __init__(self, postmeter: Postmeter, *, milters: str = "", **postfix: str) -> None:
        super().__init__(postmeter=postmeter)
        self.main = dict(postfix)
        self.postfix = Postfix(
            self._service(milters), sink=self.sink.transport, settings=self.main, folder=postmeter.folder / "postfix"
        )

    def _service(self, milters: str) -> Service:
        return submission(f"{milters}{attach(self.postmeter.milter)}", **self.main)

    def switch(self, mode: str, *, milters: str = "", **postfix: str) -> None:
        """The other lines in Postfix and ours, both reloaded."""
        self.postmeter.settings["mode"] = mode
        self.postmeter.write()
        self.postmeter.reload()
        self.main |= postfix
        self.postfix.services = (self._service(milters),)
        self.postfix.write()
        self.postfix.reload()


def test_opendkim_hands_over_and_takes_back(place: Path) -> None:
    """One signature all the time, with the same selector, which three verifiers accept."""
    key = make_key(place / "keys", domain="example.com", selector="mail", user="root")
    with OpenDkim(place, key, form="relaxed/simple", judge=False) as opendkim:
        postmeter = Postmeter({"mode": "observe"})
        theirs = f"unix:{opendkim.address}, "
        postmeter.settings = merge(postmeter.settings, _imported(postmeter, place / "opendkim.conf", key))
        lab = Beside(postmeter, milters=theirs)
        with lab:
            seen = lab.deliver(letter())
            [event] = lab.postmeter.events()
            told = lab.postmeter.run("trace", event["queue_id"]).stdout.decode()
            assert "left as it was (mode: observe); else taken, signed as example.com/mail/rsa-sha256" in told
            lab.switch("enforce")
            ours = lab.deliver(letter())
            lab.switch("observe", milters=theirs)
            back = lab.deliver(letter())
    assert [len(arrived.values(b"dkim-signature")) for arrived in (seen, ours, back)] == [1, 1, 1]
    verdicts = verify.verify_all([arrived.data for arrived in (seen, ours, back)], records(key))
    assert [str(verdict) for verdict in verdicts if not verdict.accepted] == []
    assert all(b"c=relaxed/simple" in arrived.values(b"dkim-signature")[0] for arrived in (seen, ours, back))


def _imported(postmeter: Postmeter, conf: Path, key: DkimKey) -> dict[str, object]:
    """What the import says of its configuration, with a copy of the key that is ours alone."""
    done = postmeter.run("dkim", "import-opendkim", str(conf), user="root")
    assert done.returncode == 0, done.stderr
    copy = make_key(postmeter.folder / "keys", domain=key.domain, selector=key.selector, user=postmeter.user)
    said: dict[str, object] = yaml.safe_load(done.stdout.replace(str(key.file).encode(), str(copy.file).encode()))
    assert copy.record == key.record
    said["dkim"] = {**said["dkim"], "check_every": 0}  # type: ignore[dict-item]
    return said


@pytest.mark.skipif(policyd.missing() != "", reason="policyd-rate-limit is unpacked by `make bench` only")
def test_policyd_rate_limit_hands_over(place: Path) -> None:
    """It decides, and what postmeter would have done is the same; then postmeter does, from what it has counted."""
    with policyd.started(place, logins=0, stamps=0) as (address, _):
        address.chmod(0o666)
        restrictions = f"check_policy_service unix:{address}, permit_sasl_authenticated, reject"
        settings = {"mode": "observe", "quota": {"limits": ["3 recipients/day"]}}
        lab = Beside(Postmeter(settings), smtpd_recipient_restrictions=restrictions)
        with lab:
            for _ in range(3):
                lab.deliver(letter())
            shown = lab.postmeter.run("quota", "show", ALICE).stdout.decode()
            assert "3 of 3" in shown, shown
            lab.switch("enforce", smtpd_recipient_restrictions="permit_sasl_authenticated, reject")
            with pytest.raises(RefusedError) as refused:
                lab.send(letter())
            assert refused.value.answer.code == 451
