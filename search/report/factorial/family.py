"""The tests of a design: effects of many cells, each from few seeds on common scenes.

A cell has differences [seeds, scenes], with minus without. Seeds and scenes are both drawn, so its
variance is that of `crossed_moments`. A variance of five seeds has four degrees of freedom, too
few for a family of hundreds of tests, so the seeds' shares of like cells (one outcome and network)
inform each other (`moderated`), but none is taken to be smaller than it was: where variances truly
differ, that would be wrong in more than 5 % of families. A mean is tested against 0 and, by two
one-sided tests, against a margin; all p values of a family are adjusted together by Holm's method.

`benchmarks/coverage.py` simulates the whole of it.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from search.report.analysis import (
    Values,
    combined_shares,
    crossed_shares,
    difference_p,
    equivalence_p,
    holm,
    moderated,
)
from trainer.intervals import Interval

LEVEL = 0.05
"""Probability of any wrong verdict in a family."""


@dataclass(frozen=True)
class Judged:
    """Effects of the cells of a family, [cells] each: mean, standard error, its degrees of
    freedom, and the adjusted p values of no difference and of one beyond the margin."""

    mean: Values
    error: Values
    freedom: Values
    difference: Values
    equivalence: Values
    units: Values

    def interval(self, cell: int, level: float = 0.95) -> Interval:
        """Return the effect of a cell with its interval, for this cell alone."""
        mean, error, freedom = (float(x[cell]) for x in (self.mean, self.error, self.freedom))
        reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
        return Interval(mean, mean - reach, mean + reach, int(self.units[cell]), level)


def judge(values: Sequence[Values], margins: ArrayLike, groups: Sequence[Hashable]) -> Judged:
    """Return the tests of a family.

    Args:
        values: of each cell, [seeds, scenes], with two or more of both.
        margins: of each cell.
        groups: of each cell, what it shares with like ones.
    """
    shares = np.array([[float(x) for x in crossed_shares(one)] for one in values])
    mean, of_units, of_scenes, of_rest = shares.reshape(len(values), 4).T
    units = np.array([len(one) for one in values], dtype=float)
    scenes = np.array([one.shape[1] for one in values], dtype=float)
    variance, freedom = of_units * units, units - 1
    for group in dict.fromkeys(groups):
        own = np.array([each == group for each in groups])
        common, freedom[own] = moderated(variance[own], freedom[own])
        variance[own] = np.maximum(variance[own], common)
    error, freedom = combined_shares(variance / units, of_scenes, of_rest, freedom, scenes - 1)
    both = [
        difference_p(mean, error, freedom),
        equivalence_p(mean, error, freedom, np.asarray(margins, dtype=float)),
    ]
    difference, equivalence = np.split(holm(np.concatenate(both)), 2)
    return Judged(mean, error, freedom, difference, equivalence, units)


def verdict(judged: Judged, cell: int, better: int) -> str:
    """Return "helps", "hurts", "equivalent" or "not known"; `better` is the sign of a gain.

    What differs, but by less than the margin, is equivalent.
    """
    if judged.equivalence[cell] <= LEVEL:
        return "equivalent"
    if judged.difference[cell] <= LEVEL:
        return "helps" if judged.mean[cell] * better > 0 else "hurts"
    return "not known"
