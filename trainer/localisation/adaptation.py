"""A trained model adapted to the panel, antennas and region of other scenes.

Weights serve other panels, regions, antennas and numbers of snapshots than they were trained on.
Range planes of the dictionary are channels of the convolutions: where a panel or region needs
another number of them, maps are interpolated between both.
"""

import dataclasses
from dataclasses import replace

from torch import nn

from trainer.config import SceneConfig, TrainConfig, require
from trainer.networks import build_network, transfer
from trainer.scenes import Scenes


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
    """
    if scene == config.scene:
        return network
    device = next(network.parameters()).device
    moved = build_network(transfer(config, scene)).to(device)
    moved.load_state_dict(network.state_dict())
    return moved.eval()
