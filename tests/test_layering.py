"""The walls of the house: rooms in a strict order, read off the source, so that they stay up.

A room is a sub-package. It imports only rooms before it, and only the names that their `__init__`
exports; inside a room, files form no circle.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

TRAINER_ROOMS = {  # each with the rooms it may import, in one order for all
    "config": set(),
    "scenes": {"config"},
    "spectral": {"config"},
    "covariance": {"config", "scenes", "spectral"},
    "estimation": {"config", "scenes", "spectral", "covariance"},
    "networks": {"config", "scenes", "spectral", "covariance"},
    "evaluation": {"config", "scenes", "spectral", "covariance", "estimation", "networks"},
    "training": {
        *("config", "scenes", "spectral", "covariance", "estimation", "networks", "evaluation"),
    },
}
SEARCH_ORDER = (
    *("plan", "records", "remote", "report", "suggest", "cluster", "driver", "reruns"),
)
REPORT_ORDER = ("data", "analysis", "figures", "page")
ROOMS = {
    **{
        f"trainer.{room}": {f"trainer.{r}" for r in below} for room, below in TRAINER_ROOMS.items()
    },
    **{
        f"search.{room}": {f"search.{r}" for r in SEARCH_ORDER[:i]}
        for i, room in enumerate(SEARCH_ORDER)
    },
    **{
        f"search.report.{room}": {
            *(f"search.report.{r}" for r in REPORT_ORDER[:i]),
            *(f"search.{r}" for r in SEARCH_ORDER[: SEARCH_ORDER.index("report")]),
        }
        for i, room in enumerate(REPORT_ORDER)
    },
}
RAY_ROOMS = {"search.cluster", "search.driver"}
MOST_FILES = 12

FORBIDDEN = {
    "trainer": {"ray", "optuna", "pandas", "pyarrow", "search", "spaces"},
    "search/plan": {"ray", "optuna", "pandas", "pyarrow", "torch"},
    "search/report": {"ray", "torch"},
    "spaces": {"torch", "trainer", "search"},
}


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def module_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no code in {folder}"
    return found


MODULES = {module_of(f): f for folder in ("trainer", "search", "spaces") for f in files(folder)}


@cache
def imports(module: str) -> frozenset[str]:
    """Modules that a module imports, also inside functions and for type checkers, absolute."""
    file = MODULES[module]
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level]
            source = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            inner = {alias.name: f"{source}.{alias.name}" for alias in node.names}
            found.update(i if i in MODULES else source for i in inner.values())
    return frozenset(found)


@cache
def room_of(module: str) -> str | None:
    """The innermost room that a module lies in; None for the files beside the rooms."""
    inside = [room for room in ROOMS if f"{module}.".startswith(f"{room}.")]
    return max(inside, key=len, default=None)


def ways() -> Iterator[tuple[str, str]]:
    """Every import of one room's module by another's, as (importer, imported)."""
    for module in MODULES:
        for target in imports(module):
            if target in MODULES and room_of(target) != room_of(module):
                yield module, target


def test_every_package_is_a_room():
    packages = {m for m, f in MODULES.items() if f.name == "__init__.py"}
    assert packages == {"trainer", "search", "spaces", *ROOMS}


def test_rooms_import_only_the_rooms_before_them():
    against = [
        (module, target)
        for module, target in ways()
        if (room := room_of(module))
        and (there := room_of(target))
        and there not in ROOMS[room]
        and not there.startswith(f"{room}.")
        and not (room.startswith("search.") and there.startswith("trainer."))
    ]
    assert against == []


def test_rooms_know_nothing_of_the_commands_beside_them():
    commands = {m for m in MODULES if m.startswith("search.") and room_of(m) is None}
    commands -= {"search.report"}
    found = [(module, t) for module, t in ways() if room_of(module) and t in commands]
    assert found == []


def test_rooms_are_entered_by_their_doors():
    """By the names that `__init__` exports, or a module that is named as a whole."""
    by_the_window = []
    for module in MODULES:
        for source in froms(MODULES[module]):
            there = room_of(source) if source in MODULES else None
            if there not in (None, room_of(module)) and source != there:
                by_the_window.append((module, source))
    assert by_the_window == []


@cache
def froms(file: Path) -> dict[str, set[str]]:
    """Names that a file imports, by the module they are imported from."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.setdefault(node.module, set()).update(alias.name for alias in node.names)
    return found


def named(room: str) -> Iterator[tuple[Path, set[str]]]:
    """Each file of the project with the names that it imports from the room."""
    for folder in ("trainer", "search", "benchmarks", "tests"):
        yield from ((file, froms(file).get(room, set())) for file in files(folder))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_has_a_charter_public_names_and_few_files(room):
    file = MODULES[room]
    assert len(ast.get_docstring(tree_of(file)) or "") > 20, "no charter"
    exported = {
        name
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
        for name in ast.literal_eval(node.value)
    }
    used = {
        name for user, names in named(room) if room_of(module_of(user)) != room for name in names
    }
    assert exported, "no public names"
    if room not in ("search.report", "trainer.config"):  # whose names are for users, too
        assert exported - used == set(), "exported, but nobody outside needs it"
    assert len(list(file.parent.glob("*.py"))) <= MOST_FILES


@pytest.mark.parametrize("package", ["trainer", "search", "spaces"])
def test_there_is_no_circle_of_imports(package):
    graph = {
        module: {t for t in imports(module) if t in MODULES and t != module}
        for module in MODULES
        if module.split(".")[0] == package and MODULES[module].name != "__init__.py"
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names them


@pytest.mark.parametrize(("folder", "forbidden"), FORBIDDEN.items())
def test_a_room_imports_no_library_that_is_not_its_own(folder, forbidden):
    broken = {
        module: found
        for module, file in MODULES.items()
        if file.is_relative_to(ROOT / folder)
        and (found := {t.split(".")[0] for t in imports(module)} & forbidden)
    }
    assert broken == {}


def test_spaces_import_the_standard_library_only():
    for file in files("spaces"):
        outside = {t.split(".")[0] for t in imports(module_of(file))} - {"spaces"}
        assert outside <= set(sys.stdlib_module_names), file


def test_only_two_rooms_import_ray():
    with_ray = {m for m in MODULES if "ray" in {t.split(".")[0] for t in imports(m)}}
    assert {room_of(module) for module in with_ray} == RAY_ROOMS


def loaded(names: set[str], *modules: str) -> set[str]:
    """Which of `names` a process has that imports these modules."""
    code = f"import sys, {', '.join(modules)}; print(*({names!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_a_report_loads_neither_ray_nor_torch():
    report = ("search.report.__main__", "search.report.page")
    assert loaded({"ray", "torch"}, *report) == set()


def test_a_worker_loads_no_sampler_and_torch_only_to_train():
    """Each of its processes would take 40 MiB and a second for Optuna's samplers."""
    assert loaded({"optuna", "scipy", "torch"}, "search.cluster") == set()


def test_parquet_of_estimates_needs_no_ray():
    assert loaded({"ray"}, "search.localise", "trainer.training") == set()


def test_configurations_load_without_torch():
    assert loaded({"torch"}, "trainer.config", "trainer.failure", "trainer.cli") == set()
