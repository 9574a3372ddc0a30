"""The dashboards ask for what is shown, by bounded labels and by what was chosen, and are what is generated."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from postmeter.metrics import METRICS, PREFIX, Meaning
from tests.lab import promtool
from tests.lab.dashboards import BOARDS, FOLDER, Asked, asked, load, panels

ROOT = FOLDER.parents[1]
BY_NAME = {PREFIX + meaning.name: meaning for meaning in METRICS}
ALL = asked()
UNBOUNDED = {"login"}
"""Labels of which there may be as many as somebody asks for (metrics.per_login), and which name a person."""

_SELECTOR = re.compile(rf"(?<![\w:])({PREFIX}\w+){{([^}}]*)}}")
_GENERATOR = ROOT / "build" / "dashboards" / "bin" / "python"


def _name(one: Asked) -> str:
    return f"{one.board}-{one.name}"


def _meaning(name: str) -> Meaning:
    return BY_NAME[re.sub(r"_(bucket|sum|count)$", "", name)]


def _labels(one: Asked) -> set[str]:
    """All by which it is chosen, told apart or named."""
    matched = {name for _, inner in _SELECTOR.findall(one.expression) for name in re.findall(r"(\w+)[=!]", inner)}
    apart = {name for inner in re.findall(r"\bby \(([^)]*)\)", one.expression) for name in re.findall(r"\w+", inner)}
    return matched | apart | set(re.findall(r"{{(\w+)}}", one.legend))


def test_there_are_two() -> None:
    assert [path.stem for path in BOARDS] == ["postmeter-business", "postmeter-operators"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_a_dashboard_can_be_provisioned(path: Path) -> None:
    """Known by its file's name, no id of a server; the data source and what to look at are chosen by variables."""
    board = load(path)
    assert (board["uid"], board.get("id")) == (path.stem, None)
    assert [each["name"] for each in board["templating"]["list"]] == ["datasource", "host", "domain", "provider"]
    drawn = list(panels(board))
    assert len({panel["id"] for panel in drawn}) == len({panel["title"] for panel in drawn}) == len(drawn)
    for panel in drawn:
        assert panel["description"].endswith("."), panel["title"]
        sources = {each["datasource"]["uid"] for each in (panel, *panel["targets"])}
        assert sources == {"${datasource}"}
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_no_panel_covers_another(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in load(path)["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells


@pytest.mark.parametrize("one", ALL, ids=_name)
def test_a_query_asks_for_what_is_shown(one: Asked) -> None:
    names = re.findall(rf"{PREFIX}\w+", one.expression)
    selectors = _SELECTOR.findall(one.expression)
    assert names
    assert names == [name for name, _ in selectors], "a selector without braces"
    for name, inner in selectors:
        meaning = _meaning(name)
        assert name.endswith(("_bucket", "_sum", "_count")) == (meaning.kind == "histogram")
        assert ("increase(" in one.expression or "rate(" in one.expression) == (meaning.kind != "gauge")
        for label, values in re.findall(r'(\w+)!?=~?"([^"$]+)"', inner):
            assert label in meaning.labels
            assert set(values.split("|")) <= set(meaning.known.get(label, values.split("|")))


@pytest.mark.parametrize("one", ALL, ids=_name)
def test_a_query_tells_apart_by_bounded_labels_only(one: Asked) -> None:
    """And sums over all others, so that a label that is added later draws no more lines."""
    known = {label for name, _ in _SELECTOR.findall(one.expression) for label in _meaning(name).labels}
    assert _labels(one) <= (known | {"instance", "le"}) - UNBOUNDED
    for found in _SELECTOR.finditer(one.expression):
        before = one.expression[: found.start()]
        assert re.search(r"\b(sum|min|max|count)( by \([^)]*\) ?)?\((\w+\(|0 \* )?$", before), before


@pytest.mark.parametrize("one", ALL, ids=_name)
def test_a_query_heeds_what_was_chosen(one: Asked) -> None:
    """The host always; From domain and provider where the metric has them, or the panel says that it is all of them."""
    for name, inner in _SELECTOR.findall(one.expression):
        assert 'instance=~"$host"' in inner
        for label in {"domain", "provider"} & set(_meaning(name).labels):
            assert f'{label}=~"${label}"' in inner or f"all {label}s" in one.about, name


def test_every_figure_is_on_a_dashboard() -> None:
    shown = {_meaning(name).name for one in ALL for name, _ in _SELECTOR.findall(one.expression)}
    assert {meaning.name for meaning in METRICS if not UNBOUNDED & set(meaning.labels)} - shown == set()


@pytest.mark.skipif(not promtool.find(), reason="promtool (Debian package prometheus) is there after `make all` only")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"asked:{nth}", "expr": one.filled(span="1h", rate="2m")} for nth, one in enumerate(ALL)]
    path = tmp_path / "asked.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": rules}]}))
    done = subprocess.run([promtool.find(), "check", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


TWO_HOSTS: dict[str, tuple[dict[str, str], list[float]]] = {
    "Keys that fail": ({'dkim_key_ok{instance="a",domain="x.test",selector="s"}': "0x20",
                        'dkim_key_ok{instance="b",domain="x.test",selector="s"}': "0x20",
                        'dkim_key_ok{instance="b",domain="x.test",selector="t"}': "1x20"}, [1]),
    "Braked logins": ({'brake_logins{instance="a"}': "2x20", 'brake_logins{instance="b"}': "2x20"}, [2]),
    "On hold": ({'held_messages{instance="a"}': "2x20", 'held_messages{instance="b"}': "3x20"}, [5]),
    "Stores": ({'quota_store_up{instance="a"}': "1x20", 'quota_store_up{instance="b"}': "0x20"}, [0]),
    "Complaints": ({'complaints_total{instance="a"}': "0+3x20", 'complaints_total{instance="b"}': "0+1x10 0+1x9"},
                   [60 + 19]),
    "Share delivered": ({'deliveries_total{instance="a",domain="x.test",provider="p",status="sent"}': "0+3x20",
                         'deliveries_total{instance="b",domain="x.test",provider="p",status="bounced"}': "0+1x20",
                         'deliveries_total{instance="b",domain="x.test",provider="q",status="sent"}': "0x20"}, [0.75]),
}  # fmt: skip


@pytest.mark.skipif(not promtool.find(), reason="promtool (Debian package prometheus) is there after `make all` only")
@pytest.mark.parametrize("title", TWO_HOSTS)
def test_what_two_hosts_say_is_counted_once(title: str, tmp_path: Path) -> None:
    """Hosts that share keys and quotas say the same of them; a counter that began anew loses nothing, and where nothing
    happened no share is shown."""
    (one,) = (one for one in ALL if one.title == title)
    series, values = TWO_HOSTS[title]
    case = {
        "interval": "1m",
        "input_series": [{"series": PREFIX + name, "values": said} for name, said in series.items()],
        "promql_expr_test": [
            # increase() divides, and so does not always come out even.
            {"expr": f"round({one.filled(span='20m', rate='4m')}, 0.05)", "eval_time": "20m",
             "exp_samples": [{"labels": '{provider="p"}' if "provider" in one.legend else "{}", "value": value}
                             for value in values]},
        ],
    }  # fmt: skip
    path = tmp_path / "two.test.yml"
    path.write_text(yaml.safe_dump({"tests": [case]}))
    done = subprocess.run([promtool.find(), "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_grafana_is_told_where_they_are() -> None:
    folder = FOLDER / "provisioning"
    (provider,) = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"]
    assert (provider["type"], provider["options"]["path"]) == ("file", "/usr/share/postmeter/grafana")
    (source,) = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]
    every = yaml.safe_load((ROOT / "packaging/prometheus/prometheus.yml").read_text())["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", every)


@pytest.mark.skipif(not _GENERATOR.exists(), reason="grafana-foundation-sdk is there after `make dashboards` only")
def test_they_are_what_the_generator_makes(tmp_path: Path) -> None:
    """By Grafana's own types, which write them again unchanged when they read them."""
    subprocess.run([_GENERATOR, FOLDER / "dashboards.py", tmp_path], check=True, timeout=60)
    for path in BOARDS:
        assert (tmp_path / path.name).read_text() == path.read_text(), "make dashboards"
    script = (
        "import json, sys\nfrom grafana_foundation_sdk.cog import plugins\n"
        "from grafana_foundation_sdk.cog.encoder import JSONEncoder\n"
        "from grafana_foundation_sdk.models.dashboard import Dashboard\n"
        "plugins.register_default_plugins()\n"
        "print(JSONEncoder().encode(Dashboard.from_json(json.load(sys.stdin))))"
    )
    for path in BOARDS:
        again = subprocess.run([_GENERATOR, "-c", script], input=path.read_bytes(), capture_output=True, check=True,
                               timeout=60, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})  # fmt: skip
        assert json.loads(again.stdout) == load(path)
