"""The findings of a localisation in words: misfits and the likely misreading, scale, reasons."""

from collections import Counter
from dataclasses import asdict, replace
from typing import NamedTuple

import numpy as np
import torch

from trainer.config import ConfigError, SceneConfig
from trainer.estimation import sml
from trainer.evaluation import TOLERANCE_DEG
from trainer.scenes import Scenes, search_grid

from .best_places import reverse_phase
from .conventions import (
    SIGN,
    Convention,
    conventions,
    fit_reading,
    likely_convention,
    readings,
    sample,
    scaled,
)
from .localisation import Localisation
from .vouching import (
    RESCALED,
    REVERSED,
    UNCALIBRATED,
    is_misread,
    is_reread,
    is_rescaled,
    is_reversed,
    moved_by_scale,
    recording_scale,
    vouch,
)

VAGUE = 0.5
"""Relative error of the elements' distances beyond which nothing is said of them."""
SCALE_SAMPLE = 64
"""Scenes that a wrong factor is fitted to: a single one says little of it."""
ROUNDS = 4
"""Most fits at a corrected panel; a factor of 1.3 needs three."""


class Fault(NamedTuple):
    """The likely misreading of a recording.

    Attributes:
        reading: e.g. "with the phase sign reversed 16 of 16 tried fit".
        remedy: what to change.
        scenes: the recording, read so.
    """

    reading: str
    remedy: str
    scenes: Scenes


@torch.no_grad()
def find_fault(found: Localisation, scenes: Scenes, scene: SceneConfig) -> Fault | None:
    """Return the misreading that explains why scenes do not fit, or None."""
    counts = torch.from_numpy(found.num_sources).to(scenes.snapshots.device)
    hinted = REVERSED in found.reason or is_reversed(found)
    likely = _reversed_sign(scenes, counts, scene) if hinted else None
    name = next(iter(found.better_reading.tolist()), "")
    if likely is None and (name or is_misread(found)):
        tried = conventions(scenes, counts, scene)
        named = (each for each in tried if name and each.name == name)
        likely = next((each for each in named if each.fitting > each.of // 2), None)
        likely = likely or likely_convention(tried)
    if likely is None:
        return _scale_fault(found, scenes, counts, scene)
    said = f"with {likely.name} {likely.fitting} of {likely.of} tried fit"
    read = next(each for name, _, each in readings(scenes) if name == likely.name)
    return Fault(said, likely.remedy, read)


def _reversed_sign(scenes: Scenes, counts: torch.Tensor, scene: SceneConfig) -> Convention | None:
    """Return the reading with the phase sign reversed, if most scenes fit with it.

    Asked where all scenes together say so; each alone may say too little to be a misfit.
    """
    _, fits, _ = fit_reading(*sample(reverse_phase(scenes), counts), scene)
    fitting, remedy = int(fits.sum()), "conjugate snapshots, channel and codes"
    most = fitting > len(fits) // 2
    return Convention(SIGN, fitting, len(fits), 0.0, remedy) if most else None


def _scale_fault(
    found: Localisation, scenes: Scenes, counts: torch.Tensor, scene: SceneConfig
) -> Fault | None:
    """Return the fault of a recording most of which fits with other distances of the elements.

    A scene's factor is linearised at the panel as given; far from 1 that says too little. So the
    sample is fitted again at the corrected panel, until the factor stays.
    """
    scale, factor = recording_scale(found), 1.0
    if scale is None or not scale.wrong:
        return None
    few, numbers = sample(scenes, counts, SCALE_SAMPLE)
    for _ in range(ROUNDS):
        factor *= scale.factor
        read = replace(few, panel=scaled(few.panel, factor))
        try:
            at_panel = replace(scene, **asdict(read.panel))
            located = sml(read, numbers, search_grid(at_panel, torch.float32, numbers.device))
        except ConfigError:  # of the region: directions would look alike
            return None
        told = vouch(read, located, numbers, at_panel)
        again = recording_scale(told)
        if again is None:
            return None
        scale = again
        if abs(scale.factor - 1) < scale.std / 4:
            break
    if int(told.fits.sum()) <= len(told.fits) // 2:
        return None
    size = f"{factor:.3g} ± {1.96 * factor * scale.std:.1g}"
    return Fault(
        f"with the elements' distances in wavelengths {size} times as large "
        f"{int(told.fits.sum())} of {len(told.fits)} tried fit",
        f"multiply spacing_m (or positions_m) by {factor:.3g}, or divide wavelength_m by it",
        replace(scenes, panel=scaled(scenes.panel, factor)),
    )


def describe_misfits(found: Localisation, scenes: Scenes, scene: SceneConfig) -> str:
    """Return what is to be said about scenes that do not fit and the likely misreading; or "".

    Every usual misreading is tried if more scenes do not fit than chance explains.
    """
    size = len(found.fits)
    untested = int((found.p_value != found.p_value).sum())
    reread = int(is_reread(found).sum())
    misfits = size - int(found.fits.sum()) - untested - reread
    said = []
    if untested:
        said.append(f"the fit of {untested} of {size} scenes cannot be tested.")
    if REVERSED in found.reason:
        said.append(f"taken together, the {misfits} scenes do not fit.")
    elif misfits:
        said.append(f"{misfits} of {size} scenes do not fit (p < .01).")
    if reread:
        said.append(f"{reread} of {size} scenes fit better when they are read otherwise.")
    elif is_misread(found) and not misfits:
        said.append("taken together, the scenes fit worse than chance explains.")
    if reread or is_misread(found) or is_rescaled(found):
        fault = find_fault(found, scenes, scene)
        if fault:
            said.append(f"{fault.reading[0].upper()}{fault.reading[1:]}: {fault.remedy}.")
        elif misfits:
            said.append("None of the usual misreadings explains them: see docs/localisation.md.")
    scale, clear = describe_scale(found)
    if not clear:
        said.append(f"{scale[0].upper()}{scale[1:]}.")
    return " ".join(said)


def describe_scale(found: Localisation) -> tuple[str, bool]:
    """Return what the snapshots tell of the elements' distances in wavelengths, in words.

    Returns:
        The words, and whether the scale is right or moves no angle by more than `TOLERANCE_DEG`.
    """
    scale = recording_scale(found)
    if scale is None:
        return "the snapshots do not tell the elements' distances in wavelengths", True
    if int(found.fits.sum()) <= int(np.isfinite(found.p_value).sum()) // 2:
        return "scenes that do not fit do not tell the elements' distances in wavelengths", True
    vague = 1.96 * scale.std
    vouched = np.isin(found.reason, ("", UNCALIBRATED, RESCALED)) & found.active
    farther = scale.factor if scale.wrong else 1 - min(vague, VAGUE)
    moved = np.degrees(moved_by_scale(found, farther))
    told = np.isfinite(moved)
    if scale.wrong:
        # linearised at the panel as given: too small, the more so the farther from 1
        off = f"about {scale.factor:.3g} ± {vague:.1g} times as large, or more"
        said = f"the recording fits best with the elements' distances in wavelengths {off}"
        moved = moved[told & vouched]
        clause = f": until then angles are off by up to {moved.max():.1f}°" if len(moved) else ""
        return said + clause, False
    to = f"to ± {100 * vague:.2g} %" if vague < VAGUE else "to no better than half"
    said = f"the snapshots tell the elements' distances in wavelengths {to}"
    moved = moved[told & vouched] if (told & vouched).any() else moved[told]
    if not len(moved):
        return said, True
    clause = f"; an error as large would move angles by up to {moved.max():.1f}°"
    return said + clause, bool(moved.max() <= TOLERANCE_DEG)


def withheld_line(found: Localisation) -> str:
    """Return a line that counts the estimates without confidence by their reason; "" if none."""
    counts = Counter(reason for reason in found.reason[found.active].tolist() if reason)
    listed = ", ".join(f"{count}: {reason}" for reason, count in counts.most_common())
    return (
        f"no confidence for {counts.total()} of {found.active.sum()} ({listed})" if counts else ""
    )
