"""Estimators compared scene by scene: readouts of networks, differences and their intervals."""

import argparse
from dataclasses import replace
from pathlib import Path

from trained import Scores, place, scores  # isort: skip  (sets threads)

import numpy as np
import torch
from torch import nn

from trainer.estimation import Estimates, refine_by_fisher_scoring
from trainer.evaluation import Conditions, network_estimator
from trainer.intervals import Interval, bootstrap_mean, paired_difference
from trainer.scenes import Scenes, search_grid

OBJECTIVE_SNR_DB = (-5.0, 0.0)
DOCUMENT = Path("docs/network.md")
REFERENCE = "sml"
CLASSICAL = (
    "lmmse_beamformer+scoring",
    "lmmse_beamformer",
    "lmmse_music+scoring",
    "lmmse_music",
    "pinv_music",
)
WEAK = ("lmmse_music", "pinv_music")
"""What a network has to beat everywhere."""


def add_flags(parser: argparse.ArgumentParser, *, epochs: int, scenes: int) -> None:
    """Add the flags of comparisons that train one network on the 6x6 panel."""
    parser.add_argument("--network", default="unrolled:2", help="unrolled:<stages>[:<width>]")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=epochs, help="of 20 steps of 64 scenes")
    parser.add_argument("--scenes", type=int, default=scenes, help="per SNR and source number")


def readouts(network: nn.Module, name: str, conditions: Conditions) -> dict[str, Scores]:
    """Score MUSIC on a network's covariance, and Fisher scoring from where it ends; K told.

    Args:
        name: under which its scores are kept, unlike that of any other training.
    """
    scene, device = conditions.scene, conditions.device
    search = search_grid(scene, torch.float32, device)
    music = network_estimator(network, scene, device)
    found: list[Estimates] = []

    def remembered(scenes: Scenes) -> Estimates:
        found.append(music(scenes))
        return found[-1]

    def sharpened(scenes: Scenes) -> Estimates:
        return refine_by_fisher_scoring(scenes, found.pop(0), search)

    names = name, f"{name}+scoring"
    if not place(names[1], conditions).exists():
        place(names[0], conditions).unlink(missing_ok=True)  # the second goes on from the first
    first = scores(names[0], remembered, conditions)
    second = scores(names[1], sharpened, conditions)
    together = first.milliseconds + second.milliseconds
    return {"": first, "+scoring": replace(second, milliseconds=together)}


def mean_of(parts: list[Scores]) -> Scores:
    """Return one estimator with every scene's errors averaged over training seeds."""
    columns = {
        name: np.mean([getattr(part, name) for part in parts], axis=0)
        for name in ("capped_error", "success", "milliseconds", "told")
    }
    first = parts[0]
    return Scores(first.scene_id, first.snr_db, first.num_sources, **columns)


def shown(interval: Interval, sign: str = "") -> str:
    """Return mean and interval as text."""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def difference(one: Scores, other: Scores, snr_db: tuple[float, ...], *count: int) -> Interval:
    """Return the difference of capped errors, paired by scene."""
    pair = (each.per_scene("capped_error", snr_db, count or None) for each in (one, other))
    return paired_difference(*pair)


def everywhere(rows: dict[str, Scores], conditions: Conditions) -> str:
    """Return a table of capped errors of the networks with scoring, minus those of MUSIC and ML,
    at every SNR and K."""
    others = (*WEAK, REFERENCE)
    heads = ["estimator", "SNR/dB", "K", "capped error", *(f"- {other}" for other in others)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name, mine in rows.items():
        if name in CLASSICAL or not name.endswith("+scoring"):
            continue
        for snr, count in conditions.points():
            error = bootstrap_mean(mine.per_scene("capped_error", (snr,), (count,)))
            gaps = (difference(mine, rows[other], (snr,), count) for other in others)
            cells = " | ".join([shown(error), *(shown(gap, "+") for gap in gaps)])
            lines.append(f"| {name} | {snr:g} | {count} | {cells} |")
    return "\n".join(lines)
