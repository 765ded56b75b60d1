"""A check of a recording: what it holds, whether its scenes fit the model, and if not, why.

A sample of scenes is localised by a classical method and tested (`goodness_of_fit`). If more of
them fail than chance explains, the usual misreadings are tried by name (`conventions`). Where
places are known, estimates are compared with them, and the usual misreadings of places are tried,
too: some, such as rows and columns exchanged on a square panel, show nowhere else.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from trainer.config import SceneConfig, require, require_choice
from trainer.exchange import describe_scenes
from trainer.scenes import Scenes, load_scenes
from trainer.training import resolve_device

from .adaptation import adapt_scene
from .best_places import too_many
from .conventions import (
    Convention,
    conventions,
    likely_convention,
    place_conventions,
    readings,
)
from .localisation import Localisation
from .localise_scenes import known_counts, localise_by
from .methods import METHODS, default_scene, locate_by_method

NEAR_DEG = 5.0
"""Largest distance in either angle at which an estimate agrees with a known place."""


@dataclass(frozen=True)
class Checkup:
    """The result of a check: lines to print, and whether all is well."""

    lines: list[str]
    well: bool


def check_recording(
    path: str | Path,
    *,
    method: str = "sml",
    num_scenes: int = 32,
    num_sources: int | Literal["known", "estimated"] = "known",
    range_m: tuple[float, float] | None = None,
    azimuth_deg: float | None = None,
    elevation_deg: float | None = None,
    device: str = "auto",
) -> Checkup:
    """Check a recording on a sample of its scenes.

    Args:
        num_scenes: size of the sample, evenly spaced.
        others: as in `localise`.

    Raises:
        ConfigError: if the file cannot be read or breaks a rule of `load_scenes`.
    """
    require_choice("method", method, METHODS)
    require(num_scenes >= 1, "num_scenes >= 1", f"{num_scenes}", "Leave it out for 32.")
    whole = load_scenes(path, device=resolve_device(device))
    step = -(-whole.batch_size // num_scenes)
    scenes = whole.take(torch.arange(0, whole.batch_size, step, device=whole.snapshots.device))
    scene = adapt_scene(default_scene(scenes), scenes, range_m, azimuth_deg, elevation_deg)
    known = known_counts(scenes, num_sources)
    if known is not None:
        scene = replace(scene, max_sources=int(known.max()))
    found = localise_by(partial(locate_by_method, method), scenes, known, scene)
    lines = [*describe_scenes(whole), _region(scene)]
    tested = np.isfinite(found.p_value)
    size, fits = int(tested.sum()), int(found.fits[tested].sum())
    lines.append(f"fit        {fits} of {size} scenes fit (p >= .01), by {method}")
    if size < len(tested):
        lines.append(f"untested   {len(tested) - size} scenes: silent, or too few antennas for K")
    fitting = not too_many(size - fits, size)
    reading = scenes
    if not fitting:
        tried = conventions(scenes, torch.from_numpy(found.num_sources), scene)
        likely = likely_convention(tried)
        lines.append("remedy     " + _advice(likely, "scenes", "fit"))
        if likely:
            reading = next(each for name, _, each in readings(scenes) if name == likely.name)
            moved = adapt_scene(scene, reading)
            found = localise_by(partial(locate_by_method, method), reading, known, moved)
    agreeing = True
    if scenes.truth is not None:
        agreeing, compared = _compare(found, reading)
        after = "" if reading is scenes else "with this remedy, "
        lines += [f"places     {after}{compared[0]}", *compared[1:]]
    well = fitting and agreeing and size > 0
    lines.append("verdict    " + ("all is well" if well else "not as the model has it"))
    return Checkup(lines, well)


def _region(scene: SceneConfig) -> str:
    angles = f"azimuth ±{scene.azimuth_max_deg:g}°, elevation ±{scene.elevation_max_deg:g}°"
    return f"region     {angles}, range {scene.range_min_m:.3g} ... {scene.range_max_m:.3g} m"


def _advice(likely: Convention | None, what: str, verb: str) -> str:
    if likely is None:
        return "none of the usual misreadings explains it: docs/data.md, docs/localisation.md"
    return f"with {likely.name} {likely.fitting} of {likely.of} {what} {verb}: {likely.remedy}"


def _compare(found: Localisation, scenes: Scenes) -> tuple[bool, list[str]]:
    """Return whether estimates agree with the known places, and what is to be said about it."""
    sure = found.active & found.resolved & found.fits[:, None]
    sure &= np.isfinite(found.azimuth) & np.isfinite(found.elevation)
    if not sure.any():
        return True, ["no estimate is sure enough to be compared with the known places"]
    azimuth, elevation = (
        torch.from_numpy(np.nan_to_num(x)).to(scenes.snr_db)
        for x in (found.azimuth, found.elevation)
    )
    picked = torch.from_numpy(sure).to(azimuth.device)
    tried = place_conventions(azimuth, elevation, picked, scenes.sources, np.radians(NEAR_DEG))
    (given,) = (each for each in tried if not each.name)
    error = _errors_deg(azimuth, elevation, scenes)[picked]
    said = (
        f"{given.fitting} of {given.of} sure estimates lie within {NEAR_DEG:g}° of a known place; "
        f"median error {float(error.median()):.2g}°"
    )
    if 2 * given.fitting > given.of:
        return True, [said]
    best = max(tried, key=lambda each: each.fitting)
    clear = 2 * best.fitting > best.of
    return False, [said, "remedy     " + _advice(best if clear else None, "estimates", "agree")]


def _errors_deg(azimuth: Tensor, elevation: Tensor, scenes: Scenes) -> Tensor:
    """Return the distance in angle of each estimate to the nearest known place, [B, K]."""
    truth = scenes.sources
    apart = torch.hypot(
        azimuth.unsqueeze(-1) - truth.azimuth.unsqueeze(-2),
        elevation.unsqueeze(-1) - truth.elevation.unsqueeze(-2),
    )
    return apart.masked_fill(~truth.active.unsqueeze(-2), torch.inf).amin(-1).rad2deg()
