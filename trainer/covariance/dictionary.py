"""The steering dictionary: steering vectors a_g on a grid, and their outer products.

It is finer in direction than an estimator's grid, whose peaks are refined afterwards: a network
has no such refinement.

Products with the N x N outer products a_g a_gᴴ dominate the cost of everything built on a
dictionary. A -> Re A + Im A is an isometry of Hermitian onto real matrices: Re A is symmetric and
Im A antisymmetric, so the cross terms of the inner product vanish. Power maps a_gᴴ R a_g and
covariances sum_g γ_g a_g a_gᴴ are then real products with one G x N² table, four times cheaper
than in complex form.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.scenes import search_grid

POINTS_PER_BEAM = 3.5
"""Grid points per wavelength / aperture, the distance from a beam's peak to its first null."""
PLANE_PHASE = 2.0
"""Phase [rad] that curvature makes at the panel's corner from one range plane to the next."""


def pack_hermitian(matrix: Tensor) -> Tensor:
    """Return Re A + Im A of Hermitian [*batch, N, N]: [*batch, N²]; keeps inner products."""
    return (matrix.real + matrix.imag).flatten(-2)


def unpack_hermitian(packed: Tensor) -> Tensor:
    """Return the inverse of `pack_hermitian`: [*batch, N²] -> [*batch, N, N]."""
    size = math.isqrt(packed.shape[-1])
    square = packed.unflatten(-1, (size, size))
    transposed = square.mT
    return torch.complex((square + transposed) / 2, (square - transposed) / 2)


@dataclass(frozen=True)
class SteeringDictionary:
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
def steering_dictionary(
    scene: SceneConfig, dtype: torch.dtype, device: torch.device
) -> SteeringDictionary:
    """Return the dictionary of a scene's panel and region; cached, so do not write to it.

    Args:
        dtype: real; `outer` has it, `steering` its complex counterpart.
    """
    grid = search_grid(scene, dtype, device, POINTS_PER_BEAM, PLANE_PHASE)
    size = grid.steering.shape[-1]
    outer = torch.empty(len(grid.steering), size * size, dtype=dtype, device=device)
    for part, steering in zip(
        outer.chunk(grid.shape[0]), grid.steering.chunk(grid.shape[0]), strict=True
    ):  # plane by plane: complex products of all planes at once take twice the table's memory
        part.copy_(pack_hermitian(steering.unsqueeze(-1) * steering.conj().unsqueeze(-2)))
    return SteeringDictionary(grid.shape, grid.steering, outer)
