"""Trials on a worker: one process for many of them, its settings, its networks tried."""

import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import tune

import spaces
from search.cluster import connection, memory, trainable
from search.cluster.checks import LONG_MINUTES, try_networks
from search.cluster.connection import connect
from search.driver.driver import search
from search.plan.config import SearchConfig
from search.plan.environment import WORKER_ENV
from search.plan.errors import Refused
from search.plan.resources import Cluster, Node, Resources
from search.records.store import RunStore
from search.suggest.samplers import STARTUP_TRIALS
from search.suggest.suggester import worker_settings
from tests import scripted
from trainer.provenance import versions

ONE = Resources(cpus=1.0, gpus=0.0, concurrent=1)
HERE = Cluster((Node(2, 0),))


def suggest(trial: spaces.Trial) -> dict[str, float]:
    """Two parameters, where every scripted trial ends well."""
    rate = trial.suggest_float("optimizer.learning_rate", 1e-3, 1e-2)
    eps = trial.suggest_float("eps_psd", 1e-6, 1e-2, log=True)
    return {"optimizer.learning_rate": rate, "eps_psd": eps}


def searched(monkeypatch, folder: Path, trials: int, train, **more) -> RunStore:
    """A finished search of scripted trials, one at a time."""
    fixed = spaces.get("smoke").fixed | {"epochs": 3}
    space = spaces.Space("scripted", "for tests", suggest, (), fixed)
    monkeypatch.setitem(spaces.PRESETS, "scripted", space)
    plan = SearchConfig("scripted", trials, "run", out=str(folder), **more)
    kinds = dict.fromkeys(space.parameters(), ("float", "1", ""))
    store = RunStore.create(folder / "run", parameters=kinds, plan={"search": plan.as_dict()})
    search(plan, store, ONE, train=train)
    return store


@pytest.mark.ray
def test_trials_share_one_process_with_its_settings(connected, monkeypatch, tmp_path):
    """So torch is imported once; glibc reads its settings when a process starts."""
    train = partial(scripted.note_and_train, tmp_path / "notes")
    searched(monkeypatch, tmp_path, 4, train, scheduler="none")
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(notes) == 4
    assert notes == [notes[0] | WORKER_ENV | {"OMP_NUM_THREADS": "1"}] * 4


def test_workers_of_a_local_ray_inherit_their_settings(monkeypatch):
    """As those of a cluster are given them."""
    found = {}

    def init(**options: object) -> SimpleNamespace:
        found.update(options, env=dict(os.environ))
        return SimpleNamespace(dashboard_url=None)

    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "nodes", list)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address=""))
    monkeypatch.setattr(connection, "watch_head", lambda head, left: None)
    monkeypatch.setattr(connection, "check_address", lambda address: None)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with connect(SearchConfig("smoke", 1, "x")):
        assert found["address"] == "local"
        assert found["env"] | WORKER_ENV == found["env"]
    with connect(SearchConfig("smoke", 1, "x", address="here:1")):
        given = found["runtime_env"]["env_vars"]
        assert given | WORKER_ENV == given


def test_a_trial_computes_on_the_threads_of_its_record(monkeypatch):
    """Also one that is resumed with other resources: its first epochs were, its replay will be."""
    asked: list[int] = []

    def load_trainer(threads):
        asked.append(threads)
        return scripted.train

    monkeypatch.setattr(trainable, "load_trainer", load_trainer)
    monkeypatch.setattr(tune, "report", lambda *given, **more: None)
    monkeypatch.setattr(tune, "get_checkpoint", lambda: None)
    record = {"trial_id": "t0", "number": 0, "params": spaces.get("smoke").fixed, "threads": 3}
    settings = worker_settings(record, folder="t0")
    trainable.make_trainable(trainable.trainer_of(None, ONE), "x", versions())(settings)
    assert asked == [3]


def test_one_worker_and_the_same_seed_make_the_same_search(local_ray, monkeypatch, tmp_path):
    trials = STARTUP_TRIALS + 4
    drawn = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        store = searched(monkeypatch, tmp_path / name, trials, scripted.train, seed=seed)
        drawn.append([store.read_config(trial)["drawn"] for trial in store.started()])
    assert len(drawn[0]) == trials
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


@pytest.mark.ray
@pytest.mark.slow
def test_long_plans_try_each_kind_of_network_for_a_step(connected):
    local = spaces.get("local")
    short = SearchConfig("local", 1, "x")
    assert short.minutes <= LONG_MINUTES
    assert try_networks(short, ONE, HERE) == ([], ONE)
    trials = int(local.trials * LONG_MINUTES / local.minutes) + 1
    long = SearchConfig("local", trials, "x")
    kinds = {long.train_config(drawn).network.kind for drawn in local.branches()}
    said, measured = try_networks(long, ONE, HERE)
    assert len(kinds) > 1
    assert sorted(line.split()[0] for line in said) == sorted(kinds)
    assert all("one step and its evaluation in" in line and "MiB" in line for line in said)
    assert 1e8 < measured.memory < 2e9
    assert measured.concurrent == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_panel_that_no_machine_holds_is_refused_before_it_takes_its_memory(connected):
    """The 24x24 panel's factors alone take 4 GB; the worker that tried lives on."""
    panel = ("scene.num_horizontal=24", "scene.num_vertical=24", "scene.range_max_m=4")
    plan = SearchConfig("local", 1, "x", settings=(*panel, "network.kind=dictionary"))
    small = Cluster((Node(2, 0, 1e9),))
    with pytest.raises(Refused, match=r"kind `dictionary` takes more, and the largest has 1.0 GB"):
        try_networks(plan, ONE, small)
    assert try_networks(replace(plan, settings=()), ONE, HERE)[0] == []


def test_no_allocation_takes_a_process_beyond_its_limit():
    held = memory.peak_memory().host
    with memory.memory_limit(held + 2**28), pytest.raises(MemoryError):
        bytearray(2**30)
    assert len(bytearray(2**30)) == 2**30


@pytest.mark.ray
def test_a_network_that_does_not_survive_a_step_is_refused(connected, monkeypatch):
    smoke = spaces.get("smoke")
    no_such_gpu = replace(smoke, minutes=1e3, fixed={**smoke.fixed, "device": "cuda"})
    monkeypatch.setitem(spaces.PRESETS, "smoke", no_such_gpu)
    with pytest.raises(Refused, match=r"a network of kind `\w+` must survive one step, but: "):
        try_networks(SearchConfig("smoke", smoke.trials, "x"), ONE, HERE)


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no such Linux")
def test_a_reused_worker_counts_each_trials_own_peak(connected):
    @ray.remote
    def peaks() -> list[int]:
        found = []
        for size in (2**29, 0):
            bytearray(size).count(1)  # touched, then given back
            found.append(memory.peak_bytes())
            memory.free_memory()
        return found

    first, second = ray.get(peaks.remote())
    assert first - second > 2**28
