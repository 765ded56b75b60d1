"""Intervals for means and for paired differences.

Two methods on the same scenes are compared by the differences of their errors, scene by scene:
what the scenes share cancels, and far fewer of them are needed. The unit of resampling is what was
drawn independently: values of one unit (a scene seen at several SNRs, say) are averaged first.

References: Student's t; bootstrap-t of Efron and Tibshirani, "An Introduction to the Bootstrap"
(1993), section 12.5, whose coverage is second-order accurate where t's is first-order.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Method = Literal["t", "bootstrap_t"]


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval over `n` independent units."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95
    method: Method = "t"

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(
    values: ArrayLike,
    *,
    units: ArrayLike | None = None,
    level: float = 0.95,
    method: Method = "t",
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Mean of `values` with its interval.

    Args:
        values: finite numbers, one-dimensional.
        units: label of the independent unit that each value belongs to; None if each is its own.
            Units count equally, whatever the number of their values.
        level: of confidence, in (0, 1).
        method: `t`, or `bootstrap_t` for few and skewed values.
        seed, resamples: of the bootstrap.

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
        return Interval(mean, mean, mean, len(x), level, method)
    if method == "t":
        reach = float(stats.t.ppf((1 + level) / 2, len(x) - 1))
        low, high = mean - reach * error, mean + reach * error
    else:
        lower, upper = _studentised_quantiles(x, level, seed, resamples)
        low, high = mean - upper * error, mean - lower * error  # the tails change sides
    return Interval(mean, low, high, len(x), level, method)


def paired_difference(a: ArrayLike, b: ArrayLike, **how: Any) -> Interval:
    """Mean of `a - b` over pairs, with its interval; `how` as for `mean_interval`.

    Raises:
        ValueError: if the two do not pair.
    """
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if x.shape != y.shape:
        raise ValueError(
            f"pairs have two sides, but got {x.shape} and {y.shape} values. Join them by scene."
        )
    return mean_interval(x - y, **how)


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
    """Quantiles of (x̄* - x̄)/se* over resamples x* of x."""
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
