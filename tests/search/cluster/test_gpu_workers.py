"""Trials on shares of GPUs: the memory that they may take, and kinds of GPUs."""

import pytest
import ray
import torch

from search.cluster import checks, memory
from search.plan.config import SearchConfig
from search.plan.errors import Refused
from search.plan.resources import GB, Cluster, Memory, Node, Resources

NODE = Node(8, 2, gpu_kind="T4")
ONE = Resources(cpus=1, gpus=0.5, concurrent=1)


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
