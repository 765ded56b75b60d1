"""The input of every network, maps over the dictionary, and the convolutions that process them.

    power        log sum_l |a_gᴴ x_l|², x_l = G_lᴴ (G_l G_lᴴ + λI)⁻¹ y_l: back-projected by LMMSE
    normaliser   log sum_l ‖Π_l a_g‖², Π_l = G_lᴴ (G_l G_lᴴ + λI)⁻¹ G_l: the power that a unit
                 source would return, low where channel and codes hardly illuminate a position
    noise        log λ, the same at every point, with λ fitted to the snapshots

None depends on the phase of a snapshot's code or on the scale of the snapshots. Range planes are
the channels of the convolutions; maps are images over elevation and azimuth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import NetworkConfig
from trainer.covariance import (
    ChannelEigenmodes,
    Products,
    channel_eigenmodes,
    fit_loading,
    unit_trace,
)
from trainer.scenes import Scenes

LOG_FLOOR = 1e-12
"""Smallest relative power under a logarithm."""
SHARPNESS_UNIT = 4.0
"""Scale of the learned sharpness: one learning rate then suits it and the convolutions."""
NOISE_RANGE = 3.0
"""Bound of |log λ|, 13 dB: beyond it, a network would extrapolate."""


@dataclass(frozen=True)
class PowerMaps:
    """The input of a network, and the back-projection it was made from; natural logarithms.

    Attributes:
        power, normaliser: [B, G], of the module docstring, relative to their sums over the panel.
        log_noise: [B], λ relative to the mean gain of the channel.
        measured: [B, N, L], back-projected snapshots.
        modes: of the channel.
        signal, loading: p and λ of `fit_loading`, [B].
    """

    power: Tensor
    normaliser: Tensor
    log_noise: Tensor
    measured: Tensor
    modes: ChannelEigenmodes
    signal: Tensor
    loading: Tensor


@dataclass(frozen=True)
class BackProjection:
    """The ingredients of maps, which need no dictionary.

    Attributes:
        matrices: [2, B, N, N], sum_l x_l x_lᴴ and sum_l Π_lᴴ Π_l, trace 1.
        log_noise, measured, modes, signal, loading: of `PowerMaps`.
    """

    matrices: Tensor
    log_noise: Tensor
    measured: Tensor
    modes: ChannelEigenmodes
    signal: Tensor
    loading: Tensor


@torch.no_grad()
def back_projection(scenes: Scenes) -> BackProjection:
    """Return the back-projection of a batch; no gradient passes."""
    modes = channel_eigenmodes(scenes)
    gain, phases = modes.gain, modes.phases
    signal, loading = fit_loading(modes)
    largest = modes.coordinates.abs().amax((-3, -2, -1), keepdim=True)
    scaled = modes.coordinates / largest.clamp(min=torch.finfo(gain.dtype).tiny)
    weight = 1 / (gain + loading[:, None, None])
    measured = modes._replace(coordinates=scaled).back_project(weight).mT
    # sum_l ‖Π_l a‖² = aᴴ [sum_l P_l* Q² P_l] a: an entrywise product with the Gram of the phases
    squared = (modes.lift * (gain * weight**2).unsqueeze(-2)) @ modes.lift.mH
    matrices = [measured @ measured.mH, (squared * (phases.mH @ phases)).sum(1)]
    log_noise = (loading / gain.mean((-2, -1))).log().clamp(-NOISE_RANGE, NOISE_RANGE)
    scaled_matrices = unit_trace(torch.stack(matrices))
    return BackProjection(scaled_matrices, log_noise, measured, modes, signal, loading)


@torch.no_grad()
def power_maps(scenes: Scenes, products: Products) -> PowerMaps:
    """Return the maps of a batch; no gradient passes.

    Args:
        products: of the dictionary.
    """
    made = back_projection(scenes)
    power, normaliser = products.power_map(made.matrices).clamp(min=LOG_FLOOR).log()
    parts = (made.log_noise, made.measured, made.modes, made.signal, made.loading)
    return PowerMaps(power, normaliser, *parts)


class GridLogits(nn.Module):
    """Logits per grid point: a learned weighting of the log maps, plus convolutions.

    The weights sharpen the maps to a posterior, in dependence on the noise.
    """

    def __init__(
        self, network: NetworkConfig, shape: tuple[int, int, int], outputs: int, sharpness: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.trunk = MapTrunk(2, outputs, network, shape)
        start = torch.tensor([sharpness, -sharpness / 2]) / SHARPNESS_UNIT
        self.sharpness = nn.Parameter(start)
        self.sharpness_by_noise = nn.Parameter(torch.zeros(()))

    def forward(self, maps: PowerMaps) -> Tensor:
        """Return logits, [B, outputs, G]."""
        noise = maps.log_noise / NOISE_RANGE
        image = torch.stack([maps.power, maps.normaliser], dim=1)
        sharpness = self.sharpness * SHARPNESS_UNIT
        residual = torch.einsum("k,bkg->bg", sharpness, image)
        residual = residual * (self.sharpness_by_noise * noise).exp().unsqueeze(-1)
        return convolve(self.trunk, image, noise, self.shape) + residual.unsqueeze(1)


class MapTrunk(nn.Module):
    """3x3 convolutions; the last starts at zero, so that a network starts as its residual.

    The inner ones are dilated by 2 and 4 in turn: a few layers then cover several beams, where
    ambiguities and a second source lie.

    Attributes:
        planes: range planes that its channels are for, evenly spaced from the nearest to the
            farthest of the grid.
    """

    def __init__(
        self, maps: int, outputs: int, config: NetworkConfig, shape: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.planes = config.planes or shape[0]
        inner = [config.width] * (config.depth - 1)
        widths = [maps * self.planes + 1, *inner, outputs * self.planes]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=d, dilation=d)
            for a, b, d in zip(widths[:-1], widths[1:], _dilations(config.depth), strict=True)
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """Return [B, outputs, elevations, azimuths] of [B, inputs, elevations, azimuths]."""
        for layer in self.layers[:-1]:
            maps = nn.functional.gelu(layer(maps))
        return self.layers[-1](maps)


def convolve(
    trunk: MapTrunk, maps: Tensor, constant: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Apply a trunk to maps [B, C, G] and a number per scene [B]: [B, outputs, G].

    Args:
        shape: (range planes, elevations, azimuths) of the grid; range planes become channels.
            Where the trunk has channels for another number of them, maps are interpolated to
            these, and what it returns is interpolated back.
    """
    image = _interpolate(maps.unflatten(-1, shape), trunk.planes).flatten(1, 2)
    flat = constant[:, None, None, None].expand(-1, 1, *image.shape[-2:])
    made = trunk(torch.cat([image, flat], dim=1))
    return _interpolate(made.unflatten(1, (-1, trunk.planes)), shape[0]).flatten(2)


def _interpolate(maps: Tensor, planes: int) -> Tensor:
    # [B, C, p, elevations, azimuths] -> [B, C, planes, elevations, azimuths], linearly between
    # evenly spaced planes; fewer are weighted means of those between their neighbours
    given = maps.shape[2]
    if given == planes:
        return maps
    places, targets = (_evenly(count, maps) for count in (given, planes))
    reach = 1 / max(min(given, planes) - 1, 1)
    weights = (1 - (targets.unsqueeze(1) - places).abs() / reach).clamp(min=0)
    weights = weights / weights.sum(1, keepdim=True)
    return torch.einsum("pq,bcqea->bcpea", weights, maps)


def _evenly(count: int, like: Tensor) -> Tensor:
    # places of planes from 0 to 1; a single one is in the middle
    low, high = (0.0, 1.0) if count > 1 else (0.5, 0.5)
    return torch.linspace(low, high, count, dtype=like.dtype, device=like.device)


def _dilations(depth: int) -> list[int]:
    if depth <= 2:
        return [2, 1][-depth:]
    return [1, *((2, 4)[i % 2] for i in range(depth - 2)), 1]
