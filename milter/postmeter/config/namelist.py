"""Files of names that rules point to: one login or From domain, or a glob of them, a line; `#` begins a comment.

Text in, names out, or `MistakeError` with the line that is wrong. Knows nothing of rules, nor of when to read again.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from postmeter.config import values
from postmeter.config.problem import MistakeError

_LARGEST = 64 * 1024**2  # two million logins

KINDS: dict[str, Callable[[str], str]] = {"logins_file": values.word, "domains_file": values.domain_glob}
"""The keys that name such a file, and what a line of it is."""


def read(path: Path, name: Callable[[str], str]) -> tuple[str, ...]:
    """What stands in the file, each line as `name` takes it. OSError or MistakeError when it cannot be used."""
    with open(path, "rb", opener=_without_waiting) as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise MistakeError(f"{path} is larger than 64M", "is it the right file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise MistakeError(f"{path} line {line}: not UTF-8", "save the file as UTF-8") from None
    return tuple(_names(text, path, name))


def _names(text: str, path: Path, name: Callable[[str], str]) -> Iterator[str]:
    for number, line in enumerate(text.split("\n"), 1):
        word = _bare(line)
        if word:
            try:
                yield name(word)
            except MistakeError as wrong:
                raise MistakeError(f"{path} line {number}: {wrong.what}", wrong.fix) from None


def _bare(line: str) -> str:
    """Without a comment, which begins a line or stands behind white space: a login may hold a #."""
    line = line.strip()
    if "#" not in line:
        return line
    at = next((at for at, char in enumerate(line) if char == "#" and (at == 0 or line[at - 1].isspace())), len(line))
    return line[:at].rstrip()


def _without_waiting(path: str, flags: int) -> int:
    """A named pipe in its place must not stop the mail: open(2) would wait for a writer."""
    found = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "is not a file", path)
    return found
