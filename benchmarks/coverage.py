"""Simulated coverage of the intervals of ablations: five configurations by five seeds.

    python benchmarks/coverage.py [--no-write]

The table between the markers of docs/search.md is replaced by what was found. Seconds on one core.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from documents import write_tables

from search.report.analysis import mean_interval
from tests.simulated import RATIOS, ends, trainings
from trainer.intervals import Interval

DOCS = Path(__file__).parents[1] / "docs" / "search.md"
REPETITIONS, FIVES = 4000, 2000


def crossed() -> str:
    """Return a table with a row per ratio of variances: coverage of both units, and of either
    alone."""
    head = ["standard deviations: configurations, seeds, scenes, rest", "covers"]
    head += ["false helps", "scenes alone", "configurations alone"]
    rows = [f"| {' | '.join(head)} |", "|---" * 5 + "|"]
    for ratio in (*RATIOS, (0.0, 0.0, 0.0, 0.01)):
        values = trainings(*ratio, repetitions=REPETITIONS)
        low, high = ends(values)
        cells = [", ".join(f"{sd:.3f}" for sd in ratio)]
        cells += [share((low <= 0) & (high >= 0)), share(high < 0)]
        cells += [share(covered_by_t(values.mean(axis))) for axis in (1, 2)]
        rows.append(f"| {' | '.join(cells)} |")
    error = 100 * np.sqrt(0.95 * 0.05 / REPETITIONS)
    rows += ["", f"{REPETITIONS:,} experiments a row: a standard error of {error:.1f} % at 95 %."]
    return "\n".join(rows)


def five_units() -> str:
    """Return coverage and width of t and bootstrap-t intervals of five numbers."""
    rng = np.random.default_rng(1)
    laws = {"normal": rng.standard_normal, "exponential": rng.exponential}
    rows = ["| five numbers | t covers | bootstrap-t covers | width, bootstrap-t / t |"]
    rows.append("|---" * 4 + "|")
    for name, draw in laws.items():
        truth = 0.0 if name == "normal" else 1.0
        samples = [draw(size=5) for _ in range(FIVES)]
        found = {
            "t": [mean_interval(x) for x in samples],
            "bootstrap_t": [bootstrap_t(x, resamples=400) for x in samples],
        }
        covers = [share(np.array([i.low <= truth <= i.high for i in f])) for f in found.values()]
        t, bootstrap = (np.median([i.high - i.low for i in f]) for f in found.values())
        rows.append(f"| {name} | {covers[0]} | {covers[1]} | {bootstrap / t:.2f} |")
    error = 100 * np.sqrt(0.95 * 0.05 / FIVES)
    rows += ["", f"{FIVES:,} samples a row: a standard error of {error:.1f} % at 95 %."]
    return "\n".join(rows)


def bootstrap_t(
    values: ArrayLike, *, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Return the mean of independent values with its bootstrap-t interval.

    Second-order accurate, where the t interval is first-order (Efron and Tibshirani 1993, An
    Introduction to the Bootstrap, section 12.5).

    Raises:
        ValueError: if the values vary too little to be resampled.
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    draws = x[np.random.default_rng(seed).integers(n, size=(resamples, n))]
    shift = draws.mean(axis=1) - x.mean()
    error = draws.std(axis=1, ddof=1) / np.sqrt(n)
    # a resample of one repeated value has no spread: its ratio is beyond every quantile
    ratio = np.divide(shift, error, out=np.copysign(np.inf, shift), where=error > 0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    lower, upper = np.quantile(ratio, tails, method="inverted_cdf") * stats.sem(x)
    if not np.isfinite([lower, upper]).all():
        raise ValueError(
            f"bootstrap-t needs resamples that vary, but {n} values are too few or too equal. "
            "Use the t interval, or more values."
        )
    mean = float(x.mean())
    return Interval(mean, mean - upper, mean - lower, n, level)  # the tails change sides


def covered_by_t(means: np.ndarray) -> np.ndarray:
    """Return whether a t interval over the last axis contains 0."""
    reach = stats.sem(means, axis=1) * stats.t.ppf(0.975, means.shape[1] - 1)
    return np.abs(means.mean(1)) <= reach


def share(right: np.ndarray) -> str:
    """Return a share in per cent, as text."""
    return f"{100 * right.mean():.1f} %"


def main() -> None:
    """Simulate everything and write the tables into docs/search.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true", help=f"leave {DOCS.name} as it is")
    args = parser.parse_args()
    table = f"{crossed()}\n\n{five_units()}"
    print(table)
    if not args.no_write:
        write_tables(DOCS, {"coverage": table})


if __name__ == "__main__":
    main()
