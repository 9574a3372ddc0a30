"""`postmeter freeze` on a store in a folder: it comes back when every worker of this host has looked again."""

from __future__ import annotations

from pathlib import Path

import pytest

from postmeter.store.journal import Journal
from tests.unit.test_cli_links import submitted
from tests.unit.test_cli_quota import Place


def test_a_freeze_of_a_login_that_nobody_has_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path)
    Journal(place.path).record([submitted(b"referenc")])
    assert place.run("freeze", "alcie@example.com", "--queue") in (0, 1)  # without a Postfix there is no queue
    missed = 'postmeter freeze: no login "alcie@example.com" is in the journal'
    assert f"{missed}; did you mean alice@example.com?\n" in capsys.readouterr().err
    assert place.orders() == [("freeze", "alcie@example.com", "")]
