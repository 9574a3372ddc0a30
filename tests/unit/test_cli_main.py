"""The program around the commands: where `-c` may stand, which exit code says what, and where nobody hears it."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace, _SubParsersAction
from pathlib import Path

import pytest

from postmeter.cli import main as program
from postmeter.cli.command import Command, no_arguments
from postmeter.cli.main import main, take_config
from postmeter.config.problem import ConfigError, Problem

SOURCE = Path(program.__file__).parents[2]


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


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    script = (
        "from postmeter.cli import main as program\n"
        "from postmeter.cli.command import Command, no_arguments\n"
        "def run(args):\n"
        "    for number in range(100_000): print(number)\n"
        "    return 0\n"
        "program.COMMANDS = [('try', '')]\n"
        "program.load = lambda word: Command('try', 'x', 'x', no_arguments, run)\n"
        "raise SystemExit(program.main(['try']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


def _as_shell(line: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$0" -m postmeter {line}', sys.executable]
    return subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("line", ["--help >/dev/full", "check-config -c {empty} >/dev/full"])
def test_a_full_disk_is_told_in_a_line(line: str, tmp_path: Path) -> None:
    done = _as_shell(line.format(empty=_empty(tmp_path)))
    assert (done.returncode, done.stderr) == (1, "postmeter: No space left on device\n")


def test_nobody_needs_to_listen(tmp_path: Path) -> None:
    done = _as_shell(f"check-config -c {_empty(tmp_path)} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def _empty(folder: Path) -> Path:
    """A configuration with nothing wrong in it."""
    path = folder / "postmeter.yaml"
    path.write_text(f"milter: {{listen: 'inet:127.0.0.1:8891'}}\njournal: {{path: {folder}/journal.db}}\n")
    return path


def test_what_help_says_of_a_command_fits_a_terminal_of_80_columns() -> None:
    for command in program.load_all():
        parser = program.build_parser([command])
        below = next(action for action in parser._actions if isinstance(action, _SubParsersAction))
        assert max(map(len, str(below.choices[command.name].description).splitlines())) <= 80, command.name
