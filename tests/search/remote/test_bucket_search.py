"""Searches on object storage: the bucket dies, or the driver does and another machine goes on."""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import spaces
from search.records.store import RunStore
from search.remote import bucket
from search.remote.working_copy import resolve_run
from search.run import main
from tests.s3 import OUT, elsewhere, held, served

server = pytest.fixture(served)


@pytest.fixture
def longer(monkeypatch):
    """The smoke preset with trials long enough to be disturbed."""
    few = {"evaluation.num_scenes": 8, "evaluation.num_test_scenes": 8, "scene.max_sources": 1}
    fixed = dict(spaces.get("smoke").fixed) | {"epochs": 12} | few
    space = replace(spaces.get("smoke"), name="longer", fixed=fixed)
    monkeypatch.setitem(spaces.PRESETS, "longer", space)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_bucket_dies_ends_with_1_and_is_resumed_elsewhere(
    server, longer, capfd, monkeypatch
):
    def die() -> None:
        while not any("checkpoint_000002" in name for name in held()):
            time.sleep(0.1)
        server.die()

    search = ["--preset", "longer", "--trials", "2", "--name", "x", "--out", OUT]
    flags = ["--scheduler", "none", "--sampler", "random", "--max-concurrent", "1"]
    killer = threading.Thread(target=die)
    killer.start()
    assert main([*search, *flags, "--no-preflight"]) == 1
    killer.join()
    said = capfd.readouterr()
    assert "could not keep its checkpoint" in said.err
    assert f"continue with --resume {OUT}/x" in said.err
    assert f"{OUT}/x lacks the last results" in said.out

    server.come_back()
    run = bucket.runs_folder(OUT) / "x"
    elsewhere(run)
    # the driver could not take its sign of life out of a dead bucket
    assert main(["--resume", f"{OUT}/x"]) == 2
    assert "wait 60 s if it was killed" in capfd.readouterr().err
    monkeypatch.setattr("search.remote.lock.STALE_SECONDS", 0.0)
    assert main(["--resume", f"{OUT}/x"]) == 0
    said = capfd.readouterr().out
    assert "again, from epoch" in said
    elsewhere(run)
    store = RunStore.open(resolve_run(f"{OUT}/x"))
    trials, epochs = store.read("trials"), store.read("epochs")
    assert list(trials["outcome"]) == ["completed", "completed"]
    for name in trials["trial_id"]:
        assert list(epochs[epochs["trial_id"] == name]["epoch"]) == list(range(1, 13))
    for checkpoint in trials["checkpoint"]:
        assert f"x/{checkpoint}/state.pt" in held()
    assert "x/optuna.log" in held()
    assert any(name.startswith("x/") and name.endswith(".png") for name in held())


def trained() -> set[str]:
    """Folders of the trials on the bucket that have kept a third checkpoint, or a later one."""
    kept = (re.search(r"ray/(\w+)/checkpoint_(\d+)/state.pt", name) for name in held())
    return {found[1] for found in kept if found and int(found[2]) >= 3}


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_on_a_cluster_outlives_its_driver_on_the_bucket(server, tmp_path):
    """`--address HOST:PORT --out s3://...`: killed on one machine, resumed and reported from
    another, which has nothing of it but the bucket."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    run = ["--address", cluster.address]
    new = ["--preset", "drill", "--name", "x", "--out", OUT, "--trials", "2", "--no-preflight"]
    free = ["--scheduler", "none", "--sampler", "random"]
    drill = [sys.executable, str(Path(__file__).parents[3] / "benchmarks" / "drill.py")]
    latest = time.monotonic() + 120
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        first = subprocess.Popen([*drill, *new, *free, *run])
        while len(trained()) < 2:
            assert first.poll() is None
            assert time.monotonic() < latest
            time.sleep(0.1)
        first.kill()
        first.wait()
        other = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")}
        done = subprocess.run(
            [*drill, "--resume", f"{OUT}/x", *run], env=other, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("again, from epoch") == 2
        page = [sys.executable, "-m", "search.report", f"{OUT}/x"]
        subprocess.run(page, env=other, check=True, capture_output=True)
    finally:
        cluster.shutdown()
    store = RunStore.open(resolve_run(f"{OUT}/x"))
    trials, epochs = store.read("trials"), store.read("epochs")
    assert list(trials["outcome"]) == ["completed", "completed"]
    for name in trials["trial_id"]:
        assert list(epochs[epochs["trial_id"] == name]["epoch"]) == list(range(1, 19))
    assert {"x/optuna.log", "x/report/index.html", "x/best/model_card.md"} <= held()
