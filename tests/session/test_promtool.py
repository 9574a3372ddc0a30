"""The metrics page and the rules that we bring along, judged by Prometheus's own promtool."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from postmeter.books.families import Collector, Gauges, Scope
from postmeter.mail.draft import Figure
from tests.lab import promtool

pytestmark = pytest.mark.skipif(
    not promtool.find(), reason="promtool (Debian package prometheus) is there after `make all` only"
)

SCOPE = Scope(domains=("example.com", "example.org"), services=("ORIGINATING", "local"))
NOW: Gauges = {("quota_store_up", ()): 1.0, ("build_info", ("0.1.0",)): 1.0}
FULL: dict[Figure, int] = {
    ("messages_total", ('sub"mis\\sion\n', "accepted")): 2,
    ("callback_seconds", ("eom", "0.005")): 1,
    ("callback_seconds", ("eom", "sum")): 4000,
    ("callback_seconds", ("eom", "count")): 1,
}


def test_promtool_finds_nothing_to_say() -> None:
    registry = CollectorRegistry()
    registry.register(Collector(SCOPE, totals=lambda: FULL, gauges=lambda: NOW))
    page = generate_latest(registry)
    checked = subprocess.run([promtool.find(), "check", "metrics"], input=page, capture_output=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_promtool_reads_the_alert_rules() -> None:
    rules = [str(path) for path in Path("packaging/prometheus").glob("*.rules.yml")]
    assert rules
    checked = subprocess.run([promtool.find(), "check", "rules", *rules], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
