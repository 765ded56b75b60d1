"""Placement of sources: uniform in azimuth and elevation, at least one beam apart.

No method resolves sources within one beam, so directions keep a least distance in direction
cosines (u, v) = (sin φ cos θ, sin θ): an ellipse of half-axes 2/N_H along u and 2/N_V along v, the
peak-to-null widths of the beam of a half-wavelength panel. Elements given by their positions
have 2/N_H and 2/N_V replaced by wavelength over width and height.

Sources are placed one after another, each at the first of `ATTEMPTS` candidates that is far enough
from those before it (random sequential addition), so that the first k sources are the same however
many are asked for. A scene in which a source finds no place is drawn anew, at most `ROUNDS` times.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import SceneConfig

ATTEMPTS = 16
"""Candidates per source and round: where four in five are free, a round fails once in 1e11."""
ROUNDS = 16
"""Rounds after which the region counts as too small."""


def candidates_shape(config: SceneConfig) -> tuple[int, int, int]:
    """Return the shape of the uniform numbers of a round: candidates x sources x two angles."""
    return ATTEMPTS if config.max_sources > 1 else 1, config.max_sources, 2


def place(config: SceneConfig, draw_round: Callable[[int], Tensor]) -> tuple[Tensor, Tensor]:
    """Return azimuth and elevation [rad] of `max_sources` sources per scene, [B, K_max] each.

    Args:
        draw_round: returns the uniform numbers of a round, from 0, [B, *candidates_shape].

    Raises:
        ValueError: if some scene has no place for its sources in any round.
    """
    azimuth, elevation, placed = _place_once(config, draw_round(0))
    for attempt in range(1, ROUNDS):
        if bool(placed.all()):
            break
        again_azimuth, again_elevation, again = _place_once(config, draw_round(attempt))
        keep = placed.unsqueeze(-1)
        azimuth = azimuth.where(keep, again_azimuth)
        elevation = elevation.where(keep, again_elevation)
        placed = placed | again
    require_placed(config, azimuth.where(placed.unsqueeze(-1), torch.nan))
    return azimuth, elevation


def place_unread(config: SceneConfig, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Return azimuth and elevation as `place`, without reading a tensor: all rounds at once.

    A scene without room for its sources in any round has NaN.

    Args:
        uniform: the uniform numbers of all rounds, [B, ROUNDS, *candidates_shape].
    """
    azimuth, elevation, placed = (
        x.unflatten(0, uniform.shape[:2]) for x in _place_once(config, uniform.flatten(0, 1))
    )
    first = placed.to(torch.uint8).argmax(1)[:, None, None].expand(-1, 1, config.max_sources)
    known = placed.any(1, keepdim=True)
    azimuth, elevation = (
        x.gather(1, first).squeeze(1).where(known, torch.nan) for x in (azimuth, elevation)
    )
    return azimuth, elevation


def require_placed(config: SceneConfig, azimuth: Tensor) -> None:
    """Check that every scene had room for its sources: that their azimuths are no NaN.

    Raises:
        ValueError: if some scene has no place for its sources in any round.
    """
    failed = int(azimuth.isnan().any(-1).sum())
    if failed:
        raise ValueError(
            f"`max_sources` directions one beam (2/{config.beams[0]:.4g} x "
            f"2/{config.beams[1]:.4g} in direction cosines) apart must fit the region, but "
            f"{failed} of {len(azimuth)} scenes had no room for {config.max_sources} in "
            f"{ROUNDS} x {ATTEMPTS} attempts. Use fewer sources, a larger panel or wider angles."
        )


def far_apart(config: SceneConfig, first: Tensor, second: Tensor) -> Tensor:
    """Return whether direction cosines [..., 2] are at least a beam apart: [...] booleans."""
    across, up = ((first - second)[..., axis] * (config.beams[axis] / 2) for axis in (0, 1))
    return across.square() + up.square() >= 1


def _place_once(config: SceneConfig, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return azimuth, elevation [B, K_max], and whether all sources have a place [B]."""
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
