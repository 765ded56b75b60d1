"""The import graph of the project, read off its source: modules, rooms, and which imports which.

A room is a sub-package. `ROOMS` says which rooms each may import; search may import all of
trainer's.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("trainer", "search", "spaces")

_EARLY = ("config", "linalg", "scenes", "spectral", "covariance")
TRAINER_ROOMS: dict[str, tuple[str, ...]] = {
    "config": (),
    "linalg": (),
    "scenes": ("config", "linalg"),
    "exchange": ("config", "scenes"),
    "spectral": ("config", "linalg"),
    "covariance": ("config", "linalg", "scenes", "spectral"),
    "estimation": _EARLY,
    "networks": _EARLY,
    "posterior": (*_EARLY, "estimation"),
    "evaluation": (*_EARLY, "estimation", "networks", "posterior"),
    "training": (*_EARLY, "estimation", "networks", "posterior", "evaluation"),
    "localisation": (
        *(*_EARLY, "exchange", "estimation", "networks", "posterior", "evaluation", "training"),
    ),
}
SEARCH_ROOMS = (
    *("plan", "records", "remote", "report", "suggest", "cluster", "driver", "reruns"),
)
REPORT_ROOMS = ("data", "analysis", "factorial", "figures", "page")
_BEFORE_REPORT = SEARCH_ROOMS[: SEARCH_ROOMS.index("report")]

ROOMS: dict[str, set[str]] = {
    **{f"trainer.{room}": {f"trainer.{r}" for r in may} for room, may in TRAINER_ROOMS.items()},
    **{
        f"search.{room}": {f"search.{r}" for r in SEARCH_ROOMS[:i]}
        for i, room in enumerate(SEARCH_ROOMS)
    },
    **{
        f"search.report.{room}": {
            *(f"search.report.{r}" for r in REPORT_ROOMS[:i]),
            *(f"search.{r}" for r in _BEFORE_REPORT),
        }
        for i, room in enumerate(REPORT_ROOMS)
    },
}
"""Each room with the rooms of its own package that it may import."""


def files(folder: str) -> list[Path]:
    """Return the Python files of a folder of the project, in order of their paths."""
    return sorted((ROOT / folder).rglob("*.py"))


@cache
def tree_of(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text())


def module_of(file: Path) -> str:
    """Return the dotted name of a file's module."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for package in PACKAGES for file in files(package)}


@cache
def statements(module: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return a module's imports, also those inside functions: the absolute name of each source,
    with the names that are taken from it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: list[tuple[str, tuple[str, ...]]] = []
    for node in ast.walk(tree_of(MODULES[module])):
        if isinstance(node, ast.Import):
            found.extend((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            found.append((source, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.append((getattr(node.args[0], "value", ""), ()))
    return tuple(found)


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules that a module imports, by their absolute names."""
    found: set[str] = set()
    for source, names in statements(module):
        inner = {f"{source}.{name}" for name in names}
        found |= {name if name in MODULES else source for name in inner or {source}}
    return frozenset(found)


@cache
def names_imported(file: Path) -> dict[str, set[str]]:
    """Return the names that a file imports by absolute imports, by the module they come from."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


@cache
def room_of(module: str) -> str | None:
    """Return the innermost room that a module lies in; None for the files beside the rooms."""
    inside = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=None)


def crossings() -> Iterator[tuple[str, str]]:
    """Yield every import of one room's module by another room's, as (importer, imported)."""
    for module in MODULES:
        for target in imports(module):
            here, there = room_of(module), room_of(target) if target in MODULES else None
            if here and there and here != there and not there.startswith(f"{here}."):
                yield module, target


def may_import(room: str, other: str) -> bool:
    """Return whether the order of the rooms lets one import the other."""
    return other in ROOMS[room] or (room.startswith("search.") and other.startswith("trainer."))
