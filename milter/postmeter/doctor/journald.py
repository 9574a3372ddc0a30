"""What systemd drops of Postfix's log, collected and judged: journald's own limit, and those of Postfix's units.

journald.conf(5), systemd.exec(5). In a unit 0 does not lift the limit: it says that journald's own counts (systemd's
src/core/unit.c exports no 0), so that only a high number helps.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from postmeter.config.maillog import MAIL_LOG
from postmeter.config.schema import Config
from postmeter.doctor.facts import Facts, Limits
from postmeter.doctor.finding import NOTE, Finding

_PLACES = ("/usr/lib/systemd", "/run/systemd", "/etc/systemd")
_UNITS = ("postfix.service", "postfix@-.service")  # Debian 13's main one, Debian 12's
_PROPERTIES = "Id,LoadState,Type,LogRateLimitIntervalUSec,LogRateLimitBurst"
_PATIENCE = 10.0  # seconds for systemctl(1)
_LINES = 7  # lines that Postfix writes about a message with one recipient
_BURST, _INTERVAL = 10_000, 30.0  # journald.conf(5): the defaults of RateLimitBurst and RateLimitIntervalSec
_PLENTY = 10_000.0  # messages a second, more than a host sends
_SPAN = re.compile(r"([0-9.]+) *([a-z]*)", re.ASCII)
_SECONDS = {"us": 1e-6, "ms": 1e-3, "": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def limits(config: Config, *, places: tuple[str, ...] = _PLACES) -> Limits | None:
    """Where Postfix's log is read from the journal; None where it is not."""
    auto = config.delivery.log == "auto" and Path("/run/systemd/journal/socket").exists()
    if config.delivery.log != "journald" and not (auto and not MAIL_LOG.exists()):
        return None
    found: dict[str, str] = {}
    for file in _files(places):
        lines = (line.partition("=") for line in file.read_text(errors="replace").splitlines() if line[:1] not in "#;[")
        found.update({name.strip(): value.strip() for name, equals, value in lines if equals})
    return Limits(found, _of_units())


def _files(places: tuple[str, ...]) -> list[Path]:
    main = [path for folder in places if (path := Path(folder, "journald.conf")).is_file()][-1:]
    dropped = {path.name: path for folder in places for path in Path(folder, "journald.conf.d").glob("*.conf")}
    return [*main, *(dropped[name] for name in sorted(dropped))]


def _of_units() -> dict[str, tuple[str, str]]:
    """Nothing where systemd does not run."""
    program = shutil.which("systemctl")
    if program is None:
        return {}
    command = [program, "show", f"--property={_PROPERTIES}", *_UNITS]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=_PATIENCE,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return {}
    return units(done.stdout)


def units(shown: str) -> dict[str, tuple[str, str]]:
    """Interval and burst of each unit that is there and runs something; "" where it has none of its own."""
    found = {}
    for block in shown.split("\n\n"):
        has = {name: value for name, _, value in (line.partition("=") for line in block.splitlines())}
        if has.get("LoadState") == "loaded" and has.get("Type") != "oneshot":
            interval, burst = has.get("LogRateLimitIntervalUSec", ""), has.get("LogRateLimitBurst", "")
            found[has.get("Id", "")] = ("" if interval == "0" else interval, "" if burst == "0" else burst)
    return found


def rate_limit(facts: Facts) -> Iterator[Finding]:
    """journald drops what comes faster; what it dropped of Postfix's log is a delivery that nobody knows of."""
    if facts.log_limits is None:
        return
    conf = facts.log_limits.journald
    for unit, (interval, burst) in (facts.log_limits.units or {"postfix@-.service": ("", "")}).items():
        interval = interval or conf.get("RateLimitIntervalSec", f"{_INTERVAL:g}s")
        burst = burst or conf.get("RateLimitBurst", str(_BURST))
        lines, seconds = int(burst) if burst.isdigit() else _BURST, _span(interval)
        if not lines or not seconds or lines / seconds / _LINES >= _PLENTY:
            continue
        amount = f"about {lines // _LINES} messages, some times as many while its disk is rather empty"
        what = f"journald drops lines of {unit} beyond {lines} in {interval}: {amount}"
        known = "LogRateLimitIntervalSec, LogRateLimitBurst (systemctl show); RateLimit… of journald.conf"
        yield Finding(NOTE, "journald", what, known, _lift(unit))


def _lift(unit: str) -> str:
    folder = f"/etc/systemd/system/{re.sub('@.*[.]', '@.', unit)}.d"
    text = r"[Service]\nLogRateLimitIntervalSec=1s\nLogRateLimitBurst=10000000\n"
    write = f"mkdir -p {folder} && printf '{text}' >{folder}/log.conf"
    return f"{write} && systemctl daemon-reload && systemctl restart {unit}"


def _span(text: str) -> float:
    """Seconds of a time span of systemd's, `1min 30s` (systemd.time(7)); the default for what is none."""
    parts = _SPAN.findall(text)
    if not parts or any(unit not in _SECONDS or number.count(".") > 1 or number == "." for number, unit in parts):
        return _INTERVAL
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


CHECKS = (rate_limit,)
