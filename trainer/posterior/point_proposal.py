"""A proposal for single points: of the region's cells, and of kernels where there are any.

Points of cells are spread evenly: over directions by their mass, inside cells by a scrambled Sobol
sequence (Owen 1995, "Randomly permuted (t, m, s)-nets"). Random ones are dense here and there by
chance, and that is where an estimate would then be put.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .cells import Cells
from .sampler import Kernels
from .weights import index_at

FROM_CELLS = 0.3
"""Share of the points that come from cells where there are kernels."""
SEED = 5_000_017


class PointProposal(NamedTuple):
    """A density of single points: of cells, by log mass [B, G], and of kernels if there are."""

    cells: Cells
    log_mass: Tensor
    kernels: Kernels | None = None

    def draw(self, count: int, round_number: int) -> Tensor:
        """Return points [B, count, 3], of the same random numbers for every scene."""
        device = self.log_mass.device
        wide = count if self.kernels is None else round(FROM_CELLS * count)
        level, inside = _even_numbers(wide, SEED + round_number, str(device))
        ranges = self.cells.shape[0]  # those of one direction side by side
        mass = self.log_mass.exp().unflatten(1, (ranges, -1)).mT
        index = index_at(mass.flatten(1), level)
        points = self.cells.place(index % ranges * mass.shape[1] + index // ranges, inside)
        if self.kernels is None:
            return points
        generator = torch.Generator(device).manual_seed(SEED + round_number)
        near = self.kernels.draw(count - wide, generator, alike=True)
        return torch.cat([points, near], dim=1)

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density of points [B, S, 3]: [B, S]."""
        wide = self.log_mass.gather(-1, self.cells.index(points)) - self.cells.log_volume
        outside = ~self.cells.law.inside(points.unsqueeze(2))
        wide = wide.masked_fill(outside, -torch.inf)
        if self.kernels is None:
            return wide
        near = self.kernels.log_density(points) + math.log1p(-FROM_CELLS)
        return torch.logaddexp(wide + math.log(FROM_CELLS), near)


@lru_cache(maxsize=64)
def _even_numbers(count: int, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """Return levels [count] and numbers in three dimensions [count, 3], even over [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    level = (torch.arange(count) + torch.rand(count, generator=generator).double()) / count
    inside = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed).draw(count)
    return level.to(device), inside.to(device)
