"""A check of a recording: what it holds, whether its scenes fit the model, and if not, why.

A sample of scenes is localised by a classical method and tested (`goodness_of_fit`). If more of
them fail than chance explains, the usual misreadings are tried by name (`conventions`). Where
places are known, estimates are compared with them (`known_places`), and the usual misreadings of
places are tried, too: some, such as rows and columns exchanged on a square panel, show nowhere
else. All is well if no more scenes, and no more places, are off than chance explains, at 1 %.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from trainer.config import SceneConfig, require, require_choice
from trainer.exchange import describe_scenes
from trainer.scenes import load_scenes, origin_note
from trainer.training import resolve_device

from .diagnosis import describe_scale, find_fault
from .known_places import Comparison, compare_places
from .localise_scenes import known_counts, localise_by
from .methods import METHODS, adapt_scene, default_scene, locate_by_method
from .vouching import UNSEEN, is_misread, is_reread, is_rescaled


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
    scenes = scenes.in_usual_units()
    region = range_m, azimuth_deg, elevation_deg
    scene = adapt_scene(default_scene(scenes, method), scenes, *region)
    known = known_counts(scenes, num_sources)
    if known is not None:
        scene = replace(scene, max_sources=int(known.max()))
    found = localise_by(partial(locate_by_method, method), scenes, known, scene)
    lines = [*describe_scenes(whole), _region(scene)]
    if note := origin_note(path):
        lines.append(f"origin     {note}")
    tested = np.isfinite(found.p_value)
    size, fits = int(tested.sum()), int(found.fits[tested].sum())
    lines.append(f"fit        {fits} of {size} scenes fit (p >= .01), by {method}")
    if size < len(tested):
        lines.append(f"untested   {len(tested) - size} scenes: silent, or too few antennas for K")
    seen = tested & ~(found.reason == UNSEEN).any(-1)
    if (~seen & tested).any():
        lines.append(f"sources    none is seen in {int((~seen & tested).sum())} scenes (p >= .01)")
    fitting = not is_misread(found) and not is_reread(found).any()
    reading = scenes
    if not fitting or is_rescaled(found):
        fault = find_fault(found, scenes, scene)
        none = "none of the usual misreadings explains it: docs/data.md, docs/localisation.md"
        lines.append("remedy     " + (f"{fault.reading}: {fault.remedy}" if fault else none))
        if fault:
            reading = fault.scenes
            scene = adapt_scene(scene, reading)
            found = localise_by(partial(locate_by_method, method), reading, known, scene)
    after = "" if reading is scenes else "with this remedy, "
    scale, clear = describe_scale(found)
    lines.append(f"scale      {after}{scale}")
    well = fitting and bool(seen.any()) and reading is scenes
    if scenes.truth is not None:
        compared = compare_places(found, reading, scene)
        lines += _places(compared, after)
        well &= compared.well
    verdict = "all is well" if well else "not as the model has it"
    if fitting and not seen.any():
        verdict = "nothing can be said: no source is seen, or nothing can be tested"
    elif well and not clear:
        verdict += ", as far as the snapshots tell: see scale"
    lines.append(f"verdict    {verdict}")
    return Checkup(lines, well)


def _region(scene: SceneConfig) -> str:
    angles = f"azimuth ±{scene.azimuth_max_deg:g}°, elevation ±{scene.elevation_max_deg:g}°"
    return f"region     {angles}, range {scene.range_min_m:.3g} ... {scene.range_max_m:.3g} m"


def _places(compared: Comparison, after: str) -> list[str]:
    """Return what is to be said about estimates next to known places."""
    if not compared.compared:
        return ["places     no estimate is sure enough to be compared with the known places"]
    ranges = ""
    if np.isfinite(compared.median_range):
        ranges = f", in range {100 * compared.median_range:.2g} %"
    share = f"{after}{compared.agreeing} of {compared.compared} sure estimates"
    error = f"median error {compared.median_deg:.2g}°{ranges}"
    lines = [f"places     {share} agree with a known place; {error}"]
    likely = compared.likely
    if likely:
        said = f"with {likely.name} {likely.fitting} of {likely.of} estimates agree"
        lines.append(f"remedy     {said}: {likely.remedy}")
    elif not compared.well:
        none = "none of the usual misreadings of places explains it: docs/data.md"
        lines.append(f"remedy     {none}")
    return lines
