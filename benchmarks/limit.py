"""The limits that ship with the package: the least expected capped error of any estimator.

    python benchmarks/limit.py                      # the tables of docs/limit.md, of kept values
    python benchmarks/limit.py --scenes 1024 512    # compute more first, for K = 1 and 2: hours
    python benchmarks/limit.py --methods sml lmmse_music    # and their distance to it
    python benchmarks/limit.py --posterior-mean 64          # MUSIC on the exact R, to it

Of the default scenes, the held-out ones of the default test seed. Every chunk of scenes is kept in
`trainer/kept_limits`, so that a computation that was stopped goes on. Intervals are 95 %, over
scenes; differences are paired by scene.

`--posterior-mean` says what a learned R can lose: MUSIC, K told, on the posterior mean of R
(observer *blind*), of K told and not; with every draw moved to the nearest point of the networks'
dictionary; and of the powers of the dictionary that fit it best.
"""

import argparse
from statistics import fmean

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch

from trainer.config import TrainConfig
from trainer.covariance import normalise, steering_dictionary
from trainer.estimation import covariance_localiser
from trainer.evaluation import Conditions, capped_error, evaluate, extend_limit, match
from trainer.evaluation.limit import DRAW_SEED, LIMIT_CHUNK
from trainer.evaluation.protocol import classical_estimator
from trainer.intervals import Interval, bootstrap_mean, paired_difference
from trainer.limits import PACKAGED, KeptLimits, LimitByObserver, fault_of, scenes_in
from trainer.posterior import law_of_places, sample_posterior
from trainer.posterior.sampler import Posterior
from trainer.scenes import EvalScenes, Scenes, search_grid

CONFIG = TrainConfig.from_params(LOCAL_SCENE)
JUDGED = CONFIG.evaluation
KEPT = KeptLimits(CONFIG.scene, JUDGED.test_seed)
COUNTS = (1, 2)
FIT_STEPS = 150
"""Of the multiplicative update of powers."""
LEAST_WEIGHT = 1e-6
"""Draws with less are not moved to the dictionary."""


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


def mean_covariance(drawn: Posterior) -> torch.Tensor:
    """Return the posterior mean of R, trace N: [B, N, N]."""
    weights = drawn.log_weights["blind"].exp()
    steering = search_grid(CONFIG.scene).response(drawn.places)
    factor = (steering * (weights / steering.shape[2]).sqrt()[..., None, None]).flatten(1, 2)
    return factor.mT @ factor.conj()


def posterior_means(scenes: Scenes, count: int, first: int) -> dict[str, torch.Tensor]:
    """Return the covariances that MUSIC is put to, by name, [B, N, N]; K is `count`."""
    law, search = law_of_places(CONFIG.scene), search_grid(CONFIG.scene)
    drawn = {
        k: sample_posterior(scenes, law, k, torch.Generator().manual_seed(DRAW_SEED + first))
        for k in COUNTS
    }
    means = {k: mean_covariance(each) for k, each in drawn.items()}
    evidence = torch.stack([drawn[k].log_evidence["blind"] for k in COUNTS])
    share = evidence.softmax(0)[..., None, None]
    found = {"K told": means[count], "K not told": sum(share[k - 1] * means[k] for k in COUNTS)}

    products = steering_dictionary(CONFIG.scene, torch.float32).products()
    powers = torch.zeros(scenes.batch_size, products.num_points)
    weights = drawn[count].log_weights["blind"].exp()
    for one, places, weight in zip(powers, drawn[count].places, weights, strict=True):
        kept = weight > LEAST_WEIGHT
        nearest = products.responses(search.response(places[kept]).conj()).argmax(-1)
        one.index_add_(0, nearest.flatten(), weight[kept].repeat_interleave(count))
    found["nearest points"] = products.mixture(powers)

    wanted = products.power_map(means[count])
    powers = wanted / wanted.sum(-1, keepdim=True)
    for _ in range(FIT_STEPS):  # the residual in Frobenius norm never rises (Lee and Seung 2001)
        powers = powers * wanted / products.power_map(products.mixture(powers))
    found["best powers"] = products.mixture(powers)
    return found


@torch.no_grad()
def print_posterior_means(num_scenes: int) -> None:
    """Print how far MUSIC on each of `posterior_means` is above the limit *shape*."""
    points = [(k, snr) for k in COUNTS for snr in JUDGED.objective_snr_db]
    surplus: dict[str, list[np.ndarray]] = {}
    for count, snr_db in points:
        parts: dict[str, list[torch.Tensor]] = {}
        for first in range(0, num_scenes, LIMIT_CHUNK):
            scenes = EvalScenes(CONFIG.scene, KEPT.seed).batch(
                range(first, first + LIMIT_CHUNK), snr_db=snr_db, num_sources=count
            )
            for name, mean in posterior_means(scenes, count, first).items():
                covariance = normalise(matrix=mean, eps_psd=CONFIG.eps_psd)
                locate = covariance_localiser(lambda _, made=covariance: made, CONFIG.scene)
                found = match(locate(scenes, scenes.sources.num_sources), scenes.sources)
                parts.setdefault(name, []).append(capped_error(found))
        limit = KEPT.load(PACKAGED, snr_db, count)["shape"].error[:num_scenes]
        for name, errors in parts.items():
            surplus.setdefault(name, []).append(torch.cat(errors).numpy() - limit)
    heads = [f"K = {k}, {snr:g} dB" for k, snr in points]
    print(f"\n| R minus the limit, n {num_scenes} | {' | '.join(heads)} | objective |")
    print("|---" * (len(points) + 2) + "|")
    for name, by_point in surplus.items():
        cells = [str(bootstrap_mean(each)) for each in (*by_point, np.mean(by_point, axis=0))]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Compute what is asked for, then print what is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, nargs=2, metavar=("K1", "K2"), default=(0, 0))
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--posterior-mean", type=int, default=0, metavar="N", help="scenes")
    args = parser.parse_args()
    torch.set_num_threads(1)
    compute(dict(zip(COUNTS, args.scenes, strict=True)))
    points = usable_points()
    print_limits(points)
    print_distances(points, args.methods)
    if args.posterior_mean:
        print_posterior_means(args.posterior_mean)


if __name__ == "__main__":
    main()
