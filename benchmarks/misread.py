"""What is vouched for of recordings with a wrong carrier, and of noise alone, by `sml`.

    python benchmarks/misread.py [--scenes 32] [--write]

Carrier: the wavelength is given too large by a factor, K = 1 known, σ² not told. Each cell has
scenes of its own. `told` is the median standard deviation of the scale of the panel by one scene;
`vouched` the share of wrong answers (an angle more than 5° off) that are vouched for, alone and
in recordings of 32 scenes; `detected` the share of these recordings that are called
rescaled, whatever they move. Factor 1 shows the false alarms.

Noise: shares of scenes without and with sources in which a source is seen, at 1 %. Intervals are
those of Clopper and Pearson at 95 %.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from documents import write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from scipy.stats import binomtest

from trainer.config import SceneConfig, TrainConfig
from trainer.evaluation import noise_p_value
from trainer.localisation import Localisation, judge_recording, localise, vouched
from trainer.scenes import EvalScenes, Scenes, search_grid

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 18_000_017
FACTORS = (1.0, 0.9)
SNR_DB = (5.0, 15.0)
NOISE_SNR_DB = (-15.0, -10.0, -5.0, 0.0)
SIZES = (1, 32)
RESCALED = "the recording fits with other distances of the elements in wavelengths"
LEAST_DEG = 5.0
AZIMUTH_DEG = 45.0
"""Largest angle that is searched: that of the law would have grating lobes at a factor of 0.9."""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=32, help="per cell of the carrier")
    parser.add_argument("--noise", type=int, default=1024, help="scenes without a source")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(LOCAL_SCENE).scene
    tables = {
        "noise": noise_table(scene, args.noise),
        "carrier": carrier_table(replace(scene, azimuth_max_deg=AZIMUTH_DEG), args.scenes),
    }
    for table in tables.values():
        print(table, flush=True)
    if args.write:
        write_tables(PAGE, tables)


def noise_table(scene: SceneConfig, size: int) -> str:
    """Return the shares of scenes in which a source is seen, by SNR and K."""
    search = search_grid(scene, torch.float32)

    def seen(snr_db: float, count: int, number: int) -> str:
        found = [
            noise_p_value(
                EvalScenes(scene, SEED).batch(
                    range(first, min(first + 128, number)), snr_db=snr_db, num_sources=count
                ),
                search,
            )
            for first in range(0, number, 128)
        ]
        return share((torch.cat(found) < 0.01).numpy())

    lines = ["| scenes | " + " | ".join(f"{snr:g} dB" for snr in NOISE_SNR_DB) + " |"]
    lines.append("|---" * (1 + len(NOISE_SNR_DB)) + "|")
    lines.append(f"| noise alone, n = {size} | {seen(0.0, 0, size)} |" + " |" * 3)
    for count in (1, 2):
        cells = " | ".join(seen(snr, count, size // 4) for snr in NOISE_SNR_DB)
        lines.append(f"| K = {count}, n = {size // 4} each | {cells} |")
    return "\n".join(lines)


def carrier_table(scene: SceneConfig, size: int) -> str:
    """Return what is detected and what is vouched for, by factor and SNR."""
    sizes = [n for n in SIZES if n <= size]
    lines = [
        "| wavelength × | SNR | told by one | wrong | "
        + " | ".join(f"vouched, of {n}" for n in sizes)
        + " | "
        + " | ".join(f"detected, of {n}" for n in sizes[1:])
        + " |",
        "|---" * (3 + 2 * len(sizes)) + "|",
    ]
    ids = 0
    for factor in FACTORS:
        for snr_db in SNR_DB:
            law = EvalScenes(scene, SEED).batch(
                range(ids, ids + size), snr_db=snr_db, num_sources=1
            )
            ids += size
            alone = one_by_one(misread(law, factor))
            wrong = far_off(alone, law)
            cells, called = [], []
            for number in sizes:
                found = in_recordings(alone, number)
                kept = wrong & vouched(found)[:, 0]
                cells.append(share(kept[wrong]) if wrong.any() else "")
                by_recording = [
                    (found.reason[first : first + number] == RESCALED).any()
                    for first in range(0, size, number)
                ]
                called.append(f"{np.mean(by_recording):.2f}, n = {len(by_recording)}")
            std = np.nanmedian(found.scale_std)
            row = [f"{factor:g}", f"{snr_db:g} dB", f"± {std:.2f}", share(wrong)]
            lines.append("| " + " | ".join([*row, *cells, *called[1:]]) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def misread(law: Scenes, factor: float) -> Scenes:
    """Return scenes as recordings are: σ² and places unknown, K = 1; with another wavelength."""
    panel = replace(law.panel, wavelength_m=law.panel.wavelength_m * factor)
    unknown = torch.full_like(law.noise_variance, torch.nan)
    return replace(law, panel=panel, noise_variance=unknown, truth=None)


def one_by_one(scenes: Scenes) -> Localisation:
    """Return what `sml` finds in recordings of a single scene."""
    region = {"range_m": (0.5, 3.0), "azimuth_deg": AZIMUTH_DEG, "elevation_deg": 30.0}
    single = (scenes.take(slice(n, n + 1)) for n in range(scenes.batch_size))
    parts = [localise(method="sml", scenes=each, num_sources=1, **region) for each in single]
    return Localisation.concatenate(parts)


def in_recordings(found: Localisation, number: int) -> Localisation:
    """Return the same scenes as recordings of so many."""
    arrays = found.arrays()
    parts = [
        {name: value[first : first + number] for name, value in arrays.items()}
        for first in range(0, len(found.fits), number)
    ]
    return Localisation.concatenate([judge_recording(Localisation(**part)) for part in parts])


def far_off(found: Localisation, law: Scenes) -> np.ndarray:
    """Return the scenes with an angle more than `LEAST_DEG` off."""
    truth = law.sources
    off = [
        np.degrees(np.abs(found.azimuth[:, 0] - truth.azimuth[:, 0].numpy())),
        np.degrees(np.abs(found.elevation[:, 0] - truth.elevation[:, 0].numpy())),
    ]
    return np.asarray(np.maximum(*off) > LEAST_DEG)


def share(hits: np.ndarray) -> str:
    """Return a share with its interval."""
    ends = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="exact")
    return f"{hits.mean():.3f} [{ends.low:.3f}, {ends.high:.3f}]"


if __name__ == "__main__":
    main()
