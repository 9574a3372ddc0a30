"""A private nginx, Debian's, with a site of ours on ports of loopback: installed, or unpacked under build/peers.

The site's file is taken as it stands but for its ports, paths and names. Knows nothing of what is behind it.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.lab.folder import CLONE, new_folder
from tests.lab.ports import free_port

_UNPACKED = CLONE / "build/peers/nginx/usr/sbin/nginx"
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_BOUND = 20.0


def program() -> str | None:
    return shutil.which("nginx") or (str(_UNPACKED) if _UNPACKED.exists() else None)


def missing() -> str:
    """Why there can be none here; empty when there can."""
    return "" if program() else "nginx is neither installed nor unpacked under build/peers"


class Nginx:
    """Use as a context manager. `instead` are texts of the site and what stands in their place here."""

    def __init__(self, site: Path, instead: Mapping[str, str]) -> None:
        self.folder = new_folder("nginx")
        self.plain, self.tls = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        text = re.sub(r"listen \[::\].*\n", "", site.read_text())
        text = text.replace("listen 80;", f"listen 127.0.0.1:{self.plain};")
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.tls} ssl;")
        for old, new in instead.items():
            assert old in text, f"the site has no {old}"
            text = text.replace(old, new)
        (self.folder / "site.conf").write_text(text)
        places = "".join(f"{name}_temp_path {self.folder}/{name};\n" for name in _TEMPORARY)
        (self.folder / "nginx.conf").write_text(
            f"daemon off;\npid {self.folder}/pid;\nuser nobody nogroup;\nworker_processes 1;\n"
            f"events {{ worker_connections 256; }}\nhttp {{\naccess_log {self.folder}/access;\n{places}"
            f"include {self.folder}/site.conf;\n}}\n"
        )

    def __enter__(self) -> Nginx:
        command = [str(program()), "-c", str(self.folder / "nginx.conf"), "-e", str(self.folder / "error")]
        checked = subprocess.run([*command, "-t", "-q"], capture_output=True, text=True, check=False, timeout=_BOUND)
        assert (checked.returncode, checked.stderr) == (0, ""), checked.stderr
        self._process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *command])
        until = time.monotonic() + _BOUND
        while not (_listens(self.plain) and _listens(self.tls)):
            assert self._process.poll() is None, self.error()
            assert time.monotonic() < until, self.error()
            time.sleep(0.02)  # a bounded wait for a condition
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_BOUND)
        shutil.rmtree(self.folder, ignore_errors=True)

    def error(self) -> str:
        path = self.folder / "error"
        return path.read_text() if path.exists() else ""

    def logged(self) -> str:
        """What it wrote of requests."""
        path = self.folder / "access"
        return path.read_text() if path.exists() else ""


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
