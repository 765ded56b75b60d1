"""The walls of the house: who may import whom, read off the source, so that they stay up."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RAY_FILES = {
    "connection.py",
    "checks.py",
    "driver.py",
    "finish.py",
    "trainable.py",
    "tasks.py",
    "searcher.py",
    "monitor.py",
    "ending.py",
    "gauges.py",
}
FORBIDDEN = {
    "trainer": {"ray", "optuna", "pandas", "pyarrow", "search", "spaces"},
    "search/report": {"ray", "torch"},
}


def imports(file: Path) -> Iterator[str]:
    """Top-level names of everything a file imports, also inside functions; not its own package."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found, f"no code in {folder}"
    return found


@pytest.mark.parametrize(("folder", "forbidden"), FORBIDDEN.items())
def test_a_room_imports_nothing_from_above_it(folder, forbidden):
    broken = {str(f.relative_to(ROOT)): set(imports(f)) & forbidden for f in files(folder)}
    assert {name: found for name, found in broken.items() if found} == {}


def test_spaces_import_the_standard_library_only():
    for file in files("spaces"):
        assert set(imports(file)) <= set(sys.stdlib_module_names), file


def test_only_these_files_import_ray():
    with_ray = {f.name for f in files("search") if "ray" in set(imports(f))}
    assert with_ray == RAY_FILES


def loaded(names: set[str], *modules: str) -> set[str]:
    """Which of `names` a process has that imports these modules."""
    code = f"import sys, {', '.join(modules)}; print(*({names!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.split())


def test_a_report_loads_neither_ray_nor_torch():
    report = ("search.report.__main__", "search.report.page.write", "search.report.page.compare")
    assert loaded({"ray", "torch"}, *report) == set()


def test_a_worker_loads_no_sampler_and_torch_only_to_train():
    """Each of its processes would take 40 MiB and a second for Optuna's samplers."""
    worker = ("search.cluster.trainable", "search.cluster.tasks")
    assert loaded({"optuna", "scipy", "torch"}, *worker) == set()


def test_parquet_of_estimates_needs_no_ray():
    assert loaded({"ray"}, "search.localise", "trainer.training.localisation") == set()


def test_configurations_load_without_torch():
    assert loaded({"torch"}, "trainer.config", "trainer.failure") == set()
