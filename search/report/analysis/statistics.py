"""Intervals for means, for paired differences, and for what several trainings share.

Two methods on the same scenes are compared by the differences of their errors, scene by scene:
what the scenes share cancels, and far fewer of them are needed. The unit of resampling is what was
drawn independently: values of one unit (such as a scene at several SNRs) are averaged first.

Trainings scored on common scenes are drawn twice: configurations (each with its own seeds) and
scenes. Each is a source of variance that the other does not contain; `crossed_interval` adds both.

References: Student's t; bootstrap-t of Efron and Tibshirani, "An Introduction to the Bootstrap"
(1993), section 12.5, whose coverage is second-order accurate where t's is first-order, but which
is a third wider of five units (benchmarks/coverage.py); Cameron, Gelbach and Miller, "Robust
inference with multiway clustering" (2011), for two crossed units; Satterthwaite (1946) for degrees
of freedom.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trainer.intervals import Interval

Method = Literal["t", "bootstrap_t"]

POWER = 0.8
"""Probability of detecting the smallest detectable effect."""


def mean_interval(
    values: ArrayLike,
    *,
    units: ArrayLike | None = None,
    level: float = 0.95,
    method: Method = "t",
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Return the mean of `values` with its interval.

    Args:
        units: label of the independent unit that each value belongs to; None if each is its own.
            Units count equally, whatever the number of their values.
        method: `t`, or `bootstrap_t` for few and skewed values.

    Raises:
        ValueError: for fewer than two units, or values that are not finite.
    """
    x = np.asarray(values, dtype=float)
    if x.ndim != 1 or not np.isfinite(x).all():
        raise ValueError(
            f"values must be finite and one-dimensional, but got shape {x.shape} with "
            f"{int((~np.isfinite(x)).sum())} that are not finite. Drop what failed, and say so."
        )
    if units is not None:
        x = _unit_means(x, np.asarray(units))
    if len(x) < 2:
        raise ValueError(
            f"an interval needs two or more independent units, but got {len(x)}. Add scenes."
        )
    if not 0 < level < 1:
        raise ValueError(f"`0 < level < 1` must hold, but got {level}. Try 0.95.")
    mean = float(x.mean())
    error = float(x.std(ddof=1) / np.sqrt(len(x)))
    if error == 0:
        return Interval(mean, mean, mean, len(x), level)
    if method == "t":
        reach = float(stats.t.ppf((1 + level) / 2, len(x) - 1))
        low, high = mean - reach * error, mean + reach * error
    else:
        lower, upper = _studentised_quantiles(x, level, seed, resamples)
        low, high = mean - upper * error, mean - lower * error  # the tails change sides
    return Interval(mean, low, high, len(x), level)


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
    mean = values.mean((-2, -1))
    by_unit, by_scene = values.mean(-1), values.mean(-2)
    rest = values - by_unit[..., None] - by_scene[..., None, :] + mean[..., None, None]
    of_units = by_unit.var(-1, ddof=1) / units
    of_scenes = by_scene.var(-1, ddof=1) / scenes
    of_rest = (rest**2).sum((-2, -1)) / ((units - 1) * (scenes - 1) * units * scenes)
    variance = np.maximum(of_units + of_scenes - of_rest, np.maximum(of_units, of_scenes))
    spread = of_units**2 / (units - 1) + of_scenes**2 / (scenes - 1)
    freedom = np.divide(
        variance**2, spread, out=np.full_like(variance, units - 1.0), where=spread > 0
    )
    return mean, np.sqrt(variance), np.maximum(freedom, units - 1.0)


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


def _unit_means(x: NDArray[np.float64], units: NDArray[Any]) -> NDArray[np.float64]:
    if units.shape != x.shape:
        raise ValueError(
            f"every value has one unit, but got {x.shape} values and {units.shape} units. "
            "Give one label per value."
        )
    _, index = np.unique(units, return_inverse=True)
    return np.asarray(np.bincount(index, weights=x) / np.bincount(index))


def _studentised_quantiles(
    x: NDArray[np.float64], level: float, seed: int, resamples: int
) -> tuple[float, float]:
    """Return quantiles of (x̄* - x̄)/se* over resamples x* of x."""
    n = len(x)
    draws = x[np.random.default_rng(seed).integers(n, size=(resamples, n))]
    shift = draws.mean(axis=1) - x.mean()
    error = draws.std(axis=1, ddof=1) / np.sqrt(n)
    # A resample of one repeated value has no spread: its ratio is beyond every quantile.
    far = np.copysign(np.inf, shift)
    ratio = np.divide(shift, error, out=far, where=error > 0)
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    lower, upper = np.quantile(ratio, tails, method="inverted_cdf")
    if not np.isfinite([lower, upper]).all():
        raise ValueError(
            f"bootstrap-t needs resamples that vary, but {n} values are too few or too equal. "
            "Use the t interval, or more values."
        )
    return float(lower), float(upper)
