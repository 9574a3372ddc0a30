"""A person at Debian's Chromium, before the pages of a real server: reads, presses keys, has a phone or likes it dark.

Stands where the TLS proxy would: whatever the browser asks of the one host over https is asked of the server, and all
else is refused. Knows nothing of what the pages say.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from tests.lab.chromium import Chromium, _Tab

_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Space": (32, " ")}
_HOPS = frozenset({"connection", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the browser's."""

    method: str
    url: str
    body: str


class Person(Chromium):
    """`host` is what the browser believes to see at `port`."""

    def __init__(self, port: int, *, host: str) -> None:
        super().__init__()
        self._server = port
        self._host = host

    def __enter__(self) -> Person:
        super().__enter__()
        self._run(self._tab.close())
        self._window = _Window(int(urlsplit(self._tab._url).port or 0), self._server, self._host)
        self._tab = self._window
        self._run(self._window.open())
        return self

    @property
    def asked(self) -> list[Asked]:
        """All that the browser has asked for so far."""
        return self._window.requests

    def likes(self, *, languages: str = "", dark: bool = False, width: int = 360, height: int = 640) -> None:
        """From the next page on; as wide as a phone by default."""
        self._tell("Network.setExtraHTTPHeaders", headers={"Accept-Language": languages} if languages else {})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._tell("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": True}
        self._tell("Emulation.setDeviceMetricsOverride", "", **size)

    def visit(self, url: str) -> None:
        self._tell("Page.navigate", until="Page.loadEventFired", url=url)

    def press(self, key: str, *, leads_on: bool = False) -> None:
        """A key; `leads_on`: to another page, which is waited for."""
        code, text = _KEYS[key]
        name = {"key": text if key == "Space" else key, "code": key, "windowsVirtualKeyCode": code}
        until = "Page.loadEventFired" if leads_on else ""
        self._tell("Input.dispatchKeyEvent", "", type="keyDown" if text else "rawKeyDown", text=text, **name)
        self._tell("Input.dispatchKeyEvent", until, type="keyUp", **name)

    def sees(self, expression: str) -> Any:
        """What the browser makes of an expression about the page."""
        found = self._tell("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def hears(self) -> list[tuple[str, str]]:
        """Roles and names, as a screen reader is told them."""
        nodes = self._tell("Accessibility.getFullAXTree")["nodes"]
        told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
        return [(role, name) for role, name in told if name]

    def _tell(self, method: str, until: str = "", **parameters: Any) -> dict[str, Any]:
        return self._run(self._window._ask(method, until=until, **parameters))


class _Window(_Tab):
    """A tab whose requests go to the server."""

    def __init__(self, port: int, server: int, host: str) -> None:
        super().__init__(port)
        self.requests: list[Asked] = []
        self._server = server
        self._host = host

    async def _answer(self, paused: dict[str, Any]) -> None:
        request, number = paused["request"], paused["requestId"]
        self.requests.append(Asked(request["method"], request["url"], request.get("postData", "")))
        parts = urlsplit(request["url"])
        if (parts.scheme, parts.netloc) != ("https", self._host):
            await self._send("Fetch.failRequest", {"requestId": number, "errorReason": "BlockedByClient"})
            return
        link = HTTPConnection("127.0.0.1", self._server, timeout=10)
        body = request.get("postData", "").encode() if request["method"] == "POST" else None
        link.request(request["method"], parts.path, body=body, headers={**request["headers"], "Host": self._host})
        answer = link.getresponse()
        page = base64.b64encode(answer.read()).decode()
        fields = [{"name": name, "value": value} for name, value in answer.getheaders() if name.lower() not in _HOPS]
        link.close()
        told = {"requestId": number, "responseCode": answer.status, "responseHeaders": fields, "body": page}
        await self._send("Fetch.fulfillRequest", told)
