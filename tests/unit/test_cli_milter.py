"""What `postmeter milter` makes of its own section of the configuration."""

from __future__ import annotations

import os

from postmeter.cli.milter import _every, processes


def test_auto_is_one_worker_per_processor_that_we_may_use() -> None:
    """CPUAffinity= and a container's cpuset leave the host's number as it is."""
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert processes("auto") == 1
    finally:
        os.sched_setaffinity(0, mine)
    assert processes("auto") == len(mine)


def test_a_number_of_workers_is_that_number() -> None:
    assert processes(7) == 7


def test_what_is_done_now_and_then_is_done_at_once_and_then_when_so_long_has_passed() -> None:
    done: list[float] = []
    never_again, always = (_every(seconds, lambda: done.append(0.0)) for seconds in (3600.0, 0.0))
    for perhaps, times in ((never_again, 1), (always, 3)):
        done.clear()
        for _ in range(3):
            perhaps()
        assert len(done) == times
