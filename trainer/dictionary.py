"""The steering dictionary: one unit-modulus column per direction and range a source may come from.

Directions are uniform in sin(azimuth) and sin(elevation), where a panel's beam has the same width
everywhere; ranges are uniform in 1/r, in which wavefront curvature is linear. How fine each axis
is follows from the panel: a few points per beam, and one range plane per `PLANE_PHASE` of phase
that curvature makes at the panel's corner, so that larger panels get larger grids by the same
rule.

Products with the N x N outer products a_g a_g^H dominate the cost of everything built on a
dictionary. For Hermitian matrices, A -> Re A + Im A is an isometry onto real matrices (Re A is
symmetric, Im A antisymmetric, so the cross terms of the inner product vanish). Power maps
a_g^H R a_g and synthesised covariances sum_g p_g a_g a_g^H then are two real matrix products with
one G x N^2 table, four times cheaper than their complex forms.
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import SceneConfig
from .geometry import Panel, steering_vector

POINTS_PER_BEAM = 4.5
"""Grid points per null-to-peak width, wavelength / aperture, of the panel's beam."""
PLANE_PHASE = 1.0
"""Phase [rad] at the panel's corner between neighbouring range planes."""


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
    """Grid points and their outer products, planes x elevations x azimuths, azimuth fastest.

    Attributes:
        shape: (range planes, elevations, azimuths); G is their product.
        azimuth, elevation, range_m: [G], coordinates of the columns [rad, rad, m].
        columns: [N, G], steering vectors a_g.
        outer: [G, N²], `pack_hermitian` of a_g a_gᴴ.
    """

    shape: tuple[int, int, int]
    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    columns: Tensor
    outer: Tensor


def grid_shape(scene: SceneConfig) -> tuple[int, int, int]:
    """(range planes, elevations, azimuths) that resolve the scene's region for its panel."""

    def points(half_width_deg: float, elements: int) -> int:
        beam = scene.wavelength_m / (elements * scene.spacing_m)
        extent = 2 * math.sin(math.radians(half_width_deg))
        return 1 + math.ceil(POINTS_PER_BEAM * extent / beam)

    corner_squared = (
        ((scene.num_horizontal - 1) ** 2 + (scene.num_vertical - 1) ** 2) * scene.spacing_m**2 / 4
    )
    # Fresnel: curvature delays an element at distance ρ from the centre by ρ²/2r.
    curvature = 1 / scene.range_min_m - 1 / scene.range_max_m
    phase = math.pi / scene.wavelength_m * corner_squared * curvature
    return (
        1 + math.ceil(phase / PLANE_PHASE),
        points(scene.elevation_max_deg, scene.num_vertical),
        points(scene.azimuth_max_deg, scene.num_horizontal),
    )


@functools.lru_cache(maxsize=4)
def dictionary(scene: SceneConfig, dtype: torch.dtype, device: torch.device) -> Dictionary:
    """The dictionary of a scene's panel and region; computed once per process, never changed."""
    panel = Panel(scene.num_horizontal, scene.num_vertical, scene.spacing_m, scene.wavelength_m)
    shape = grid_shape(scene)

    def axis(low: float, high: float, count: int) -> Tensor:
        return torch.linspace(low, high, count, dtype=torch.float64, device=device)

    sine_azimuth = math.sin(math.radians(scene.azimuth_max_deg))
    sine_elevation = math.sin(math.radians(scene.elevation_max_deg))
    inverse_range, elevation, azimuth = torch.meshgrid(
        axis(1 / scene.range_max_m, 1 / scene.range_min_m, shape[0]),
        axis(-sine_elevation, sine_elevation, shape[1]).asin(),
        axis(-sine_azimuth, sine_azimuth, shape[2]).asin(),
        indexing="ij",
    )
    points = azimuth.flatten(), elevation.flatten(), 1 / inverse_range.flatten()
    columns = steering_vector(panel, *points)
    outer = pack_hermitian(columns.unsqueeze(-1) * columns.conj().unsqueeze(-2)).to(dtype)
    columns = columns.mT.contiguous().to(dtype.to_complex())
    return Dictionary(
        shape, points[0].to(dtype), points[1].to(dtype), points[2].to(dtype), columns, outer
    )
