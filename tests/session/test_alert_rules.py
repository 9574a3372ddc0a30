"""The rules that we bring along ask for what is shown, fire when they should, not before, and have a runbook line."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from postmeter.metrics import METRICS, PREFIX
from tests.lab import promtool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "packaging" / "prometheus"
RULES = sorted(FOLDER.glob("*.rules.yml"))
TESTS = sorted((ROOT / "tests" / "data" / "prometheus").glob("*.test.yml"))
BY_NAME = {PREFIX + meaning.name: meaning for meaning in METRICS}

needs_promtool = pytest.mark.skipif(
    not promtool.find(), reason="promtool (Debian package prometheus) is there after `make all` only"
)


def rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for path in RULES for rule in rules(path) if "alert" in rule}
RECORDS = {rule["record"] for path in RULES for rule in rules(path) if "record" in rule}


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.name)
def test_rules_ask_for_what_is_shown(path: Path) -> None:
    for rule in rules(path):
        for name, labels in re.findall(rf"(?<![\w:])({PREFIX}\w+)(?:{{([^}}]*)}})?", rule["expr"]):
            meaning = BY_NAME[re.sub(r"_(bucket|sum|count)$", "", name)]
            for label, values in re.findall(r'(\w+)!?=~?"([^"]*)"', labels):
                assert label in meaning.labels
                assert set(values.split("|")) <= set(meaning.known.get(label, values.split("|")))
        assert set(re.findall(r"\w+:\w+:\w+", rule["expr"])) <= RECORDS


def test_bounces_and_complaints_have_the_thresholds_of_ses() -> None:
    text = " ".join(rule["expr"] for path in RULES for rule in rules(path))
    for rate, bound in (("bounce", "0.05"), ("bounce", "0.10"), ("complaint", "0.001"), ("complaint", "0.005")):
        assert f"{PREFIX}{rate}_rate > {bound} " in text


def test_every_alert_has_a_line_on_what_to_do() -> None:
    _, _, told = (ROOT / "docs" / "operations.md").read_text().partition("\n### Alerts\n")
    assert set(re.findall(r"^\| `(Postmeter\w+)` \|", told.partition("\n## ")[0], re.MULTILINE)) == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_how_bad_it_is_and_what_is_wrong(name: str) -> None:
    assert ALERTS[name]["labels"]["severity"] in ("warning", "critical")
    assert set(ALERTS[name]["annotations"]) == {"summary", "description"}


def test_every_alert_is_tested_both_ways() -> None:
    fires: dict[str, set[bool]] = {name: set() for name in ALERTS}
    for path in TESTS:
        for one in yaml.safe_load(path.read_text())["tests"]:
            for case in one.get("alert_rule_test", []):
                fires[case["alertname"]].add(bool(case["exp_alerts"]))
    assert {name for name, seen in fires.items() if seen != {True, False}} == set()


@needs_promtool
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_not_before(path: Path) -> None:
    done = subprocess.run([promtool.find(), "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_prometheus_takes_the_example(tmp_path: Path) -> None:
    """With our rules where the package puts them."""
    text = (FOLDER / "prometheus.yml").read_text()
    assert "/usr/share/postmeter/prometheus/*.rules.yml" in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/usr/share/postmeter/prometheus", str(FOLDER)))
    done = subprocess.run([promtool.find(), "check", "config", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(RULES)
