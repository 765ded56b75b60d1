"""Another library's search is replayed as ours are: by the clock, told what is known by then."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import optuna
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import search_anchors
from local_table import Training
from other_searchers import place_of, value_at
from replayed_search import Contender, Table
from replayed_search import endings as ours_end
from search_anchors import Pruner, Remote, endings, optunas, seconds_to

from search.plan import Outcome, SearchConfig, asha, early_stopper
from search.suggest import SAMPLERS, new_study, sampler_for
from spaces import range_to_json

PLAN = SearchConfig("local", 1, "replay", sampler="random")
EPOCHS = PLAN.template.epochs


@pytest.fixture(scope="module")
def table():
    """Made-up trainings of drawn configurations, each at another cost; two diverge."""
    study, found = new_study(replace(PLAN, seed=7)), []
    for number in range(24):
        study.sampler = sampler_for(replace(PLAN, seed=7), number)
        trial = study.ask()
        PLAN.space.suggest(trial)
        length = 3 if number in (5, 23) else EPOCHS
        errors = tuple(0.9 - (number * 7 % 24) / 100 - epoch / 1000 for epoch in range(length))
        cost = 1 + number / 7
        held_out = None if length == 3 else 0.1
        seconds = (cost,) * (length + (length == 3))
        found.append(Training(number, trial.params, errors, seconds, held_out))
    return Table(PLAN, found)


class Stub:
    """A library that draws at random and notes what it is told, and by which early stopper or
    budget its trials pause."""

    def __init__(self, judge=None, budgets=(EPOCHS,)):
        self.judge, self.budgets = judge or early_stopper("none", EPOCHS), budgets
        self.study = new_study(PLAN)
        self.told, self.asked, self.trained = [], [], {}

    def ask(self):
        number = len(self.asked)
        self.study.sampler = SAMPLERS["random"](PLAN, number)
        trial = self.study.ask()
        PLAN.space.suggest(trial)
        values = {name: law.middle for name, law in PLAN.space.ranges().items()}
        self.asked.append(len(self.told))
        return str(number), values | trial.params, self.budgets[number % len(self.budgets)]

    def runs(self, trial, values):
        PLAN.space.draw(values)  # a whole configuration
        self.trained[trial] = values

    def report(self, trial, epoch, value):
        self.told.append((trial, epoch, value))
        stops = self.judge.should_stop(trial, int(trial), epoch, value)
        return "stop" if stops or epoch == EPOCHS else "continue"

    def failed(self, trial):
        self.told.append((trial, None, None))


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("judge", [asha, partial(early_stopper, "none")])
def test_a_library_that_draws_and_stops_as_ours_has_its_endings(table, workers, judge):
    ours = Contender("x", SAMPLERS["random"], judge, workers, "random", spares=False)
    expected = list(ours_end(ours, table, PLAN))
    assert list(endings(Stub(judge(EPOCHS)), table, PLAN, workers)) == expected
    assert {index for _, index, _ in expected} == set(range(24))


@pytest.mark.parametrize("workers", [1, 3])
def test_no_value_is_told_before_its_time_and_each_that_is_known_is_told(table, workers):
    stub = Stub()
    list(endings(stub, table, PLAN, workers))
    costs = {n: own.seconds[0] for n, own in enumerate(table.trainings)}
    index = {
        trial: next(n for n, own in enumerate(table.trainings) if own.sampler == values)
        for trial, values in stub.trained.items()
    }
    free, begins, times = [0.0] * workers, [], []
    for trial in stub.trained:  # in the order asked, on the worker that is free first
        at = min(free)
        epochs = len(table.trainings[index[trial]].seconds)
        begins.append(at)
        times += [at + costs[index[trial]] * (epoch + 1) for epoch in range(epochs)]
        free[free.index(at)] = at + costs[index[trial]] * epochs
    assert len(times) == len(stub.told)
    for begin, known in zip(begins, stub.asked, strict=False):
        before, by = (sum(t < begin + d for t in times) for d in (-1e-9, 1e-9))
        assert before <= known <= by


def test_the_clock_of_one_worker_is_the_sum_of_the_epochs_it_paid_for(table):
    stub = Stub(budgets=(1, 3, EPOCHS))
    spent, best = 0.0, {}
    for clock, _, _ in endings(stub, table, PLAN, 1):
        spent, best = 0.0, {}
        for trial, epoch, _ in stub.told:
            number = next(
                n for n, own in enumerate(table.trainings) if own.sampler == stub.trained[trial]
            )
            cost = table.trainings[number].seconds[0]
            if epoch is None:  # an epoch that diverges is paid for, and again when tried again
                spent += cost
            elif epoch > best.get(number, 0):
                spent, best[number] = spent + cost, epoch
        assert clock == pytest.approx(spent)
    assert len({tuple(sorted(v.items())) for v in stub.trained.values()}) == 24
    assert len(stub.told) == len({(str(stub.trained[t]), e) for t, e, _ in stub.told if e}) + sum(
        epoch is None for _, epoch, _ in stub.told
    )  # what was trained once is not trained again


def test_a_goal_is_reached_by_a_training_that_ends_and_lost_with_its_last():
    ended = [(3.0, 0, Outcome.STOPPED), (4.0, 2, Outcome.COMPLETED), (5.0, 1, Outcome.COMPLETED)]
    assert seconds_to(ended, [{1, 2}, {1}], 2) == [8.0, 10.0]
    left = iter(ended)
    assert seconds_to(left, [{0, 2}, {0}], 2) == [8.0, float("inf")]
    assert list(left) == ended[2:]  # not replayed on


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", ["SuccessiveHalvingPruner", "WilcoxonPruner"])
def test_a_pruner_of_optuna_ends_the_worst_and_not_the_best(table, name):
    pruner = Pruner(getattr(optuna.pruners, name), EPOCHS)
    stopped = []
    for number, level in enumerate((0.5, 0.4, 0.8, 0.3)):
        for epoch in range(1, EPOCHS + 1):
            if pruner.should_stop("", number, epoch, level - epoch / 1000):
                stopped.append(number)
                break
    assert 2 in stopped
    assert 3 not in stopped
    contender = optunas(getattr(optuna.pruners, name))
    assert any(end is Outcome.STOPPED for _, _, end in ours_end(contender, table, PLAN))


def test_places_in_a_unit_cube_are_values_and_back():
    for law in map(range_to_json, PLAN.space.ranges().values()):
        values = {value_at(law, place / 97) for place in range(98)}
        for value in values:
            assert value_at(law, place_of(law, value)) == pytest.approx(value)
        if law["kind"] == "choice":
            assert values == set(law["choices"])


def test_a_searcher_in_another_process_is_the_same_searcher(table, tmp_path, monkeypatch):
    script = tmp_path / "others.py"
    script.write_text(
        "import sys\n"
        f"sys.path[:0] = [{str(Path(search_anchors.__file__).parent)!r}]\n"
        "import other_searchers\n"
        "class First:\n"
        "    def __init__(self, ranges, epochs, seed):\n"
        "        self.ranges, self.epochs, self.asked = ranges, epochs, 0\n"
        "    def ask(self):\n"
        "        print('a library may print')\n"
        "        self.asked += 1\n"
        "        at = other_searchers.value_at\n"
        "        values = {name: at(law, 0.5) for name, law in self.ranges.items()}\n"
        "        return str(self.asked), values, self.epochs\n"
        "    def runs(self, trial, values): pass\n"
        "    def report(self, trial, epoch, value): return 'stop' if epoch == 2 else 'continue'\n"
        "    def failed(self, trial): raise RuntimeError\n"
        "other_searchers.SEARCHERS['first'] = First\n"
        "other_searchers.main()\n"
    )
    monkeypatch.setattr(search_anchors, "OTHERS", script)
    remote = Remote("first", sys.executable)
    for _ in range(2):
        remote.open(PLAN)
        found = list(endings(remote, table, PLAN, 2))
        assert [end for _, _, end in found] == [Outcome.STOPPED] * 24
    remote.close()
