"""systemctl(1) for a world without systemd: what its words do to postmeter's own units, from the unit files themselves.

A service is what its ExecStart= says, as its User= with its SupplementaryGroups=, started when it says that it is ready
(sd_notify(3)) and ended by SIGTERM; its sandbox is systemd's own and is not made here. A unit nobody knows is an error.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from tests.lab.folder import CLONE

_PLACES = (Path("/etc/systemd/system"), CLONE / "packaging" / "systemd")
_FOREIGN = {"prometheus"}
"""Units of others that documents name; whether they run is not for us to say."""
_STATE = Path(os.environ.get("LAB_UNITS", "/nonexistent"))
_BOUND = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main(arguments: list[str]) -> int:
    verb, *units = [word for word in arguments if not word.startswith("-")]
    for unit in units:
        if unit in _FOREIGN:
            continue
        path = _find(unit)
        if path is None:
            print(f"Unit {unit} not found.", file=sys.stderr)
            return 5
        if code := _do(verb, path, now="--now" in arguments):
            return code
    return 0


def _find(unit: str) -> Path | None:
    name = unit if "." in unit else f"{unit}.service"
    return next((place / name for place in _PLACES if (place / name).exists()), None)


def _do(verb: str, path: Path, *, now: bool) -> int:
    if path.suffix == ".target":
        return max(_do(verb, member, now=now) for member in _members(path))
    said = _read(path)
    if verb == "enable" and "WantedBy" not in said:
        print(f"{path.name} has no [Install]", file=sys.stderr)
        return 1
    if verb == "enable":
        (_STATE / f"{path.name}.enabled").touch()
        verb = "start" if now else ""
    if verb in ("stop", "restart"):
        _stop(path)
    if verb in ("start", "restart") and path.suffix == ".service":
        _start(path, said)
    if verb == "status":
        print(f"{path.name}: {'active' if _pid(path) else 'inactive'}")
        return 0 if _pid(path) else 3
    return _reload(path, said) if verb == "reload" else 0


def _members(target: Path) -> list[Path]:
    """Milter and books, which the package enables, and web once somebody did."""
    found = [path for path in sorted(target.parent.glob("*.service")) if _read(path).get("PartOf") == [target.name]]
    return [path for path in found if "web" not in path.name or (_STATE / f"{path.name}.enabled").exists()]


def _read(path: Path) -> dict[str, list[str]]:
    said: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith(("#", ";")):
            said[name].append(value)
    return dict(said)


def _start(path: Path, said: dict[str, list[str]]) -> None:
    if _pid(path):
        return
    account = pwd.getpwnam(said.get("User", ["root"])[0])
    groups = [grp.getgrnam(name).gr_gid for name in " ".join(said.get("SupplementaryGroups", [])).split()]
    notices = _STATE / f"{path.name}.notify"
    notices.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox, (_STATE / f"{path.name}.log").open("ab") as log:
        inbox.bind(str(notices))
        notices.chmod(0o666)
        started = subprocess.Popen(
            shlex.split(said["ExecStart"][0]), user=account.pw_uid, group=account.pw_gid, extra_groups=groups, cwd="/",
            env={"PATH": _PATH, "NOTIFY_SOCKET": str(notices)}, start_new_session=True, umask=0o027,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        (_STATE / f"{path.name}.pid").write_text(str(started.pid))
        if said.get("Type") == ["notify"]:
            _wait_until_ready(inbox, started, path)
        else:
            started.wait(_BOUND)


def _wait_until_ready(inbox: socket.socket, started: subprocess.Popen[bytes], path: Path) -> None:
    inbox.settimeout(0.1)
    until = time.monotonic() + _BOUND
    while time.monotonic() < until and started.poll() is None:
        try:
            if b"READY=1" in inbox.recv(4096):
                return
        except TimeoutError:
            continue
    raise SystemExit(f"{path.name} did not start:\n{(_STATE / f'{path.name}.log').read_text()}")


def _stop(path: Path) -> None:
    if pid := _pid(path):
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + _BOUND
    while _pid(path):
        if time.monotonic() > until:
            raise SystemExit(f"{path.name} does not stop")
        time.sleep(0.02)


def _reload(path: Path, said: dict[str, list[str]]) -> int:
    for command in said["ExecReload"]:
        if subprocess.run(["/bin/sh", "-c", command], env={"PATH": _PATH, "MAINPID": str(_pid(path))}).returncode:
            return 1
    return 0


def _pid(path: Path) -> int:
    """Of the service that runs, else 0; one that ended and that nobody has asked about does not run."""
    try:
        pid = int((_STATE / f"{path.name}.pid").read_text())
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except (OSError, ValueError):
        return 0
    return 0 if state == "Z" else pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
