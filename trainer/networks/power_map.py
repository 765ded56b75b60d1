"""What every network sees, and how it looks at it: maps over the dictionary, and convolutions.

The snapshots are back-projected to the panel by LMMSE at the loading the data suggest,
x_l = c_l* ∘ Hᴴ (H Hᴴ + λI)⁻¹ y_l, and every grid point gets its power, log sum_l |a_gᴴ x_l|².
Where channel and codes cannot see, power is low for no fault of the sources: a second map, the log
of what back-projection would return of a unit source, log sum_l ‖Π_l a_g‖² with
Π_l = c_l* ∘ Hᴴ (H Hᴴ + λI)⁻¹ H ∘ c_l, tells the network so. A third input, the same everywhere,
is log λ: how much noise there is. Raw snapshots, without the channel that made them, do not train
at all.

All of it ignores the phase of each snapshot's code and the scale of the snapshots. Range planes
are channels: maps are images over elevation and azimuth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import NetworkConfig
from trainer.covariance import (
    ChannelEigenmodes,
    channel_eigenmodes,
    fit_loading,
    pack_hermitian,
    unit_trace,
)
from trainer.scenes import Scenes

LOG_FLOOR = 1e-12
"""Least relative power under a logarithm."""
SHARPNESS_UNIT = 4.0
"""Scale of the learned sharpness."""
NOISE_RANGE = 3.0
"""|log λ| is cut here, at ±13 dB: beyond, a network would extrapolate."""


@dataclass(frozen=True)
class PowerMaps:
    """Input of a network, and the back-projection it came from; units are natural logarithms.

    Attributes:
        power: [B, G], share of the back-projected power.
        normaliser: [B, G], what a unit source there would return.
        log_noise: [B], λ relative to the mean gain of the channel.
        measured: [B, N, L], back-projected snapshots.
        modes, signal, loading: of the channel and snapshots; p and λ of `fit_loading`, [B].
    """

    power: Tensor
    normaliser: Tensor
    log_noise: Tensor
    measured: Tensor
    modes: ChannelEigenmodes
    signal: Tensor
    loading: Tensor


@torch.no_grad()
def power_maps(scenes: Scenes, outer: Tensor) -> PowerMaps:
    """The maps of a batch; nothing learned, so nothing is recorded for the backward pass.

    Args:
        outer: of the dictionary, [G, N²].
    """
    modes = channel_eigenmodes(scenes)
    gain, codes = modes.gain, scenes.codes
    signal, loading = fit_loading(modes)
    largest = modes.coordinates.abs().amax((-2, -1), keepdim=True)
    scaled = modes.coordinates / largest.clamp(min=torch.finfo(gain.dtype).tiny)
    weight = 1 / (gain + loading.unsqueeze(-1))
    measured = (codes.conj() * ((scaled * weight.unsqueeze(-2)) @ modes.lift.mT)).mT
    # sum_l ‖Π_l a‖² = aᴴ [sum_l C_l* Q² C_l] a: an entrywise product with the Gram of the codes
    squared = (modes.lift * (gain * weight**2).unsqueeze(-2)) @ modes.lift.mH
    matrices = [measured @ measured.mH, squared * (codes.mH @ codes)]
    packed = pack_hermitian(unit_trace(torch.stack(matrices)))
    power, normaliser = (packed @ outer.mT).clamp(min=LOG_FLOOR).log()
    log_noise = (loading / gain.mean(-1)).log().clamp(-NOISE_RANGE, NOISE_RANGE)
    return PowerMaps(power, normaliser, log_noise, measured, modes, signal, loading)


class GridLogits(nn.Module):
    """Maps -> one or more logits per grid point: the log maps, sharpened, plus what is learned.

    Sharpness is that of a posterior: how much more likely a place is that has more power. It
    depends on the noise.
    """

    def __init__(
        self, network: NetworkConfig, shape: tuple[int, int, int], outputs: int, sharpness: float
    ) -> None:
        super().__init__()
        self.shape = shape
        planes = shape[0]
        self.trunk = MapTrunk(2 * planes + 1, outputs * planes, network)
        # in units of SHARPNESS_UNIT, so that one learning rate suits them and the convolutions
        start = torch.tensor([sharpness, -sharpness / 2]) / SHARPNESS_UNIT
        self.sharpness = nn.Parameter(start)
        self.sharpness_by_noise = nn.Parameter(torch.zeros(()))

    def forward(self, maps: PowerMaps) -> Tensor:
        """[B, outputs, G]."""
        noise = maps.log_noise / NOISE_RANGE
        image = torch.stack([maps.power, maps.normaliser], dim=1)
        sharpness = self.sharpness * SHARPNESS_UNIT
        residual = torch.einsum("k,bkg->bg", sharpness, image)
        residual = residual * (self.sharpness_by_noise * noise).exp().unsqueeze(-1)
        image = image.unflatten(-1, self.shape).flatten(1, 2)
        flat = noise[:, None, None, None].expand(-1, 1, *image.shape[-2:])
        learned = self.trunk(torch.cat([image, flat], dim=1))
        return learned.unflatten(1, (-1, self.shape[0])).flatten(2) + residual.unsqueeze(1)


class MapTrunk(nn.Module):
    """3x3 convolutions; the last one starts at zero, so that a network starts as its residual.

    The inner ones are dilated by 2 and 4 in turn: a few layers then see several beams, where
    ambiguities and a second source lie.
    """

    def __init__(self, inputs: int, outputs: int, config: NetworkConfig) -> None:
        super().__init__()
        widths = [inputs, *[config.width] * (config.depth - 1), outputs]
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=d, dilation=d)
            for a, b, d in zip(widths[:-1], widths[1:], _dilations(config.depth), strict=True)
        )
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """[B, inputs, elevations, azimuths] -> [B, outputs, elevations, azimuths]."""
        for layer in self.layers[:-1]:
            maps = nn.functional.gelu(layer(maps))
        return self.layers[-1](maps)


def _dilations(depth: int) -> list[int]:
    if depth <= 2:
        return [2, 1][-depth:]
    return [1, *((2, 4)[i % 2] for i in range(depth - 2)), 1]
