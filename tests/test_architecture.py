"""The tree keeps to the drawing: who may import whom, one door a library, small functions, modules that say their role.

Read from the source by `ast`, so that imports inside functions and relative ones count as well.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "milter"
PACKAGE = "postmeter"

LEVELS: list[frozenset[str]] = [
    frozenset({"mail", "events", "sealed", "tag", "token"}),
    frozenset({"config", "metrics", "store", "runtime"}),
    frozenset({"submission", "tracking", "delivery", "feedback"}),
    frozenset({"report", "trace", "explain", "doctor", "books"}),
    frozenset({"cli"}),
]
"""From the bottom up. A room imports from lower levels only, and what is in the same room."""

SHARED_BY_LEVEL_1 = frozenset({"config.schema", "config.values"})
"""The dataclasses of the configuration, which its neighbours take as arguments."""

DOORS: dict[str, frozenset[str]] = {
    "milter": frozenset({"submission.session", "submission.server"}),
    "dkim": frozenset({"submission.signing"}),
    "dns": frozenset({"submission.dnskeys", "doctor"}),
    "yaml": frozenset({"config"}),
    "prometheus_client": frozenset({"books"}),
    "sqlite3": frozenset({"store"}),
    "redis": frozenset({"store"}),
    "psycopg": frozenset({"store.postgres"}),
    "aiohttp": frozenset({"tracking.web"}),
    "cryptography": frozenset({"sealed", "submission.signing", "submission.keys", "submission.newkeys"}),
}
"""Where each library may be imported: these modules, and those below them."""

NO_INPUT_OUTPUT = frozenset(
    {"datetime", "logging", "os", "pathlib", "random", "secrets", "socket", "subprocess", "threading", "time"}
)
"""What the lowest level does without: input and output, a clock, chance, a log."""

VAGUE = re.compile(r"(^|_)(utils?|helpers?|common|managers?|core|base|misc)(_|$)")
LONGEST_FUNCTION, LONG_FUNCTION, MEDIAN_FUNCTION = 60, 35, 10
LONGEST_MODULE = 400


@dataclass(frozen=True)
class Module:
    """`name` is dotted and without the package, empty for the package itself."""

    name: str
    path: Path
    tree: ast.Module
    lines: list[str]

    @property
    def room(self) -> str:
        return self.name.partition(".")[0]


def _module(path: Path) -> Module:
    parts = path.relative_to(SOURCE / PACKAGE).with_suffix("").parts
    name = ".".join(part for part in parts if part != "__init__")
    text = path.read_text()
    return Module(name, path, ast.parse(text), text.splitlines())


MODULES = [_module(path) for path in sorted((SOURCE / PACKAGE).rglob("*.py"))]


def _imports(module: Module) -> Iterator[str]:
    """Every module that is imported, by its absolute name; of `from a import b` both a and a.b."""
    here = [PACKAGE, *module.name.split(".")] if module.name else [PACKAGE]
    if module.path.name != "__init__.py":
        here = here[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = here[: len(here) - node.level + 1] if node.level else []
            source = ".".join([*start, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _level(room: str) -> int | None:
    return next((number for number, rooms in enumerate(LEVELS) if room in rooms), None)


def _own(module: Module) -> Iterator[str]:
    """What it imports of ours, without the package's name."""
    for name in _imports(module):
        if name.startswith(PACKAGE + "."):
            yield name.removeprefix(PACKAGE + ".")


def _below(name: str, places: frozenset[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


def _may_import(module: Module, name: str) -> bool:
    """Neighbours do not import each other, but for level 0, and for the configuration's values in level 1."""
    other = name.partition(".")[0]
    mine, theirs = _level(module.room), _level(other)
    if theirs is None or module.room == other:
        return True
    if mine is None:
        return module.name == "__main__"
    if mine == theirs:
        return mine == 0 or (mine == 1 and (name == "config" or _below(name, SHARED_BY_LEVEL_1)))
    return theirs < mine


def test_every_room_has_its_level() -> None:
    rooms = {module.room for module in MODULES} - {"", "__main__"}
    assert {room for room in rooms if _level(room) is None} == set()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name or PACKAGE)
def test_imports_go_down_only(module: Module) -> None:
    wrong = [name for name in _own(module) if not _may_import(module, name)]
    assert wrong == [], f"{module.name} must not import these"


def test_the_lowest_level_is_pure() -> None:
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES
        if _level(module.room) == 0
        for name in _imports(module)
        if name.partition(".")[0] in NO_INPUT_OUTPUT
    ]
    assert wrong == []


def test_each_library_has_one_door() -> None:
    wrong = [
        f"{module.name} imports {name}"
        for module in MODULES
        for name in _imports(module)
        if (places := DOORS.get(name.partition(".")[0])) is not None and not _below(module.name, places)
    ]
    assert wrong == []


def test_each_door_is_used() -> None:
    used = {
        (library, place)
        for module in MODULES
        for library in {name.partition(".")[0] for name in _imports(module)} & set(DOORS)
        for place in DOORS[library]
        if _below(module.name, frozenset({place}))
    }
    assert {(library, place) for library, places in DOORS.items() for place in places} - used == set()


def test_nothing_else_is_imported() -> None:
    """What is neither the standard library's, nor ours, nor behind a door has not been declared."""
    known = {*sys.stdlib_module_names, *DOORS, PACKAGE}
    imported = {name.partition(".")[0] for module in MODULES for name in _imports(module)}
    assert imported - known == set()


def test_relative_imports_are_seen() -> None:
    """The test of the test: `from ..cli import main` in mail is an import of cli."""
    tree = ast.parse("from ..cli import main\nfrom . import reply\n")
    module = Module("mail.message", SOURCE / PACKAGE / "mail" / "message.py", tree, [])
    assert list(_own(module)) == ["cli", "cli.main", "mail", "mail.reply"]
    assert not _may_import(module, "cli.main")


def _functions() -> list[tuple[str, int]]:
    """Every function with the number of its lines, from `def` to its last; methods and inner ones too."""
    return [
        (f"{module.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_are_short() -> None:
    functions = _functions()
    lengths = [length for _, length in functions]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION
    assert sum(length < LONG_FUNCTION for length in lengths) >= 0.9 * len(lengths)
    assert [text for text, length in functions if length > LONGEST_FUNCTION] == []


def test_modules_are_of_a_size_to_read() -> None:
    assert {module.name: len(module.lines) for module in MODULES if len(module.lines) > LONGEST_MODULE} == {}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name or PACKAGE)
def test_a_module_opens_with_its_role(module: Module) -> None:
    docstring = ast.get_docstring(module.tree)
    assert docstring, "no docstring"
    assert docstring.splitlines()[0].rstrip().endswith((".", ":", "…")), "its first line is a sentence"


def test_names_say_what_a_module_does() -> None:
    named = {module.name for module in MODULES if any(map(VAGUE.search, module.name.split(".")))}
    assert named == set()


def test_dataclasses_have_slots() -> None:
    """A misspelt attribute is an error then, and many of them are small."""
    wrong = [
        f"{module.name}.{node.name}"
        for module in MODULES
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
        if "dataclass" in ast.unparse(decorator) and "slots=True" not in ast.unparse(decorator)
    ]
    assert wrong == []


def test_whoever_catches_everything_says_why() -> None:
    """`except Exception` and its like only at a boundary, with the reason on that line or the one above it.

    To undo something and raise again catches nothing.
    """
    wrong = []
    for module in MODULES:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and _catches_everything(node):
                around = module.lines[node.lineno - 2 : node.lineno]
                if not any(re.search(r"#\s*(?!noqa)\w", line) for line in around):
                    wrong.append(f"{module.name}:{node.lineno}")
    assert wrong == []


def _catches_everything(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in caught)


def test_the_source_root_is_no_package() -> None:
    """pymilter's C module is called `milter`: a package of that name would hide it, and `import Milter` fail."""
    assert not (SOURCE / "__init__.py").exists()
    script = "import milter, Milter; assert milter.__file__.endswith('.so'), milter.__file__"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("word", "foreign"),
    [("web", ("milter", "dkim", "prometheus_client", "sqlite3")), ("books", ("milter", "dkim", "aiohttp"))],
)
def test_a_daemon_loads_no_other_daemons_libraries(word: str, foreign: tuple[str, ...]) -> None:
    """What is loaded to parse a command line is as far as this goes without starting the daemon."""
    script = (
        f"import sys; from postmeter.cli.main import load; load({word!r}); "
        f"print([name for name in {foreign!r} if name in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", script], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"


# A workplace leaves traces: paths of the machine where something was written, notes to be done later.
FORBIDDEN = re.compile(r"(?<![\w.])/work/|/home/\w|/root/(?!\.)|\bT[O]DO\b|\bF[I]XME\b|\bX{3}\b")
TEXT = {".py", ".md", ".cfg", ".toml", ".yaml", ".yml", ".sh", ".fragment", ".service", ".json", ""}


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git working copy")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).suffix in TEXT]


def test_no_trace_of_a_workplace_is_in_the_tree() -> None:
    found = []
    for path in _tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()}")
    assert found == []
