"""What the milter's workers hold in memory: the short form of `tests.bench.memory`, on the daemon itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bench import held, large
from tests.bench.memory import many, session
from tests.bench.messages import newsletter, plain
from tests.bench.whole import running, socket_of
from tests.lab.product import Postmeter
from tests.lab.waiting import wait_for

_SIZE = 16_000_000
_FREE = 4 << 20
_SLACK = 16 << 20  # what malloc keeps for a while, and pages of Python that are touched for the first time


@pytest.fixture(scope="module")
def ours() -> Iterator[Postmeter]:
    """With room for one large message and the work on it, and for no second one besides."""
    settings = {"milter": {"workers": 1, "max_memory": "48M"}}
    with running(settings, daemons=("milter",)) as started:
        session(socket_of(started), [plain(), newsletter()], 100)
        yield started


def test_nothing_stays_of_a_message(ours: Postmeter) -> None:
    many(ours, messages=400, connections=20, clients=4)
    points = many(ours, messages=1000, connections=50, clients=4)
    grown = points[-1][1] - points[0][1]
    assert grown < 1000 * 2500, "half of what the messages have on average; caches of SQLite fill meanwhile"


def test_what_lay_free_beside_messages_goes_back_to_the_system(ours: Postmeter) -> None:
    """Of what is too small to be mapped by itself malloc would keep 8 MB at the end of its arena for ever."""
    address, [worker] = socket_of(ours), ours.workers()
    mail = large.page_and_attachment(2_500_000)
    sizes: list[float] = []

    def grows() -> bool:
        sizes[:] = [held.anonymous([worker])]
        large.send(address, mail.fields(), mail.body())
        sizes.append(held.anonymous([worker]))
        return sizes[1] > sizes[0] + _FREE

    wait_for(grows, within=30)  # what lay free before is taken first
    wait_for(lambda: held.anonymous([worker]) < sizes[1] - _FREE, within=30)


@pytest.mark.parametrize("make", large.KINDS)
def test_a_large_message_takes_three_times_its_size_at_most(ours: Postmeter, make: large.Making) -> None:
    address, [worker] = socket_of(ours), ours.workers()
    peak = large.measure(address, worker, make(_SIZE))
    assert peak.taken
    assert peak.rewritten == (make not in (large.attachment, large.pages))
    assert peak.times < 3 + _SLACK / _SIZE / 4


def test_many_at_once_are_bounded_and_what_finds_no_room_is_put_off(ours: Postmeter) -> None:
    address, [worker] = socket_of(ours), ours.workers()
    mail = large.page_and_attachment(_SIZE)
    before = held.resident(worker)
    held.forget_peak(worker)
    verdicts = large.at_once(address, mail, 8)
    assert {"a"} <= set(verdicts) <= {"a", "y"}
    assert held.peak(worker) - before < 48 * 1024**2 + 2 * _SIZE + _SLACK
    assert ours.workers() == [worker]


def test_a_worker_at_rest_takes_less_than_is_promised(ours: Postmeter) -> None:
    """After all of this too, in its proportional set."""
    [worker] = ours.workers()
    assert held.share(worker) < 45 << 20
