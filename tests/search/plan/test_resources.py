"""Shares of machines for one trial, and the number of trials at a time."""

import pytest

from search.plan.config import SearchConfig
from search.plan.errors import Refused
from search.plan.resources import (
    GB,
    LOCAL_GPU_SHARE,
    MEMORY_MARGIN,
    Cluster,
    Memory,
    Node,
    Resources,
    resolve_resources,
    with_memory,
)
from trainer.config import ConfigError


def resolved(*nodes: Node, can_grow: bool = False, trials: int = 100, **more):
    return resolve_resources(
        SearchConfig("smoke", trials, "x", **more), Cluster(nodes, can_grow=can_grow)
    )


@pytest.mark.parametrize(("share", "at_a_time"), [(1.0, 2), (0.5, 4), (0.25, 8), (0.1, 20)])
def test_trials_share_a_gpu_as_far_as_its_machine_has_cores(share, at_a_time):
    assert resolved(Node(64, 2), gpus_per_trial=share).concurrent == at_a_time
    assert resolved(Node(3, 2), gpus_per_trial=share).concurrent == min(3, at_a_time)


def test_trials_share_a_core_and_have_one_thread_then():
    some = resolved(Node(2, 0), cpus_per_trial=0.1)
    assert (some.concurrent, some.threads, some.gpus) == (20, 1, 0.0)
    assert resolved(Node(8, 0), cpus_per_trial=3).threads == 3
    assert resolved(Node(8, 0), cpus_per_trial=3).concurrent == 2


def test_a_gpu_is_shared_unless_asked_otherwise_and_left_alone_if_so():
    assert resolved(Node(16, 1)).gpus == LOCAL_GPU_SHARE
    assert resolved(Node(16, 1)).concurrent == 4
    assert resolved(Node(16, 1), gpus_per_trial=0).concurrent == 16
    assert resolved(Node(16, 1), settings=("device=cpu",)).gpus == 0
    assert resolved(Node(16, 0)).gpus == 0


@pytest.mark.parametrize(("share", "at_a_time"), [(0.4, 4), (0.3, 6), (0.75, 2), (2.0, 1)])
def test_a_share_is_of_one_gpu(share, at_a_time):
    """What is left of two GPUs makes no share; a trial of several GPUs has whole ones."""
    assert resolved(Node(64, 2), gpus_per_trial=share).concurrent == at_a_time
    for wrong in (1.5, 1e-5, -0.25, float("nan")):
        with pytest.raises(ConfigError, match=r"a fraction from 0\.0001 to 1, or whole,.* got"):
            resolved(Node(64, 2), gpus_per_trial=wrong)


@pytest.mark.parametrize(("device", "share"), [("cpu", 0.25), ("cuda", 0.0)])
def test_a_trial_that_is_not_given_its_device_is_refused(device, share):
    with pytest.raises(Refused, match=rf"device={device} and a trial gets {share:g} GPUs\. Give"):
        resolved(Node(16, 1), settings=(f"device={device}",), gpus_per_trial=share)


def test_a_trial_that_no_machine_could_ever_hold_is_refused_with_the_largest():
    with pytest.raises(Refused, match=r"4 CPUs and 0 GPUs, but the largest has 2 CPUs"):
        resolved(Node(2, 0), Node(2, 0), cpus_per_trial=4)
    with pytest.raises(Refused, match="Lower --cpus-per-trial or --gpus-per-trial"):
        resolved(Node(8, 0), gpus_per_trial=1)
    assert resolved(can_grow=True, max_concurrent=7, gpus_per_trial=1).concurrent == 7


def test_no_more_run_at_a_time_than_there_are_trials():
    assert resolved(Node(64, 0), trials=5).concurrent == 5
    assert resolved(Node(64, 0), max_concurrent=3).concurrent == 3


def test_as_many_run_at_a_time_as_the_memory_of_each_machine_holds():
    machines = Cluster((Node(8, 0, 16 * GB), Node(8, 0, 5 * GB), Node(8, 0, 3 * GB)))
    step = Memory(host=4 * GB / MEMORY_MARGIN)
    held = with_memory(Resources(1, 0, 24), machines, step)
    assert (held.concurrent, held.memory) == (4 + 1 + 0, pytest.approx(4 * GB, abs=1))
    assert with_memory(Resources(1, 0, 2), machines, step).concurrent == 2
    cores = with_memory(Resources(4, 0, 6), machines, Memory(host=GB))
    assert cores.concurrent == 6  # then it is the cores that there are too few of


def test_a_trial_that_no_machine_has_memory_for_is_refused_with_both_numbers():
    small = Cluster((Node(2, 0, 8 * GB), Node(2, 0, 2 * GB)))
    step = Memory(host=10 * GB / MEMORY_MARGIN)
    with pytest.raises(Refused, match=r"one takes 10.0 GB, and the largest has 8.0 GB"):
        with_memory(Resources(1, 0, 2), small, step)


def test_a_trial_that_exceeds_its_share_of_a_gpu_is_refused():
    gpu = Cluster((Node(16, 1, 64 * GB),))
    step = Memory(host=2 * GB, gpu=10 * GB, gpu_total=24 * GB)
    with pytest.raises(Refused, match=r"10.0 GB and 0.25 of 24.0 GB is 6.0 GB. Raise --gpus-per"):
        with_memory(Resources(1, 0.25, 4), gpu, step)
    assert with_memory(Resources(1, 0.5, 2), gpu, step).concurrent == 2
    two = Cluster((Node(16, 2, 64 * GB),))
    assert with_memory(Resources(1, 2, 1), two, step).memory == int(MEMORY_MARGIN * 2 * GB)
