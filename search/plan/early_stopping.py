"""Early stopping: schedulers that end weak trials, as plain code without Ray.

A scheduler compares trials after whole epochs by their objective (smaller is better), which is
already a mean over their last epochs (`config.objective_window`). All that it knows of earlier
trials is in the table `epochs`, so that a resumed search restores it and decides as an undisturbed
one would; Ray's own schedulers lose their rungs with the driver and draw hyperband's brackets from
a global random generator.

- `asha`: at rungs g, 3g, 9g ... epochs, a trial stops unless it is within the best third of those
  that were there before it (Li et al. 2020, "A system for massively parallel hyperparameter
  tuning", the stopping variant).
- `hyperband`: the same with several first rungs side by side, so that slow starters get a chance;
  trials are dealt out in the proportions of Li et al. 2018, "Hyperband", algorithm 1, by number.
- `median`: at every epoch a trial stops if its best value is worse than the median of the others'
  running means there (Golovin et al. 2017, "Google Vizier", section 3.2.2).
- `none`: never.

Networks of different kinds race each other from the first rung on, where most with an eigengap
term would be stopped before the search can say what the term does. So at the rungs of `asha` and
`hyperband` the first two of the `spared` trials go on, too, and later ones that are the best of
them so far, whatever the others have reached.
"""

from collections.abc import Callable, Mapping
from statistics import fmean, median

import numpy as np

REDUCTION = 3
"""One trial in this many goes on from a rung."""

SPARED = 2
"""Number of spared trials that go on from a rung in any case."""

MEDIAN_OF = 3
"""Minimum number of other trials for a median."""


def first_rung(epochs: int) -> int:
    """Return the number of epochs that every trial gets: a ninth of the budget."""
    return max(1, epochs // REDUCTION**2)


class Rungs:
    """Asynchronous successive halving, in brackets of rungs (in epochs, ascending) that get trials
    in the proportion of `shares`; one trial in `reduction` goes on from a rung."""

    def __init__(
        self, brackets: list[list[int]], shares: list[float], reduction: int = REDUCTION
    ) -> None:
        self.brackets = brackets
        self._reduction = reduction
        self._shares = [share / sum(shares) for share in shares]
        self._dealt: list[int] = []
        self._reached: dict[tuple[int, int], dict[str, tuple[float, bool]]] = {}

    def should_stop(
        self, trial: str, number: int, epoch: int, value: float, *, spared: bool = False
    ) -> bool:
        """Return whether the value at a rung is outside the best share of the earlier ones, and
        not the best of the spared ones, or one of their first; a repeated epoch counts once."""
        bracket = self.bracket(number)
        if epoch not in self.brackets[bracket]:
            return False
        there = self._reached.setdefault((bracket, epoch), {})
        if trial in there:
            return False  # a retried trial passes its rungs again
        before = list(there.values())
        there[trial] = value, spared
        alike = [earlier for earlier, other in before if other]
        if spared and (len(alike) < SPARED or value < min(alike)):
            return False
        earlier = [each for each, _ in before]
        return bool(earlier) and value > float(np.quantile(earlier, 1 / self._reduction))

    def restore(
        self, trial: str, number: int, values: Mapping[int, float], *, spared: bool = False
    ) -> None:
        """Restore a trial's objectives by epoch, without deciding again."""
        bracket = self.bracket(number)
        for epoch in self.brackets[bracket]:
            if epoch in values:
                self._reached.setdefault((bracket, epoch), {})[trial] = values[epoch], spared

    def bracket(self, number: int) -> int:
        """Return the bracket of trial `number`: the one that lags most behind its share."""
        while len(self._dealt) <= number:
            dealt = len(self._dealt) + 1
            lag = [dealt * s - self._dealt.count(b) for b, s in enumerate(self._shares)]
            self._dealt.append(lag.index(max(lag)))
        return self._dealt[number]


class Median:
    """The median stopping rule, from the first rung on."""

    def __init__(self, epochs: int) -> None:
        self._first = first_rung(epochs)
        self._values: dict[str, dict[int, float]] = {}

    def should_stop(
        self, trial: str, number: int, epoch: int, value: float, *, spared: bool = False
    ) -> bool:
        """Return whether the best value is worse than the median of the others' means; a repeated
        epoch counts once. No trial is `spared`."""
        del spared
        own = self._values.setdefault(trial, {})
        known = epoch in own
        own[epoch] = value
        if known or epoch < self._first:
            return False
        others = [
            fmean(v for e, v in values.items() if e <= epoch)
            for name, values in self._values.items()
            if name != trial and epoch in values
        ]
        return len(others) >= MEDIAN_OF and min(own.values()) > median(others)

    def restore(
        self, trial: str, number: int, values: Mapping[int, float], *, spared: bool = False
    ) -> None:
        """Restore a trial's objectives by epoch, without deciding again."""
        del spared
        self._values.setdefault(trial, {}).update(values)


def asha(epochs: int, *, first: int | None = None, reduction: int = REDUCTION) -> Rungs:
    """Return ASHA with one bracket, the most eager one; `first` is its first rung in epochs."""
    rungs, rung = [], first_rung(epochs) if first is None else first
    while rung < epochs:  # a trial that has trained all epochs is through
        rungs.append(rung)
        rung *= reduction
    return Rungs([rungs], [1.0], reduction)


def hyperband(epochs: int) -> Rungs:
    """Return hyperband: ASHA's bracket and every later start, the last without any rung."""
    (rungs,) = asha(epochs).brackets
    brackets = [rungs[skipped:] for skipped in range(len(rungs) + 1)]
    # a bracket of s rungs begins with about eta^s / (s + 1) trials for equal budgets
    return Rungs(brackets, [REDUCTION ** len(b) / (len(b) + 1) for b in brackets])


def judged_epochs(epochs: int) -> set[int]:
    """Return the epochs after which errors by scene are kept: ASHA's rungs, and the last."""
    return {*asha(epochs).brackets[0], epochs}


EarlyStopper = Rungs | Median
EARLY_STOPPERS: dict[str, Callable[[int], EarlyStopper]] = {
    "asha": asha,
    "hyperband": hyperband,
    "median": Median,
    "none": lambda epochs: Rungs([[]], [1.0]),
}


def early_stopper(scheduler: str, epochs: int) -> EarlyStopper:
    """Return the scheduler of that name for trials of at most `epochs`."""
    return EARLY_STOPPERS[scheduler](epochs)
