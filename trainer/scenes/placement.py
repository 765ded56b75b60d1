"""Where sources are put: uniform in azimuth, elevation and range, at least one beam apart.

Two sources closer than the panel's resolution are one source to every method, so positions keep a
least distance in direction cosines (u, v) = (sin φ cos θ, sin θ): half-axes 2/N_H along u and
2/N_V along v, the null-to-peak width of a half-wavelength panel's beam; on a square panel this is
a distance of 2/N_H.

Sources are placed one after another, each at the first of `ATTEMPTS` candidates that is far enough
from those before it (random sequential addition). A scene in which some source finds no place is
drawn anew as a whole, at most `ROUNDS` times; then the region is too small, and that is an error.
The first k of the sources are the same however many are asked for.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import SceneConfig

ATTEMPTS = 16
"""Candidates per source and round. With room for four candidates in five, one round fails once
in 1e11 sources."""
ROUNDS = 16
"""Rounds before the region counts as too small."""


def candidates_shape(config: SceneConfig) -> tuple[int, int, int]:
    """Uniform numbers that one round takes per scene: candidates x sources x two angles."""
    return ATTEMPTS if config.max_sources > 1 else 1, config.max_sources, 2


def place(config: SceneConfig, draw_round: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
    """Azimuth and elevation [rad] of `max_sources` sources per scene: [B, K_max] each.

    Args:
        draw_round: uniform numbers in [0, 1) of a round, [B, *candidates_shape]; round 0 first.

    Raises:
        ValueError: if some scene has no place for its sources in any round.
    """
    azimuth, elevation, placed = _place_once(config, draw_round(0))
    for attempt in range(1, ROUNDS):
        if bool(placed.all()):
            return azimuth, elevation
        again_azimuth, again_elevation, again = _place_once(config, draw_round(attempt))
        keep = placed.unsqueeze(-1)
        azimuth = azimuth.where(keep, again_azimuth)
        elevation = elevation.where(keep, again_elevation)
        placed = placed | again
    if not bool(placed.all()):
        failed = int((~placed).sum())
        raise ValueError(
            f"`max_sources` directions one beam (2/{config.num_horizontal} x "
            f"2/{config.num_vertical} in direction cosines) apart must fit the region, but "
            f"{failed} of {placed.numel()} scenes had no room for {config.max_sources} in "
            f"{ROUNDS} x {ATTEMPTS} attempts. Use fewer sources, a larger panel or wider angles."
        )
    return azimuth, elevation


def far_apart(config: SceneConfig, first: Tensor, second: Tensor) -> Tensor:
    """Whether direction cosines [..., 2] are at least a beam apart: [...] booleans."""
    sizes = torch.tensor([config.num_horizontal, config.num_vertical], dtype=first.dtype)
    beams = (first - second) * (sizes.to(first.device) / 2)
    return beams.square().sum(-1) >= 1


def _place_once(config: SceneConfig, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One round: azimuth, elevation [B, K_max], and whether all of a scene's sources fit [B]."""
    azimuth, elevation = (
        (2 * uniform[..., axis] - 1) * math.radians(limit)
        for axis, limit in enumerate((config.azimuth_max_deg, config.elevation_max_deg))
    )
    cosines = torch.stack([azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)
    chosen = uniform.new_empty(uniform.shape[0], 0, 2)
    picks, found = [], []
    for source in range(config.max_sources):
        candidates = cosines[:, :, source]
        clear = far_apart(config, candidates.unsqueeze(2), chosen.unsqueeze(1)).all(-1)
        found.append(clear.any(-1))
        picks.append(clear.to(torch.uint8).argmax(-1))  # the first that is clear
        pick = picks[-1][:, None, None].expand(-1, 1, 2)
        chosen = torch.cat([chosen, candidates.gather(1, pick)], dim=1)
    pick = torch.stack(picks, dim=-1).unsqueeze(1)
    return (
        azimuth.gather(1, pick).squeeze(1),
        elevation.gather(1, pick).squeeze(1),
        torch.stack(found, dim=-1).all(-1),
    )
