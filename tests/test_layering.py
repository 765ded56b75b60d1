"""The order of the rooms, read off the source: no circle, no import against the order.

A room imports only the rooms before it, and of these only the names that `__init__` exports.
"""

import ast
import graphlib
import subprocess
import sys

import pytest

from tests.import_graph import (
    MODULES,
    PACKAGES,
    ROOMS,
    ROOT,
    crossings,
    files,
    imports,
    may_import,
    module_of,
    names_imported,
    room_of,
    statements,
    tree_of,
)

RAY_ROOMS = {"search.cluster", "search.driver"}
MOST_FILES = 12
FOR_USERS = ("search.report", "trainer.config")
"""Rooms that also export names for notebooks."""

FORBIDDEN = {
    "trainer": {"ray", "optuna", "pandas", "pyarrow", "search", "spaces"},
    "search.plan": {"ray", "optuna", "pandas", "pyarrow", "torch"},
    "search.report": {"ray", "torch"},
    "spaces": {"torch", "trainer", "search"},
}


def test_every_package_is_a_room():
    packages = {module for module, file in MODULES.items() if file.name == "__init__.py"}
    assert packages == {*PACKAGES, *ROOMS}


def test_rooms_import_only_the_rooms_before_them():
    against = [
        (module, target)
        for module, target in crossings()
        if not may_import(str(room_of(module)), str(room_of(target)))
    ]
    assert against == []


def test_rooms_import_none_of_the_commands_beside_them():
    beside = {m for m in MODULES if m.count(".") == 1 and room_of(m) is None}
    commands = {m for m in beside if m.startswith("search.") or m.endswith(".__main__")}
    found = {m: imports(m) & commands for m in MODULES if room_of(m) and imports(m) & commands}
    assert found == {}


def test_files_beside_the_rooms_of_trainer_import_no_room_but_its_settings():
    beside = [m for m in MODULES if m.startswith("trainer.") and room_of(m) is None]
    found = {
        module: rooms
        for module in beside
        if module != "trainer.__main__"
        and (
            rooms := {room_of(t) for t in imports(module) & MODULES.keys()}
            - {None, "trainer.config"}
        )
    }
    assert found == {}


def test_rooms_are_imported_by_the_names_that_they_export():
    inside = [
        (module, source)
        for module in MODULES
        for source, _ in statements(module)
        if source in MODULES
        and room_of(source) not in (None, room_of(module))
        and source != room_of(source)
    ]
    assert inside == []


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_has_a_charter_few_files_and_no_idle_exports(room):
    init = MODULES[room]
    assert len(ast.get_docstring(tree_of(init)) or "") > 20, "no charter"
    assert len(list(init.parent.glob("*.py"))) <= MOST_FILES
    exported = {
        alias.name
        for node in tree_of(init).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert exported, "no public names"
    users = [
        file
        for folder in ("trainer", "search", "benchmarks", "tests")
        for file in files(folder)
        if room_of(module_of(file)) != room
    ]
    used = set().union(*(names_imported(file).get(room, set()) for file in users))
    assert room in FOR_USERS or exported <= used, sorted(exported - used)


@pytest.mark.parametrize("package", PACKAGES)
def test_there_is_no_circle_of_imports(package):
    graph = {
        module: {t for t in imports(module) if t in MODULES and t != module}
        for module in MODULES
        if module.split(".")[0] == package
    }
    list(graphlib.TopologicalSorter(graph).static_order())  # a CycleError names the circle


@pytest.mark.parametrize(("part", "forbidden"), FORBIDDEN.items())
def test_a_part_imports_no_library_that_is_not_its_own(part, forbidden):
    found = {
        module: libraries & forbidden
        for module in MODULES
        if f"{module}.".startswith(f"{part}.")
        and (libraries := {name.split(".")[0] for name in imports(module)}) & forbidden
    }
    assert found == {}


def test_spaces_import_the_standard_library_only():
    libraries = {t.split(".")[0] for m in MODULES if m.startswith("spaces") for t in imports(m)}
    assert libraries - {"spaces"} <= set(sys.stdlib_module_names)


def test_only_two_rooms_import_ray():
    with_ray = {m for m in MODULES if "ray" in {name.split(".")[0] for name in imports(m)}}
    assert {room_of(module) for module in with_ray} == RAY_ROOMS


@pytest.mark.parametrize(
    ("absent", "modules"),
    [
        ({"ray", "torch"}, ["search.report.__main__", "search.report.page"]),
        # each worker process would take 40 MiB and a second for Optuna's samplers
        ({"optuna", "scipy", "torch"}, ["search.cluster"]),
        ({"ray"}, ["search.localise", "trainer.localisation"]),
        ({"torch"}, ["trainer.config", "trainer.failure", "trainer.cli"]),
    ],
    ids=["report", "worker", "localise", "config"],
)
def test_a_process_does_not_load(absent, modules):
    code = f"import sys, {', '.join(modules)}; print(*({absent!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_the_design_shows_the_rooms_as_they_are(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import rooms

    design = (ROOT / "docs" / "design.md").read_text()
    assert rooms.charters() in design, "run `python benchmarks/rooms.py --write`"
    assert rooms.mermaid(rooms.reduced(rooms.direct())) in design
