"""Schedulers compare a trial with earlier ones in epochs, the same after a restart."""

import random

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler

from search.plan.config import SCHEDULERS, objective_window
from search.plan.early_stopping import EARLY_STOPPERS, Rungs, asha, early_stopper, hyperband

CURVES = {
    f"t{n:04d}": (n, {e: random.Random(100 * n + e).random() for e in range(1, 19)})
    for n in range(40)
}


def run_in_lockstep(stopper, names, until=18):
    """Runs the trials in lock-step; the epoch each one stopped at, and the epochs it had."""
    stopped, had = {}, {name: {} for name in names}
    for epoch in range(1, until + 1):
        for name in [n for n in names if n not in stopped]:
            number, values = CURVES[name]
            had[name][epoch] = values[epoch]
            if stopper.should_stop(name, number, epoch, values[epoch]):
                stopped[name] = epoch
    return stopped, had


def test_every_scheduler_that_can_be_asked_for_exists():
    assert set(EARLY_STOPPERS) == set(SCHEDULERS)


def test_rungs_are_in_epochs_and_end_before_the_budget():
    assert asha(18).brackets == [[2, 6]]
    assert asha(81).brackets == [[9, 27]]
    assert asha(1).brackets == [[]]
    assert hyperband(18).brackets == [[2, 6], [6], []]


def test_only_the_best_third_of_those_before_goes_on():
    stopper = Rungs([[1]], [1.0])
    for n, value in enumerate((0.1, 0.2, 0.3, 0.4)):
        stopper.restore(f"t{n}", n, {1: value})
    assert stopper.should_stop("worse", 8, 1, 0.21)
    assert not stopper.should_stop("better", 9, 1, 0.19)
    assert not Rungs([[1]], [1.0]).should_stop("first", 0, 1, 1.0)


def test_asha_stops_what_rays_asha_stops():
    """Ray's own rule, on the same stream of results."""
    ours = asha(18)
    theirs = AsyncHyperBandScheduler(
        time_attr="epoch", metric="m", mode="min", max_t=18, grace_period=2, reduction_factor=3
    )

    class RayTrial:
        def __init__(self, name):
            self.trial_id = name

        stopping_criterion = {}  # noqa: RUF012

    for name in CURVES:
        theirs.on_trial_add(None, RayTrial(name))
    stopped = {}
    for epoch in range(1, 18):
        for name in [n for n in CURVES if n not in stopped]:
            value = CURVES[name][1][epoch]
            word = theirs.on_trial_result(None, RayTrial(name), {"epoch": epoch, "m": value})
            if word == "STOP":
                stopped[name] = epoch
    assert run_in_lockstep(ours, list(CURVES), until=17)[0] == stopped
    assert stopped


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_restored_scheduler_decides_as_an_undisturbed_one(scheduler):
    names = list(CURVES)
    whole = early_stopper(scheduler, 18)
    stopped, had = run_in_lockstep(whole, names[:30])
    resumed = early_stopper(scheduler, 18)
    for name in names[:30]:
        resumed.restore(name, CURVES[name][0], had[name])
    assert run_in_lockstep(resumed, names[30:]) == run_in_lockstep(whole, names[30:])
    assert bool(stopped) == (scheduler != "none")


@pytest.mark.parametrize("scheduler", ["asha", "hyperband"])
def test_an_epoch_that_is_reported_again_is_not_compared_again(scheduler):
    stopper = early_stopper(scheduler, 18)
    assert not stopper.should_stop("t", 0, 2, 0.5)
    stopper.restore("better", 0, {2: 0.1})
    assert not stopper.should_stop("t", 0, 2, 0.5)


def test_hyperbands_brackets_get_their_shares_by_number_alone():
    stopper = hyperband(18)
    dealt = [stopper.bracket(n) for n in range(110)]
    assert dealt == [hyperband(18).bracket(n) for n in range(110)]
    # eta^s / (s + 1) for s = 2, 1, 0 rungs: 3 : 1.5 : 1
    for bracket, share in enumerate((60, 30, 20)):
        assert abs(dealt.count(bracket) - share) <= 1


def test_the_median_rule_needs_others_and_compares_with_their_running_means():
    stopper = early_stopper("median", 9)
    assert not stopper.should_stop("alone", 0, 1, 1.0)  # and is one of the others from here on
    for n, value in enumerate((0.1, 0.2, 0.3)):
        stopper.restore(f"t{n}", n, {1: value, 2: value})
    assert stopper.should_stop("above", 8, 1, 0.26)
    assert not stopper.should_stop("below", 9, 1, 0.19)
    assert not stopper.should_stop("below", 9, 2, 1.0)  # its best counts, not its last


def test_an_objective_is_the_mean_of_the_last_fifth_of_the_budget():
    assert [objective_window(e) for e in (1, 3, 11, 12, 18, 40)] == [2, 2, 2, 2, 3, 8]
