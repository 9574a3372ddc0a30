"""Every kind of wrong configuration is told in one clear line: file, line, key, what is wrong, how to mend it.

`tests/data/bad_config/NAME.yaml` and the exact lines in `NAME.expected` beside it. What depends on the machine is made
by `test_config_check`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config import yamltree
from postmeter.config.load import ConfigError, Problem, load, loads, read

BAD = Path(__file__).parents[1] / "data" / "bad_config"
NAMES = sorted(path.stem for path in BAD.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_is_told_in_the_expected_lines(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read((BAD / f"{name}.yaml").read_bytes(), f"{name}.yaml")
    assert [str(problem) for problem in caught.value.problems] == (
        (BAD / f"{name}.expected").read_text("utf-8").splitlines()
    )


def test_every_file_has_its_expected_lines() -> None:
    assert NAMES
    assert {path.stem for path in BAD.iterdir()} == set(NAMES)
    assert {path.suffix for path in BAD.iterdir()} == {".yaml", ".expected"}


@given(text=st.text(st.sampled_from("ab@*&!%:#-[]{}'\"|>?=`~,. /\\ä")).filter(lambda text: not text.startswith("-")))
def test_what_to_write_in_place_of_a_text_is_a_list_of_it(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"tracking:\n  bulk_senders: {json.dumps(text)}\n")
    listed = caught.value.problems[0].fix.removeprefix("put it in brackets: ")
    assert yaml.load(listed, yaml.BaseLoader) == text.split(", ")


@pytest.mark.parametrize("text", [r'"a\nb\e[31m": x', r'quota: {limits: "x\ny"}', r'senders: {from: {"a\nb": any}}'])
def test_a_problem_is_one_line_whatever_is_written(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_every_complaint_has_a_line_and_a_fix(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(BAD / f"{name}.yaml")
    for problem in caught.value.problems:
        assert problem.line > 0
        assert problem.what
        assert problem.fix
        assert problem.severity == "error"


def test_a_missing_file_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"postmeter\.yaml: cannot be read: No such file or directory; create it"):
        load(tmp_path / "postmeter.yaml")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_tree_of_aliases_costs_nothing() -> None:
    """The billion laughs: each line is refused, nothing is expanded."""
    lines = ['a0: &a0 ["lol"]', *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20))]
    with pytest.raises(ConfigError, match="an anchor, &a0"):
        loads("\n".join(lines))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_a_hundred_thousand_levels_are_refused_and_cost_no_stack(opening: str) -> None:
    with pytest.raises(ConfigError):
        loads("quota:\n  limits: " + opening * 100_000)


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML without libyaml takes it")
def test_a_mistake_that_libyaml_alone_finds_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "pm.yaml"
    path.write_text("mode: observe\nquota: {limits:[500 recipients/day], over: defer}\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:2: a colon with no space behind it; put a space behind it"


def trees() -> list[Path]:
    return [path for path in BAD.glob("*.yaml") if path.stem != "not_utf8"] + [
        BAD.parents[2] / "packaging" / "postmeter.yaml"
    ]


@pytest.mark.skipif(not hasattr(yaml, "CSafeLoader"), reason="PyYAML without libyaml has one parser only")
@pytest.mark.parametrize("path", trees(), ids=lambda path: path.stem)
def test_both_parsers_of_pyyaml_make_the_same_tree(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick one reads the file, the other one finds the words for its mistakes."""
    found = []
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        monkeypatch.setattr(yamltree, "_FAST", loader)
        problems: list[Problem] = []
        found.append((yamltree.parse(path.read_text("utf-8"), "x", problems), problems))
    assert found[0] == found[1]
