"""Confidence of a network's estimates against how often they are right, K told and K asked.

    python benchmarks/confidence.py [--network unrolled:2] [--seed 0] [--scenes 512] [--write]

The network of the `local` scene is that of `accuracy.py`, trained here if it is not kept in
runs/benchmark; scenes are of its fresh seed, at -10, -5 and 0 dB. `asked, as if told` has the
coefficients of K told. No estimate is left out for what `localise` withholds confidence. Intervals
of shares count estimates as if they were independent; that of the expected calibration error is a
percentile bootstrap over scenes, which errs upwards. With --write the table goes into
docs/network.md at <!-- confidence -->.
"""

import argparse
import shlex
import sys

from trained import config_of, trained  # isort: skip  (sets threads)

import numpy as np
import torch
from accuracy import COUNTS, FRESH_SEED, PLANS, SNR_DB
from documents import write_tables
from paired import DOCUMENT, shown
from torch import Tensor

from trainer.config import SceneConfig
from trainer.estimation import likeliest_number_on
from trainer.evaluation import BINS, Conditions, calibrate, confidence_outcomes
from trainer.evaluation.confidence import calibration_error
from trainer.intervals import Interval, wilson_share
from trainer.scenes import EvalScenes
from trainer.training import Model

CHUNK = 128
"""Scenes localised at once."""
RESAMPLES = 1000
Outcomes = tuple[Tensor, Tensor, Tensor]
"""Features, whether right, and number of the scene, of every estimate (`confidence_outcomes`)."""


@torch.no_grad()
def estimates_of(model: Model, conditions: Conditions) -> tuple[Outcomes, Outcomes, float]:
    """Return the estimates with K told and with K asked, and the share of right K."""
    told, asked, right = [], [], []
    for snr, count in conditions.points():
        for first in range(0, conditions.num_scenes, CHUNK):
            ids = torch.arange(first, min(first + CHUNK, conditions.num_scenes))
            scenes = EvalScenes(conditions.scene, conditions.seed).batch(
                ids.tolist(), snr_db=snr, num_sources=count
            )
            covariance = model.network(scenes)
            number = likeliest_number_on(scenes, covariance, conditions.scene)
            for number_of, found in ((scenes.sources.num_sources, told), (number, asked)):
                made = confidence_outcomes(scenes, covariance, number_of, model.config)
                found.append((*made[:2], ids[made[2]]))
            right.append(number == count)
    share = float(torch.cat(right).double().mean())
    joined = [tuple(map(torch.cat, zip(*found, strict=True))) for found in (told, asked)]
    return joined[0], joined[1], share


def expected_error(said: Tensor, right: Tensor, scene_of: Tensor) -> Interval:
    """Return the expected calibration error with a percentile bootstrap over scenes."""
    generator = np.random.default_rng(0)
    parts = [np.flatnonzero(scene_of == number) for number in np.unique(scene_of)]
    errors = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(parts), size=len(parts))
        some = np.concatenate([parts[number] for number in drawn])
        errors.append(calibration_error(said[some], right[some]))
    low, high = np.quantile(errors, [0.025, 0.975])
    return Interval(calibration_error(said, right), float(low), float(high), len(parts))


def table_rows(label: str, said: Tensor, right: Tensor, scene_of: Tensor) -> list[str]:
    """Return a row for every tenth of the estimates by confidence, and one of all."""
    lines = []
    for part in said.argsort(stable=True).tensor_split(BINS):
        hit = wilson_share(float(right[part].mean()), len(part))
        span = f"{said[part].min():.2f} to {said[part].max():.2f}"
        lines.append(
            f"| {label} | {span} | {len(part)} | {said[part].mean():.3f} | {shown(hit)} |"
        )
    off = shown(expected_error(said, right, scene_of))
    return [*lines, f"| {label} | all | {len(said)} | expected calibration error {off} | |"]


def measure(network: str, seed: int, num_scenes: int) -> str:
    """Return the table of one training."""
    plan = PLANS["local"]
    budget = {"steps_per_epoch": plan.steps, "batch_size": plan.batch}
    config = config_of("local", network, seed, plan.epochs, "cpu", **budget)
    made = trained(config, "cpu")[0]
    model = Model(config, made, calibrate(made, config))
    scene: SceneConfig = config.scene
    conditions = Conditions(scene, FRESH_SEED, SNR_DB["local"], num_scenes, "cpu", COUNTS["local"])
    told, asked, share = estimates_of(model, conditions)
    lines = [
        "| K | confidence | estimates | mean confidence | share right |",
        "|---|---|---|---|---|",
    ]
    for label, found, own in (
        ("told", told, False),
        ("asked, as if told", asked, False),
        (f"asked, right in {share:.2f}", asked, True),
    ):
        features, right, scene_of = found
        said = model.calibration.confidence(features, asked=own).double()
        lines += table_rows(label, said, right.double(), scene_of)
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="unrolled:2", help="unrolled:<stages>[:<width>]")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--scenes", type=int, default=512, help="per SNR and source number")
    parser.add_argument("--write", action="store_true", help=f"the table into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    table = measure(args.network, args.seed, args.scenes)
    print(table)
    if args.write:
        command = f"`{shlex.join(['python', 'benchmarks/confidence.py', *sys.argv[1:]])}`"
        about = f"{command}; {args.scenes} scenes for each of -10, -5, 0 dB and K = 1, 2"
        write_tables(DOCUMENT, {"confidence": f"\n{about}\n\n{table}"})


if __name__ == "__main__":
    main()
