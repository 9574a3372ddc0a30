"""docs/config.md and the sample file say what the schema says, and fail here when they lag behind it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from postmeter.config import document
from postmeter.config.load import load, loads
from postmeter.config.schema import Config
from tests.unit.test_config import all_keys

ROOT = Path(__file__).parents[2]
DOCS, SAMPLE = ROOT / "docs" / "config.md", ROOT / "packaging" / "postmeter.yaml"


@pytest.mark.parametrize(("path", "word"), [(DOCS, "docs"), (SAMPLE, "sample")])
def test_the_file_is_what_the_schema_makes(path: Path, word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert document.main([word]) == 0
    lag = f"run: python -m postmeter.config.document {word} > {path.relative_to(ROOT)}"
    assert capsys.readouterr().out == path.read_text("utf-8"), lag


def test_every_key_stands_in_the_documentation() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert {path.rpartition(".")[2] for path in all_keys()} <= set(rows)


def test_the_sample_is_the_empty_file() -> None:
    assert load(SAMPLE) == Config()


def test_the_sample_without_its_hashes_is_the_default_too() -> None:
    """Whoever takes a # away finds the default behind it, and a file that still loads."""
    bare = re.sub(r"^( *)#(\w+:)", r"\1\2", SAMPLE.read_text("utf-8"), flags=re.MULTILINE)
    assert bare.count("\n  listen: ") == 3
    assert loads(bare) == Config()


def test_a_single_key_may_be_uncommented() -> None:
    lines = SAMPLE.read_text("utf-8").splitlines()
    for index, line in enumerate(lines):
        if re.match(r" *#\w+:", line):
            alone = [*lines[:index], line.replace("#", "", 1), *lines[index + 1 :]]
            assert loads("\n".join(alone)) == Config(), line


def test_another_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert document.main(["book"]) == 64
    assert capsys.readouterr().err.startswith("usage: ")
