"""Intervals for means, for paired differences, and for what several trainings share.

Two methods on the same scenes are compared by the differences of their errors, scene by scene:
what the scenes share cancels, and far fewer of them are needed. Values of one unit that was drawn
independently (such as a scene at several SNRs) are averaged first.

Trainings scored on common scenes are drawn twice: configurations (each with its own seeds) and
scenes. Each is a source of variance that the other does not contain; `crossed_interval` adds both.

References: Student's t; Cameron, Gelbach and Miller, "Robust inference with multiway clustering"
(2011), for two crossed units; Satterthwaite (1946) for degrees of freedom. Bootstrap-t is a third
wider of five units (benchmarks/coverage.py).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

from trainer.intervals import Interval

Values = NDArray[np.float64]

POWER = 0.8
"""Probability of detecting the smallest detectable effect."""


def mean_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean of independent values with its t interval.

    Raises:
        ValueError: for fewer than two values, or values that are not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(
            f"values must be finite and one-dimensional, but got shape {x.shape} with "
            f"{int((~np.isfinite(x)).sum())} that are not finite. Drop what failed, and say so."
        )
    if len(x) < 2:
        raise ValueError(
            f"an interval needs two or more independent units, but got {len(x)}. Add scenes."
        )
    if not 0 < level < 1:
        raise ValueError(f"`0 < level < 1` must hold, but got {level}. Try 0.95.")
    mean, error = float(x.mean()), float(stats.sem(x))
    reach = float(stats.t.ppf((1 + level) / 2, len(x) - 1)) * error
    return Interval(mean, mean - reach, mean + reach, len(x), level)


def crossed_interval(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Return the mean over units that were all scored on the same scenes, with its interval.

    Args:
        values: [units, scenes], finite: a row per configuration, the mean over its seeds; or, of
            one configuration, a row per seed.

    Raises:
        ValueError: for fewer than two units or scenes, or values that are not finite.
    """
    mean, error, freedom = _crossed(values)
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    return Interval(mean, mean - reach, mean + reach, len(np.asarray(values)), level)


def combined_interval(
    mean: float, shares: Sequence[tuple[float, float]], n: int, *, level: float = 0.95
) -> Interval:
    """Return the interval of a mean whose variance is a sum of independent estimates.

    Args:
        shares: each estimate of a variance, and its degrees of freedom.
        n: of the units, for the reader.
    """
    variance = sum(share for share, _ in shares)
    spread = sum(share**2 / freedom for share, freedom in shares)
    freedom = variance**2 / spread if spread > 0 else np.inf
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * variance**0.5
    return Interval(mean, mean - reach, mean + reach, n, level)


def detectable(values: ArrayLike, *, level: float = 0.95, power: float = POWER) -> float:
    """Return the smallest true mean whose `crossed_interval` excludes zero with probability
    `power`."""
    _, error, freedom = _crossed(values)
    return error * float(stats.t.ppf((1 + level) / 2, freedom) + stats.t.ppf(power, freedom))


def crossed_moments(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return mean, standard error and degrees of freedom of [*batch, units, scenes].

    In the model x = mean + unit + scene + rest, the variance of the mean is the units' share of it
    plus the scenes' share, less that of the rest, which is in both. It is never taken to be less
    than either share: such an estimate would be luck.
    """
    units, scenes = values.shape[-2:]
    mean, of_units, of_scenes, of_rest = crossed_shares(values)
    error, freedom = combined_shares(of_units, of_scenes, of_rest, units - 1.0, scenes - 1.0)
    return mean, error, freedom


def crossed_shares(values: Values) -> tuple[Values, Values, Values, Values]:
    """Return the mean of [*batch, units, scenes], and in its variance the shares of the units, of
    the scenes and of the rest, which is in both."""
    units, scenes = values.shape[-2:]
    mean = values.mean((-2, -1))
    by_unit, by_scene = values.mean(-1), values.mean(-2)
    rest = values - by_unit[..., None] - by_scene[..., None, :] + mean[..., None, None]
    of_units = by_unit.var(-1, ddof=1) / units
    of_scenes = by_scene.var(-1, ddof=1) / scenes
    of_rest = (rest**2).sum((-2, -1)) / ((units - 1) * (scenes - 1) * units * scenes)
    return mean, of_units, of_scenes, of_rest


def combined_shares(
    of_units: Values,
    of_scenes: Values,
    of_rest: Values,
    unit_freedom: Values | float,
    scene_freedom: Values | float,
) -> tuple[Values, Values]:
    """Return the standard error of a mean from its shares, and its degrees of freedom from those
    of the first two."""
    variance = np.maximum(of_units + of_scenes - of_rest, np.maximum(of_units, of_scenes))
    spread = of_units**2 / unit_freedom + of_scenes**2 / scene_freedom
    least = np.array(np.broadcast_to(unit_freedom, np.shape(variance)), dtype=float)
    freedom = np.divide(variance**2, spread, out=least.copy(), where=spread > 0)
    return np.sqrt(variance), np.maximum(freedom, least)


def moderated(variances: Values, freedom: Values) -> tuple[Values, Values]:
    """Return variances of like experiments, drawn towards their common value, and their degrees
    of freedom: an empirical Bayes estimate, of few values each (Smyth 2004, Statistical
    Applications in Genetics and Molecular Biology 3, sections 4 and 6.2).

    The more alike they are, the more each learns from the others; if they differ widely, each
    stays as it is. Variances of zero say nothing of the others.

    Args:
        variances: [experiments].
        freedom: degrees of freedom of each.
    """
    known = variances > 0
    if known.sum() < 3:
        return variances, freedom
    half = freedom[known] / 2
    logs = np.log(variances[known]) - special.digamma(half) + np.log(half)
    excess = float(logs.var(ddof=1) - special.polygamma(1, half).mean())
    if excess > 0:
        prior = 2 * _inverse_trigamma(excess)
        common = np.exp(logs.mean() + special.digamma(prior / 2) - np.log(prior / 2))
    else:  # no more spread than equal variances have
        prior, common = np.inf, float((variances * freedom)[known].sum() / freedom[known].sum())
    most = freedom[known].sum()
    if np.isinf(prior):
        return np.full_like(variances, common), np.full_like(variances, most)
    whole = prior + freedom
    return (prior * common + freedom * variances) / whole, np.minimum(whole, most)


def _inverse_trigamma(value: float) -> float:
    """Return x with trigamma(x) = value > 0."""

    def excess(log_x: float) -> float:
        return float(special.polygamma(1, np.exp(log_x))) - value

    return float(np.exp(optimize.brentq(excess, -350, 350)))


def equivalence_p(mean: Values, error: Values, freedom: Values, margin: Values) -> Values:
    """Return the p value of two one-sided tests of |true mean| >= margin (Schuirmann 1987)."""
    error = np.maximum(error, np.finfo(float).tiny)
    below = stats.t.cdf((mean - margin) / error, freedom)
    above = stats.t.sf((mean + margin) / error, freedom)
    return np.asarray(np.maximum(below, above))


def difference_p(mean: Values, error: Values, freedom: Values) -> Values:
    """Return the two-sided p value of a true mean of 0."""
    error = np.maximum(error, np.finfo(float).tiny)
    return np.asarray(2 * stats.t.sf(np.abs(mean) / error, freedom))


def holm(p_values: Values) -> Values:
    """Return p values adjusted for their number (Holm 1979): rejecting those below .05 is wrong
    of any in 5 % at most, however they depend on each other."""
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * steps), 1)
    back = np.empty_like(adjusted)
    back[order] = adjusted
    return back


def _crossed(values: ArrayLike) -> tuple[float, float, float]:
    x = np.asarray(values, dtype=float)
    if x.ndim != 2 or min(x.shape) < 2 or not np.isfinite(x).all():
        raise ValueError(
            "crossed values are finite and [units, scenes], with two or more of both, but got "
            f"shape {x.shape} with {int((~np.isfinite(x)).sum())} that are not finite. Add "
            "configurations, seeds or scenes."
        )
    mean, error, freedom = crossed_moments(x)
    return float(mean), float(error), float(freedom)
