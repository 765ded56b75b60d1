"""Simulated coverage of the intervals of ablations, and error rates and power of designs.

    python benchmarks/coverage.py [--only coverage|designs] [--repetitions 400] [--no-write]

The tables between the markers of docs/search.md are replaced by what was found: seconds on one
core for `coverage`, five configurations by five seeds, and minutes for `designs`, the whole
procedure of `search.ablate --design` at the size of benchmarks/eigengap.toml: values of each arm's
search chosen on one training and its validation scenes, five trainings, paired effects, moderated
variances, two one-sided tests and differences adjusted by Holm's method.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from documents import write_tables

from search.report.analysis import mean_interval
from search.report.factorial import judge, verdict
from tests.simulated import RATIOS, ends, trainings
from trainer.intervals import Interval, wilson_share

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


@dataclass(frozen=True)
class Scenario:
    """A truth: the gain of the best value of a search in margins, those of its others relative to
    it, the share of cells with a gain, and whether variances differ between networks and arms."""

    name: str = ""
    gain: float = 0.0
    others: float = 0.5
    share: float = 1.0
    unequal: bool = False


SCENARIOS = (
    Scenario("no effect"),
    Scenario("no effect, unequal variances", unequal=True),
    Scenario("the margin in every cell", gain=1.0, others=1.0),
    Scenario("the margin, unequal variances", gain=1.0, others=1.0, unequal=True),
    Scenario("10 margins in a quarter of the cells", gain=10.0, share=0.25),
    Scenario("20 margins in a quarter, unequal variances", gain=20.0, share=0.25, unequal=True),
)
NETWORKS, REGIMES, TERMS, TRIES, SEEDS, IDS = 4, 5, 5, 3, 5, 32
"""Sizes of a design: cells are networks x regimes x terms; scenes are `IDS` means of several."""
MARGINS = {"capped error": 0.005, "P(K right)": 0.01}
SPREADS = {"capped error": (0.005, 0.004), "P(K right)": (0.015, 0.011)}
"""Standard deviations of a difference of two trainings: between seeds (assumed), and of its mean
over 512 test scenes (benchmarks/count_control.py)."""
GAINS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""True gains for the power, in margins."""


@dataclass(frozen=True)
class Cells:
    """Differences [seeds, ids] of all cells, their outcomes, groups, margins and true gains."""

    values: list[np.ndarray]
    outcomes: np.ndarray
    groups: list[tuple[str, int]]
    margins: np.ndarray
    gains: np.ndarray

    def verdicts(self, *, alone: bool) -> np.ndarray:
        """Return the verdicts; `alone`, each cell has its own variance only."""
        groups = range(len(self.values)) if alone else self.groups
        found = judge(self.values, self.margins, list(groups))
        return np.array([verdict(found, i, better=1) for i in range(len(self.values))])

    def wrong(self, said: np.ndarray) -> np.ndarray:
        """Return whether each verdict is false."""
        beyond = np.abs(self.gains) >= self.margins * (1 - 1e-12)
        false_gain = (said == "helps") & (self.gains <= 0)
        false_loss = (said == "hurts") & (self.gains >= 0)
        return ((said == "equivalent") & beyond) | false_gain | false_loss


def experiment(rng: np.random.Generator, truth: Scenario) -> Cells:
    """Return a design carried out: values chosen by each search, then trainings on fresh seeds."""
    values, outcomes, groups, margins, gains = [], [], [], [], []
    for outcome, margin in MARGINS.items():
        seed, scene = (spread / np.sqrt(2) for spread in SPREADS[outcome])  # of either arm
        for network in range(NETWORKS):
            scale = 2.0 if truth.unequal and network == 0 else 1.0
            for _ in range(REGIMES):
                none = arm(rng, scale * seed, scene, unequal=truth.unequal)
                for _ in range(TERMS):
                    planted = truth.gain * (rng.uniform() < truth.share)
                    tries = planted * margin * np.array([1.0, truth.others, truth.others])
                    # one training, and a quarter of the scenes
                    seen = np.hypot(scale * seed, 2 * scene) * rng.standard_normal(TRIES)
                    gains.append(tries[np.argmax(tries + seen)])
                    with_ = arm(rng, scale * seed, scene, unequal=truth.unequal)
                    values.append(gains[-1] + with_ - none)
                    outcomes.append(outcome)
                    groups.append((outcome, network))
                    margins.append(margin)
    return Cells(values, np.array(outcomes), groups, np.array(margins), np.array(gains))


def arm(rng: np.random.Generator, seed: float, scene: float, *, unequal: bool) -> np.ndarray:
    """Return an arm's part in differences, [seeds, ids]: of a training, of a scene whatever the
    training, and of a training on a scene. `unequal`, the first has a variance that is inverse
    chi square distributed, with 8 degrees of freedom."""
    seed = seed * np.sqrt(8 / rng.chisquare(8)) if unequal else seed
    of_seeds = seed * rng.standard_normal((SEEDS, 1))
    of_scenes = rng.standard_normal((1, IDS)) + rng.standard_normal((SEEDS, IDS))
    return of_seeds + scene * np.sqrt(IDS / 2) * of_scenes


def wrong_verdicts(repetitions: int) -> str:
    """Return a table of experiments with any wrong verdict, a row per truth."""
    rows = ["| truth | any wrong verdict | the same, each variance alone |", "|---" * 3 + "|"]
    for truth in SCENARIOS:
        rng = np.random.default_rng(23)
        found = [experiment(rng, truth) for _ in range(repetitions)]
        ends = []
        for alone in (False, True):
            hits = [bool(one.wrong(one.verdicts(alone=alone)).any()) for one in found]
            one = wilson_share(float(np.mean(hits)), repetitions)
            ends.append(f"{one.mean:.1%} [{one.low:.1%}, {one.high:.1%}]".replace("%", " %"))
        rows.append(f"| {truth.name} | {' | '.join(ends)} |")
    cells = len(MARGINS) * NETWORKS * REGIMES * TERMS
    rows += ["", f"{repetitions:,} experiments of {cells} cells a row, 95 % intervals."]
    return "\n".join(rows)


def power(repetitions: int) -> str:
    """Return a table of cells judged right (equivalent without a gain, or else helped), a tenth of
    all having the gain."""
    rows = [
        f"| true gain: {', '.join(MARGINS)} | {' | '.join(MARGINS)} | each variance alone |",
        "|---" * (2 + len(MARGINS)) + "|",
    ]
    for gain in GAINS:
        rng = np.random.default_rng(24)
        truth = Scenario(gain=gain, others=1.0, share=0.1)
        found = [experiment(rng, truth) for _ in range(repetitions)]
        told = []
        for alone in (False, True):
            said = np.concatenate([one.verdicts(alone=alone) for one in found])
            has = (np.concatenate([one.gains for one in found]) > 0) == (gain > 0)
            of = np.concatenate([one.outcomes for one in found])
            right = said == ("helps" if gain else "equivalent")
            told.append([share(right[has & (of == outcome)]) for outcome in MARGINS])
        sizes = ", ".join(f"{gain * margin:g}" for margin in MARGINS.values())
        rows.append(f"| {sizes} | {' | '.join(told[0])} | {', '.join(told[1])} |")
    rows += ["", f"{repetitions:,} experiments a row."]
    return "\n".join(rows)


def share(right: np.ndarray) -> str:
    """Return a share in per cent, as text."""
    return f"{100 * right.mean():.1f} %"


def main() -> None:
    """Simulate everything and write the tables into docs/search.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("coverage", "designs"), help="one part of them")
    parser.add_argument("--repetitions", type=int, default=400, help="of experiments of designs")
    parser.add_argument("--no-write", action="store_true", help=f"leave {DOCS.name} as it is")
    args = parser.parse_args()
    tables = {}
    if args.only != "designs":
        tables["coverage"] = f"{crossed()}\n\n{five_units()}"
    if args.only != "coverage":
        many = args.repetitions
        tables["designs"] = f"{wrong_verdicts(many)}\n\n{power(max(2, many // 4))}"
    print(*tables.values(), sep="\n\n")
    if not args.no_write:
        write_tables(DOCS, tables)


if __name__ == "__main__":
    main()
