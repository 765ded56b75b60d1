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


def run_in_lockstep(stopper, names, until=18, spared=range(0, 40, 5)):
    """Runs the trials in lock-step; the epoch each one stopped at, and the epochs it had."""
    stopped, had = {}, {name: {} for name in names}
    for epoch in range(1, until + 1):
        for name in [n for n in names if n not in stopped]:
            number, values = CURVES[name]
            had[name][epoch] = values[epoch]
            if stopper.should_stop(name, number, epoch, values[epoch], spared=number in spared):
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


def test_the_first_two_spared_trials_go_on_and_whichever_is_the_best_of_them():
    stopper = Rungs([[1]], [1.0])
    for n, value in enumerate((0.1, 0.2, 0.3)):
        stopper.restore(f"t{n}", n, {1: value})
    reached = [("first", 0.9, True), ("second", 0.8, True), ("plain", 0.7, False)]
    reached += [("third", 0.85, True), ("best", 0.75, True), ("good", 0.1, True)]
    stopped = [
        name for n, (name, value, spared) in enumerate(reached)
        if stopper.should_stop(name, 3 + n, 1, value, spared=spared)
    ]  # fmt: skip
    assert stopped == ["plain", "third"]


@pytest.mark.parametrize("seed", range(20))
def test_two_spared_trials_complete_whatever_the_order_and_the_workers(seed):
    draw, stopper = random.Random(seed), asha(10)
    left = dict.fromkeys(range(12), 0)
    spared, completed = set(draw.sample(sorted(left), 4)), []
    while left:
        number = draw.choice(sorted(left)[:2])  # two at a time, each at its own pace
        left[number] += 1
        value = draw.random() + (number in spared)  # far behind the others
        at = number, left[number], value
        stops = stopper.should_stop(f"t{number}", *at, spared=number in spared)
        if stops or left[number] == 10:
            completed += [] if stops else [number]
            del left[number]
    assert len(spared & {*completed}) >= 2


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
    assert run_in_lockstep(ours, list(CURVES), until=17, spared=())[0] == stopped
    assert stopped


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_restored_scheduler_decides_as_an_undisturbed_one(scheduler):
    names = list(CURVES)
    whole = early_stopper(scheduler, 18)
    stopped, had = run_in_lockstep(whole, names[:30])
    resumed = early_stopper(scheduler, 18)
    for name in names[:30]:
        number = CURVES[name][0]
        resumed.restore(name, number, had[name], spared=number % 5 == 0)
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
