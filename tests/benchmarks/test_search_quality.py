"""A replayed search costs what its trials cost, and asks the table for what is nearest."""

import itertools
import math
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from local_table import TABLE, Training, load
from replayed_search import Contender, Table, compute_to_reach
from search_quality import GROUPS, OURS, shipped

from search.plan.config import SearchConfig
from search.plan.early_stopping import asha, early_stopper
from search.suggest.samplers import SAMPLERS, sampler_for
from search.suggest.study import new_study

PLAN = SearchConfig("local", 1, "replay")
RANDOM = Contender(
    "random", SAMPLERS["random"], partial(early_stopper, "none"), workers=1, reads="random"
)


def trainings(count, *, diverged=()):
    """Made-up results of drawn configurations: the higher its number, the better."""
    found = []
    plan = replace(PLAN, sampler="random", seed=7)
    study = new_study(plan)
    for number in range(count):
        study.sampler = sampler_for(plan, number)
        trial = study.ask()
        plan.space.suggest(trial)
        good = number not in diverged
        errors = tuple(0.9 - number / 100 - epoch / 1000 for epoch in range(10 if good else 3))
        seconds = (float(number + 1),) * (10 if good else 4)
        found.append(Training(number, trial.params, errors, seconds, 0.1 if good else None))
    return found


@pytest.fixture(scope="module")
def table():
    return Table(PLAN, trainings(24, diverged=(5, 23)))


def test_a_configuration_of_the_table_is_nearest_to_itself(table):
    everything = list(range(24))
    for index, training in enumerate(table.trainings):
        assert table.nearest(training.sampler, everything) == index
        rest = [other for other in everything if other != index]
        assert table.nearest(training.sampler, rest) != index


def test_a_category_weighs_more_than_any_distance_within_its_branch():
    drawn = dict(trainings(1)[0].sampler)
    near = drawn | {"optimizer.learning_rate": 3e-2 if drawn["optimizer.learning_rate"] < 1e-2
                    else 1e-3}  # fmt: skip
    other = "off" if drawn["eigengap.term"] == "on" else "on"
    values = {name: drawn[name] for name in drawn if "eigengap" not in name and "@" not in name}
    if other == "on":
        more = {"eigengap.definition": "gap", "eigengap.weight": 0.1, "eigengap.margin": 0.1}
        backend = f"spectral.backend@{drawn['network.kind']}.values"
        values |= more | {backend: "exact"}
    values["eigengap.term"] = other
    rows = [Training(n, row, (0.5,), (1.0,), 0.5) for n, row in enumerate((values, near))]
    assert Table(PLAN, rows).nearest(drawn, [0, 1]) == 1


def test_the_best_share_counts_all_configurations_and_holds_no_diverged_one(table):
    assert table.best(0.125, judged=2) == {22, 21, 20}


def test_a_sequential_search_without_stopping_costs_the_sum_of_its_trials(table):
    last_of = {}
    for index in range(24):
        needed = compute_to_reach(RANDOM, table, PLAN, {index})
        last_of[index] = needed
    assert math.isinf(last_of.pop(5))  # diverged: it never ends well
    assert math.isinf(last_of.pop(23))
    order = sorted(last_of, key=last_of.get)
    costs = {n: sum(each.seconds) for n, each in enumerate(table.trainings)}
    for before, after in itertools.pairwise(order):
        between = last_of[after] - last_of[before] - costs[after]
        diverged = {costs[5], costs[23], costs[5] + costs[23]}  # their epochs are paid for too
        assert between == pytest.approx(0) or any(between == pytest.approx(d) for d in diverged)


def test_two_workers_pay_for_what_the_other_one_does_meanwhile(table):
    everything = set(range(24))
    alone = compute_to_reach(RANDOM, table, PLAN, everything)
    together = compute_to_reach(replace(RANDOM, workers=2), table, PLAN, everything)
    assert together <= 2 * alone  # one of two may end before
    assert compute_to_reach(RANDOM, table, PLAN, set()) == math.inf


def test_stopping_early_costs_less_where_early_epochs_say_who_is_good(table):
    goal = table.best(0.1, judged=2)
    for seed in range(5):
        plan = replace(PLAN, seed=seed)
        stopped = compute_to_reach(replace(RANDOM, judge=asha), table, plan, goal)
        assert stopped <= compute_to_reach(RANDOM, table, plan, goal)


@pytest.mark.parametrize("sampler", ["tpe", "qmc", "cmaes"])
def test_every_contender_is_reproducible(sampler, table):
    contender = shipped(sampler)
    goal = table.best(0.05, judged=2)
    assert compute_to_reach(contender, table, PLAN, goal) == compute_to_reach(
        contender, table, PLAN, goal
    )


def test_the_contenders_have_names_of_their_own():
    names = [contender.name for group in GROUPS.values() for contender in group]
    assert len(names) == len(set(names))
    assert OURS.sampler is SAMPLERS["tpe"]


@pytest.mark.skipif(not TABLE.exists(), reason="no table was recorded")
def test_the_shipped_table_holds_real_trainings_at_every_rung():
    rows = load()
    assert len({training.number for training in rows}) == len(rows)
    for training in rows:
        PLAN.space.draw(training.sampler)
        assert training.diverged or len(training.errors) == PLAN.template.epochs
        assert len(training.seconds) == len(training.errors) + training.diverged
        assert all(0 < error <= 1 for error in training.errors)
