"""Read an old log from its beginning to its end, compressed or not: its lines, as `tail` gives those of a growing one.

Knows nothing of what the lines say. A last line without an end is a line: nobody will write on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from postmeter.runtime.packed import Unpacked
from postmeter.runtime.tail import LONGEST, Line, lines

_CHUNK = 1024 * 1024


def read(path: Path) -> Iterator[Line]:
    """OSError, or packed.PackedError, when it cannot be read, at any point. Offsets are of what was unpacked."""
    inode = path.stat().st_ino
    with contextlib.closing(Unpacked(path)) as file:
        offset = 0
        rest = b""
        while data := file.pread(_CHUNK, offset):
            found = lines(data, inode, offset, longest=LONGEST)
            if not found:
                rest = data
                break
            yield from found
            offset += sum(len(line.data) + line.whole for line in found)
        if file.damage is not None:
            raise file.damage
        if rest:
            yield Line(inode, offset, rest)
