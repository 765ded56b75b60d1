"""Print how often confidence is given to wrong answers, of sources in and outside the region.

    python benchmarks/outside.py --model RUN [--scenes 128]

Every line is of scenes with one source at 20 dB unless it says otherwise, localised in the region
of the training; sources beyond its angles are 6 degrees beyond, or left out. `wrong` is the share
of estimates whose angles are more than 5 degrees off, or not told, with its Clopper-Pearson
interval: of all, and of those vouched for (confidence given).
"""

import argparse
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from uncertainty import clopper_pearson

from trainer.localisation import localise
from trainer.localisation.localisation import Localisation
from trainer.scenes import EvalScenes, Scenes
from trainer.training import load_model

SEED = 5_000_017
ROW = {"num_horizontal": 16, "num_vertical": 1, "range_min_m": 1.29}
FAR = {"range_min_m": 29.9, "range_max_m": 30.1}
CASES: dict[str, tuple[dict[str, float], dict[str, Any], float]] = {
    "inside, -5 dB": ({}, {}, -5.0),
    "inside, 0 dB": ({}, {}, 0.0),
    "inside": ({}, {}, 20.0),
    "azimuth beyond 66 deg": ({"azimuth_max_deg": 85.0}, {}, 20.0),
    "the same, searched": ({"azimuth_max_deg": 85.0}, {"azimuth_deg": 89.0}, 20.0),
    "elevation beyond 36 deg": ({"elevation_max_deg": 60.0}, {}, 20.0),
    "5 m": ({"range_min_m": 4.99, "range_max_m": 5.01}, {}, 20.0),
    "30 m": (FAR, {}, 20.0),
    "30 m, searched to 60 m": (FAR, {"range_m": (0.5, 60.0)}, 20.0),
    "0.25 m": ({"range_min_m": 0.245, "range_max_m": 0.255}, {}, 20.0),
    "a row of 16": (ROW, {"range_m": (1.29, 3.0)}, 20.0),
}
"""Changes to the scenes, the region searched if it is another than the training's, and the SNR."""
OUTSIDE_DEG = 6.0
"""Scenes with wider angles than the training's are kept where the source is this far outside."""


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="a run or model folder")
    p.add_argument("--scenes", type=int, default=128, help="per line")
    args = p.parse_args()
    model = load_model(args.model, torch.device("cpu"))
    trained = model.config.scene
    print("scenes                     n   wrong of all       vouched  wrong of vouched   reasons")
    for name, (change, region, snr_db) in CASES.items():
        scene = replace(trained, **change, max_sources=1)
        scenes = EvalScenes(scene, SEED).batch(range(args.scenes), snr_db=snr_db, num_sources=1)
        truth = scenes.sources
        kept = torch.ones(args.scenes, dtype=torch.bool)
        for angle in ("azimuth", "elevation"):
            if f"{angle}_max_deg" in change:
                limit = np.radians(getattr(trained, f"{angle}_max_deg") + OUTSIDE_DEG)
                kept = getattr(truth, angle)[:, 0].abs() > limit
        scenes = scenes.take(kept.nonzero().flatten())
        found = localise(model, scenes, num_sources=1, **region)
        print(f"{name:<24} {line(scenes, found)}", flush=True)


def line(scenes: Scenes, found: Localisation) -> str:
    """Return the line of a table."""
    truth = scenes.sources
    off = [
        found.arrays()[name][:, 0] - getattr(truth, name)[:, 0].numpy()
        for name in ("azimuth", "elevation")
    ]
    wrong = ~(np.degrees(np.hypot(*off)) <= 5)  # an angle that is not told is not right either
    vouched = np.isfinite(found.confidence[:, 0])
    cells = []
    for part in (wrong, wrong[vouched]):
        low, high = clopper_pearson(int(part.sum()), len(part)) if len(part) else (0.0, 1.0)
        share = part.mean() if len(part) else 0.0
        cells.append(f"{share:.3f} [{low:.3f}, {high:.3f}]")
    reasons = Counter(reason for reason in found.reason[:, 0].tolist() if reason)
    said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(wrong):>4}  {cells[0]}  {vouched.mean():.3f}  {cells[1]}  {said}"


if __name__ == "__main__":
    main()
