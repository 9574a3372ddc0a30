"""The alert rules that we bring along ask for metrics, labels and label values that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from postmeter.metrics import METRICS, PREFIX

RULES = sorted((Path(__file__).parents[2] / "packaging" / "prometheus").glob("*.rules.yml"))
BY_NAME = {PREFIX + meaning.name: meaning for meaning in METRICS}


def expressions(path: Path) -> list[str]:
    groups = yaml.safe_load(path.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_ask_for_what_is_shown(path: Path) -> None:
    for expression in expressions(path):
        for name, labels in re.findall(rf"({PREFIX}\w+)(?:{{([^}}]*)}})?", expression):
            meaning = BY_NAME[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert meaning.built, name
            for label, values in re.findall(r'(\w+)=~?"([^"]*)"', labels):
                assert label in meaning.labels
                assert set(values.split("|")) <= set(meaning.known.get(label, values.split("|")))


def test_bounces_and_complaints_have_the_thresholds_of_ses() -> None:
    text = " ".join(expression for path in RULES for expression in expressions(path))
    for rate, bound in (("bounce", "0.05"), ("bounce", "0.10"), ("complaint", "0.001"), ("complaint", "0.005")):
        assert f"{PREFIX}{rate}_rate > {bound} " in text
