"""False alarms and detections of the goodness of fit, by estimator and K.

    python benchmarks/goodness_of_fit.py [--scenes 293] [--methods sml lmmse_music] [--write]
    python benchmarks/goodness_of_fit.py --methods --model runs/mine      # a network

σ² is not told. False alarms: scenes of the law at -15 ... 20 dB that do not fit. Detections:
scenes whose phase sign is reversed (snapshots, channel and codes conjugated) that do not fit;
alone, and in recordings of 16 scenes, in which the sign is the same. "Told the SNR": detections by
the gain in log likelihood alone, with the threshold that gives 1 % false alarms at this SNR and K;
from more than 200 scenes.
Every SNR has scenes of its own. Intervals are those of Clopper and Pearson at 95 %.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from documents import merge_rows, write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from scipy.stats import binomtest

from trainer.config import SceneConfig, TrainConfig
from trainer.estimation import build_localiser
from trainer.localisation import Localisation, localise, reverse_phase, vouch, withhold_reversed
from trainer.scenes import EvalScenes, Scenes
from trainer.training import load_model

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 18_000_003
SNR_DB = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
REVERSED_SNR_DB = (0.0, 2.0, 5.0, 20.0)
TOLD_SNR_DB = 0.0
LEVEL = 0.01
RECORDING = 16
PANELS = {
    "local": LOCAL_SCENE,
    "12x12": {
        "scene.num_horizontal": 12,
        "scene.num_vertical": 12,
        "scene.num_antennas": 16,
        "scene.range_max_m": 10.0,
    },
}

Judge = Callable[[Scenes], Localisation]


def main() -> None:
    """Print the shares of each estimator at each K."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=293, help="per SNR and K")
    names = ["sml", "lmmse_music", "lmmse_music+scoring"]
    parser.add_argument("--methods", nargs="*", default=names)
    parser.add_argument("--model", type=Path, help="a model folder, or a run")
    parser.add_argument("--panel", choices=PANELS, default="local")
    parser.add_argument("--counts", type=int, nargs="*", default=[1, 2], help="numbers K")
    parser.add_argument("--write", action="store_true", help=f"put the rows into {PAGE.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(PANELS[args.panel]).scene
    judges = {name: classical(name, scene) for name in args.methods}
    if args.model:
        model = load_model(args.model, torch.device("cpu"))
        scene = model.config.scene
        judges["network"] = lambda scenes: localise(model, scenes)
    cells = ["false alarms", *(f"{snr:g} dB" for snr in REVERSED_SNR_DB)]
    cells += [f"in {RECORDING} scenes, all", f"{TOLD_SNR_DB:g} dB, told the SNR"]
    lines = [f"| {args.panel} | K | {' | '.join(cells)} |", "|---" * (2 + len(cells)) + "|"]
    print("\n".join(lines), flush=True)
    for name, judge in judges.items():
        for count in args.counts:
            start = time.process_time()
            lines.append(f"| {name} | {count} | {measure(judge, scene, count, args.scenes)} |")
            spent = time.process_time() - start
            size = args.scenes * (len(SNR_DB) + len(REVERSED_SNR_DB))
            print(f"{lines[-1]}\n{spent / size:.3f} s of CPU per scene", flush=True)
    if args.write:
        table = merge_rows(PAGE, f"fit {args.panel}", lines)
        write_tables(PAGE, {f"fit {args.panel}": table})


def measure(judge: Judge, scene: SceneConfig, count: int, size: int) -> str:
    """Return the cells of a row: shares of `size` scenes at each SNR."""
    alarms, found, together, told = [], [], [], ""
    for snr_db in sorted({*SNR_DB, *REVERSED_SNR_DB}):
        # every SNR and K has scenes of its own
        first = (count * 1000 + int(snr_db) + 100) * 10_000
        scenes = EvalScenes(scene, SEED).batch(
            range(first, first + size), snr_db=snr_db, num_sources=count
        )
        unknown = torch.full_like(scenes.noise_variance, torch.nan)
        scenes = replace(scenes, noise_variance=unknown)
        if snr_db in SNR_DB:
            law = judge(scenes)
            alarms.append(law.p_value < LEVEL)
        if snr_db in REVERSED_SNR_DB:
            misread = judge(reverse_phase(scenes))
            found.append(misread.p_value < LEVEL)
            together.append(~in_recordings(misread))
        if snr_db == TOLD_SNR_DB and size * LEVEL > 2:
            told = share(misread.reversed_gain > np.quantile(law.reversed_gain, 1 - LEVEL))
    return " | ".join([share(*alarms), *map(share, found), share(*together), told])


def classical(name: str, scene: SceneConfig) -> Judge:
    """Return what a classical method's estimates are worth, K told."""
    locate = build_localiser(name, scene)

    def judge(scenes: Scenes) -> Localisation:
        count = scenes.sources.num_sources
        return vouch(scenes, locate(scenes, count), count, scene)

    return judge


def in_recordings(found: Localisation) -> np.ndarray:
    """Return whether scenes fit if every `RECORDING` of them are a recording."""
    arrays = found.arrays()
    parts = [
        withhold_reversed(
            Localisation(**{name: x[first : first + RECORDING] for name, x in arrays.items()})
        )
        for first in range(0, len(found.fits), RECORDING)
    ]
    return np.concatenate([part.fits for part in parts])


def share(*cells: np.ndarray) -> str:
    """Return the share of all scenes with its interval and their number."""
    hits = np.concatenate(cells)
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
    return f"{hits.mean():.4f} [{ends.low:.4f}, {ends.high:.4f}] of {len(hits):,}"


if __name__ == "__main__":
    main()
