"""The documents say what the program does: commands, figures, links, examples; and the README stays short."""

from __future__ import annotations

import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path

import pytest

from postmeter import __version__
from postmeter.cli.main import COMMANDS, load_all, main
from postmeter.config.load import loads
from postmeter.metrics import METRICS, PREFIX
from tests.lab.documented import blocks

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md"), *ROOT.glob("contrib/**/*.md"), *ROOT.glob("tests/*.md")])

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_COMMAND = re.compile(r"(?:`|^|&& )postmeter ([a-z][a-z-]*)", re.MULTILINE)
_METRIC_ROW = re.compile(rf"^\| `{PREFIX}(\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)


def _id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_changelog_has_this_version() -> None:
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_licence_is_the_one_we_name() -> None:
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "LICENSE").read_text()
    assert "GPL-3.0-or-later" in (ROOT / "setup.cfg").read_text()


def test_every_test_that_a_fact_names_is_there() -> None:
    named = set(re.findall(r"\btest_\w+", (ROOT / "tests" / "README.md").read_text()))
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {name for path in files for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    assert len(named) > 100
    assert named - there - {path.stem for path in files} == set()


def test_every_metric_is_documented_as_it_is() -> None:
    rows = {
        name: (kind, tuple(re.findall(r"`(\w+)`", labels)), text)
        for name, kind, labels, text in _METRIC_ROW.findall((DOCS / "metrics.md").read_text())
    }
    assert rows == {meaning.name: (meaning.kind, meaning.labels, meaning.help) for meaning in METRICS}


def test_every_known_label_value_is_explained() -> None:
    text = (DOCS / "metrics.md").read_text()
    explained = ("result", "reason", "by")
    values = {value for meaning in METRICS for label in explained for value in meaning.known.get(label, ())}
    assert {value for value in values - {"unsigned", "report", "reject"} if f"`{value}`" not in text} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_programs_that_a_document_names_are_there(document: Path) -> None:
    named = re.findall(r"`((?:\w+/)+\w+\.(?:py|sh))`", document.read_text())
    above = (ROOT, ROOT / "milter" / "postmeter", ROOT / "tests")
    assert [name for name in named if not any((folder / name).is_file() for folder in above)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for target in _LINK.findall(document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


def test_the_table_of_contents_has_every_section() -> None:
    text = (DOCS / "operations.md").read_text()
    contents, *_ = text.partition("\n## ")
    assert re.findall(r"\[([^]]+)\]\(#", contents) == re.findall(r"^## (.*)$", text, re.MULTILINE)


def _anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_commands_in_documents_exist(document: Path) -> None:
    assert set(_COMMAND.findall(document.read_text())) <= {word for word, _ in COMMANDS}


def test_every_command_is_documented() -> None:
    text = "".join(document.read_text() for document in DOCUMENTS)
    assert {word for word, _ in COMMANDS if f"postmeter {word}" not in text and f"`{word}`" not in text} == set()


def _examples() -> Iterator[str]:
    yield from (command.example for command in load_all())
    for document in DOCUMENTS:
        yield from re.findall(r"^(postmeter [^|&#\n]*)$", document.read_text(), re.MULTILINE)


@pytest.mark.parametrize("example", sorted(set(_examples())))
def test_examples_parse(example: str) -> None:
    """Each is parsed as typed and not run: no command may be a dead one in a document."""
    from postmeter.cli.main import _parse

    words = example.split()
    assert words[0] == "postmeter"
    command, args = _parse(words[1:])
    assert command.name == words[1]
    assert args.config.name.endswith(".yaml")


@pytest.mark.parametrize("word", [word for word, _ in COMMANDS])
def test_help_has_an_example(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "--help"]) == 0
    assert f"example:\n  postmeter {word}" in capsys.readouterr().out


def _words() -> Iterator[list[str]]:
    """Each command's own words: quota set, links block."""
    for command in load_all():
        parser = ArgumentParser()
        command.arguments(parser)
        for action in parser._actions:
            if isinstance(action.choices, dict):
                yield from ([command.name, word] for word in action.choices)


@pytest.mark.parametrize("words", [*_words()], ids=" ".join)
def test_help_of_a_word_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    assert f"example: postmeter {' '.join(words)}" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("document", DOCUMENTS, ids=_id)
def test_configurations_in_documents_are_valid(document: Path) -> None:
    """Those of Prometheus and of containers are others'."""
    found = [block.text for block in blocks(document) if block.language == "yaml"]
    for text in found:
        if not text.startswith(("scrape_configs:", "services:")):
            loads(text, document.name)
    assert found or document != ROOT / "README.md"


def test_the_lines_for_main_cf_are_the_same_everywhere() -> None:
    line = (
        "postmeter_milter = { unix:postmeter/milter.sock, default_action=tempfail, "
        "connect_timeout=10s, command_timeout=30s, content_timeout=300s }\n"
    )
    for name in ("README.md", "contrib/postfix/main.cf.fragment"):
        assert line in (ROOT / name).read_text(), name


def test_help_is_quick_and_version_is_told() -> None:
    """No daemon's libraries are loaded for either."""
    script = (
        "import sys; from postmeter.cli.main import main; code = main([sys.argv[1]]); "
        "heavy = {'milter', 'dkim', 'aiohttp', 'prometheus_client', 'cryptography'} & set(sys.modules); "
        "sys.exit(code or ' '.join(sorted(heavy)) or 0)"
    )
    for option, text in (("--help", "check-config"), ("--version", __version__)):
        command = [sys.executable, "-c", script, option]
        shown = subprocess.run(command, cwd=ROOT / "milter", capture_output=True, text=True, check=False)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert text in shown.stdout
