"""The configuration for people: docs/config.md and the sample file, both made of the schema.

`python -m postmeter.config.document docs` or `sample` prints one of them; tests compare the files with it.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from postmeter.config.schema import Config
from postmeter.config.section import Key, keys
from postmeter.config.sections.books import Webhook
from postmeter.config.sections.dkim import KeyEntry, OpendkimTables, SignEntry
from postmeter.config.sections.limits import Ramp, Rule
from postmeter.config.tree import Raw

_WIDTH = 118
_PLAIN = re.compile(r"[A-Za-z0-9/][\w./:+ -]*%?")  # needs no quotes in YAML
_ITEMS: tuple[tuple[str, type[Any]], ...] = (
    ("quota.rules[]", Rule),
    ("quota.rules[].ramp", Ramp),
    ("dkim.sign[]", SignEntry),
    ("dkim.sign[].keys[]", KeyEntry),
    ("dkim.opendkim_tables", OpendkimTables),
    ("webhooks[]", Webhook),
)

_HEAD = """\
# Configuration

`/etc/postmeter/postmeter.yaml`, or the file named with `-c`. Leave out what you do not need: an empty file is valid; it
counts, and limits, signs and changes nothing. `postmeter check-config` tells what is wrong with a file, or what it
does.

- Durations: `30s`, `10m`, `1h`, `7d`; a day is 24 hours, a month 30 days. Windows slide.
- Sizes: `64k`, `10M`, `1G`; k is 1024.
- Limits: a number of messages, recipients or bytes for each second, minute, hour, day, month or message:
  `500 recipients/day`, `50 recipients/message`. A bare size is bytes: `1G/day`.
- `off`, `on`, `yes` and `no` may be written without quotes. What begins with `*`, `&`, `!`, `@`, `%` or a colon needs
  them.
- No password stands in the file: `*_file` names a file with it on one line.

Made by `python -m postmeter.config.document docs`; do not edit.
"""

_SAMPLE_HEAD = """\
# /etc/postmeter/postmeter.yaml
#
# Every key stands here with its default, commented out: remove the # and change what you need. As it is, the file
# counts, and limits, signs and changes nothing. `postmeter check-config` tells what is wrong with it, or what it does.
# Durations: 30s 10m 1h 7d. Sizes: 64k 10M 1G, k = 1024. Limits: N messages|recipients|bytes per
# second|minute|hour|day|month|message, written "500 recipients/day"; a bare size is bytes ("1G/day").
"""


def docs() -> str:
    return _HEAD + "".join(_chapter(name, kind, doc) for name, kind, doc in _chapters())


def _chapters() -> Iterator[tuple[str, type[Any], str]]:
    yield "", Config, "Besides the sections below:"
    for key in keys(Config):
        yield from _nested(key, key.name)
    for path, kind in _ITEMS:
        yield path, kind, _doc(kind)


def _doc(kind: type[Any]) -> str:
    """A class's own docstring; one that dataclass made of the fields says nothing."""
    text = (kind.__doc__ or "").strip()
    return "" if text.startswith(f"{kind.__name__}(") else text


def _nested(key: Key, path: str) -> Iterator[tuple[str, type[Any], str]]:
    if key.section is not None:
        yield path, key.section, key.doc
        for inner in keys(key.section):
            yield from _nested(inner, f"{path}.{inner.name}")


def _chapter(path: str, kind: type[Any], doc: str) -> str:
    title = f"`{path}`" if path else "Top level"
    rows = "".join(_row(key) for key in keys(kind) if key.section is None)
    text = f"{doc}\n\n" if doc else ""
    return f"\n## {title}\n\n{text}| key | default | takes | meaning |\n|---|---|---|---|\n{rows}"


def _row(key: Key) -> str:
    default = "*required*" if key.required else f"`{flow(key.default)}`"
    example = f" For example `{key.example}`." if key.example else ""
    cells = (f"`{key.name}`", default, key.reader.form, f"{key.doc}{example}")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def flow(raw: Raw) -> str:
    """A default in YAML, on one line."""
    if raw is None:
        return "null"
    if isinstance(raw, str):
        return raw if _PLAIN.fullmatch(raw) else f'"{raw}"'
    if isinstance(raw, Mapping):
        return "{" + ", ".join(f"{name}: {flow(value)}" for name, value in raw.items()) + "}"
    return "[" + ", ".join(flow(item) for item in raw) + "]"


def sample() -> str:
    lines = list(_SAMPLE_HEAD.splitlines())
    for key in keys(Config):
        lines += ["", *_sample(key, "")]
    return "\n".join(lines) + "\n"


def _sample(key: Key, indent: str) -> Iterator[str]:
    """Comments as prose with a space behind the #, settings without one."""
    for line in textwrap.wrap(key.doc, _WIDTH - len(indent), break_on_hyphens=False):
        yield f"{indent}# {line}"
    if key.example:
        yield f"{indent}# e.g. {key.name}: {key.example}"
    if key.section is None:
        yield f"{indent}#{key.name}: {flow(key.default)}"
        return
    yield f"{indent}{key.name}:"
    for inner in keys(key.section):
        yield from _sample(inner, indent + "  ")


def main(argv: list[str]) -> int:
    made = {"docs": docs, "sample": sample}
    if len(argv) != 1 or argv[0] not in made:
        print("usage: python -m postmeter.config.document docs | sample", file=sys.stderr)
        return 64
    sys.stdout.write(made[argv[0]]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
