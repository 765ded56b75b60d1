"""Intervals at 95 %: of a mean, of a share, of a paired difference. NumPy only.

Scenes are independent, the sources of a scene are not: they share channel, codes and noise. So
sources are averaged within a scene first, and scenes are resampled whole.

References: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentiles); Wilson
1927 (score interval of a share); Learned-Miller & Thomas 2019, arXiv:1905.06208 (bounded mean).
"""

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

NORMAL_QUANTILE = 1.959963984540054
"""97.5 % quantile of the standard normal."""
LEAST_SCENES = 64
"""Least number of scenes for an estimate of their spread."""
RESAMPLES = 1000
"""Bootstrap resamples, enough for the interval's ends to within about 5 % of its width."""

BAYESIAN_RESAMPLES = 10_000
"""Draws behind bounded means: 18 lie beyond an end at 95 % over 14 comparisons together."""


@dataclass(frozen=True)
class Interval:
    """A mean over `n` independent units and the two-sided interval it lies in; all finite."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def excludes_zero(self) -> bool:
        """True if all of the interval has the sign of the mean."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def bootstrap_mean(values: ArrayLike, *, seed: int = 0) -> Interval:
    """Return the percentile bootstrap of a mean over independent scenes.

    Equal values resample to themselves: their interval has no width, whatever other scenes would
    give. For a share use `wilson_share`, whose interval always has one.

    Args:
        values: one per scene, finite, at least one.
        seed: of the resampling; equal values and seed give equal intervals.
    """
    scenes = _finite(values)
    draws = np.random.default_rng(seed).integers(len(scenes), size=(RESAMPLES, len(scenes)))
    low, high = np.quantile(scenes[draws].mean(axis=1), [0.025, 0.975])
    return Interval(float(scenes.mean()), float(low), float(high), len(scenes))


def bootstrap_over_points(
    scene_ids: ArrayLike, points: Sequence[Hashable], values: ArrayLike, *, seed: int = 0
) -> Interval:
    """Return the mean over points (SNR and K) of their means over scenes, with its bootstrap.

    A scene of the same number shares channel and codes at every point, so scenes are resampled
    whole, with what all points say of them: the mean of the points' own interval ends would be
    too wide.

    Args:
        scene_ids: of each value, [V].
        points: of each value, [V].
        values: [V], finite, at most one for each scene and point; a point may lack scenes.
        seed: of the resampling; equal values and seed give equal intervals.

    Returns:
        the interval; its `n` is the number of scenes.
    """
    finite = _finite(values)
    scenes, rows = np.unique(np.asarray(scene_ids), return_inverse=True)
    columns = {point: i for i, point in enumerate(dict.fromkeys(points))}
    at = rows, np.array([columns[point] for point in points])
    table, known = np.zeros((2, len(scenes), len(columns)))
    table[at], known[at] = finite, 1.0
    draws = np.random.default_rng(seed).integers(len(scenes), size=(RESAMPLES, len(scenes)))
    times = np.stack([np.bincount(draw, minlength=len(scenes)) for draw in draws])
    counts = np.maximum(times @ known, 1)  # a point of few scenes may have none in a resample
    low, high = np.quantile((times @ table / counts).mean(axis=1), [0.025, 0.975])
    mean = float((table.sum(axis=0) / known.sum(axis=0)).mean())
    return Interval(mean, float(low), float(high), len(scenes))


def mean_errors(
    scenes: Iterable[Mapping[Any, Any]], snr_db: Collection[float]
) -> dict[str, Interval]:
    """Return the mean capped error over these SNRs [dB] and K by estimator, of errors per scene,
    as `trainer.evaluation.ErrorsPerScene.rows` gives them."""
    known: dict[str, list[tuple[int, tuple[float, int], float]]] = {}
    for row in scenes:
        if row["snr_db"] in snr_db:
            point = row["snr_db"], row["num_sources"]
            one = row["scene_id"], point, row["capped_error"]
            known.setdefault(row["estimator"], []).append(one)
    return {name: bootstrap_over_points(*zip(*own, strict=True)) for name, own in known.items()}


def normal_mean(values: ArrayLike) -> Interval:
    """Return mean ± 1.96 standard errors; the interval of a single scene has no width."""
    scenes = _finite(values)
    error = scenes.std(ddof=1) / math.sqrt(len(scenes)) if len(scenes) > 1 else 0.0
    mean, half = float(scenes.mean()), float(NORMAL_QUANTILE * error)
    return Interval(mean, mean - half, mean + half, len(scenes))


def bounded_means(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> list[Interval]:
    """Return means of values in [-1, 1] (differences of capped errors, say, without unit), each
    with an interval that holds for any law of the values.

    Each end is a quantile of the Bayesian bootstrap of the values and one more, the worst that
    there can be, so that losses too rare for these scenes to show are allowed for: a t interval
    of differences that have them excludes the true mean far too often (benchmarks/guard.py).

    Args:
        values: [means, scenes], a row for each mean.
        level: of each interval alone, not of all together.
        seed: of the draws; equal values and seed give equal intervals.

    Returns:
        an interval per row, whose `n` is the number of scenes.

    Raises:
        ValueError: unless there are two axes, a value at least, and none outside [-1, 1].
    """
    scenes = np.asarray(values, dtype=np.float64)
    if scenes.ndim != 2 or scenes.size == 0 or not (np.abs(scenes) <= 1).all():
        raise ValueError(
            f"bounded means are of [means, scenes] in [-1, 1], but got shape {scenes.shape} with "
            f"{int((~(np.abs(scenes) <= 1)).sum())} outside. Give differences of capped errors."
        )
    count = scenes.shape[1]
    weights = np.random.default_rng(seed).exponential(size=(BAYESIAN_RESAMPLES, count + 1))
    weights /= weights.sum(axis=1, keepdims=True)
    known, worst, tail = scenes @ weights[:, 1:].T, weights[:, 0], (1 - level) / 2
    low = np.quantile(known - worst, tail, axis=1)
    high = np.quantile(known + worst, 1 - tail, axis=1)
    ends = zip(scenes.mean(axis=1), low, high, strict=True)
    return [Interval(float(m), float(a), float(b), count, level) for m, a, b in ends]


def wilson_share(share: float, count: int) -> Interval:
    """Return Wilson's interval of a share of `count` scenes; it has width at 0 and 1, too.

    It is wide enough for a mean of per-scene shares, whose variance is at most p (1-p).

    Raises:
        ValueError: unless 0 <= share <= 1 and count >= 1.
    """
    if not (0 <= share <= 1 and count >= 1):
        raise ValueError(
            f"`0 <= share <= 1` and `count >= 1` must hold, but got {share=}, {count=}. "
            "Give the mean of per-scene shares, and the number of scenes."
        )
    square = NORMAL_QUANTILE**2 / count
    centre = (share + square / 2) / (1 + square)
    half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
    # the ends are exact at 0 and 1, where rounding would put them outside
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Interval(share, min(low, share), max(high, share), count)


def paired_difference(first: ArrayLike, second: ArrayLike, *, seed: int = 0) -> Interval:
    """Return the bootstrap of mean(first - second) over scenes that both were evaluated on.

    The difficulty of a scene is common to both and cancels: on capped errors the standard
    deviation is a third of the unpaired one.

    Raises:
        ValueError: unless both name the same number of scenes.
    """
    one, two = _finite(first), _finite(second)
    if one.shape != two.shape:
        raise ValueError(
            "paired scores must be of the same scenes, but got "
            f"{len(one)} and {len(two)}. Evaluate both on the same seed and scene numbers."
        )
    return bootstrap_mean(one - two, seed=seed)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    scenes = np.asarray(values, dtype=np.float64)
    if scenes.ndim != 1 or len(scenes) == 0 or not np.isfinite(scenes).all():
        raise ValueError(
            "a mean needs a list of at least one finite number, but got "
            f"shape {scenes.shape} with {int((~np.isfinite(scenes)).sum())} not finite. "
            "Leave out scenes without a result, and say how many."
        )
    return scenes
