"""`postmeter web` as a process in a directory of its own, for whoever asks it for links. Knows no Postfix."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

from postmeter.token import Mint
from tests.lab.ports import free_port
from tests.lab.waiting import wait_for

SOURCE = Path("milter").resolve()


@dataclass
class Place:
    """A directory with a configuration, secrets and a state directory, for one daemon."""

    path: Path
    port: int
    secret: bytes
    user: str = ""
    source: Path = SOURCE
    more: str = ""
    """Keys of `web`, as they stand in the file."""
    tls: ssl.SSLContext | None = None

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def config(self) -> Path:
        return self.path / "postmeter.yaml"

    def write(self, host: str = "127.0.0.1") -> None:
        user = f", user: {self.user}" if self.user else ""
        self.config.write_text(
            f'tracking: {{url: "http://{host}:{self.port}", secrets: {self.path}/secrets}}\n'
            f'web: {{listen: "127.0.0.1:{self.port}"{user}{self.more}}}\n'
            f"journal: {{path: {self.state}/journal.db}}\n"
        )

    def keep_secrets(self, *known: bytes) -> None:
        new = self.path / "new"
        new.write_text("".join(f"{secret.hex()}\n" for secret in known))
        new.chmod(0o640)
        if self.user:
            os.chown(new, 0, pwd.getpwnam(self.user).pw_gid)
        new.replace(self.path / "secrets")

    def status(self, *, secret: bytes = b"", host: str = "127.0.0.1", reference: bytes = b"referenc") -> int:
        link = self.connect()
        path = self.path_of(secret=secret, host=host, reference=reference)
        link.request("GET", path, headers={"Host": host})
        status = link.getresponse().status
        link.close()
        return status

    def path_of(self, *, secret: bytes = b"", host: str = "127.0.0.1", reference: bytes = b"referenc") -> str:
        mint = Mint([secret or self.secret])
        url = mint.link_url(f"http://{host}", reference=reference, link=1, target="https://shop.example/")
        return url.removeprefix(f"http://{host}")

    def connect(self) -> HTTPConnection:
        if self.tls is None:
            return HTTPConnection("127.0.0.1", self.port, timeout=5)
        return HTTPSConnection("127.0.0.1", self.port, timeout=5, context=self.tls)

    def start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "postmeter", "web", "-c", str(self.config)],
            env={"PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
        )
        wait_for(lambda: process.poll() is not None or self.listening())
        assert process.poll() is None
        return process

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def listening(self) -> bool:
        try:
            return self.status() == 302
        except ConnectionRefusedError:
            return False


@contextmanager
def opened() -> Iterator[Place]:
    """Outside pytest's own directories, which another user cannot enter."""
    path = Path(tempfile.mkdtemp(prefix="postmeter-web-"))
    path.chmod(0o711)
    found = Place(path, free_port(), secrets.token_bytes(32))
    found.state.mkdir(mode=0o711)
    found.write()
    found.keep_secrets(found.secret)
    yield found
    shutil.rmtree(path)
