"""The benchmark of a GPU: every table has its place, and all of its code runs without one."""

import importlib
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


def test_no_part_takes_the_time_of_those_after_it(monkeypatch):
    """Whether it stops in time or not, nine minutes are enough for a share of every table."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu = importlib.import_module("gpu")
    clock = [100.0]
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    run = gpu.Run(gpu.torch.device("cpu"), quick=True, deadline=100.0 + sum(gpu.SECONDS.values()))
    assert sum(gpu.SECONDS.values()) == 60 * 9
    assert gpu.SECONDS.keys() == gpu.parts(run).keys()
    for name, part in gpu.in_time(run, list(gpu.SECONDS)):
        assert part.seconds_left == pytest.approx(gpu.SECONDS[name])
        clock[0] = part.deadline
    clock[0] = 100.0
    given = [part.seconds_left for _, part in gpu.in_time(run, list(gpu.SECONDS))]
    assert given[0] == gpu.SECONDS["gpu eigh"]
    assert given[-1] == pytest.approx(540)  # those before took none


def test_rows_that_are_measured_stay_where_the_time_ends(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    gpu = importlib.import_module("gpu")

    def rows(count: int):
        yield from ["| a | 1 |"] * count
        raise gpu.Skipped("the time is spent")

    text = gpu.table("| name | value |", rows(2)).splitlines()
    assert text[:4] == ["| name | value |", "|---|---|", "| a | 1 |", "| a | 1 |"]
    assert text[-1] == "The rows that follow were not measured: the time is spent."
    with pytest.raises(gpu.Skipped):
        gpu.table("| name | value |", rows(0))


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
