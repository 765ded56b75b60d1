"""Trials on shares of GPUs, on a Ray that was told of two GPUs which are not there."""

import json
import os
from collections.abc import Iterator
from functools import partial

import pytest
import ray
import torch
from ray.util.placement_group import placement_group, remove_placement_group

import spaces
from search.cluster import checks, memory
from search.cluster.connection import connect
from search.driver.driver import search
from search.plan.config import SearchConfig
from search.plan.errors import Refused
from search.plan.resources import GB, Cluster, Memory, Node, Resources, resolve_resources
from search.records.store import RunStore
from tests import pretended_worker
from tests.scripted_search import PARAMETERS, suggest

NODE = Node(8, 2, gpu_kind="T4")
ONE = Resources(cpus=1, gpus=0.5, concurrent=1)
SHARES = (0.25, 0.3, 1 / 3, 0.4, 0.5, 0.75, 1.0, 2.0)


@pytest.mark.parametrize(("share", "limits"), [(0.25, [0.25]), (1.0, []), (2.0, []), (0.0, [])])
def test_only_a_trial_that_shares_its_gpu_has_its_memory_limited(monkeypatch, share, limits):
    found: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    memory.limit_gpu_memory(share)
    assert found == limits


def test_steps_are_tried_on_every_kind_of_gpu_and_must_fit_into_the_smallest(monkeypatch):
    """A trial may get any of them; eigensolvers, too, are checked on each."""
    asked: list[str | None] = []
    totals = {"A100": 80 * GB, "T4": 16 * GB}

    def submit(resources, function, *arguments, gpu_kind=None):
        asked.append(gpu_kind)
        if function is checks.measure_backends:
            return "", ["sound"]
        return "1 s", Memory(host=GB, gpu=5 * GB, gpu_total=totals[gpu_kind])

    monkeypatch.setattr(checks, "submit", submit)
    monkeypatch.setattr(ray, "get", lambda task: task)
    nodes = [Node(8, 1, gpu_kind=kind) for kind in ("A100", "T4", "A100")]
    two = Cluster((Node(8, 0), *nodes, Node(0, 1, gpu_kind="no CPUs")))
    long = SearchConfig("eigengap", 10_000, "x")
    assert checks.check_backends(long, Resources(1, 0.25, 12), two) == ["sound"] * 2
    assert asked == ["A100", "T4"]
    with pytest.raises(Refused, match=r"5\.0 GB and 0\.25 of 16\.0 GB is 4\.0 GB"):
        checks.try_networks(long, Resources(1, 0.25, 12), two)
    lines, _ = checks.try_networks(long, Resources(1, 0.5, 6), two)
    assert {line.split(" on ")[1] for line in lines} == {"A100: 1 s", "T4: 1 s"}
    assert two.gpu_kinds(Resources(1, 0, 24)) == Cluster((NODE,)).gpu_kinds(ONE) == [None]


def test_a_worker_that_is_given_a_gpu_and_sees_none_does_not_go_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with pytest.raises(Refused, match=r"sees none on .*='3'.*--gpus-per-trial 0"):
        memory.require_gpu(0.25)
    memory.require_gpu(0.0)


@pytest.fixture(scope="module")
def gpus(ray_cluster) -> Iterator[Cluster]:
    """A connection to the shared Ray with a node whose user has chosen its GPUs 5 and 7."""
    chosen = {"CUDA_VISIBLE_DEVICES": "5,7"}
    kind = {f"accelerator_type:{NODE.gpu_kind}": 1}
    node = ray_cluster.add_node(num_cpus=8, num_gpus=2, resources=kind, env_vars=chosen)
    with connect(SearchConfig("smoke", 1, "x", address=str(ray_cluster.address))) as cluster:
        yield cluster
    ray_cluster.remove_node(node)


@pytest.mark.ray
@pytest.mark.slow
def test_ray_holds_as_many_trials_as_the_plan_says_and_not_one_more(gpus):
    """Also where a share does not divide a GPU: five times .4 are two GPUs, but on no two GPUs."""
    assert [(node.gpus, node.gpu_kind) for node in gpus.nodes if node.gpus] == [(2, "T4")]
    for share in SHARES:
        plan = SearchConfig("smoke", 100, "x", gpus_per_trial=share)
        held = resolve_resources(plan, gpus).concurrent
        groups = [placement_group([{"CPU": 0.1, "GPU": share}]) for _ in range(held + 1)]
        ready, waiting = ray.wait([g.ready() for g in groups], num_returns=held, timeout=30)
        more, _ = ray.wait(waiting, timeout=0.3)
        for group in groups:
            remove_placement_group(group)
        assert (len(ready), len(more)) == (held, 0), share


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_sees_the_gpus_it_was_given_of_those_that_the_machine_may_use(gpus):
    """And without a share none, so that `auto` is the CPU."""

    def seen() -> str | None:
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    for amount, devices in ((2, {"5,7", "7,5"}), (1, {"5", "7"}), (0, {""})):
        there = {"accelerator_type:T4": 0.001}
        task = ray.remote(seen).options(num_cpus=1, num_gpus=amount, resources=there)
        assert ray.get(task.remote()) in devices


@pytest.mark.ray
@pytest.mark.slow
def test_trials_share_gpus_and_one_that_outgrows_its_share_ends_alone(gpus, tmp_path, monkeypatch):
    """Four trials at .4 of two GPUs, of which one asks for too much memory; then a fifth."""
    rates = (0.004, pretended_worker.EXHAUSTS, 0.005, 0.006, 0.007)
    fixed = spaces.get("smoke").fixed | {"epochs": 3}
    anchors = tuple({"optimizer.learning_rate": rate} for rate in rates)
    space = spaces.Space("scripted", "for tests", suggest, anchors, fixed)
    monkeypatch.setitem(spaces.PRESETS, "scripted", space)
    plan = SearchConfig(
        "scripted", len(rates), "run", out=str(tmp_path), scheduler="none", gpus_per_trial=0.4
    )
    record = {"search": plan.as_dict(), "fixed": dict(fixed)}
    store = RunStore.create(tmp_path / "run", parameters=PARAMETERS, plan=record)
    notes = tmp_path / "notes"
    notes.mkdir()
    resources = resolve_resources(plan, gpus)
    search(plan, store, resources, train=partial(pretended_worker.train, notes, 4))

    found = [json.loads(note.read_text()) for note in notes.iterdir()]
    assert {note["devices"] for note in found} == {"5", "7"}
    assert [note["limits"] for note in found] == [[0.4]] * len(rates)  # and none was tried again
    most = max(
        sum(each["began"] <= note["began"] < each["ended"] for each in found) for note in found
    )
    assert most == 4

    trials = store.read("trials").set_index("params.optimizer.learning_rate")
    ended = trials.pop("outcome")
    assert ended.pop(pretended_worker.EXHAUSTS) == "out_of_memory"
    assert set(ended) == {"completed"}
    (failure,) = store.read("failures").to_dict("records")
    assert failure["attempt"] == 1
    assert (failure["cause"], failure["peak_bytes"]) == ("OutOfMemoryError", 3 * 2**30)
    assert "CUDA out of memory" in failure["message"]
    assert failure["remedy"].startswith("raise --gpus-per-trial (it had 0.4 of a GPU")
    assert set(trials["device"]) == {"cuda"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_preflight_refuses_a_gpu_that_pytorch_does_not_see(gpus):
    plan = SearchConfig("eigengap", 1, "x", gpus_per_trial=0.5)
    with pytest.raises(Refused, match=r"a worker with 0\.5 GPUs .* sees none on .*'[57]'"):
        checks.check_backends(plan, resolve_resources(plan, gpus), gpus)
