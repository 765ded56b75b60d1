"""The benchmark of a GPU: every table has its place, and all of its code runs without one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
WITHOUT_RAY = """
import runpy, sys
sys.modules |= {"ray": None, "optuna": None}  # importing them fails
sys.path.insert(0, "benchmarks")
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_every_table_that_wants_a_gpu_has_one_place_and_is_filled_by_the_command():
    tables = set(
        re.findall(r'^        "((?:gpu |\w+ (?:\w+ )?cuda)[\w ]*)": \(', SCRIPT.read_text(), re.M)
    )
    text = "\n".join(file.read_text() for file in sorted((ROOT / "docs").glob("*.md")))
    places = re.findall(r"<!-- (gpu [\w ]+|[\w ]+ cuda) -->", text)
    assert sorted(places) == sorted(tables)
    assert {"share cuda", "gpu eigh", "gpu searches"} <= tables


@pytest.mark.slow
def test_without_a_gpu_it_says_so_in_a_sentence():
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"benchmarks/gpu\.py wants a GPU, but .*\n", done.stderr)


@pytest.mark.slow
def test_all_but_the_searches_runs_on_a_cpu_where_ray_is_missing():
    command = [sys.executable, "-c", WITHOUT_RAY, "--device", "cpu", "--quick"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gpu searches: skipped, ray and optuna not installed" in done.stdout
    assert done.stdout.count("skipped") == 1
    for table in ("gpu eigh", "share cuda", "speed cuda", "gpu training", "gpu readouts"):
        assert f"\n{table} (" in done.stdout
    assert "| sound |" in done.stdout


@pytest.mark.slow
@pytest.mark.ray
def test_its_searches_run_on_a_ray(address):
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--quick", "--address", address]
    done = subprocess.run(
        [*command, "--only", "gpu searches"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| smoke \| 2 \| 2 completed \|", done.stdout)
