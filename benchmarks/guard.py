"""False marks and power of the guard: a trial is marked if it is above LMMSE-MUSIC at some point.

    python benchmarks/guard.py [--no-write]

The first table has trials that are LMMSE-MUSIC's equal in the mean at every point, the worst case
of a good trial, by the law of their differences per scene; the last laws are those of networks
trained as the anchors of `local`, each point shifted to mean 0. The second has the difference at
one point that is marked in half, and in nine of ten, of the trials. Both are for 128 scenes at 14
points. The tables between the markers of docs/search.md are replaced. Ten minutes on one core.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from trained import config_of, trained  # isort: skip  (sets threads)

import numpy as np
from documents import write_tables
from numpy.typing import NDArray
from scipy import stats

from trainer.config import REFERENCE
from trainer.evaluation import Conditions, evaluate
from trainer.evaluation.protocol import classical_estimator, network_estimator
from trainer.evaluation.reference import FALSE_MARKS
from trainer.intervals import bounded_means, wilson_share

DOCS = Path(__file__).parents[1] / "docs" / "search.md"
POINTS, SCENES = 14, 128
TRIALS = 1000
POOL = 1024
"""Scenes a point, of which differences of networks are drawn."""
SEED = 77_000
TAIL = FALSE_MARKS / POINTS
CHUNK = 500
NETWORKS = ("unrolled:2:32", "dictionary:32")

Values = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Values]
"""A function that draws the differences of so many points, [points, scenes]."""


def above(values: Values) -> NDArray[np.bool_]:
    """Return where the guard's interval lies above 0, [points]."""
    chunks = np.array_split(values, -(-len(values) // CHUNK))
    return np.array(
        [x.low > 0 for part in chunks for x in bounded_means(part, level=1 - 2 * TAIL)]
    )


def above_by_t(values: Values) -> NDArray[np.bool_]:
    """Return where the t interval of the same level lies above 0, [points]."""
    error = values.std(axis=1, ddof=1) / SCENES**0.5
    return values.mean(axis=1) > stats.t.ppf(1 - TAIL, SCENES - 1) * error


def normal(sd: float, mean: float = 0.0) -> Draw:
    """Return the draw of normal differences, cut at what is possible."""
    return lambda rng, points: rng.normal(mean, sd, (points, SCENES)).clip(-1, 1)


def rare(share: float, change: float, noise: float) -> Draw:
    """Return the draw where a share of scenes differs by `change`; the others make up for it."""

    def draw(rng: np.random.Generator, points: int) -> Values:
        hit = rng.random((points, SCENES)) < share
        others = -change * share / (1 - share)
        return (np.where(hit, change, others) + rng.normal(0, noise, hit.shape)).clip(-1, 1)

    return draw


def of_network(name: str) -> Draw:
    """Return the draw of a trained network's differences from LMMSE-MUSIC, each point centred."""
    config = config_of("local", name, 0, 10, "cpu", batch_size=64, steps_per_epoch=20)
    network, _ = trained(config, "cpu")
    conditions = Conditions(config.scene, SEED, config.evaluation.report_snr_db, POOL)
    estimators = {
        name: network_estimator(network, config.scene),
        REFERENCE: classical_estimator(REFERENCE, config.scene),
    }
    own, classical = (
        evaluate(estimate, each, conditions, bound=False).scenes.capped_error.reshape(POINTS, -1)
        for each, estimate in estimators.items()
    )
    pool = (own - classical) - (own - classical).mean(axis=1, keepdims=True)

    def draw(rng: np.random.Generator, points: int) -> Values:
        scenes = rng.integers(POOL, size=(points, SCENES))
        return pool[np.arange(points) % POINTS][np.arange(points)[:, None], scenes].clip(-1, 1)

    return draw


def false_marks() -> str:
    """Return a table of the share of equal trials that are marked, by law of the differences."""
    laws = {
        "normal, standard deviation .2": normal(0.2),
        "one scene in 50 is better by .8": rare(0.02, -0.8, 0.05),
        "one scene in 20 is better by .8": rare(0.05, -0.8, 0.05),
        "one scene in 5 is better by .8": rare(0.2, -0.8, 0.05),
        "one scene in 20 is worse by .8": rare(0.05, 0.8, 0.05),
        **{f"network {name}, centred": of_network(name) for name in NETWORKS},
    }
    rows = ["| differences per scene | marked | marked by a t interval |", "|---|---|---|"]
    for name, draw in laws.items():
        values = draw(np.random.default_rng(0), TRIALS * POINTS)
        cells = []
        for rule in (above, above_by_t):
            share = wilson_share(float(rule(values).reshape(-1, POINTS).any(1).mean()), TRIALS)
            cells.append(f"{share.mean:.1%} [{share.low:.1%}, {share.high:.1%}]")
        rows.append(f"| {name} | {' | '.join(cells)} |".replace("%", " %"))
        print(rows[-1], flush=True)
    return "\n".join([*rows, "", f"{TRIALS:,} trials a row, equal at all {POINTS} points."])


def power() -> str:
    """Return a table of the differences at one point that are marked half and most of the time."""
    rows = [
        "| standard deviation per scene | half are marked | nine of ten are |",
        "|---|---|---|",
    ]
    for sd in (0.05, 0.1, 0.2, 0.3):
        means = np.arange(0.03, 0.25, 0.005)
        rates = [above(normal(sd, mean)(np.random.default_rng(1), 200)).mean() for mean in means]
        cells = [f"{means[np.argmax(np.array(rates) >= rate)]:.3f}" for rate in (0.5, 0.9)]
        rows.append(f"| {sd:g} | {' | '.join(cells)} |")
        print(rows[-1], flush=True)
    return "\n".join(rows)


def main() -> None:
    """Print both tables, and write them to the documentation unless told not to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-write", action="store_true")
    args = parser.parse_args()
    table = f"{false_marks()}\n\n{power()}"
    if not args.no_write:
        write_tables(DOCS, {"guard": table})


if __name__ == "__main__":
    main()
