"""Makes what a shell completes behind `postmeter`, of what the program itself declares.

    PYTHONPATH=milter python3 packaging/completion.py bash | zsh | fish

Words, options, and values where there are few; else files. It does not ask the running daemons for logins. Knows
nothing of what commands do. bash(1), zshcompsys(1), complete(1) of fish.
"""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from postmeter.cli.main import build_parser, load_all

_BASH = """\
# bash completion of postmeter, made of its declarations
_postmeter() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} path="" each known
    COMPREPLY=()
    for each in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $path:$each in
%(steps)s
        esac
    done
    case $path:$before in
%(values)s
        *) case $path in
%(known)s
        esac ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$known" -- "$word")
    [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default
}
complete -F _postmeter postmeter
"""

_ZSH = """\
#compdef postmeter
# zsh completion of postmeter, made of its declarations
_postmeter() {
    local at="" each
    local -a commands options
    for each in "${(@)words[2,CURRENT-1]}"; do
        case "$at:$each" in
%(steps)s
        esac
    done
    case "$at:$words[CURRENT-1]" in
%(values)s
    esac
    case $at in
%(known)s
    esac
    if [[ $PREFIX == -* ]]; then
        _describe -o option options
    elif (( $#commands )); then
        _describe command commands
    else
        _files
    fi
}
_postmeter "$@"
"""

_FISH = """\
# fish completion of postmeter, made of its declarations
function __postmeter_at
    set -l at ""
    for each in (commandline -opc)[2..]
        switch "$at:$each"
%(steps)s
        end
    end
    test "$at" = "$argv[1]"
end
complete -c postmeter -f
%(known)s
"""


@dataclass(frozen=True, slots=True)
class Option:
    """`takes`: nothing, a file, one of `choices`, or what nobody can guess."""

    names: list[str]
    about: str
    takes: str
    choices: list[str]


@dataclass(frozen=True, slots=True)
class Place:
    """A command, or a word within one: the words that go on from there, with what each is for, and its options."""

    path: str
    words: dict[str, str]
    options: list[Option]
    files: bool


def places(parser: ArgumentParser, path: str = "") -> Iterator[Place]:
    inner: dict[str, ArgumentParser] = {}
    words: dict[str, str] = {}
    options, files = [], False
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            inner = dict(action.choices)
            words = {word: told.get(word, "") for word in inner}
        elif action.option_strings and action.help != SUPPRESS:
            options.append(_option(parser, action))
        elif not action.option_strings:
            files |= action.type is Path
            words.update(dict.fromkeys(map(str, action.choices or ()), ""))
    yield Place(path, words, options, files)
    for word, below in inner.items():
        yield from places(below, f"{path} {word}")


def _option(parser: ArgumentParser, action: Action) -> Option:
    about = parser._get_formatter()._expand_help(action) if action.help else ""
    choices = [str(each) for each in action.choices or ()]
    takes = "" if action.nargs == 0 else "choice" if choices else "file" if action.type is Path else "anything"
    return Option(list(action.option_strings), " ".join(about.split()), takes, choices)


def bash(found: list[Place]) -> str:
    known = (f'        "{place.path}") known="{" ".join([*place.words, *_names(place)])}" ;;' for place in found)
    values = (
        f'        {_cases(place, option)}) known="{" ".join(option.choices)}" ;;'
        for place in found for option in place.options if option.takes
    )  # fmt: skip
    return _BASH % {"steps": _steps(found, 12, "path"), "known": "\n".join(known), "values": "\n".join(values)}


def zsh(found: list[Place]) -> str:
    known = []
    for place in found:
        words = " ".join(_zsh_word(*word) for word in place.words.items())
        options = " ".join(_zsh_word(name, option.about) for option in place.options for name in option.names)
        known.append(f'        "{place.path}") commands=({words}) options=({options}) ;;')
    values = []
    for place in found:
        for option in place.options:
            action = f"compadd -- {' '.join(option.choices)}" if option.choices else "_files"
            action = "_message 'a value'" if option.takes == "anything" else action
            if option.takes:
                values.append(f"        {_cases(place, option)}) {action}; return ;;")
    return _ZSH % {"steps": _steps(found, 12, "at"), "known": "\n".join(known), "values": "\n".join(values)}


def fish(found: list[Place]) -> str:
    steps, lines = [], []
    for place in found:
        steps += [f'            case "{place.path}:{word}"\n                set at "{place.path} {word}"'
                  for word in place.words]  # fmt: skip
        here = f"complete -c postmeter -n '__postmeter_at \"{place.path}\"'"
        lines += [f"{here} -a {word} -d {_fish_text(about)}" for word, about in place.words.items()]
        lines += [f"{here} {_fish_option(option)} -d {_fish_text(option.about)}" for option in place.options]
        lines += [f"{here} -F"] if place.files or not place.words else []
    return _FISH % {"steps": "\n".join(steps), "known": "\n".join(lines)}


def _names(place: Place) -> list[str]:
    return [name for option in place.options for name in option.names]


def _steps(found: list[Place], indent: int, variable: str) -> str:
    each = ((place.path, word) for place in found for word in place.words)
    return "\n".join(f'{" " * indent}"{path}:{word}") {variable}="{path} {word}" ;;' for path, word in each)


def _cases(place: Place, option: Option) -> str:
    return " | ".join(f'"{place.path}:{name}"' for name in option.names)


def _zsh_word(name: str, about: str) -> str:
    text = f"{name.replace(':', chr(92) + ':')}:{about}" if about else name.replace(":", chr(92) + ":")
    return "'" + text.replace("'", "'\\''") + "'"


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_option(option: Option) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names]
    takes = {"": "", "file": "-r -F", "choice": f"-x -a '{' '.join(option.choices)}'", "anything": "-x"}[option.takes]
    return " ".join([*names, takes]).strip()


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def main(shell: str) -> None:
    sys.stdout.write(SHELLS[shell](list(places(build_parser(load_all())))))


if __name__ == "__main__":
    main(sys.argv[1])
