"""Sets of names by glob, and files of them that change while mail flows."""

from __future__ import annotations

import logging
import os
import time
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postmeter.config import namelist
from postmeter.config.problem import MistakeError
from postmeter.submission.logins import Names, NamesInFile, once

ALPHABET = st.text("ab.@*?[]!-A", max_size=8)


@given(globs=st.lists(ALPHABET, max_size=6), name=st.text("ab.@-[]!*", max_size=8))
def test_a_name_is_held_as_fnmatch_says(globs: list[str], name: str) -> None:
    """The quick ways by exact name, `*@domain` and `*.domain` change nothing."""
    assert Names(globs).hold(name) is any(fnmatchcase(name, glob.lower()) for glob in globs)


def seconds(names: Names, name: str, *, times: int) -> float:
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(times):
            names.hold(name)
        best = min(best, time.perf_counter() - begun)
    return best / times


@pytest.mark.parametrize("form", ["u{}@example.com", "*@d{}.example", "*.d{}.example"])
def test_ten_thousand_names_cost_what_ten_do(form: str) -> None:
    few, many = (Names(form.format(nth) for nth in range(count)) for count in (10, 10_000))
    assert many.hold(form.format(9_999).replace("*", "x"))
    name = "somebody@else.where.example"
    assert not many.hold(name)
    assert seconds(many, name, times=500) < 10 * seconds(few, name, times=500) + 1e-6


@pytest.mark.parametrize("glob", ["*a*a*a*a*a*b", "*@*.*.*.*x", "?*?*?*?*@", "*.d.example", "[a-z]*[a-z]*@b"])
@pytest.mark.parametrize("name", ["a" * 5000, "." * 5000, "a.@" * 2000, "a" * 5000 + "@" + ".d" * 2000])
def test_no_name_from_outside_makes_a_glob_slow(glob: str, name: str) -> None:
    """Names are far longer here than Postfix lets them be; one that was tried in every way would take years."""
    assert seconds(Names([glob]), name, times=1) < 0.05


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "logins"
    write(path, "a@example.com\n")
    return path


def write(path: Path, text: str, *, age: float = 10) -> None:
    """As an editor does it: a new file in place of the old one, written a while ago."""
    new = path.with_name("new")
    new.write_text(text)
    stamp = time.time() - age
    os.utime(new, (stamp, stamp))
    new.replace(path)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_is_looked_at_once_a_second_and_read_when_it_changed(file: Path) -> None:
    clock = Clock()
    names = NamesInFile(file, kind="logins_file", clock=clock)
    write(file, "b@example.com\n")
    clock.now = 0.9
    assert names.hold("a@example.com")
    clock.now = 1.0
    assert not names.hold("a@example.com")
    assert names.hold("b@example.com")


def test_a_file_that_is_being_written_is_left_until_it_is_still(file: Path) -> None:
    """Half a list must lift nobody's limits."""
    clock = Clock()
    names = NamesInFile(file, kind="logins_file", clock=clock)
    write(file, "", age=0)
    clock.now = 1
    assert names.hold("a@example.com")
    write(file, "a@example.com\nb@example.com\n", age=0)
    clock.now = 2
    assert not names.hold("b@example.com")
    clock.now = 3
    assert names.hold("b@example.com")


@pytest.mark.parametrize("trouble", ["gone", "two words\n", "\xff", "pipe"])
def test_a_broken_file_leaves_the_names_as_they_were_and_is_logged(
    file: Path, trouble: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(once, "_said", {})
    clock = Clock()
    names = NamesInFile(file, kind="logins_file", clock=clock)
    file.unlink()
    if trouble == "pipe":
        os.mkfifo(file)
        os.utime(file, (0, 0))
    elif trouble != "gone":
        file.write_text(trouble, "latin-1")
        os.utime(file, (0, 0))
    with caplog.at_level(logging.ERROR):
        for clock.now in (1, 2, 3):
            assert names.hold("a@example.com")
    assert len(caplog.records) == 1
    assert "logins_file: the file cannot be used, its old names go on: " in caplog.text
    assert str(file) in caplog.text
    file.unlink(missing_ok=True)
    write(file, "b@example.com\n")
    clock.now = 4
    assert names.hold("b@example.com")


def test_comments_blank_lines_and_a_bom_are_no_names(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_bytes("\ufeff# all\r\n\r\n  a@b  \r\nc#d # a login with a #\n\t#x\ne@f".encode())
    assert namelist.read(path, namelist.KINDS["logins_file"]) == ("a@b", "c#d", "e@f")


def test_a_mistake_in_a_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "names"
    path.write_text("example.com\n# fine\nnot a domain\n")
    with pytest.raises(MistakeError) as caught:
        namelist.read(path, namelist.KINDS["domains_file"])
    assert str(caught.value) == f"{path} line 3: 'not a domain' is not a domain name; write it like example.com"
