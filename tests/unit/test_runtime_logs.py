"""Log lines: one a record, bounded, free of what could forge a line or steer a terminal."""

from __future__ import annotations

import json
import logging
import os
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config.schema import Log
from postmeter.runtime import logs


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Leave the root logger as it was: set_up replaces its handlers."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.raiseExceptions = True


def _written(log: Log, say: object, **environ: str) -> list[bytes]:
    """What `say` makes the process write to its log."""
    assert callable(say)
    reader, writer = os.pipe()
    stat = os.fstat(writer)
    names = {key: value.format(dev=stat.st_dev, ino=stat.st_ino) for key, value in environ.items()}
    logs.set_up(log, daemon="milter", fd=writer, environ=names)
    say()
    os.close(writer)
    with open(reader, "rb") as file:
        return file.readlines()


@given(st.text())
def test_whatever_a_client_sent_is_one_printable_line(text: str) -> None:
    line = logs.one_line(text)
    assert len(line.splitlines()) <= 1
    assert not any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in line)


@given(st.text(min_size=1, max_size=50), st.integers(1, 20))
def test_a_line_is_bounded_and_says_how_much_is_missing(text: str, longest: int) -> None:
    line = logs.one_line("a" * len(text), longest=longest)
    assert line.startswith("a" * min(len(text), longest))
    assert ("more)" in line) == (len(text) > longest)


def test_text_has_time_level_and_daemon() -> None:
    (line,) = _written(Log(), lambda: logging.getLogger("x").warning("queue %s\r\nforged: line", "4X"))
    assert line.endswith(b"Z warning milter[%d]: queue 4X\\r\\nforged: line\n" % os.getpid())


def test_the_journal_gets_the_priority_and_no_time() -> None:
    def say() -> None:
        logging.getLogger("x").error("no space")

    assert _written(Log(), say, JOURNAL_STREAM="{dev}:{ino}") == [b"<3>milter: no space\n"]
    assert not _written(Log(), say, JOURNAL_STREAM="1:1")[0].startswith(b"<3>")


def test_json_is_an_object_a_line_even_with_foreign_bytes() -> None:
    foreign = b"a\xff\n".decode("utf-8", "surrogateescape")
    (line,) = _written(Log(format="json"), lambda: logging.getLogger("x").info("from %s", foreign))
    record = json.loads(line)
    assert (record["level"], record["daemon"], record["message"]) == ("info", "milter", "from a\\udcff\\n")


def test_a_traceback_stays_on_its_line() -> None:
    def say() -> None:
        try:
            raise ValueError("x" * 50_000)
        except ValueError:
            logging.getLogger("x").exception("4X: step links failed")

    (line,) = _written(Log(), say)
    assert b"4X: step links failed: " in line
    assert len(line) < 8200


def test_the_level_is_the_configured_one() -> None:
    assert _written(Log(level="error"), lambda: logging.getLogger("x").warning("no")) == []


def test_a_closed_standard_error_fails_nobody() -> None:
    reader, writer = os.pipe()
    logs.set_up(Log(), daemon="milter", fd=writer, environ={})
    os.close(reader)
    os.close(writer)
    logging.getLogger("x").error("nobody reads this")


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_same_thing_is_said_once_a_minute_and_then_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = _Clock()
    log = logs.OnceAMinute(logging.getLogger("once"), clock=clock)
    for second in range(120):
        clock.now = 1000.0 + second
        log.log(logging.ERROR, "links", "step %s failed", "links")
    log.log(logging.ERROR, "quota", "another")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["step links failed", "step links failed (and 59 more like it)", "another"]


def test_the_limiter_forgets_the_oldest_key_rather_than_grow() -> None:
    log = logs.OnceAMinute(logging.getLogger("once"), clock=_Clock())
    for number in range(3000):
        log.log(logging.DEBUG, str(number), "x")
    assert len(log._said) == 1000
