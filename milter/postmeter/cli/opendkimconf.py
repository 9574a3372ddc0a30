"""Reading opendkim.conf and the small data sets that it names (opendkim.conf(5); opendkim(8), DATA SETS).

Knows nothing of what the parameters mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from postmeter.config.problem import MistakeError, quoted
from postmeter.config.tablefile import shown, table_file

_DEEPEST = 5  # Include within Include


@dataclass(frozen=True, slots=True)
class Setting:
    """A parameter as it stands in a file; `where` is that file and its line."""

    name: str
    value: str
    where: str

    @property
    def on(self) -> bool:
        """A Boolean by its first letter."""
        return self.value[:1] in ("T", "t", "Y", "y", "1")

    @property
    def shown(self) -> str:
        """As it is told to people, without a password."""
        return self.name if "password" in self.name.lower() else f"{self.name} {shown(self.value)}".strip()


class OpendkimConf:
    """Of a parameter that stands there twice the last counts. Names may be written in any case."""

    def __init__(self, settings: Iterator[Setting]) -> None:
        self._settings = {setting.name.lower(): setting for setting in settings}

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())

    def get(self, name: str) -> Setting | None:
        return self._settings.get(name.lower())

    def value(self, name: str) -> str:
        found = self.get(name)
        return found.value if found else ""

    def on(self, name: str) -> bool:
        found = self.get(name)
        return found is not None and found.on

    def path(self, text: str) -> Path:
        """Relative ones begin at BaseDirectory."""
        return Path(self.value("BaseDirectory") or "/", text)

    def absolute(self, setting: Setting) -> str:
        """A data set with the whole path of its file, where it names one."""
        kind, colon, rest = setting.value.partition(":")
        if colon and kind.lower() in ("file", "refile") and self.value("BaseDirectory"):
            return f"{kind}:{self.path(rest)}"
        return setting.value

    def entries(self, setting: Setting) -> list[str]:
        """The lines or parts of a data set, each as it stands there. Raises MistakeError for what is no text."""
        text = setting.value
        if text[:1] == "/" or text.partition(":")[0].lower() in ("file", "refile"):
            return list(_file_entries(table_file(self.absolute(setting)).path))
        kind, colon, rest = text.partition(":")
        if colon and kind.lower() == "csl":
            text = rest
        elif colon and kind.isalpha():
            table_file(text)  # tells what it is instead
        return [part.strip() for part in text.split(",") if part.strip()]


def read(path: Path, *, deep: int = 0) -> Iterator[Setting]:
    """Raises MistakeError for a file that cannot be read, or a line without a value."""
    try:
        lines = path.read_text(errors="surrogateescape").split("\n")
    except OSError as error:
        raise MistakeError(f"{path}: {error.strerror}", "name an opendkim.conf that can be read") from None
    for number, line in enumerate(lines, 1):
        parts = line.partition("#")[0].split(None, 1)
        if not parts:
            continue
        setting = Setting(parts[0], parts[1].strip() if len(parts) == 2 else "", f"{path}:{number}")
        if setting.name.lower() != "include":
            yield setting
        elif deep == _DEEPEST:
            raise MistakeError(f"{setting.where}: Include within Include, {deep} deep", "take one of them out")
        else:
            yield from read(Path(path.parent, setting.value), deep=deep + 1)


def _file_entries(path: Path) -> Iterator[str]:
    try:
        lines = path.read_text(errors="surrogateescape").split("\n")
    except OSError as error:
        raise MistakeError(f"{quoted(str(path))}: {error.strerror}", "name a file that can be read") from None
    for line in lines:
        said = line.partition("#")[0].strip()
        if said:
            yield said
