"""Classical methods and trained models made ready for recorded scenes: region, K, estimates.

The panel, the wavelength and the antennas are those of the recording. Without flags the region of
a classical method is that of `SceneConfig` in azimuth and elevation, ±60° and ±30°, and in range
begins at a quarter of the panel's diagonal D and ends at a thousand times 2 D² / wavelength, where
waves are plane to any snapshots: sources of a recording may be as far as they like. The posterior,
whose law is uniform in range, ends at ten times. K is given or known, or else estimated by the
rule of the method (`estimation.build_source_counter`), from 1 to `MOST_SOURCES`, below the number
of antennas.

A model's weights serve other panels, regions, antennas and numbers of snapshots than they were
trained on. Range planes of the dictionary are channels of the convolutions: where a panel or
region needs another number of them, maps are interpolated between both.
"""

import dataclasses
import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.config import (
    LIMIT_NAMES,
    METHOD_NAMES,
    POSTERIOR_NAME,
    SceneConfig,
    TrainConfig,
    require,
)
from trainer.estimation import Estimates, build_localiser, build_source_counter
from trainer.evaluation import posterior_readout
from trainer.networks import build_network, transfer
from trainer.posterior import MOST_SOURCES as MOST_OF_POSTERIOR
from trainer.posterior import PosteriorReadout
from trainer.scenes import Scenes

METHODS = tuple(
    n for n in METHOD_NAMES if n not in ("crb", *LIMIT_NAMES) and not n.startswith("exact")
)
"""Methods that need no truth."""
MOST_SOURCES = 5
"""Largest K that is estimated."""
NEAREST, FARTHEST = 0.25, 1000.0
"""Ends of the region in range: in diagonals of the panel, and in 2 D² / wavelength."""
FARTHEST_OF_POSTERIOR = 10.0
"""Beyond, a law uniform in range hardly has a source near the panel."""


class Located(NamedTuple):
    """Estimates, K [B] as given or estimated, and confidence [B, K] where something gives it.

    `posterior` is all that the readout of that name says.
    """

    found: Estimates
    num_sources: Tensor
    confidence: Tensor | None
    posterior: PosteriorReadout | None = None


def default_scene(scenes: Scenes, method: str = "sml") -> SceneConfig:
    """Return the default configuration of a method, with the panel of these scenes."""
    farthest = FARTHEST_OF_POSTERIOR if method == POSTERIOR_NAME else FARTHEST
    horizontal, vertical = scenes.panel.element_positions(torch.float64, torch.device("cpu"))
    diagonal = math.hypot(*(float(x.max() - x.min()) for x in (horizontal, vertical)))
    diagonal = max(diagonal, scenes.panel.wavelength_m / 2)
    return SceneConfig(
        max_sources=max(
            1, min(MOST_SOURCES, scenes.panel.num_elements - 1, scenes.num_antennas - 1)
        ),
        range_min_m=NEAREST * diagonal,
        range_max_m=farthest * 2 * diagonal**2 / scenes.panel.wavelength_m,
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


def adapt_scene(
    trained: SceneConfig,
    scenes: Scenes,
    range_m: tuple[float, float] | None = None,
    azimuth_deg: float | None = None,
    elevation_deg: float | None = None,
) -> SceneConfig:
    """Return the training's configuration, changed to these scenes' panel and another region.

    Args:
        range_m: nearest and farthest range; azimuth_deg, elevation_deg: largest angles. None keeps
            those of the training.
    """
    ends = (trained.range_min_m, trained.range_max_m) if range_m is None else range_m
    both = isinstance(ends, tuple | list) and len(ends) == 2
    require(both, "range_m is (nearest, farthest)", f"{ends}", "Give both, in metres.")
    near, far = ends
    for name, angle in (("azimuth_deg", azimuth_deg), ("elevation_deg", elevation_deg)):
        if isinstance(angle, int | float):
            # the least width is for a row of elements, which is searched in one plane
            rule = f"{name} is in degrees: more than 1.57, or at most 0.3"
            good = not 0.3 < angle <= math.pi / 2
            require(good, rule, f"{angle}", f"Give {math.degrees(angle):.4g} for {angle} radians.")
    return replace(
        trained,
        **dataclasses.asdict(scenes.panel),
        num_antennas=scenes.num_antennas,
        num_snapshots=scenes.num_snapshots,
        range_min_m=near,
        range_max_m=far,
        azimuth_max_deg=trained.azimuth_max_deg if azimuth_deg is None else azimuth_deg,
        elevation_max_deg=trained.elevation_max_deg if elevation_deg is None else elevation_deg,
    )


def adapt_network(network: nn.Module, config: TrainConfig, scene: SceneConfig) -> nn.Module:
    """Return a trained network for another panel or region, with the same weights.

    Args:
        config: of its training.
    """
    if scene == config.scene:
        return network
    device = next(network.parameters()).device
    moved = build_network(transfer(config, scene)).to(device)
    moved.load_state_dict(network.state_dict())
    return moved.eval()
