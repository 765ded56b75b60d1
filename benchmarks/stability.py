"""Losses and gradient norms of the first steps of the known-good starts of a preset.

    python benchmarks/stability.py [--preset full] [--steps 60] [--batch 16] [--kinds unrolled]

Every anchor of the preset is trained at a batch that a CPU can pay. A row has mean losses over
thirds of the steps; gradient norms are those before clipping.
"""

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

import spaces
from search.plan import SearchConfig
from trainer.training import TrainingLoop


def main() -> None:
    """Print them for every start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="full", choices=spaces.PRESETS)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--kinds", nargs="+", metavar="KIND", help="of network; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan = SearchConfig(args.preset, 1, "stability")
    budget = {"batch_size": args.batch, "device": "cpu"}
    print("| anchor | loss: first step | thirds | gradient norm: median | largest |")
    print("|---|---|---|---|---|")
    for anchor in plan.space.anchors:
        config = plan.train_config(plan.space.draw(anchor) | budget)
        if args.kinds and config.network.kind not in args.kinds:
            continue
        training = TrainingLoop(config, torch.device("cpu"))
        rows = [training.step() for _ in range(args.steps)]
        total, norm = (np.array([row[name] for row in rows]) for name in ("total", "norm"))
        thirds = ", ".join(f"{part.mean():.3f}" for part in np.array_split(total, 3))
        about = f"{config.network.kind}, eigengap weight {config.eigengap.weight:g}"
        print(
            f"| {about} | {total[0]:.3f} | {thirds} | {np.median(norm):.2g} | {norm.max():.2g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
