"""False alarms and detections of the goodness of fit, by estimator and K.

    python benchmarks/goodness_of_fit.py [--scenes 293] [--methods sml lmmse_music] [--write]
    python benchmarks/goodness_of_fit.py --methods --model runs/mine      # a network
    python benchmarks/goodness_of_fit.py --panel open --methods sml       # region of recordings
    python benchmarks/goodness_of_fit.py --best [--scenes 293]           # what any test could find

`--panel open` searches scenes of `local` in the region of a recording without a network, and
`plane` scenes at 20 to 500 times 2 D² / wavelength likewise: these have no sign, so that a
"detection" is a false alarm, too.

σ² is not told. False alarms: scenes of the law that do not fit, SNR uniform over -15 ... 20 dB;
and at one SNR, on scenes of their own, of which the row has the largest. Detections: scenes whose
phase sign is reversed (snapshots, channel and codes conjugated) that do not fit; alone, and in
recordings of 16 scenes, in which the sign is the same. "Told the SNR": detections by the gain in
log likelihood alone, with the threshold that gives 1 % false alarms at this SNR and K; from more
than 200 scenes. "By evidence": share of all these scenes in which the evidence, not the gain,
judges the sign (`trainer/localisation/best_places.py`). Intervals are those of Clopper and Pearson
at 95 %.

`--best`: what Δ alone says at 0 dB of scenes of `local`, in the law's own region and in the open
one. By the lemma of Neyman and Pearson no test does better than Δ of the law that scenes are of,
up to errors of the evidence: the least mean error is the share of scenes in which the wrong sign
is likelier, and false alarms and misses of any test together are at least twice that. Conjugation
turns Δ into -Δ, so that the same scenes give both. "Near": all sources within D²/2λ, a quarter of
the Fraunhofer distance.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from documents import merge_rows, write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from trainer.config import SceneConfig, TrainConfig
from trainer.estimation import build_localiser
from trainer.localisation import (
    Localisation,
    default_scene,
    localise,
    reverse_phase,
    vouch,
    withhold_reversed,
)
from trainer.localisation.best_places import LEAST_EVIDENCE, sign_evidence
from trainer.scenes import EvalScenes, Scenes
from trainer.training import load_model

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 18_000_003
LAW_SNR_DB = (-15.0, 20.0)
LAW_SCENES = 7
"""Scenes of the law for each of a cell."""
ONE_SNR_DB = (-6.0, -4.0, -2.0, 0.0)
"""SNRs at which false alarms are counted apart: where the sign is neither clear nor hidden."""
REVERSED_SNR_DB = (0.0, 2.0, 5.0, 20.0)
TOLD_SNR_DB = 0.0
LEVEL = 0.01
RECORDING = 16
BATCH_SIZE = 128
PANELS = {
    "local": LOCAL_SCENE,
    "12x12": {
        "scene.num_horizontal": 12,
        "scene.num_vertical": 12,
        "scene.num_antennas": 16,
        "scene.range_max_m": 10.0,
    },
    "open": LOCAL_SCENE,
    "plane": LOCAL_SCENE | {"scene.range_min_m": 150.0, "scene.range_max_m": 3750.0},
}
SEARCHED_OPEN = ("open", "plane")

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
    parser.add_argument("--best", action="store_true", help="what the best test could find")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.best:
        table = best_table(args.counts, args.scenes)
        if args.write:
            write_tables(PAGE, {"best sign": table})
        return
    scene = TrainConfig.from_params(PANELS[args.panel]).scene
    region = scene
    if args.panel in SEARCHED_OPEN:
        single = EvalScenes(scene, SEED).batch(range(1), snr_db=0.0, num_sources=1)
        region = replace(default_scene(single), max_sources=scene.max_sources)
    judges = {name: classical(name, region) for name in args.methods}
    if args.model:
        model = load_model(args.model, torch.device("cpu"))
        scene = model.config.scene
        judges["network"] = lambda scenes: localise(model, scenes)
    cells = ["false alarms", "at one SNR, most", *(f"{snr:g} dB" for snr in REVERSED_SNR_DB)]
    cells += [f"in {RECORDING} scenes, all", f"{TOLD_SNR_DB:g} dB, told the SNR", "by evidence"]
    lines = [f"| {args.panel} | K | {' | '.join(cells)} |", "|---" * (2 + len(cells)) + "|"]
    at_one = [f"| {args.panel} | K | {' | '.join(f'{snr:g} dB' for snr in ONE_SNR_DB)} |"]
    at_one.append("|---" * (2 + len(ONE_SNR_DB)) + "|")
    print("\n".join(lines), flush=True)
    for name, judge in judges.items():
        for count in args.counts:
            start = time.process_time()
            row = measure(judge, scene, count, args.scenes)
            lines.append(f"| {name} | {count} | {row.cells} |")
            at_one.append(f"| {name} | {count} | {row.at_one} |")
            spent = time.process_time() - start
            print(f"{lines[-1]}\n{spent / row.scenes:.3f} s of CPU per scene", flush=True)
    print("false alarms at one SNR", *at_one, sep="\n")
    if args.write:
        tables = {f"fit {args.panel}": lines, f"false alarms {args.panel}": at_one}
        write_tables(PAGE, {name: merge_rows(PAGE, name, x) for name, x in tables.items()})


class Row(NamedTuple):
    """The cells of a row of both tables, and the number of scenes they are of."""

    cells: str
    at_one: str
    scenes: int


def measure(judge: Judge, scene: SceneConfig, count: int, size: int) -> Row:
    """Return the shares of `size` scenes a cell, K = `count`."""
    draw = EvalScenes(scene, SEED)

    def scenes_at(cell: int, snr_db: float | Tensor, number: int = size) -> Scenes:
        # every cell and K has scenes of its own
        first = (count * 1000 + cell) * 10_000
        scenes = draw.batch(range(first, first + number), snr_db=snr_db, num_sources=count)
        return replace(scenes, noise_variance=torch.full_like(scenes.noise_variance, torch.nan))

    number = size * LAW_SCENES
    low, high = LAW_SNR_DB
    snr_db = low + (high - low) * (torch.arange(number) + 0.5) / number  # evenly: a uniform law
    law = judge(scenes_at(0, snr_db, number))
    at_one = {snr: judge(scenes_at(100 + int(snr), snr)) for snr in ONE_SNR_DB}
    misread = [judge(reverse_phase(scenes_at(200 + int(snr), snr))) for snr in REVERSED_SNR_DB]
    alarms = [share(found.p_value < LEVEL) for found in at_one.values()]
    told = ""
    if size * LEVEL > 2:
        least = np.quantile(at_one[TOLD_SNR_DB].reversed_gain, 1 - LEVEL)
        told = share(misread[REVERSED_SNR_DB.index(TOLD_SNR_DB)].reversed_gain > least)
    by_evidence = [np.isfinite(x.sign_evidence) for x in (law, *at_one.values(), *misread)]
    cells = [share(law.p_value < LEVEL), max(alarms)]
    cells += [share(found.p_value < LEVEL) for found in misread]
    cells += [share(*(~in_recordings(found) for found in misread)), told]
    asked = np.concatenate(by_evidence)
    return Row(" | ".join([*cells, f"{asked.mean():.2f}"]), " | ".join(alarms), len(asked))


def best_table(counts: list[int], size: int) -> str:
    """Return what Δ finds of reversed signs at 0 dB, by K and region; sizes of cells as above."""
    heads = ["region", "K", "wrong sign likelier", f"found, -Δ > {LEAST_EVIDENCE:g}"]
    heads += ["found, 1 % false alarms", "near: found", "others: found"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    print(*lines, sep="\n", flush=True)
    for count in counts:
        scene = TrainConfig.from_params(PANELS["local"]).scene
        law = EvalScenes(scene, SEED).batch(
            range(count * 10**7, count * 10**7 + size), snr_db=TOLD_SNR_DB, num_sources=count
        )
        far = law.sources.range_m[:, :count].amax(-1).numpy() > scene.fraunhofer_m / 4
        asked = torch.zeros(size, dtype=torch.float64)
        for name, region in (("its own", scene), ("open", default_scene(law))):
            # of reversed scenes; NaN where the evidence is not asked
            evidence = sign_evidence(reverse_phase(law), law.sources.num_sources, asked, region)
            against = -evidence.numpy()
            told = against[np.isfinite(against)]
            least = max(0, np.sort(-told)[-1 - int(LEVEL * len(told))])
            found = against > LEAST_EVIDENCE
            cells = [told < 0, found, against > least, found[~far], found[far]]
            lines.append(f"| {name} | {count} | {' | '.join(map(share, cells))} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def classical(name: str, scene: SceneConfig) -> Judge:
    """Return what a classical method's estimates are worth, K told."""
    locate = build_localiser(name, scene)

    def judge(scenes: Scenes) -> Localisation:
        parts = []
        for first in range(0, scenes.batch_size, BATCH_SIZE):
            part = scenes.take(slice(first, first + BATCH_SIZE))
            count = part.sources.num_sources
            parts.append(vouch(part, locate(part, count), count, scene))
        return Localisation.concatenate(parts)

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
