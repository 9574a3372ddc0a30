"""Makes what bash completes behind `postmeter`, of what the program itself declares.

    PYTHONPATH=milter python3 packaging/completion.py

Words and options only: it does not ask the running daemons for logins. Knows nothing of what commands do.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

from postmeter.cli.main import build_parser, load_all

_BASH = """\
# bash completion of postmeter, made of its declarations
_postmeter() {
    local word=${COMP_WORDS[COMP_CWORD]} path="" each known
    COMPREPLY=()
    case ${COMP_WORDS[COMP_CWORD-1]} in
        -c | --config) compopt -o default; return ;;
    esac
    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $path:$each in
%(steps)s
        esac
    done
    case $path in
%(known)s
    esac
    mapfile -t COMPREPLY < <(compgen -W "$known" -- "$word")
    [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default
}
complete -F _postmeter postmeter
"""


def paths(parser: ArgumentParser, path: str = "") -> Iterator[tuple[str, list[str], list[str]]]:
    """Of each command and of each word within one: its path, the words that go on from there, its options."""
    words: dict[str, ArgumentParser] = {}
    options: list[str] = []
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            words = dict(action.choices)
        elif action.help != SUPPRESS:
            options += action.option_strings
    yield path, list(words), options
    for word, inner in words.items():
        yield from paths(inner, f"{path} {word}")


def bash(parser: ArgumentParser) -> str:
    found = list(paths(parser))
    steps = (f'            "{path}:{word}") path="{path} {word}" ;;' for path, words, _ in found for word in words)
    known = (f'        "{path}") known="{" ".join([*words, *options])}" ;;' for path, words, options in found)
    return _BASH % {"steps": "\n".join(steps), "known": "\n".join(known)}


if __name__ == "__main__":
    sys.stdout.write(bash(build_parser(load_all())))
