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
from scipy import stats

from trainer.intervals import Interval

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
