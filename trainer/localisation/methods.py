"""Classical methods on recorded scenes: the region by default, K, and the estimates.

The panel, the wavelength and the antennas are those of the recording. Without flags the region is
that of `SceneConfig` in azimuth and elevation, ±60° and ±30°, and in range begins at a quarter of
the panel's diagonal D and ends at ten times 2 D² / wavelength, beyond which the panel sees no
curvature. K is given or known, or else estimated by the rule of the method
(`estimation.build_source_counter`), from 1 to `MOST_SOURCES`.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.config import LIMIT_NAMES, METHOD_NAMES, SceneConfig
from trainer.estimation import Estimates, build_localiser, build_source_counter
from trainer.scenes import Scenes

METHODS = tuple(
    n for n in METHOD_NAMES if n not in ("crb", *LIMIT_NAMES) and not n.startswith("exact")
)
"""Methods that need no truth."""
MOST_SOURCES = 5
"""Largest K that is estimated."""
NEAREST, FARTHEST = 0.25, 10.0
"""Ends of the region in range: in diagonals of the panel, and in 2 D² / wavelength."""


class Located(NamedTuple):
    """Estimates, K [B] as given or estimated, and confidence [B, K] where something gives it."""

    found: Estimates
    num_sources: Tensor
    confidence: Tensor | None


def default_scene(scenes: Scenes) -> SceneConfig:
    """Return the configuration that methods search by default, with the panel of these scenes."""
    horizontal, vertical = scenes.panel.element_positions(torch.float64, torch.device("cpu"))
    diagonal = math.hypot(*(float(x.max() - x.min()) for x in (horizontal, vertical)))
    diagonal = max(diagonal, scenes.panel.wavelength_m / 2)
    return SceneConfig(
        max_sources=max(1, min(MOST_SOURCES, scenes.panel.num_elements - 1)),
        range_min_m=NEAREST * diagonal,
        range_max_m=FARTHEST * 2 * diagonal**2 / scenes.panel.wavelength_m,
    )


@torch.no_grad()
def locate_by_method(
    name: str, scenes: Scenes, counts: Tensor | None, scene: SceneConfig
) -> Located:
    """Return the estimates of one of `METHODS`; counts is K, [B], or None to estimate it."""
    device = str(scenes.snapshots.device)
    if counts is None:
        counts = build_source_counter(name, scene, device)(scenes)
    return Located(build_localiser(name, scene, device)(scenes, counts), counts, None)
