"""Debian's Chromium without a window, for tests that ask what a reader would see and where his click would lead.

Speaks Chromium's own protocol (DevTools) to one browser for many pages. The browser has no network: each request is
answered here or refused, and names are looked up nowhere. Knows nothing of tracking or of mail.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Coroutine, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import aiohttp

PAGE = "http://page.test/"
"""Where every page stands, as far as the browser can tell."""

_PROGRAMS = ("chromium-headless-shell", "chromium")
_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--force-device-scale-factor=1", "--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0", "about:blank",
)  # fmt: skip
_LONGEST = 30.0
_HIGHEST = 16000  # pixels of a picture
_T = TypeVar("_T")


def missing() -> str:
    """Why no page can be shown here; empty when it can."""
    return "" if _program() else "Debian's chromium-headless-shell is not installed: sh tests/lab/install.sh all"


def _program() -> str:
    return next((path for name in _PROGRAMS if (path := shutil.which(name))), "")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a URL is answered with; `kind` is its Content-Type."""

    kind: str
    body: bytes


@dataclass(slots=True)
class Shown:
    """What the browser asked for, the page itself apart, and made of a page."""

    asked: set[str] = field(default_factory=set)
    picture: bytes = b""
    value: Any = None


class Chromium:
    """One browser; with it as a context, `show` pages one after the other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._loop = asyncio.new_event_loop()

    def __enter__(self) -> Chromium:
        # What was killed may still be writing when its folder goes.
        place = tempfile.TemporaryDirectory(prefix="postmeter-chromium-", ignore_cleanup_errors=True)
        folder = self._stack.enter_context(place)
        command = [_program(), f"--user-data-dir={folder}", *_OPTIONS]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = self._port(Path(folder, "DevToolsActivePort"))
            self._tab = _Tab(port)
            self._run(self._tab.open())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "_tab"):
            self._run(self._tab.close())
        os.killpg(self._process.pid, signal.SIGKILL)  # Debian's program is a script that starts another
        self._process.wait()
        self._loop.close()
        self._stack.close()

    def show(
        self, page: Answer, *, others: Mapping[str, Answer] | None = None, picture: bool = False, script: str = ""
    ) -> Shown:
        """The page loaded, photographed whole when asked, and what a script of ours makes of it; its own never run."""
        return self._run(self._tab.show({PAGE: page, **(others or {})}, picture=picture, script=script))

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.run_until_complete(asyncio.wait_for(work, _LONGEST))

    def _port(self, file: Path) -> int:
        until = time.monotonic() + _LONGEST
        while not file.exists() or "\n" not in file.read_text():
            assert self._process.poll() is None, "Chromium ended"
            assert time.monotonic() < until, "Chromium did not start"
            time.sleep(0.02)
        return int(file.read_text().partition("\n")[0])


class _Tab:
    """The commands and events of one tab."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._number = 0
        self._answers: Mapping[str, Answer] = {}
        self._shown = Shown()

    async def open(self) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"{self._url}/json/list") as answer:
            tabs = await answer.json()
        socket = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = await self._session.ws_connect(socket, max_msg_size=0)
        await self._ask("Page.enable")
        await self._ask("Fetch.enable", patterns=[{"urlPattern": "*"}])
        await self._ask("Emulation.setScriptExecutionDisabled", value=True)
        await self._ask("Network.enable")
        await self._ask("Network.setCacheDisabled", cacheDisabled=True)

    async def close(self) -> None:
        await self._session.close()

    async def show(self, answers: Mapping[str, Answer], *, picture: bool, script: str) -> Shown:
        self._answers, self._shown = answers, Shown()
        await self._ask("Page.navigate", url=PAGE, until="Page.loadEventFired")
        if picture:
            size = (await self._ask("Page.getLayoutMetrics"))["cssContentSize"]
            whole = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], _HIGHEST), "scale": 1}
            taken = await self._ask("Page.captureScreenshot", captureBeyondViewport=True, clip=whole)
            self._shown.picture = base64.b64decode(taken["data"])
        if script:
            found = await self._ask("Runtime.evaluate", expression=script, returnByValue=True)
            assert "exceptionDetails" not in found, found
            self._shown.value = found["result"].get("value")
        return self._shown

    async def _ask(self, method: str, *, until: str = "", **parameters: Any) -> dict[str, Any]:
        """The result of a command, once an event has come too; requests of the page are answered meanwhile."""
        number = await self._send(method, parameters)
        result: dict[str, Any] | None = None
        while result is None or until:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                result = message["result"]
            elif message.get("method") == "Fetch.requestPaused":
                await self._answer(message["params"])
            elif message.get("method") == until:
                until = ""
        return result

    async def _send(self, method: str, parameters: dict[str, Any]) -> int:
        self._number += 1
        await self._socket.send_json({"id": self._number, "method": method, "params": parameters})
        return self._number

    async def _answer(self, paused: dict[str, Any]) -> None:
        url, request = paused["request"]["url"], paused["requestId"]
        if url != PAGE:
            self._shown.asked.add(url)
        if answer := self._answers.get(url):
            fields = [{"name": "Content-Type", "value": answer.kind}]
            body = base64.b64encode(answer.body).decode()
            await self._send(
                "Fetch.fulfillRequest",
                {"requestId": request, "responseCode": 200, "responseHeaders": fields, "body": body},
            )
        else:
            await self._send("Fetch.failRequest", {"requestId": request, "errorReason": "BlockedByClient"})
