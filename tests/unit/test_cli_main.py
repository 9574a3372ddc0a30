"""The program around the commands: where `-c` may stand, which exit code says what, and where nobody hears it."""

from __future__ import annotations

from argparse import Namespace, _SubParsersAction
from pathlib import Path

import pytest

from postmeter.cli import main as program
from postmeter.cli.command import Command, no_arguments
from postmeter.cli.main import main, take_config
from postmeter.config.problem import ConfigError, Problem


def _offer(monkeypatch: pytest.MonkeyPatch, run: object) -> None:
    """Put one command in place of the real ones."""
    assert callable(run)
    command = Command("try", "try something", "postmeter try", no_arguments, run)
    monkeypatch.setattr(program, "COMMANDS", [("try", "nowhere")])
    monkeypatch.setattr(program, "load", lambda word: command)


@pytest.mark.parametrize(
    "line",
    ["-c here.yaml try", "try -c here.yaml", "try -chere.yaml", "--config here.yaml try", "try --config=here.yaml"],
)
def test_the_configuration_may_be_named_anywhere(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Namespace] = []

    def run(args: Namespace) -> int:
        seen.append(args)
        return 0

    _offer(monkeypatch, run)
    assert main(line.split()) == 0
    assert seen[0].config == Path("here.yaml")


def test_without_a_name_it_is_the_usual_place() -> None:
    assert take_config(["books"]) == (Path("/etc/postmeter/postmeter.yaml"), ["books"])


def test_a_wrong_configuration_is_a_line_a_problem_and_78(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: Namespace) -> int:
        raise ConfigError([Problem("f.yaml", 7, "dkim.sign", "no", "yes"), Problem("f.yaml", 3, "mode", "no", "")])

    _offer(monkeypatch, run)
    assert main(["try"]) == 78
    assert capsys.readouterr().err == "f.yaml:3: mode: no\nf.yaml:7: dkim.sign: no; yes\n"


@pytest.mark.parametrize("line", ["", "tri", "try --no-such-option", "try more", "try -c", "--bogus try"])
def test_wrong_usage_is_64(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _offer(monkeypatch, lambda args: 0)
    assert main(line.split()) == 64
    shown = capsys.readouterr()
    assert (shown.out, "usage: postmeter" in shown.err) == ("", True)


def test_a_misspelt_command_gets_a_guess(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _offer(monkeypatch, lambda args: 0)
    main(["tryy"])
    assert 'did you mean "try"?' in capsys.readouterr().err


def test_what_a_command_found_is_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    _offer(monkeypatch, lambda args: 1)
    assert main(["try"]) == 1


def test_ctrl_c_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: Namespace) -> int:
        raise KeyboardInterrupt

    _offer(monkeypatch, run)
    assert main(["try"]) == 130
    assert capsys.readouterr() == ("", "")


def test_what_help_says_of_a_command_fits_a_terminal_of_80_columns() -> None:
    for command in program.load_all():
        parser = program.build_parser([command])
        below = next(action for action in parser._actions if isinstance(action, _SubParsersAction))
        assert max(map(len, str(below.choices[command.name].description).splitlines())) <= 80, command.name
