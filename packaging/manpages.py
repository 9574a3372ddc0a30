"""Makes the man pages: postmeter(1), one for each command, and postmeter.yaml(5), of what the program itself declares.

    PYTHONPATH=milter python3 packaging/manpages.py DIRECTORY

Knows nothing of what commands and keys do. man-pages(7), man(7).
"""

from __future__ import annotations

import re
import sys
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterable, Iterator
from pathlib import Path

from manualtext import EXAMPLE, MORE

from postmeter import __version__
from postmeter.cli.command import sentence
from postmeter.cli.main import build_parser, load_all
from postmeter.config.document import _ITEMS, flow
from postmeter.config.schema import Config
from postmeter.config.section import Key, keys

_ROFF = str.maketrans({"\\": "\\e", "-": "\\-", "`": "\\(ga", "'": "\\(aq", "^": "\\(ha", "~": "\\(ti"})
_QUOTED = re.compile(re.escape(_ROFF[ord("`")]) + "(.+?)" + re.escape(_ROFF[ord("`")]))
_PAGE = re.compile(r"postmeter(\\-[a-z]+)+\(|postmeter\.yaml")
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
    directory.mkdir(parents=True, exist_ok=True)
    parser = build_parser(load_all())
    commands = _words(parser)
    names = ["postmeter", *(f"postmeter-{word}" for word in commands)]
    _write(directory, "postmeter", 1, [*_overview(parser, commands), *_see(names, "postmeter")])
    for word, (command, summary) in commands.items():
        name = f"postmeter-{word}"
        _write(directory, name, 1, [*_command(word, command, summary), *_see(["postmeter"], name)])
    _write(directory, "postmeter.yaml", 5, [*_configuration(), *_see(names[:1], "postmeter.yaml")])


def _write(directory: Path, name: str, section: int, lines: Iterable[str]) -> None:
    """With a ragged right margin: words are not pushed apart (`.ad l`)."""
    head = f'.TH {_text(name).upper()} {section} "" "postmeter {__version__}" "Postfix with postmeter"'
    (directory / f"{name}.{section}").write_text("\n".join([head, ".ad l", *lines, ""]), "utf-8")


def _text(text: str) -> str:
    """No character of it may be one of roff's own: a backslash, or a dot or a quote that begins a line.

    What stands in backquotes becomes bold, and the name of another page is not torn apart.
    """
    safe = _PAGE.sub(r"\\%\g<0>", _QUOTED.sub(r"\\fB\1\\fR", text.translate(_ROFF)))
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in safe.split("\n"))


def _example(text: str, heading: str = "EXAMPLE") -> Iterator[str]:
    yield from (f".SH {heading}", ".EX", _text(text), ".EE")


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
    yield from (".SH SYNOPSIS", *_synopsis(parser))
    yield from (".SH DESCRIPTION", _text(parser.description or ""), ".SH COMMANDS")
    yield from _listed((word, f"{summary}: postmeter-{word}(1)") for word, (_, summary) in commands.items())
    yield from (".SH OPTIONS", *_listed(_options(parser)))
    yield from (".SH EXIT STATUS", *_listed(_EXITS), ".SH FILES", *_listed(_FILES))


def _command(word: str, parser: ArgumentParser, summary: str) -> Iterator[str]:
    yield from (".SH NAME", f"{_text(f'postmeter-{word}')} \\- {_text(summary)}")
    inner = _words(parser)
    shown = [below for below, _ in inner.values()] or [parser]
    yield from (".SH SYNOPSIS", *(line for each in shown for line in _synopsis(each)))
    yield from (".SH DESCRIPTION", _text(parser.description or ""))
    for paragraph in MORE[word]:
        yield from (".PP", _text(paragraph))
    for name, (below, told) in inner.items():
        yield from (f".SS {_text(f'{parser.prog} {name}')}", _text(sentence(told or below.description or "")))
        yield from _listed(_options(below))
    options = list(_options(parser))
    yield from (".SH OPTIONS", *_listed(options)) if options else ()
    yield from _examples([parser, *(below for below, _ in inner.values())])
    yield from (".SH EXIT STATUS", *_listed(_EXITS))


def _examples(parsers: Iterable[ArgumentParser]) -> Iterator[str]:
    """Of the command and of each word within it, once."""
    lines = [(each.epilog or "").removeprefix("example:") for each in parsers]
    found = list(dict.fromkeys(line.strip() for text in lines for line in text.splitlines() if line.strip()))
    yield from _example("\n".join(found), "EXAMPLE" if len(found) < 2 else "EXAMPLES")


def _synopsis(parser: ArgumentParser) -> Iterator[str]:
    """What is typed is bold, what stands for something else is in italics; what may be left out is in brackets."""
    yield f".SY {_quoted(parser.prog)}"
    groups = {id(each): group for group in parser._mutually_exclusive_groups for each in group._group_actions}
    for action in parser._actions:
        group = groups.get(id(action))
        if action.dest == "help" or action.help == SUPPRESS or (group and group._group_actions[0] is not action):
            continue
        choices = "\\~|\\~".join(map(_form, group._group_actions if group else [action]))
        required = group.required if group else action.required
        if not group and not action.option_strings:
            required = action.nargs not in ("?", "*")
        told = choices if required and not group else f"({choices})" if required else f"[{choices}]"
        yield f"{told}\\&"  # dots at its end are no end of a sentence
    yield ".YS"


def _form(action: Action) -> str:
    if isinstance(action, _SubParsersAction):
        return f"\\fI{_text(str(action.metavar or 'WORD'))}\\fR\\~..."
    takes = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = f"\\fI{_text(' '.join(takes) if isinstance(takes, tuple) else takes)}\\fR"
    if action.choices and not action.metavar:
        value = "|\\:".join(map(str, action.choices))
    value += "\\~..." if action.nargs in ("*", "+") else ""
    if not action.option_strings:
        return value
    option = f"\\fB{_text(action.option_strings[0])}\\fR"
    return option if action.nargs == 0 else f"{option}\\~{value}"


def _quoted(text: str) -> str:
    return f'"{_text(text)}"'


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
    yield from _example(EXAMPLE.rstrip())
    yield from (".SH FILES", *_listed(_FILES))


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
