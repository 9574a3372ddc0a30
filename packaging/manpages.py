"""Makes the man pages: postmeter(1), one for each command, and postmeter.yaml(5), of what the program itself declares.

    PYTHONPATH=milter python3 packaging/manpages.py DIRECTORY

Knows nothing of what commands and keys do. man-pages(7), man(7).
"""

from __future__ import annotations

import os
import sys
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterable, Iterator
from pathlib import Path

from postmeter import __version__
from postmeter.cli.main import build_parser, load_all
from postmeter.config.document import _ITEMS, flow
from postmeter.config.schema import Config
from postmeter.config.section import Key, keys

_ROFF = str.maketrans({"\\": "\\e", "-": "\\-", "`": "\\(ga", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti"})
_FILES = (
    ("/etc/postmeter/postmeter.yaml", "the configuration, postmeter.yaml(5)"),
    ("/var/lib/postmeter", "the journal and the spools"),
)
_EXITS = (
    ("0", "it went well"),
    ("1", "the command found a problem"),
    ("64", "wrong usage"),
    ("78", "the configuration is wrong"),
)


def main(directory: Path) -> None:
    os.environ["COLUMNS"] = "78"  # argparse folds its usage at the terminal's width, which must not show here
    directory.mkdir(parents=True, exist_ok=True)
    parser = build_parser(load_all())
    commands = _words(parser)
    names = ["postmeter", *(f"postmeter-{word}" for word in commands)]
    _write(directory, "postmeter", 1, [*_overview(parser, commands), *_see(names, "postmeter")])
    for word, (command, summary) in commands.items():
        name = f"postmeter-{word}"
        _write(directory, name, 1, [*_command(name, command, summary), *_see(["postmeter"], name)])
    _write(directory, "postmeter.yaml", 5, [*_configuration(), *_see(names[:1], "postmeter.yaml")])


def _write(directory: Path, name: str, section: int, lines: Iterable[str]) -> None:
    head = f'.TH {_text(name).upper()} {section} "" "postmeter {__version__}" "postmeter"'
    (directory / f"{name}.{section}").write_text("\n".join([head, *lines, ""]), "utf-8")


def _text(text: str) -> str:
    """No character of it may be one of roff's own: a backslash, or a dot or a quote that begins a line."""
    safe = text.translate(_ROFF)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in safe.split("\n"))


def _example(text: str) -> Iterator[str]:
    yield from (".SH EXAMPLE", ".nf", _text(text), ".fi")


def _listed(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for term, text in rows:
        yield from (".TP", f"\\fB{_text(term)}\\fR", _text(text))


def _see(names: Iterable[str], itself: str) -> Iterator[str]:
    others = [f"{name}(1)" for name in names if name != itself]
    others += [] if itself == "postmeter.yaml" else ["postmeter.yaml(5)"]
    yield from (".SH SEE ALSO", _text(", ".join(others)), ".PP", "/usr/share/doc/postmeter/operations.md.gz")


def _words(parser: ArgumentParser) -> dict[str, tuple[ArgumentParser, str]]:
    """The commands of a parser, each with its own parser and what it is for."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {word: (inner, told.get(word, "")) for word, inner in action.choices.items()}
    return {}


def _overview(parser: ArgumentParser, commands: dict[str, tuple[ArgumentParser, str]]) -> Iterator[str]:
    yield from (".SH NAME", "postmeter \\- sending quotas, DKIM, link tracking and delivery metrics for Postfix")
    yield from (".SH SYNOPSIS", ".B postmeter", "[\\fB\\-c\\fR \\fIFILE\\fR] \\fICOMMAND\\fR ...")
    yield from (".SH DESCRIPTION", _text(parser.description or ""), ".SH COMMANDS")
    yield from _listed((word, f"{summary}: postmeter-{word}(1)") for word, (_, summary) in commands.items())
    yield from (".SH OPTIONS", *_listed(_options(parser)))
    yield from (".SH EXIT STATUS", *_listed(_EXITS), ".SH FILES", *_listed(_FILES))


def _command(name: str, parser: ArgumentParser, summary: str) -> Iterator[str]:
    yield from (".SH NAME", f"{_text(name)} \\- {_text(summary)}")
    yield from (".SH SYNOPSIS", ".nf", _text(_usage(parser)), ".fi", ".SH DESCRIPTION", _text(parser.description or ""))
    inner = _words(parser)
    for word, (below, told) in inner.items():
        yield from (f".SS {_text(f'{parser.prog} {word}')}", _text(told or below.description or ""))
        yield from (".PP", ".nf", _text(_usage(below)), ".fi", *_listed(_options(below)))
    options = list(_options(parser))
    yield from (".SH OPTIONS", *_listed(options)) if options else ()
    yield from _example((parser.epilog or "").removeprefix("example:\n").strip())
    yield from (".SH EXIT STATUS", *_listed(_EXITS))


def _usage(parser: ArgumentParser) -> str:
    return parser.format_usage().removeprefix("usage: ").strip()


def _options(parser: ArgumentParser) -> Iterator[tuple[str, str]]:
    for action in parser._actions:
        if action.help != SUPPRESS and not isinstance(action, _SubParsersAction) and action.dest != "help":
            yield _term(action), _help(parser, action)


def _term(action: Action) -> str:
    taken = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    taken = " ".join(taken) if isinstance(taken, tuple) else taken
    if not action.option_strings:
        return "|".join(map(str, action.choices)) if action.choices and not action.metavar else taken
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {taken}")


def _help(parser: ArgumentParser, action: Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _configuration() -> Iterator[str]:
    yield from (".SH NAME", "postmeter.yaml \\- configuration of postmeter")
    yield from (".SH SYNOPSIS", "/etc/postmeter/postmeter.yaml", ".SH DESCRIPTION")
    yield _text(
        "YAML. Leave out what you do not need: an empty file is valid. `postmeter check-config` tells what is wrong "
        "with a file, or what it does. Durations: 30s, 10m, 1h, 7d. Sizes: 64k, 10M, 1G; k is 1024. "
        "Limits: 500 recipients/day, 50 recipients/message, 1G/day."
    )
    yield from (".SH KEYS", *_keys(keys(Config)))
    for path, kind in _ITEMS:
        yield from (f".SS {_text(path)}", *_keys(keys(kind), f"{path}."))


def _keys(found: Iterable[Key], path: str = "") -> Iterator[str]:
    for key in found:
        name = f"{path}{key.name}"
        if key.section is not None:
            yield from (f".SS {_text(name)}", _text(key.doc), *_keys(keys(key.section), f"{name}."))
            continue
        default = "required" if key.required else f"default {flow(key.default)}"
        example = f" For example {key.example}." if key.example else ""
        yield from _listed([(name, f"{key.doc}{example} ({key.reader.form}; {default})")])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
