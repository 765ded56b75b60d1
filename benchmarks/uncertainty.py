"""Print how often 95 % intervals of azimuth, elevation and range hold the truth.

    python benchmarks/uncertainty.py [--model RUN] [--methods NAME ...] [--scenes 256] [--write]

Of the first source of every scene of the `local` law, `--scenes` of them at each SNR and K: the
coverage of estimate ± 1.96 standard deviations (azimuth, elevation) and of `range_low_m` to
`range_high_m`, where they are given, with Clopper-Pearson intervals.
Above threshold: every source of the scene is resolved, and least squares at the estimates explain
at least the share 1 - 2^-K of the snapshots' energy. Below, an estimate may lie in a false basin,
of which a standard deviation knows nothing.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from documents import merge_rows, write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from scipy.stats import binomtest

from trainer.config import SceneConfig, TrainConfig
from trainer.estimation import Estimates, build_localiser, refined_music
from trainer.evaluation import identify, match
from trainer.intervals import NORMAL_QUANTILE
from trainer.localisation import adapt_network
from trainer.scenes import EvalScenes, Scenes, respond, search_grid
from trainer.training import load_model

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 5_000_011
COORDINATES = ("azimuth", "elevation", "range_m")
SNRS = (-5.0, 0.0, 5.0, 10.0, 20.0)


def main() -> None:
    """Print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="a run or model folder to measure too")
    p.add_argument("--methods", nargs="*", default=["sml", "lmmse_music+scoring"])
    p.add_argument("--scenes", type=int, default=256, help="per SNR and K")
    p.add_argument("--counts", type=int, nargs="*", default=[1, 2], help="numbers K")
    p.add_argument("--write", action="store_true", help=f"put the rows into {PAGE.name}")
    args = p.parse_args()
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(LOCAL_SCENE).scene
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
    levels = " / ".join(f"{snr:g}" for snr in SNRS)
    cells = [f"above threshold at {levels} dB", "azimuth", "elevation", "range", "told", "n"]
    cells += ["azimuth below"]
    lines = [f"| method | K | {' | '.join(cells)} |", "|---" * (2 + len(cells)) + "|"]
    print("\n".join(lines), flush=True)
    for name, locate in methods.items():
        for count in args.counts:
            lines.append(f"| {name} | {count} | {measure(locate, scene, count, args.scenes)} |")
            print(lines[-1], flush=True)
    if args.write:
        write_tables(PAGE, {"coverage": merge_rows(PAGE, "coverage", lines)})


def measure(
    locate: Callable[[Scenes, torch.Tensor], Estimates], scene: SceneConfig, count: int, size: int
) -> str:
    """Return the cells of a row, from `size` scenes at each SNR."""
    shares, found = [], []
    for snr_db in SNRS:
        # every SNR and K has scenes of its own
        first = (count * 1000 + int(snr_db) + 100) * 10_000
        scenes = EvalScenes(scene, SEED).batch(
            range(first, first + size), snr_db=snr_db, num_sources=count
        )
        with torch.no_grad():
            estimates = locate(scenes, scenes.sources.num_sources)
        found.append(first_sources(scenes, estimates, scene))
        shares.append(f"{found[-1]['above'].mean():.2f}")
    rows = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    above = rows["above"]
    cells = [" / ".join(shares), *(coverage(rows[name][above]) for name in COORDINATES)]
    told = np.isfinite(rows["range_m"][above]).mean()
    return " | ".join(
        [*cells, f"{told:.2f}", f"{above.sum():,}", coverage(rows["azimuth"][~above])]
    )


def first_sources(scenes: Scenes, found: Estimates, scene: SceneConfig) -> dict[str, np.ndarray]:
    """Return whether 95 % intervals hold the first source of every scene, [B] each: 1, 0 or NaN.

    `above` says which scenes are above threshold.
    """
    told = identify(scenes, found, scene)
    truth = scenes.sources
    # the estimate matched to the first source is the one whose error the matching returns
    errors = match(found, truth)
    azimuth = truth.azimuth[:, 0] + errors.azimuth_deg[:, 0].deg2rad()
    nearest = (found.azimuth - azimuth.unsqueeze(-1)).abs()
    nearest = nearest.masked_fill(~found.active, torch.inf).argmin(-1, keepdim=True)
    ends = {"range_m": (told.range_low_m, told.range_high_m)}
    for name in ("azimuth", "elevation"):
        value, half = getattr(told, name), NORMAL_QUANTILE * getattr(told, f"{name}_std")
        ends[name] = value - half, value + half
    columns = {}
    for name in COORDINATES:
        low, high = (end.gather(-1, nearest)[:, 0] for end in ends[name])
        true = getattr(truth, name)[:, 0]
        held = ((low <= true) & (true <= high)).double().where(~low.isnan(), torch.nan)
        columns[name] = held.cpu().numpy()
    resolved = (found.resolved | ~found.active).all(-1)
    enough = explained(scenes, found, scene) >= 1 - 0.5 ** found.active.sum(-1)
    return columns | {"above": (resolved & enough).cpu().numpy()}


def explained(scenes: Scenes, found: Estimates, scene: SceneConfig) -> torch.Tensor:
    """Return the share of the energy that least squares at the estimates explain, [B]."""
    steering = search_grid(scene).response(found.positions) * found.active.unsqueeze(-1)
    responses = respond(scenes.channel, scenes.codes, steering.to(scenes.channel))
    basis, size, _ = torch.linalg.svd(responses, full_matrices=False)
    basis = basis * (size > 1e-5 * size.amax(-1, keepdim=True)).unsqueeze(-2)
    inside = (basis.mH @ scenes.snapshots.unsqueeze(-1)).abs().square().sum((1, 2, 3))
    return inside / scenes.snapshots.abs().square().sum((1, 2))


def coverage(held: np.ndarray) -> str:
    """Return the share of intervals that hold the truth with its interval; NaN are left out."""
    held = held[np.isfinite(held)]
    if not len(held):
        return ""
    ends = binomtest(int(held.sum()), len(held)).proportion_ci(method="exact")
    return f"{held.mean():.3f} [{ends.low:.3f}, {ends.high:.3f}]"


if __name__ == "__main__":
    main()
