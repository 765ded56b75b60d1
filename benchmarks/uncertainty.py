"""Print how often 95 % intervals of azimuth, elevation and range hold the truth.

    python benchmarks/uncertainty.py [--model RUN] [--methods NAME ...] [--scenes 256]

Per method, SNR and K, of the first source of every scene: the coverage of estimate ± 1.96 standard
deviations where one is given, with its Clopper-Pearson interval; the share of estimates with a
range; and the share within 5 degrees, which tells where the threshold lies. Below it an estimate
may be in a false basin, of which a standard deviation knows nothing.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import beta

from trainer.config import SceneConfig
from trainer.estimation import Estimates, build_localiser, refined_music
from trainer.evaluation import identify, match
from trainer.intervals import NORMAL_QUANTILE
from trainer.localisation import adapt_network
from trainer.scenes import EvalScenes, Scenes
from trainer.training import load_model

SEED = 5_000_011
COORDINATES = ("azimuth", "elevation", "range_m")
SNRS = (-10.0, -5.0, 0.0, 5.0, 10.0, 20.0)


def clopper_pearson(hits: int, count: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact binomial interval of a share (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = beta.ppf(tail, hits, count - hits + 1) if hits else 0.0
    high = beta.ppf(1 - tail, hits + 1, count - hits) if hits < count else 1.0
    return float(low), float(high)


def first_sources(scenes: Scenes, found: Estimates, scene: SceneConfig) -> dict[str, np.ndarray]:
    """Return errors and standard deviations of the first source of every scene, [B] each."""
    told = identify(scenes, found, scene)
    truth = scenes.sources
    # the estimate matched to the first source is the one whose error the matching returns
    errors = match(found, truth)
    azimuth = truth.azimuth[:, 0] + errors.azimuth_deg[:, 0].deg2rad()
    nearest = (found.azimuth - azimuth.unsqueeze(-1)).abs()
    nearest = nearest.masked_fill(~found.active, torch.inf).argmin(-1, keepdim=True)
    columns = {"angle_deg": errors.angle_deg[:, 0]}
    for name in COORDINATES:
        value, std = (
            getattr(told, x).gather(-1, nearest)[:, 0]
            for x in (name, "range_std_m" if name == "range_m" else f"{name}_std")
        )
        columns[name] = (value - getattr(truth, name)[:, 0]) / std
    return {name: value.cpu().numpy() for name, value in columns.items()}


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="a run or model folder to measure too")
    p.add_argument("--methods", nargs="*", default=["sml", "lmmse_music+scoring"])
    p.add_argument("--scenes", type=int, default=256, help="per SNR and K")
    args = p.parse_args()
    scene = SceneConfig()
    methods: dict[str, Callable[[Scenes, torch.Tensor], Estimates]] = {
        name: build_localiser(name, scene) for name in args.methods
    }
    if args.model:
        model = load_model(args.model, torch.device("cpu"))
        scene = replace(model.config.scene, num_snapshots=scene.num_snapshots)
        network = adapt_network(model.network, model.config, scene)
        methods["network+scoring"] = lambda scenes, count: refined_music(
            scenes, network(scenes), count, scene
        )
    print(
        "method               SNR  K  within 5°  azimuth            elevation          "
        "range              told"
    )
    for name, locate in methods.items():
        for count in (1, 2):
            for snr_db in SNRS:
                scenes = EvalScenes(scene, SEED).batch(
                    range(args.scenes), snr_db=snr_db, num_sources=count
                )
                with torch.no_grad():
                    found = locate(scenes, scenes.sources.num_sources)
                rows = first_sources(scenes, found, scene)
                cells = []
                for coordinate in COORDINATES:
                    z = rows[coordinate][np.isfinite(rows[coordinate])]
                    hits = int((np.abs(z) <= NORMAL_QUANTILE).sum())
                    low, high = clopper_pearson(hits, len(z)) if len(z) else (0.0, 1.0)
                    cells.append(f"{hits / max(len(z), 1):.2f} [{low:.2f}, {high:.2f}]")
                told = np.isfinite(rows["range_m"]).mean()
                near = (rows["angle_deg"] <= 5).mean()
                print(
                    f"{name:<20} {snr_db:>3.0f}  {count}  {near:<9.2f}  {'  '.join(cells)}  "
                    f"{told:.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
