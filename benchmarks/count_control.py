"""Do the terms `threshold` and `count` make a free network count? A control for nulls elsewhere.

    python benchmarks/count_control.py [--networks gram:before gram:after dictionary]
        [--terms threshold:0.3:0.5 count:0.3:16] [--seeds 0] [--epochs 10] [--scenes 256]

Trains each network with no term and with each (definition:weight:its number), on the scenes of
`local` at -10 to 4 dB, and evaluates all on common fresh scenes at -5 and 0 dB, K = 1 and 2. P(K
right) is by rules on the eigenvalues of R: MDL and AIC (K = 0, 1, 2), the widest relative gap (K =
1, 2) and the number of eigenvalues above half of the largest; the capped error is that of MUSIC, K
told. Differences are to the same network without a term, paired by scene and averaged over
seeds; intervals are 95 % over scenes, for these seeds.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from trained import config_of, trained  # isort: skip  (sets threads)

import numpy as np
import torch
from torch import Tensor, nn

from trainer.config import MARGIN_FIELDS, TrainConfig
from trainer.covariance import eigendecompose, lmmse, sample_covariance
from trainer.estimation import covariance_localiser
from trainer.estimation.source_number import aic, mdl, widest_ratio
from trainer.evaluation import Conditions, capped_error, common_scenes, match
from trainer.intervals import bootstrap_mean, paired_difference
from trainer.scenes import Scenes

SNR_DB, COUNTS, SEED = (-5.0, 0.0), (1, 2), 19_000_003
RULES: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "MDL": mdl,
    "AIC": aic,
    "ratio": widest_ratio,
    "above 1/2": lambda values, snapshots, most: (values > values[:, :1] / 2).sum(-1),
}
Scores = Mapping[str, np.ndarray]
"""Right (1) or wrong (0) by rule, and the capped error, [scenes] each."""


def arm(network: str, term: str, seed: int, epochs: int) -> TrainConfig:
    """Return the training of `gram:<normalisation>` or `dictionary` with `none` or a term."""
    kind, _, order = network.partition(":")
    more: dict[str, Any] = {"evaluation.report_snr_db": (0.0,)}
    if order:
        more |= {"network.normalisation": order, "network.depth": 4}
    if term != "none":
        definition, weight, number = term.split(":")
        more |= {
            "eigengap.definition": definition,
            "eigengap.weight": float(weight),
            f"eigengap.{MARGIN_FIELDS[definition]}": float(number),
        }
    return config_of("local", f"{kind}:16", seed, epochs, "cpu", **more)


@torch.no_grad()
def scored(network: Callable[[Scenes], Any], config: TrainConfig, scenes: int) -> Scores:
    """Score a network, or LMMSE back-projection, on the common scenes of every SNR and K."""
    scene = config.scene
    conditions = Conditions(scene, SEED, SNR_DB, scenes, "cpu")
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*RULES, "capped error")}
    for snr_db in SNR_DB:
        for count in COUNTS:
            some = common_scenes(conditions, snr_db, count, range(scenes))
            covariance = network(some)
            values = eigendecompose(covariance).all_values
            for name, rule in RULES.items():
                told = rule(values, scene.num_snapshots, scene.max_sources)
                found[name].append((told == count).double().numpy())
            locate = covariance_localiser(lambda _, made=covariance: made, scene, "cpu")
            errors = match(locate(some, some.sources.num_sources), some.sources)
            found["capped error"].append(capped_error(errors).double().numpy())
    return {name: np.concatenate(parts) for name, parts in found.items()}


def mean_over(parts: list[Scores]) -> Scores:
    """Return scores averaged over training seeds, scene by scene."""
    return {name: np.mean([part[name] for part in parts], axis=0) for name in parts[0]}


def line(label: str, scores: Scores, without: Scores | None, seconds: float) -> str:
    """Return a row: means, or differences to `without`, with intervals."""
    cells = []
    for name, values in scores.items():
        one = (
            bootstrap_mean(values) if without is None else paired_difference(values, without[name])
        )
        sign = "" if without is None else "+"
        cells.append(f"{one.mean:{sign}.3f} [{one.low:{sign}.3f}, {one.high:{sign}.3f}]")
    return f"| {label} | " + " | ".join(cells) + f" | {seconds:.0f} |"


def main() -> None:
    """Train what is not kept yet, and print a table as it grows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["gram:before", "gram:after"])
    parser.add_argument("--terms", nargs="+", default=["threshold:0.3:0.5", "count:0.3:16"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=10, help="of 20 steps of 64 scenes")
    parser.add_argument("--scenes", type=int, default=256, help="per SNR and source number")
    args = parser.parse_args()
    count = len(SNR_DB) * len(COUNTS) * args.scenes
    print(f"n = {count} scenes, training seeds {args.seeds}, {20 * args.epochs} steps\n")
    print("| network, term | " + " | ".join((*RULES, "capped error")) + " | CPU-s |")
    print("|---" * (len(RULES) + 3) + "|")
    config = arm(args.networks[0], "none", 0, args.epochs)
    measured = scored(lambda scenes: sample_covariance(lmmse(scenes)), config, args.scenes)
    print(line("LMMSE back-projection", measured, None, 0), flush=True)
    for name in args.networks:
        without: Scores | None = None
        for term in ("none", *args.terms):
            parts, spent = [], 0.0
            for seed in args.seeds:
                config = arm(name, term, seed, args.epochs)
                network, seconds = trained(config, "cpu")
                assert isinstance(network, nn.Module)
                parts.append(scored(network, config, args.scenes))
                spent += seconds / len(args.seeds)
            scores = mean_over(parts)
            print(line(f"{name}, {term}", scores, None, spent), flush=True)
            if without is None:
                without = scores
            else:
                print(line(f"{name}, {term} - none", scores, without, spent), flush=True)


if __name__ == "__main__":
    main()
