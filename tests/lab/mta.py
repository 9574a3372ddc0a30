"""The MTA's side of the milter protocol, as far as Postfix speaks it: for tests and benchmarks without a Postfix.

Written from the protocol's description (version 6); knows nothing of what the milter decides. Replies are kept in the
order in which they came, byte for byte.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

# What Postfix 3.7 offers (mfapi.h): all actions but those of later protocol versions, all steps.
ACTIONS, STEPS = 0x1FF, 0x1FFFFF
NO_REPLY = {"C": 0x1000, "H": 0x2000, "M": 0x4000, "R": 0x8000, "T": 0x10000, "L": 0x80, "N": 0x40000, "B": 0x80000}
SKIPPED = {"C": 0x1, "H": 0x2, "M": 0x4, "R": 0x8, "B": 0x10, "L": 0x20, "N": 0x40, "T": 0x200}
FINAL = "cadrty4s"
CHUNK = 65535  # the protocol's longest body chunk


@dataclass(frozen=True, slots=True)
class Answer:
    """One packet from the milter: its code and the bytes behind it."""

    code: str
    data: bytes = b""


@dataclass(slots=True)
class Taken:
    """What the milter answered at the end of a message: modifications in order, then the verdict."""

    verdict: Answer
    changes: list[Answer] = field(default_factory=list)

    @property
    def reply(self) -> str:
        """The SMTP reply of a refusal; empty when the message was taken."""
        return self.verdict.data.rstrip(b"\0").decode() if self.verdict.code == "y" else ""

    def inserted(self, name: str) -> list[str]:
        """Values of fields inserted under that name, in the order of the calls."""
        found = [change.data[4:].split(b"\0") for change in self.changes if change.code == "i"]
        return [value.decode() for known, value, *_ in found if known.decode().lower() == name.lower()]

    def body(self) -> bytes | None:
        chunks = [change.data for change in self.changes if change.code == "b"]
        return b"".join(chunks) if chunks else None


class Mta:
    """One connection to a milter. `address` is a unix socket's path or (host, port)."""

    def __init__(self, address: Path | tuple[str, int], *, timeout: float = 10.0) -> None:
        family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
        self._socket = socket.socket(family)
        self._socket.settimeout(timeout)
        self._socket.connect(str(address) if isinstance(address, Path) else address)
        self._stream = self._socket.makefile("rb")
        self.actions = self.steps = 0

    def __enter__(self) -> Mta:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def negotiate(self, actions: int = ACTIONS, steps: int = STEPS) -> Answer:
        self.send("O", struct.pack("!III", 6, actions, steps))
        answer = self.receive()
        if answer.code == "O":
            _, self.actions, self.steps = struct.unpack("!III", answer.data[:12])
        return answer

    def connect(self, *, address: str = "192.0.2.1", port: int = 40000, service: str = "ORIGINATING") -> None:
        name = "client.example"
        self.macros("C", {"j": "mx.example.com", "{daemon_name}": service, "v": "Postfix 3.7.11"})
        kind = b"6" if ":" in address else b"4"
        self.step("C", name.encode() + b"\0" + kind + struct.pack("!H", port) + address.encode() + b"\0")

    def mail(self, sender: str | bytes, *, login: str = "", queue_id: str = "", args: Iterable[bytes] = ()) -> Answer:
        macros = {"{mail_addr}": "x"} | ({"{auth_authen}": login, "{auth_type}": "PLAIN"} if login else {})
        self.macros("M", macros | ({"i": queue_id} if queue_id else {}))
        return self.step("M", b"\0".join([b"<" + _octets(sender) + b">", *args]) + b"\0")

    def rcpt(self, recipient: str | bytes, *, queue_id: str = "") -> Answer:
        self.macros("R", {"{rcpt_addr}": "x"} | ({"i": queue_id} if queue_id else {}))
        return self.step("R", b"<" + _octets(recipient) + b">\0")

    def header(self, name: str, value: bytes) -> Answer:
        return self.step("L", name.encode() + b"\0" + value + b"\0")

    def message(self, fields: Iterable[tuple[str, bytes]], body: bytes, *, queue_id: str = "4XyZ1234567") -> Taken:
        """DATA to the end of the message. A verdict before the end comes back as it is."""
        self.macros("T", {"i": queue_id})
        self.step("T", b"")
        for name, value in fields:
            self.header(name, value)
        self.macros("N", {"i": queue_id})
        early = self.step("N", b"")
        if early.code != "c":
            return Taken(early)
        for start in range(0, len(body), CHUNK):
            self.step("B", body[start : start + CHUNK])
        return self.end(queue_id=queue_id)

    def end(self, *, queue_id: str = "4XyZ1234567") -> Taken:
        self.macros("E", {"i": queue_id})
        self.send("E", b"")
        changes: list[Answer] = []
        while (answer := self.receive()).code not in FINAL:
            changes.append(answer)
        return Taken(answer, changes)

    def abort(self) -> None:
        """Postfix sends it after every message (D9)."""
        self.send("A", b"")

    def quit(self) -> None:
        self.send("Q", b"")

    def step(self, command: str, data: bytes) -> Answer:
        """Send an event unless it was declined, and wait for its reply unless none was promised."""
        if self.steps & SKIPPED.get(command, 0):
            return Answer("c")
        self.send(command, data)
        return Answer("c") if self.steps & NO_REPLY.get(command, 0) else self.receive()

    def macros(self, command: str, known: Mapping[str, str]) -> None:
        pairs = b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in known.items())
        self.send("D", command.encode() + pairs)

    def send(self, command: str, data: bytes) -> None:
        self._socket.sendall(struct.pack("!I", len(data) + 1) + command.encode() + data)

    def receive(self) -> Answer:
        head = self._stream.read(4)
        if len(head) < 4:
            raise ConnectionError("the milter hung up")
        packet = self._stream.read(struct.unpack("!I", head)[0])
        return Answer(chr(packet[0]), packet[1:])


def _octets(address: str | bytes) -> bytes:
    return address.encode() if isinstance(address, str) else address
