"""Bash, zsh and fish asked what they would complete, each by its own means and without anybody's settings.

bash(1) runs the function, fish(1) has `complete -C`, and zsh(1) has to be typed to: on a pseudo-terminal, where a key
of ours shows the line as it stands. Knows nothing of what is completed.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import time
from pathlib import Path

_BOUND = 30.0  # seconds that a shell may take on a busy machine
_BASH = """
. "$1"; shift
compopt() { :; }
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_postmeter
printf '%s\\n' "${COMPREPLY[@]}"
"""
_ZSHRC = """
PS1= PS2= RPS1= zle_bracketed_paste=() LISTMAX=9999
unsetopt prompt_cr prompt_sp beep
setopt no_list_ambiguous
fpath=({folder} $fpath)
autoload -Uz compinit && compinit -D -u
show() {{ print -r -- "<<$BUFFER>>"; BUFFER=; zle accept-line }}
zle -N show
bindkey '^Xs' show
print ready.
"""


def missing(shell: str) -> str:
    """Why it cannot be asked; empty when it can."""
    return "" if shutil.which(shell) else f"{shell} is not installed"


def bash(script: Path, *words: str) -> list[str]:
    """What is offered for the last of `words`."""
    asked = ["bash", "--norc", "-c", _BASH, "bash", str(script), *words]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=_BOUND).stdout.split()


def fish(script: Path, *words: str) -> dict[str, str]:
    """What is offered for the last of `words`, and how it is described."""
    asked = ["fish", "--no-config", "-c", f"source {script}; complete -C '{' '.join(words)}'"]
    env = {**os.environ, "HOME": str(script.parent)}
    done = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=_BOUND, env=env)
    assert done.stderr == "", done.stderr
    return {word: about for word, _, about in (line.partition("\t") for line in done.stdout.splitlines())}


class Zsh:
    """One that is typed to. Use as a context manager; the script is called as it is in a folder of functions."""

    def __init__(self, script: Path) -> None:
        folder = script.parent / "functions"
        folder.mkdir(exist_ok=True)
        shutil.copy(script, folder / "_postmeter")
        self._home = script.parent / "home"
        self._home.mkdir(exist_ok=True)
        (self._home / ".zshrc").write_text(_ZSHRC.format(folder=folder))
        self._terminal = -1
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Zsh:
        self._terminal, theirs = pty.openpty()
        env = {"PATH": os.environ["PATH"], "TERM": "dumb", "ZDOTDIR": str(self._home), "HOME": str(self._home)}
        self._process = subprocess.Popen(["zsh", "-o", "no_global_rcs", "-i"], stdin=theirs, stdout=theirs,
                                         stderr=theirs, env=env, start_new_session=True)  # fmt: skip
        os.close(theirs)
        self._until(r"ready[.]\r?\n")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        os.close(self._terminal)

    def line(self, typed: str) -> str:
        """The line that a tabulator makes of what was typed."""
        return self._asked(typed)[1]

    def listed(self, typed: str) -> str:
        """What is shown below the line."""
        return self._asked(typed)[0]

    def _asked(self, typed: str) -> tuple[str, str]:
        os.write(self._terminal, f"{typed}\t\x18s".encode())
        shown, line = self._until(r"(?s)(.*)<<(.*?)>>").groups()
        return shown, line

    def _until(self, pattern: str) -> re.Match[str]:
        seen, until = b"", time.monotonic() + _BOUND
        while (found := re.search(pattern, seen.decode("utf-8", "replace"))) is None:
            ready, _, _ = select.select([self._terminal], [], [], max(until - time.monotonic(), 0))
            assert ready, f"zsh shows nothing like {pattern}: {seen!r}"
            seen += os.read(self._terminal, 65536)
        return found
