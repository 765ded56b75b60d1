"""The channel from panel to antennas, and the covariance of the antenna noise.

H is Rician with E|H_mn|² = 1. The line of sight is a plane wave that leaves the panel in a random
direction of the region and arrives at a half-wavelength linear array within ±60°; the scattered
part is CN(0, 1) per entry (Goldsmith 2005, Wireless Communications, section 3.2.2).
"""

import math

import torch
from torch import Tensor

from trainer.config import SceneConfig

from .geometry import Panel, phasor, planar_steering_vector

ARRIVAL_MAX_DEG = 60.0
"""Largest angle of arrival of the line of sight at the antennas [deg]."""


def rician_channel(
    config: SceneConfig, panel: Panel, line_of_sight: Tensor, scatter: Tensor
) -> Tensor:
    """Return H, [B, M, N].

    Args:
        line_of_sight: uniform numbers [B, 3] for its azimuth, elevation and arrival angle.
        scatter: CN(0, 1), [B, M, N].
    """
    limits = (config.azimuth_max_deg, config.elevation_max_deg, ARRIVAL_MAX_DEG)
    azimuth, elevation, arrival = (
        (2 * u - 1) * math.radians(limit)
        for u, limit in zip(line_of_sight.unbind(-1), limits, strict=True)
    )
    antenna = torch.arange(config.num_antennas, device=arrival.device)
    at_antennas = phasor(math.pi * antenna * arrival.sin().unsqueeze(-1))
    at_panel = planar_steering_vector(panel, azimuth, elevation)
    direct = at_antennas.unsqueeze(-1) * at_panel.unsqueeze(-2)
    ratio = 10 ** (config.rician_db / 10)
    return math.sqrt(ratio / (ratio + 1)) * direct + math.sqrt(1 / (ratio + 1)) * scatter


def antenna_noise_covariance(config: SceneConfig, like: Tensor) -> Tensor | None:
    """Return Q = ρ^|i-j| over antennas, [M, M], in the dtype of `like`; None if ρ is 0."""
    if config.noise_correlation == 0:
        return None
    antenna = torch.arange(config.num_antennas, device=like.device)
    lag = (antenna.unsqueeze(-1) - antenna).abs().to(like.real.dtype)
    return (config.noise_correlation**lag).to(like.dtype)
