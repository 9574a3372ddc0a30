"""How long a message takes under load: from the moment when it is due until Postfix answers the end of DATA.

Messages are due at moments drawn once (Poisson, the same for every row), whether earlier ones have been answered or
not: a milter that stalls is not spared those that would have come meanwhile. Knows nothing of milters. RFC 2920.
"""

from __future__ import annotations

import asyncio
import random
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_BOUND = 60.0  # seconds for one answer
_SEED = 8


@dataclass(frozen=True, slots=True)
class Waits:
    """Milliseconds that messages of one turn took."""

    part: str
    row: str
    mail: str
    round: int
    count: int
    median: float
    p99: float
    longest: float


def due(count: int, rate: float) -> list[float]:
    """Seconds from the beginning at which each message is due."""
    dice = random.Random(_SEED)
    moments, at = [], 0.0
    for _ in range(count):
        at += dice.expovariate(rate)
        moments.append(at)
    return moments


def quantile(seconds: Sequence[float], part: float) -> float:
    """The least of the values that so many are not above."""
    return sorted(seconds)[max(0, -int(-len(seconds) * part // 1) - 1)]


def waits(part: str, row: str, mail: str, nth: int, seconds: Sequence[float]) -> Waits:
    median, p99, longest = statistics.median(seconds), quantile(seconds, 0.99), max(seconds)
    return Waits(part, row, mail, nth, len(seconds), median * 1000, p99 * 1000, longest * 1000)


def send(
    port: int, message: bytes, *, sender: str, reader: str, moments: Sequence[float], sessions: int
) -> list[float]:
    """Seconds that each message took. Raises `RuntimeError` for one that is not accepted."""
    data = re.sub(rb"(?m)^\.", b"..", message) + b".\r\n"
    envelope = f"MAIL FROM:<{sender}>\r\nRCPT TO:<{reader}>\r\nDATA\r\n".encode()
    return asyncio.run(_send(port, envelope, data, moments, sessions))


async def _send(port: int, envelope: bytes, data: bytes, moments: Sequence[float], sessions: int) -> list[float]:
    links = [await _open(port) for _ in range(sessions)]
    queue: asyncio.Queue[float] = asyncio.Queue()
    took: list[float] = []
    clerks = [asyncio.create_task(_serve(link, queue, took, (envelope, data))) for link in links]
    feeder = asyncio.create_task(_feed(queue, moments, sessions))
    try:
        await asyncio.gather(feeder, *clerks)
    finally:
        for _, writer in links:
            writer.close()
    return took


async def _feed(queue: asyncio.Queue[float], moments: Sequence[float], sessions: int) -> None:
    """Each message when it is due; then to every session that no more come."""
    clock = asyncio.get_running_loop().time
    start = clock()
    for moment in moments:
        await asyncio.sleep(max(0.0, start + moment - clock()))
        queue.put_nowait(start + moment)
    for _ in range(sessions):
        queue.put_nowait(0.0)


_Link = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _open(port: int) -> _Link:
    link = await asyncio.open_connection("127.0.0.1", port)
    await _answer(link[0], b"220")
    link[1].write(b"EHLO client.example.com\r\n")
    await _answer(link[0], b"250")
    return link


async def _serve(link: _Link, queue: asyncio.Queue[float], took: list[float], said: tuple[bytes, bytes]) -> None:
    reader, writer = link
    clock = asyncio.get_running_loop().time
    while moment := await queue.get():
        writer.write(said[0])
        for code in (b"250", b"250", b"354"):
            await _answer(reader, code)
        writer.write(said[1])
        await _answer(reader, b"250")
        took.append(clock() - moment)


async def _answer(reader: asyncio.StreamReader, code: bytes) -> None:
    while True:
        line = await asyncio.wait_for(reader.readline(), _BOUND)
        if line[:3] != code:
            raise RuntimeError(f"{line!r} where {code.decode()} was due")
        if line[3:4] != b"-":
            return
