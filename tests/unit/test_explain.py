"""`postmeter explain` names, for each level, the rule that decided, and says what would become of the message."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from postmeter.cli.main import main
from postmeter.store.accounts import Charge
from postmeter.store.settle import Settler

CONFIG = """
milter: {{message_size_limit: 10M}}
journal: {{path: {0}/journal.db}}
quota:
  rules: [{{logins_file: {0}/newsletters, limits: [2 messages/day], over: {1}}}]
  networks: {{limits: [100 recipients/hour]}}
"""


@pytest.fixture
def message(tmp_path: Path) -> str:
    (tmp_path / "newsletters").write_text("alice@example.com\n")
    path = tmp_path / "message.eml"
    path.write_text("From: alice@example.com\nSubject: hello\n\nhello\n")
    settler = Settler(tmp_path / "journal.db")
    settler.open()
    two = Charge(key="alice@example.com", unit="messages", window=86_400, limit=2, amount=2, text="2 messages/day")
    settler.settle((two,), None, {}, time.time())
    settler.close()
    return str(path)


@pytest.mark.parametrize(
    ("over", "verdict", "code"),
    [
        ("defer", "Refused: 451 4.7.1 alice@example.com: 2 of 2 messages in the last day; ", 1),
        ("hold", "Accepted, into Postfix's hold queue.", 0),
        ("observe", "Accepted.", 0),
    ],
)
def test_the_verdict_is_what_the_rule_does_to_more(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], over: str, verdict: str, code: int
) -> None:
    config = tmp_path / "postmeter.yaml"
    config.write_text(CONFIG.format(tmp_path, over))
    command = ["explain", message, "--login", "Alice@example.com", "--client", "192.0.2.5", "--rcpt", "b@example.net"]
    assert main(["-c", str(config), *command]) == code
    lines = capsys.readouterr().out.splitlines()
    levels = next(line for line in lines if line.startswith("quota"))
    assert f"rule 1 (logins_file {tmp_path}/newsletters): 2 messages/day; domain example.com: none; " in levels
    assert levels.endswith("network 192.0.2.0/24: 100 recipients/hour; total: none")
    assert lines[-1].startswith(verdict)


@pytest.mark.parametrize("words", [["--client", "example.com"], ["--client", "192.0.2.300"], ["--rcpt", ""]])
def test_what_is_no_address_is_wrong_usage(message: str, tmp_path: Path, words: list[str]) -> None:
    """And not a client of no network: the answer would be about another message."""
    config = tmp_path / "postmeter.yaml"
    config.write_text(CONFIG.format(tmp_path, "defer"))
    assert main(["-c", str(config), "explain", message, "--login", "alice@example.com", *words]) == 64


def test_sendmails_mail_is_refused_for_good_where_a_client_would_be_deferred(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "postmeter.yaml"
    total = "  total: {limits: [2 messages/day]}\nsenders: {from: {x: [example.com]}}\n"
    config.write_text(CONFIG.format(tmp_path, "defer") + total)
    settler = Settler(tmp_path / "journal.db")
    two = Charge(key="", level="total", unit="messages", window=86_400, limit=2, amount=2, text="2 messages/day")
    settler.settle((two,), None, {}, time.time())
    settler.close()
    assert main(["-c", str(config), "explain", message, "--rcpt", "b@example.net"]) == 1
    assert "Refused: 550 5.7.1 this server: 2 of 2 messages in the last day; " in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["observe", "enforce"])
def test_what_would_not_be_done_is_not_called_done(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    config = tmp_path / "postmeter.yaml"
    # Without a limit of its own it would ask Postfix, if there is one.
    limit = "milter: {message_size_limit: 10M}\n"
    config.write_text(f"mode: {mode}\n{limit}journal: {{path: {tmp_path}/journal.db}}\n")
    assert main(["-c", str(config), "explain", message, "--rcpt", "b@example.net", "--json"]) == 0
    assert ("mode is observe: " in capsys.readouterr().err) is (mode == "observe")


@pytest.mark.parametrize(
    ("login", "recipients", "verdict", "told"),
    [
        ("alice@example.com", ["gone@example.net", "b@example.net"], "Accepted.", True),
        ("alice@example.com", ["gone@example.net"], "Refused: 550 5.7.1 gone@example.net is suppressed here ", True),
        ("", ["gone@example.net", "b@example.net"], "Accepted.", False),
    ],
)
def test_who_is_refused_at_rcpt_already_is_told(
    message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], login: str, recipients: list[str], verdict: str,
    told: bool,
) -> None:  # fmt: skip
    """Of a test, too, which is decided about later; sendmail(1) is answered at the end only."""
    config = tmp_path / "postmeter.yaml"
    suppression = "suppression: {observe: false, mail: all}\nsenders: {from: {x: [example.com]}}\n"
    config.write_text(CONFIG.format(tmp_path, "observe") + suppression)
    assert main(["-c", str(config), "suppress", "add", "gone@example.net"]) == 0
    if login:
        Path(message).write_text("X-Postmeter-Test: yes\n" + Path(message).read_text())
        verdict = verdict.replace("Accepted.", "Accepted, and delivered to nobody: a test.")
    asked = [word for recipient in recipients for word in ("--rcpt", recipient)]
    main(["-c", str(config), "explain", message, *(["--login", login] if login else []), *asked])
    lines = capsys.readouterr().out.splitlines()
    assert any("refused at RCPT" in line for line in lines) is told
    assert lines[-1].startswith(verdict)
