"""Print how often wrong answers stand: of sources outside the region, of codes read wrongly, and
where the snapshots are few.

    python benchmarks/outside.py --model RUN [--scenes 128] [--write]
    python benchmarks/outside.py --model RUN --codes [--scenes 100] [--write]
    python benchmarks/outside.py [--scenes 256] [--write]

With a model, every line is of scenes with one source at 20 dB unless it says otherwise, localised
in the region of the training; sources beyond its angles are 6 degrees beyond, or left out. `wrong`
is the share of estimates whose angles are more than 5 degrees off, or not told, with its
Clopper-Pearson interval: of all, and of those vouched for (as docs/localisation.md defines it).
Reasons to withhold confidence have the number of scenes.

With --codes, every row is of lone scenes of the `local` law, one source at 20 dB, K known, σ² not
told, with its channel or a Rayleigh one, misread in one way: the share that fits by the tests of
the scene (p >= .01), the share of these with an angle of `sml` more than 5 degrees off, the share
that still fits alone when other readings are tried, and that in which the model gives a wrong
place a confidence of .5 or more.

Without a model, every row is of lone scenes of the law by `sml`, K known, σ² not told, SNR evenly
over 0 ... 20 dB unless it says otherwise; rows count estimates. Those vouched for, and the wrong
ones of these, are counted with rival places not asked, and asked. `right and lost` is the share of
right estimates that are withheld for rivals alone. Misreadings are not tried.
"""

import argparse
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from documents import write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from misread import far_off, share

from trainer.config import TrainConfig
from trainer.estimation import sml
from trainer.evaluation import near_a_source
from trainer.localisation import Localisation, localise, vouch, vouched
from trainer.localisation.best_places import LEVEL
from trainer.localisation.conventions import readings
from trainer.localisation.vouching import AMBIGUOUS
from trainer.scenes import EvalScenes, Scenes, search_grid
from trainer.scenes.measurement import expected_signal
from trainer.training import load_model

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 5_000_017
BATCH_SIZE = 64
ROW = {"num_horizontal": 16, "num_vertical": 1, "range_min_m": 1.29}
FAR = {"range_min_m": 29.9, "range_max_m": 30.1}
CASES: dict[str, tuple[dict[str, float], dict[str, Any], float]] = {
    "inside, -5 dB": ({}, {}, -5.0),
    "inside, 0 dB": ({}, {}, 0.0),
    "inside": ({}, {}, 20.0),
    "azimuth beyond 66°": ({"azimuth_max_deg": 85.0}, {}, 20.0),
    "the same, searched to 89°": ({"azimuth_max_deg": 85.0}, {"azimuth_deg": 89.0}, 20.0),
    "elevation beyond 36°": ({"elevation_max_deg": 60.0}, {}, 20.0),
    "5 m": ({"range_min_m": 4.99, "range_max_m": 5.01}, {}, 20.0),
    "30 m": (FAR, {}, 20.0),
    "30 m, searched to 60 m": (FAR, {"range_m": (0.5, 60.0)}, 20.0),
    "0.25 m": ({"range_min_m": 0.245, "range_max_m": 0.255}, {}, 20.0),
    "a row of 16": (ROW, {"range_m": (1.29, 3.0)}, 20.0),
}
"""Changes to the scenes, the region searched if it is another than the training's, and the SNR."""
OUTSIDE_DEG = 6.0
"""Scenes with wider angles than the training's are kept where the source is this far outside."""
MISREAD = (
    "",
    "codes conjugated",
    "codes one snapshot late",
    "codes in reverse order of snapshots",
    "the elements of codes ordered column by column",
    "the elements of codes ordered with rows reversed",
    "snapshots conjugated",
)
"""Names of `readings`; the first is the scene as it is."""
SURE = 0.5
"""Confidence from which an estimate is believed."""
CHANNELS = {"Rician, 6 dB": 6.0, "Rayleigh": -60.0}


SNR_DB = (0.0, 20.0)
FEW: dict[str, tuple[dict[str, float], int, float | None]] = {
    "one source, -5 dB": ({}, 1, -5.0),
    "one source, 0 dB": ({}, 1, 0.0),
    "one source": ({}, 1, None),
    "two sources, 0 dB": ({}, 2, 0.0),
    "two sources": ({}, 2, None),
    "two sources, powers 20 dB apart": ({}, 2, None),
    "two sources, correlation .9": ({"source_correlation": 0.9}, 2, None),
    "one source, a single snapshot": ({"num_snapshots": 1}, 1, None),
    "one source, two snapshots": ({"num_snapshots": 2}, 1, None),
    "two sources, a single snapshot": ({"num_snapshots": 1}, 2, None),
    "one source, two antennas": ({"num_antennas": 2}, 1, None),
    "two sources, three antennas": ({"num_antennas": 3}, 2, None),
}
"""Changes to the `local` law, K, and the SNR if it is one."""
APART_DB = 20.0


def main() -> None:
    """Print a table, and put it into the page."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="a run or model folder; none for the table of `sml`")
    p.add_argument("--codes", action="store_true", help="lone scenes with wrong codes")
    p.add_argument("--scenes", type=int, help="per line: 128, 100, or 256 of `sml`")
    p.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    args = p.parse_args()
    if args.model is None:
        tables = {"rivals": rivals_table(args.scenes or 256)}
    elif args.codes:
        tables = {"codes": codes_table(args.model, args.scenes or 100)}
    else:
        tables = {"outside": outside_table(args.model, args.scenes or 128)}
    if args.write:
        write_tables(PAGE, tables)


def codes_table(run: str, size: int) -> str:
    """Return how many lone misread scenes fit, and how many of these are far off."""
    heads = [
        "a lone scene with",
        "channel",
        "n",
        "fits by its tests",
        "wrong by more than 5°, of these",
    ]
    heads += ["fits, readings tried", f"confidence >= {SURE:g} and wrong"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    model = load_model(run, torch.device("cpu"))
    local = TrainConfig.from_params(LOCAL_SCENE).scene
    for channel, rician_db in CHANNELS.items():
        scene = replace(local, rician_db=rician_db)
        law = EvalScenes(scene, SEED).batch(range(size), snr_db=20.0, num_sources=1)
        unknown = torch.full_like(law.noise_variance, torch.nan)
        given = {name: read for name, _, read in readings(replace(law, noise_variance=unknown))}
        region = {"range_m": (scene.range_min_m, scene.range_max_m)}
        for name in MISREAD:
            found = localise(method="sml", scenes=given[name], num_sources=1, **region)
            passed = found.p_value >= LEVEL  # by the scene's tests, whatever the others say
            wrong = far_off(found, law)[passed]
            cells = [name or "nothing misread", channel, f"{size}", share(passed)]
            cells.append(share(wrong) if len(wrong) else "none fits")
            fits, sure = passed.copy(), np.zeros_like(passed)
            for number in passed.nonzero()[0].tolist():
                one = slice(number, number + 1)
                alone = localise(model, given[name].take(one), num_sources=1)
                fits[one] = alone.fits
                sure[one] = (alone.confidence[:, 0] >= SURE) & far_off(alone, law.take(one))
            lines.append("| " + " | ".join([*cells, share(fits), share(sure)]) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def outside_table(run: str, size: int) -> str:
    """Return the table of sources in and outside the region."""
    model = load_model(run, torch.device("cpu"))
    trained = model.config.scene
    heads = ["scenes", "n", "wrong of all", "vouched for", "wrong of those", "reasons to withhold"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, (change, region, snr_db) in CASES.items():
        scene = replace(trained, **change, max_sources=1)
        scenes = EvalScenes(scene, SEED).batch(range(size), snr_db=snr_db, num_sources=1)
        truth = scenes.sources
        kept = torch.ones(size, dtype=torch.bool)
        for angle in ("azimuth", "elevation"):
            if f"{angle}_max_deg" in change:
                limit = np.radians(getattr(trained, f"{angle}_max_deg") + OUTSIDE_DEG)
                kept = getattr(truth, angle)[:, 0].abs() > limit
        scenes = scenes.take(kept.nonzero().flatten())
        found = localise(model, scenes, num_sources=1, **region)
        lines.append(f"| {name} | {line(scenes, found)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def rivals_table(size: int) -> str:
    """Return what `sml` vouches for where the snapshots leave other places, or hardly do."""
    heads = ["scenes", "n", "wrong of all", "vouched for, rivals not asked", "wrong of those"]
    heads += ["vouched for", "wrong of those", "right and lost"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    local = TrainConfig.from_params(LOCAL_SCENE).scene
    for name, (change, count, snr_db) in FEW.items():
        scene = replace(local, **change, max_sources=count)
        snr = torch.linspace(*SNR_DB, size) if snr_db is None else snr_db
        law = EvalScenes(scene, SEED).batch(range(size), snr_db=snr, num_sources=count)
        if "apart" in name:
            law = weaker_second(law, APART_DB)
        unknown = torch.full_like(law.noise_variance, torch.nan)
        given = replace(law, noise_variance=unknown)
        parts, right = [], []
        for first in range(0, size, BATCH_SIZE):
            part = given.take(slice(first, first + BATCH_SIZE))
            known = part.sources.num_sources
            found = sml(part, known, search_grid(scene))
            right.append(near_a_source(found, part)[found.active])
            parts.append(vouch(part, found, known, scene))
        wrong = ~torch.cat(right).numpy()
        lines.append(f"| {name} | {rivals_line(wrong, Localisation.concatenate(parts))} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def weaker_second(law: Scenes, decibels: float) -> Scenes:
    """Return scenes of two sources with the second weaker by so much, measured again."""
    truth = law.sources
    power = truth.power.clone()
    power[:, 1] *= 10 ** (-decibels / 10)
    truth = replace(truth, power=power)
    mixed, signal = expected_signal(law.panel, law.channel, law.codes, truth)
    generator = torch.Generator().manual_seed(SEED)
    draws = [
        torch.randn(*shape, generator=generator, dtype=mixed.dtype)
        for shape in (mixed.shape[:2] + mixed.shape[3:] + (1,), mixed.shape[:3])
    ]
    variance = signal / 10 ** (law.snr_db / 10)
    noise = variance.sqrt()[:, None, None] * draws[1]
    snapshots = (mixed @ draws[0]).squeeze(-1) + noise
    return replace(law, snapshots=snapshots, truth=truth, noise_variance=variance)


def rivals_line(wrong: np.ndarray, found: Localisation) -> str:
    """Return the cells of a line of `rivals_table`, but the first; `wrong` of active estimates."""
    fits = np.broadcast_to(found.fits[:, None], found.active.shape)[found.active]
    after = vouched(found)[found.active]
    before = after | (fits & (found.reason[found.active] == AMBIGUOUS))
    cells = [f"{len(wrong)}", share(wrong)]
    for each in (before, after):
        cells += [f"{each.mean():.3f}", share(wrong[each]) if each.any() else "none"]
    return " | ".join([*cells, share((before & ~after)[~wrong])])


def line(scenes: Scenes, found: Localisation) -> str:
    """Return the cells of a line, but the first."""
    truth = scenes.sources
    off = [
        found.arrays()[name][:, 0] - getattr(truth, name)[:, 0].numpy()
        for name in ("azimuth", "elevation")
    ]
    wrong = ~(np.degrees(np.hypot(*off)) <= 5)  # an angle that is not told is not right either
    sure = vouched(found)[:, 0]
    cells = []
    for part in (wrong, wrong[sure]):
        cells.append(share(part) if len(part) else "none")
    reasons = Counter(reason for reason in found.reason[:, 0].tolist() if reason)
    said = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    return f"{len(wrong)} | {cells[0]} | {sure.mean():.2f} | {cells[1]} | {said}"


if __name__ == "__main__":
    main()
