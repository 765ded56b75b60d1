"""The steering dictionary: steering vectors a_g on a grid, and products with a_g a_gᴴ.

It is finer in direction than an estimator's grid, whose peaks are refined afterwards: a network
has no such refinement. The products dominate the cost of everything built on a dictionary; a small
table of the outer products is kept whole, a larger one compressed.
"""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.scenes import SearchGrid, search_grid

from .compression import CompressedTable, compress_table
from .products import CompressedProducts, DenseProducts, Products, pack_hermitian

POINTS_PER_BEAM = 3.5
"""Grid points per wavelength / aperture, the distance from a beam's peak to its first null."""
PLANE_PHASE = 2.0
"""Phase [rad] that curvature makes at the panel's corner from one range plane to the next."""
LARGEST_TABLE = 2**23
"""Entries of the largest table that is kept whole: seven times those of the 6x6 panel at 0.5 to
3 m, for which a training step takes as long either way."""
TOLERANCE = 1e-5
"""Largest error of a compressed table, relative to its norm. For power maps 1e-3 would do, but a
mixture with an error of 1e-3 has eigenvalues down to -0.07 (their mean is 1), and G_l R G_lᴴ + λ I
is then not positive at the least λ that a network fits, 1e-3."""


@dataclass(frozen=True)
class SteeringDictionary:
    """Steering vectors of a grid and the table of their outer products.

    Attributes:
        shape: (range planes, elevations, azimuths), azimuth fastest; G is their product.
        steering: [G, N], a_g.
        table: [G, N²], `pack_hermitian` of a_g a_gᴴ; or its factors.
    """

    shape: tuple[int, int, int]
    steering: Tensor
    table: Tensor | CompressedTable

    def products(self) -> Products:
        """Return a module of products with the table, which all of them share."""
        if isinstance(self.table, CompressedTable):
            return CompressedProducts(self.table)
        return DenseProducts(self.steering, self.table)


@functools.lru_cache(maxsize=4)
def steering_dictionary(scene: SceneConfig, dtype: torch.dtype) -> SteeringDictionary:
    """Return the dictionary of a scene's panel and region; cached, so do not write to it.

    Args:
        dtype: real; the table has it, `steering` its complex counterpart.
    """
    cpu = torch.device("cpu")
    grid = search_grid(scene, dtype, cpu, POINTS_PER_BEAM, PLANE_PHASE)
    if grid.steering.numel() * scene.num_elements <= LARGEST_TABLE:
        return SteeringDictionary(grid.shape, grid.steering, outer_products(grid))
    exact = search_grid(scene, torch.float64, cpu, POINTS_PER_BEAM, PLANE_PHASE)
    return SteeringDictionary(grid.shape, grid.steering, compress_table(exact, TOLERANCE, dtype))


def outer_products(grid: SearchGrid) -> Tensor:
    """Return the whole table of a grid, [G, N²]."""
    planes = grid.steering.chunk(grid.shape[0])
    size = grid.panel.num_elements
    table = grid.points.new_empty(len(grid.steering), size * size)
    for part, steering in zip(table.chunk(grid.shape[0]), planes, strict=True):
        # plane by plane: complex products of all planes at once take twice the table's memory
        part.copy_(pack_hermitian(steering.unsqueeze(-1) * steering.conj().unsqueeze(-2)))
    return table
