"""What every network sees and how it looks at it: power maps over the dictionary, and dilated
convolutions on them.

The snapshots are back-projected to the panel by LMMSE, x_l = c_l* ∘ Hᴴ (H Hᴴ + λI)⁻¹ y_l, at two
loadings (low SNR wants more, close sources less), and each grid point gets log a_gᴴ X a_g. Where
the channel and codes cannot see, power is low for no fault of the sources: a third map, the log
of the normaliser sum_l ‖Π_l a_g‖² with Π_l x what back-projection returns of a noise-free
x, tells the network so. Raw snapshots, without the channel that made them, do not train at all.

Invariant by construction to the phase of each snapshot's code and to the scale of the snapshots.
Range planes are channels: the maps are two-dimensional images over elevation and azimuth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .backprojection import channel_modes
from .config import NetworkConfig
from .covariance import unit_trace
from .dictionary import pack_hermitian
from .scene import Scenes

LOADINGS = (0.1, 1.0)
"""λ relative to tr(H Hᴴ) / M. 1 is optimal at 0 dB, 0.1 at 10 dB, for one source."""
NUM_MAPS = len(LOADINGS) + 1
"""Maps per range plane."""
LOG_FLOOR = 1e-12
"""Least relative power under a logarithm."""


@dataclass(frozen=True)
class PowerMaps:
    """Input of a network: log maps, and the back-projection they came from.

    Attributes:
        maps: [B, 3 planes, elevations, azimuths]: per loading the share of power in dB-like
            (natural log) units, then the normaliser.
        measured: [B, N, L], back-projected snapshots at the higher loading.
    """

    maps: Tensor
    measured: Tensor


@torch.no_grad()
def power_maps(scenes: Scenes, shape: tuple[int, int, int], outer: Tensor) -> PowerMaps:
    """The maps of a batch; nothing learned, so nothing is recorded for the backward pass.

    Args:
        shape, outer: of the dictionary; `outer` is [G, N²].
    """
    modes = channel_modes(scenes)
    gain = modes.gain
    largest = modes.coordinates.abs().amax((-2, -1), keepdim=True)
    coordinates = modes.coordinates / largest.clamp(min=torch.finfo(gain.dtype).tiny)
    codes = scenes.codes
    matrices = []
    for loading in LOADINGS:
        weight = 1 / (gain + loading * gain.mean(-1, keepdim=True))
        measured = (codes.conj() * ((coordinates * weight.unsqueeze(-2)) @ modes.lift.mT)).mT
        matrices.append(measured @ measured.mH)
    # sum_l ‖Π_l a‖² = aᴴ [sum_l C_l* Q² C_l] a: an entrywise product with the Gram of the codes
    squared = (modes.lift * (gain * weight**2).unsqueeze(-2)) @ modes.lift.mH
    matrices.append(squared * (codes.mH @ codes))
    packed = pack_hermitian(unit_trace(torch.stack(matrices, dim=1)))
    maps = (packed @ outer.mT).clamp(min=LOG_FLOOR).log()
    return PowerMaps(maps.unflatten(-1, shape).flatten(1, 2), measured)


class MapTrunk(nn.Module):
    """Dilated 3x3 convolutions, elevation x azimuth kept; the last one starts at zero, so that a
    network starts as its residual.

    Dilations 1, 2, 4, ... let few layers see several beams, where ambiguities and a second source
    lie; they repeat after three so that no layer looks past the map.
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
    return [2 ** (i % 3) for i in range(depth)]
