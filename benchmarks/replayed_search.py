"""Replay of a search over recorded trainings: the shipped sampler, outcomes and rungs on an event
clock.

Two workers train what is suggested on a clock of their own, an event per epoch. A suggestion is
mapped to the nearest configuration of the table that the search has not used yet, and the study is
told of that one, so what a sampler learns is true. The suggesting, judging and telling are those
of `search/suggest/samplers.py`, `study.py`, `outcome.py` and `early_stopping.py`.

Distance: sum over all names that either configuration was asked for of |Δ| on the parameter's own
scale (logarithmic where it is), 1 for unequal categories, 1 for a name that only one of them has.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
import optuna
from local_table import Training
from optuna.distributions import BaseDistribution, CategoricalDistribution

from search.plan import RULES, EarlyStopper, Outcome, SearchConfig, objective_window
from search.suggest import CONSTRAINT, EndedTrial, distributions, new_study, state_and_values

Sampler = Callable[[SearchConfig, int], optuna.samplers.BaseSampler]


@dataclass(frozen=True)
class Contender:
    """A way to search.

    Attributes:
        name: as printed.
        sampler: of the trial with that number; as in `search.suggest.samplers.SAMPLERS`.
        judge: for trials of so many epochs; as in `search.plan.early_stopping.EARLY_STOPPERS`.
        workers: trials at a time.
        reads: name of the sampler whose rules of telling apply.
        tell: what the sampler is told of an ended trial; `study.told` is our table.
        anchors: whether the preset's known-good configurations come first.
        judged: how many last epochs an objective is the mean of.
        spares: whether the judge spares trials with an eigengap term, as in a search.
    """

    name: str
    sampler: Sampler
    judge: Callable[[int], EarlyStopper]
    workers: int = 2
    reads: str = "tpe"
    tell: Callable[..., tuple[optuna.trial.TrialState, Any]] = state_and_values
    anchors: bool = False
    judged: int | None = None
    spares: bool = True


class Table:
    """Recorded trainings of one space, and which of them is nearest to a suggestion."""

    def __init__(self, plan: SearchConfig, trainings: Sequence[Training]) -> None:
        self.trainings = trainings
        self.epochs = plan.template.epochs
        self._space = plan.space
        self._laws: dict[str, BaseDistribution] = {}
        self._places = [self._place(each.sampler) for each in trainings]
        drawn = [plan.space.draw(each.sampler) for each in trainings]
        self.with_term = [plan.spares(each) for each in drawn]

    def nearest(self, values: Mapping[str, Any], unused: Sequence[int]) -> int:
        """Return the index of the unused training nearest to what a sampler drew; the first of
        equals."""
        place = self._place(values)
        return min(unused, key=lambda index: _distance(place, self._places[index]))

    def best(self, share: float, judged: int) -> set[int]:
        """Return the indices of that share of all configurations with the smallest final
        objectives."""
        final = {
            index: fmean(each.errors[-judged:])
            for index, each in enumerate(self.trainings)
            if not each.diverged
        }
        wanted = round(share * len(self.trainings))
        return set(sorted(final, key=lambda index: final[index])[:wanted])

    def _place(self, values: Mapping[str, Any]) -> dict[str, Any]:
        if not values.keys() <= self._laws.keys():
            self._laws |= distributions(self._space, values)
        return {name: _unit(self._laws[name], value) for name, value in values.items()}


def compute_to_reach(
    contender: Contender, table: Table, plan: SearchConfig, goal: set[int]
) -> float:
    """Return seconds of training, of all workers, until one of `goal` is trained to its end;
    infinite if the whole table is tried before."""
    for clock, index, outcome in endings(contender, table, plan):
        if outcome is Outcome.COMPLETED and index in goal:
            return clock * contender.workers
    return float("inf")


def endings(
    contender: Contender, table: Table, plan: SearchConfig, trials: int | None = None
) -> Iterator[tuple[float, int, Outcome]]:
    """Yield the time, the index in the table and the outcome of each trial as it ends, of so many
    or until the table is used up."""
    plan = replace(plan, sampler=contender.reads)
    judged = contender.judged or objective_window(table.epochs)
    study, judge = new_study(plan), contender.judge(table.epochs)
    unused = list(range(len(table.trainings)))
    left = len(unused) - (trials or len(unused))
    events: list[tuple[float, int, _Running]] = []

    def start(clock: float, worker: int) -> None:
        if len(unused) > left:
            running = _suggest(contender, study, plan, table, unused)
            heapq.heappush(events, (clock + running.training.seconds[0], worker, running))

    for worker in range(contender.workers):
        start(0.0, worker)
    while events:
        clock, worker, running = heapq.heappop(events)
        outcome = running.step(judge, judged)
        if outcome is None:
            cost = running.training.seconds[len(running.values)]
            heapq.heappush(events, (clock + cost, worker, running))
            continue
        yield clock, running.index, outcome
        running.tell(contender, study, plan, outcome)
        start(clock, worker)


@dataclass
class _Running:
    """A trial on its way: its training, its trial in the study, its objectives so far."""

    number: int
    index: int
    training: Training
    trial: optuna.trial.Trial
    values: dict[int, float]
    spared: bool

    def step(self, judge: EarlyStopper, judged: int) -> Outcome | None:
        """Train one more epoch; return how the trial ended with it, or None."""
        epoch = len(self.values) + 1
        if epoch > len(self.training.errors):
            return Outcome.DIVERGED
        self.values[epoch] = fmean(self.training.errors[max(0, epoch - judged) : epoch])
        at = epoch, self.values[epoch]
        stops = judge.should_stop(str(self.number), self.number, *at, spared=self.spared)
        if epoch == len(self.training.errors) and not self.training.diverged:
            return Outcome.COMPLETED
        return Outcome.STOPPED if stops else None

    def tell(
        self, contender: Contender, study: optuna.Study, plan: SearchConfig, outcome: Outcome
    ) -> None:
        past = EndedTrial(str(self.number), self.number, self.training.sampler, outcome)
        past = replace(past, values=self.values)
        state, values = contender.tell(past, plan, to_sampler=True)
        for epoch, value in self.values.items():
            self.trial.report(value, step=epoch)
        self.trial.set_constraint(CONSTRAINT, float(RULES[outcome].constraint))
        study.tell(self.trial, values, state=state)


def _suggest(
    contender: Contender,
    study: optuna.Study,
    plan: SearchConfig,
    table: Table,
    unused: list[int],
) -> _Running:
    """Asks for the next configuration, and runs the one of the table that is nearest to it."""
    number = len(table.trainings) - len(unused)
    anchors = plan.space.anchors if contender.anchors else ()
    if number < len(anchors):
        values, noted = dict(anchors[number]), {}
    else:
        study.sampler = contender.sampler(plan, number)
        draft = study.ask()
        plan.space.suggest(draft)
        values, noted = dict(draft.params), study._storage.get_trial_system_attrs(draft._trial_id)
        study.tell(draft, state=optuna.trial.TrialState.FAIL)  # never run: nothing is learnt of it
    index = table.nearest(values, unused)
    unused.remove(index)
    study.sampler = optuna.samplers.RandomSampler(seed=0)  # not asked: all is given
    study.enqueue_trial(dict(table.trainings[index].sampler))
    trial = study.ask()
    plan.space.suggest(trial)
    for name, value in noted.items():  # CMA-ES keeps its generations there
        study._storage.set_trial_system_attr(trial._trial_id, name, value)
    spared = contender.spares and table.with_term[index]
    return _Running(number, index, table.trainings[index], trial, {}, spared)


def _unit(law: BaseDistribution, value: Any) -> Any:
    """A number's place in its range, from 0 to 1; a category as it is."""
    if isinstance(law, CategoricalDistribution):
        return str(value)
    low, high, value = float(law.low), float(law.high), float(value)
    if law.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return (value - low) / (high - low)


def _distance(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    total = float(len(one.keys() ^ other.keys()))
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        total += float(a != b) if isinstance(a, str) else abs(a - b)
    return total
