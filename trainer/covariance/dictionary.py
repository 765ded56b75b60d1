"""The steering dictionary: the columns a_g, and their outer products, over a `SearchGrid`.

It is finer in direction than an estimator's grid, whose peaks are refined afterwards: a network
cannot move what lies between two points.

Products with the N x N outer products a_g a_gᴴ dominate the cost of everything built on a
dictionary. For Hermitian matrices, A -> Re A + Im A is an isometry onto real matrices: Re A is
symmetric and Im A antisymmetric, so the cross terms of the inner product vanish. Power maps
a_gᴴ R a_g and covariances sum_g γ_g a_g a_gᴴ then are two real products with one G x N² table,
four times cheaper than in complex form.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import SceneConfig, TrainConfig
from trainer.scenes import search_grid

POINTS_PER_BEAM = 3.5
"""Grid points per wavelength / aperture, the distance from a beam's peak to its first null."""
PLANE_PHASE = 2.0
"""Phase [rad] that curvature makes at the panel's corner from one range plane to the next."""


def pack_hermitian(matrix: Tensor) -> Tensor:
    """Re A + Im A: [*batch, N, N] Hermitian -> [*batch, N²] real, inner products kept."""
    return (matrix.real + matrix.imag).flatten(-2)


def unpack_hermitian(packed: Tensor) -> Tensor:
    """The Hermitian matrix that `pack_hermitian` turns into `packed`: [*batch, N²] -> N x N."""
    size = math.isqrt(packed.shape[-1])
    square = packed.unflatten(-1, (size, size))
    transposed = square.mT
    return torch.complex((square + transposed) / 2, (square - transposed) / 2)


@dataclass(frozen=True)
class Dictionary:
    """Steering vectors of a grid and their outer products.

    Attributes:
        shape: (range planes, elevations, azimuths), azimuth fastest; G is their product.
        steering: [G, N], a_g.
        outer: [G, N²], `pack_hermitian` of a_g a_gᴴ.
    """

    shape: tuple[int, int, int]
    steering: Tensor
    outer: Tensor


@functools.lru_cache(maxsize=4)
def dictionary(scene: SceneConfig, dtype: torch.dtype, device: torch.device) -> Dictionary:
    """The dictionary of a scene's panel and region; made once per process, never changed.

    Args:
        dtype: real; `outer` has it, `steering` its complex counterpart.
    """
    grid = search_grid(scene, dtype, device, POINTS_PER_BEAM, PLANE_PHASE)
    size = grid.steering.shape[-1]
    outer = torch.empty(len(grid.steering), size * size, dtype=dtype, device=device)
    for part, steering in zip(
        outer.chunk(grid.shape[0]), grid.steering.chunk(grid.shape[0]), strict=True
    ):  # plane by plane: the complex products of all would take twice the table again
        part.copy_(pack_hermitian(steering.unsqueeze(-1) * steering.conj().unsqueeze(-2)))
    return Dictionary(grid.shape, grid.steering, outer)


class DictionaryModule(nn.Module):
    """A network on the dictionary of its scene, whose table is a part of it but not of its state.

    Attributes:
        shape, steering, outer: of the `Dictionary`.
        eps_psd: of the covariance it makes.
    """

    steering: Tensor
    outer: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        table = dictionary(config.scene, torch.get_default_dtype(), torch.device("cpu"))
        self.shape = table.shape
        # not persistent: follows from the scene, and all networks of a process share it
        self.register_buffer("steering", table.steering, persistent=False)
        self.register_buffer("outer", table.outer, persistent=False)

    def mixture(self, powers: Tensor) -> Tensor:
        """sum_g γ_g a_g a_gᴴ: [*batch, G] -> [*batch, N, N]."""
        return unpack_hermitian(powers @ self.outer)
