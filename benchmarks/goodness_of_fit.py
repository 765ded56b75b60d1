"""False alarms and detections of the goodness of fit, by estimator, K and SNR.

    python benchmarks/goodness_of_fit.py [--scenes 100] [--methods sml lmmse_music] [--write]
    python benchmarks/goodness_of_fit.py --model runs/mine        # a network, on its own panel

σ² is not told. False alarms: scenes of the law that do not fit. Detections: scenes whose phase
sign is reversed (snapshots, channel and codes conjugated) that do not fit; alone, and in
recordings of 16 scenes, in which the sign is the same. Every cell has scenes of its own. Intervals
are those of Clopper and Pearson at 95 %.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from documents import write_tables

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
REVERSED_SNR_DB = (0.0, 5.0, 10.0, 20.0)
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
    """Print the shares of each estimator at each SNR and K."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=96, help="per SNR and K")
    names = ["sml", "lmmse_music", "lmmse_music+scoring"]
    parser.add_argument("--methods", nargs="*", default=names)
    parser.add_argument("--model", type=Path, help="a model folder, or a run")
    parser.add_argument("--panel", choices=PANELS, default="local")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(PANELS[args.panel]).scene
    judges = {name: classical(name, scene) for name in args.methods}
    if args.model:
        model = load_model(args.model, torch.device("cpu"))
        scene = model.config.scene
        judges = {"network": lambda scenes: localise(model, scenes)}
    lines = [
        f"| {args.panel}, K | " + " | ".join(f"{snr:g} dB" for snr in SNR_DB) + " | all |",
        "|---" * (2 + len(SNR_DB)) + "|",
    ]
    for name, judge in judges.items():
        start, cell = time.process_time(), 0
        for count in (1, 2):
            alarms, found = [], []
            alarms_together, together = [], []
            for snr_db in SNR_DB:
                ids = range(cell * args.scenes, (cell + 1) * args.scenes)
                cell += 1
                scenes = EvalScenes(scene, SEED).batch(ids, snr_db=snr_db, num_sources=count)
                unknown = torch.full_like(scenes.noise_variance, torch.nan)
                scenes = replace(scenes, noise_variance=unknown)
                judged = judge(scenes)
                alarms.append(judged.p_value < 0.01)
                alarms_together.append(~in_recordings(judged))
                if snr_db in REVERSED_SNR_DB:
                    alone = judge(reverse_phase(scenes))
                    found.append(alone.p_value < 0.01)
                    together.append(~in_recordings(alone))
            rest = [""] * (len(SNR_DB) - len(REVERSED_SNR_DB))
            lines += [
                row(f"{name} {count}, false alarms", [*map(share, alarms), pooled(alarms)]),
                row(
                    f"{name} {count}, false alarms in {RECORDING} scenes",
                    [*map(share, alarms_together), pooled(alarms_together)],
                ),
                row(f"{name} {count}, detected alone", [*rest, *map(share, found), pooled(found)]),
                row(
                    f"{name} {count}, detected in {RECORDING} scenes",
                    [*rest, *map(share, together), pooled(together)],
                ),
            ]
            print("\n".join(lines[-4:]), flush=True)
        size = cell * args.scenes * (1 + len(REVERSED_SNR_DB) / len(SNR_DB))
        print(f"{name}: {(time.process_time() - start) / size:.3f} s of CPU per scene")
    print("\n".join(lines))
    if args.write:
        write_tables(PAGE, {f"fit {args.panel}": "\n".join(lines)})


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


def share(hits: np.ndarray) -> str:
    """Return a share of scenes."""
    return f"{hits.mean():.3f}"


def pooled(cells: list[np.ndarray]) -> str:
    """Return the share of all scenes with its interval and their number."""
    hits = np.concatenate(cells)
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
    return f"{hits.mean():.4f} [{ends.low:.4f}, {ends.high:.4f}], n = {len(hits)}"


def row(name: str, cells: list[str]) -> str:
    """Return a row of the table."""
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
