"""A private Prometheus, Debian's, on a port of loopback: asks a page each second, judges by our rules, answers queries.

Installed, or unpacked by `make all`; never a service. It ends with the thread that started it.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.lab import promtool
from tests.lab.folder import new_folder
from tests.lab.ports import free_port

RULES = Path(__file__).parents[2] / "packaging" / "prometheus" / "*.rules.yml"
_BOUND = 30.0

Values = list[float]


def _program() -> str:
    beside = Path(promtool.find()).with_name("prometheus") if promtool.find() else Path("/nonexistent")
    return shutil.which("prometheus") or (str(beside) if beside.exists() else "")


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if _program() else "prometheus is not installed (make all unpacks it)"


class Prometheus:
    """Use as a context manager. `target` is the port of the page that it asks each second."""

    def __init__(self, target: int) -> None:
        self.folder = new_folder("prometheus")
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "postmeter", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
            ],
        }))  # fmt: skip

    def __enter__(self) -> Prometheus:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def now(self, expression: str) -> dict[str, Values]:
        """What holds at this moment: finite values by labels."""
        return _values(self.ask("query", query=expression), "value")

    def over(self, expression: str, *, seconds: int, step: int = 1) -> dict[str, Values]:
        """A graph of the last so many seconds."""
        end = time.time()
        found = self.ask("query_range", query=expression, start=end - seconds, end=end, step=step)
        return _values(found, "values")

    def ask(self, what: str, **parameters: Any) -> Any:
        """Its HTTP API (prometheus.io/docs/prometheus/latest/querying/api); fails with what it says is wrong."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=_BOUND) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it is not ready yet
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def _start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", _program(), f"--config.file={self.folder}/prometheus.yml",
                 f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address=127.0.0.1:{self.port}"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        until = time.monotonic() + _BOUND
        while not self._scraped():
            said = (self.folder / "log").read_text()
            assert self._process.poll() is None, said
            assert time.monotonic() < until, f"it does not see the page: {said}"
            time.sleep(0.1)

    def _scraped(self) -> bool:
        try:
            return bool(self.now('up{job="postmeter"} == 1'))
        except OSError:
            return False


def _values(found: Any, key: str) -> dict[str, Values]:
    series: dict[str, Values] = {}
    for one in found["result"]:
        pairs = one[key] if key == "values" else [one[key]]
        if finite := [value for value in (float(pair[1]) for pair in pairs) if math.isfinite(value)]:
            series[str(one["metric"])] = finite
    return series
