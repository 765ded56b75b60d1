"""Classical methods on recorded scenes: the region by default, K, and the estimates.

The panel, the wavelength and the antennas are those of the recording. Without flags the region is
that of `SceneConfig` in azimuth and elevation, ±60° and ±30°, and in range begins at a quarter of
the panel's diagonal D and ends at ten times 2 D² / wavelength, beyond which the panel sees no
curvature. K is given or known, or else estimated by the rule of the method
(`estimation.build_source_counter`), from 1 to `MOST_SOURCES`.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.config import LIMIT_NAMES, METHOD_NAMES, POSTERIOR_NAME, SceneConfig
from trainer.estimation import Estimates, build_localiser, build_source_counter
from trainer.evaluation import posterior_readout
from trainer.posterior import MOST_SOURCES as MOST_OF_POSTERIOR
from trainer.posterior import PosteriorReadout
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
    """Estimates, K [B] as given or estimated, and confidence [B, K] where something gives it.

    `posterior` is all that the readout of that name says.
    """

    found: Estimates
    num_sources: Tensor
    confidence: Tensor | None
    posterior: PosteriorReadout | None = None


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
    if name == POSTERIOR_NAME:
        return locate_by_posterior(scenes, counts, scene)
    device = str(scenes.snapshots.device)
    if counts is None:
        counts = build_source_counter(name, scene, device)(scenes)
    return Located(build_localiser(name, scene, device)(scenes, counts), counts, None)


def locate_by_posterior(scenes: Scenes, counts: Tensor | None, scene: SceneConfig) -> Located:
    """Return the estimates of the posterior, with confidence; counts is K, [B], or None to ask it.

    Asked, K is at most what the posterior knows.

    Raises:
        ConfigError: for more sources, or another law, than the posterior knows.
    """
    if counts is None:
        scene = replace(scene, max_sources=min(scene.max_sources, MOST_OF_POSTERIOR))
    read = posterior_readout(scenes, counts, scene)
    return Located(read.estimates(scene), read.num_sources, read.confidence, read)
