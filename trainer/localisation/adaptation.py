"""A trained model adapted to the panel, antennas and region of other scenes.

Weights serve other panels, antennas and numbers of snapshots than they were trained on; only the
number of range planes of the dictionary must be the same, because range planes are channels of the
convolutions.
"""

import dataclasses
from dataclasses import replace

import numpy as np
from torch import nn

from trainer.config import ConfigError, SceneConfig, TrainConfig, require
from trainer.covariance import PLANE_PHASE, POINTS_PER_BEAM
from trainer.networks import build_network
from trainer.scenes import Scenes, grid_shape


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
    ends = (trained.range_min_m, trained.range_max_m) if range_m is None else tuple(range_m)
    require(len(ends) == 2, "range_m is (nearest, farthest)", f"{ends}", "Give both, in metres.")
    near, far = ends
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

    Raises:
        ConfigError: if that needs another number of range planes than the weights have.
    """
    trained = config.scene
    if scene == trained:
        return network
    planes, needed = (grid_planes(each) for each in (trained, scene))
    if planes != needed:
        fits = _fitting_range_min(scene, planes)
        way = f"--range-m {fits:.3g} {scene.range_max_m:g} would fit" if fits else "Train anew"
        raise ConfigError(
            f"weights serve panels and regions with as many range planes, but the network has "
            f"{planes} ({trained.layout}, {trained.range_min_m:g} "
            f"to {trained.range_max_m:g} m) and {scene.layout} "
            f"elements from {scene.range_min_m:g} to {scene.range_max_m:g} m need {needed}. {way}."
        )
    device = next(network.parameters()).device
    moved = build_network(replace(config, scene=scene)).to(device)
    moved.load_state_dict(network.state_dict())
    return moved.eval()


def grid_planes(scene: SceneConfig) -> int:
    """Return the number of range planes of the dictionary for a panel and region."""
    return grid_shape(scene, POINTS_PER_BEAM, PLANE_PHASE)[0]


def _fitting_range_min(scene: SceneConfig, planes: int) -> float | None:
    """Return the `range_min_m` with so many planes that is nearest to the scene's own, if any."""
    choices = np.geomspace(scene.range_min_m / 10, scene.range_max_m * 0.95, 200)
    choices = choices[np.abs(np.log(choices / scene.range_min_m)).argsort()]
    fits = (r for r in choices if grid_planes(replace(scene, range_min_m=r)) == planes)
    return next(fits, None)
