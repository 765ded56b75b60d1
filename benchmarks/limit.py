"""The limits that ship with the package: the least expected capped error of any estimator.

    python benchmarks/limit.py                      # the tables of docs/limit.md, of kept values
    python benchmarks/limit.py --scenes 1024 512    # compute more first, for K = 1 and 2: hours
    python benchmarks/limit.py --methods sml lmmse_music    # and their distance to it

Of the default scenes, the held-out ones of the default test seed. Every chunk of scenes is kept in
`trainer/kept_limits`, so that a computation that was stopped goes on. Intervals are 95 %, over
scenes; differences are paired by scene.
"""

import argparse
from statistics import fmean

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch

from trainer.config import TrainConfig
from trainer.evaluation import Conditions, evaluate, extend_limit
from trainer.evaluation.protocol import classical_estimator
from trainer.intervals import Interval, bootstrap_mean, paired_difference
from trainer.limits import PACKAGED, KeptLimits, LimitByObserver, fault_of, scenes_in

CONFIG = TrainConfig.from_params(LOCAL_SCENE)
JUDGED = CONFIG.evaluation
KEPT = KeptLimits(CONFIG.scene, JUDGED.test_seed)
COUNTS = (1, 2)


def compute(scenes: dict[int, int]) -> None:
    """Extend every point to so many scenes, by K; those of the objective first."""
    ordered = sorted(JUDGED.report_snr_db, key=lambda snr: snr not in JUDGED.objective_snr_db)
    for snr_db in ordered:
        for count, wanted in scenes.items():
            if not wanted:
                continue
            start = KEPT.load(PACKAGED, snr_db, count)
            for point in extend_limit(KEPT, snr_db, count, wanted, start=start, folder=PACKAGED):
                print(f"K={count} {snr_db:g} dB: {scenes_in(point)} of {wanted}", flush=True)


def usable_points() -> dict[tuple[int, float], LimitByObserver]:
    """Return the kept points without fault, and say which have one."""
    found = {}
    for count in COUNTS:
        for snr_db in JUDGED.report_snr_db:
            point = KEPT.load(PACKAGED, snr_db, count)
            faults = [fault_of(point, observer) for observer in point]
            if point and not any(faults):
                found[count, snr_db] = point
            elif point:
                print(f"K={count} {snr_db:g} dB is left out: {faults}\n")
    return found


def said(found: Interval) -> str:
    """Return a mean with its interval for a table."""
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def print_limits(points: dict[tuple[int, float], LimitByObserver]) -> None:
    """Print a row per point: both observers, what is expected, and how well it is sampled."""
    print("| K | SNR | n | shape | expected | blind - shape | draws' worth, median (least) |")
    print("|---" * 7 + "|")
    for (count, snr_db), point in points.items():
        shape, blind = point["shape"], point["blind"]
        cells = (
            said(bootstrap_mean(shape.error)),
            said(bootstrap_mean(shape.expected)),
            str(paired_difference(blind.error, shape.error)),
            f"{np.median(shape.draws):.0f} ({shape.draws.min():.0f})",
        )
        print(f"| {count} | {snr_db:g} dB | {len(shape)} | {' | '.join(cells)} |")
    parts = [points.get((k, snr)) for k in COUNTS for snr in JUDGED.objective_snr_db]
    if all(parts):
        size = min(scenes_in(point) for point in parts if point)
        for name in ("error", "expected"):
            values = [getattr(point["shape"], name)[:size] for point in parts if point]
            print(
                f"\nobjective, {name}: {said(bootstrap_mean(np.mean(values, axis=0)))}, n {size}"
            )


def print_distances(points: dict[tuple[int, float], LimitByObserver], methods: list[str]) -> None:
    """Print how far methods are above the limit *shape*, point by point and for the objective."""
    for name in methods:
        print(f"\n| {name} minus the limit | K | n | mean [95 %] |\n|---|---|---|---|")
        surplus = {}
        for (count, snr_db), point in points.items():
            size = scenes_in(point)
            conditions = Conditions(
                CONFIG.scene, JUDGED.test_seed, (snr_db,), size, num_sources=(count,)
            )
            estimate = classical_estimator(name, CONFIG.scene)
            scored = evaluate(estimate, name, conditions, bound=False).scenes.capped_error
            surplus[count, snr_db] = scored - point["shape"].error
            found = bootstrap_mean(surplus[count, snr_db])
            print(f"| {snr_db:g} dB | {count} | {size} | {found} |", flush=True)
        judged = [
            surplus[k, snr]
            for k in COUNTS
            for snr in JUDGED.objective_snr_db
            if (k, snr) in surplus
        ]
        if len(judged) == len(COUNTS) * len(JUDGED.objective_snr_db):
            size = min(map(len, judged))
            mean = [fmean(values) for values in zip(*(v[:size] for v in judged), strict=True)]
            print(f"| objective | both | {size} | {bootstrap_mean(mean)} |")


def main() -> None:
    """Compute what is asked for, then print what is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, nargs=2, metavar=("K1", "K2"), default=(0, 0))
    parser.add_argument("--methods", nargs="*", default=[])
    args = parser.parse_args()
    torch.set_num_threads(1)
    compute(dict(zip(COUNTS, args.scenes, strict=True)))
    points = usable_points()
    print_limits(points)
    print_distances(points, args.methods)


if __name__ == "__main__":
    main()
