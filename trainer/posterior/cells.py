"""A first proposal for places: cells of the region, or pairs of cells, by the likelihood inside.

The likelihood is computed at the middle of every cell, or of every pair of cells, and raised to
the power `TEMPER`, which leaves more of the cells beside its peaks; a draw is uniform in its cell.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.scenes import grid_shape

from .likelihood import Echoes, ScaleFreeLikelihood, all_pairs
from .places import LawOfPlaces, cosines
from .weights import index_at

TEMPER = 0.5
"""Power of the likelihood of cells."""
CELLS_PER_BEAM = {1: 5.0, 2: 4.0}
"""Cells per peak-to-null width of the beam, by K."""
CELL_PHASE = {1: 1.5, 2: 2.0}
"""Wavefront phase at the panel's corner across a cell's 1/range [rad], by K."""
UNIFORM = 0.01
"""Share of the draws that ignores the likelihood."""
PART = {"cpu": 2**21, "cuda": 2**27}
"""Number of cell pairs times snapshots computed at once: a CPU's cache, or a GPU full."""


@dataclass(frozen=True)
class Cells:
    """Equal cells of the box of places, numbered by 1/range, elevation and azimuth.

    Attributes:
        shape: cells by 1/range, elevation and azimuth; azimuth fastest.
        middles: [G, 3].
    """

    law: LawOfPlaces
    shape: tuple[int, int, int]
    middles: Tensor

    @classmethod
    def of_density(cls, law: LawOfPlaces, per_beam: float, phase: float) -> "Cells":
        """Return cells so many to a beam, of so much wavefront phase across their 1/range."""
        points = grid_shape(law.scene, per_beam, phase)
        shape = (max(points[0] - 1, 1), points[1] - 1, points[2] - 1)
        axes = [(torch.arange(count, device=law.lower.device) + 0.5) / count for count in shape]
        unit = torch.stack([x.flatten() for x in torch.meshgrid(*axes, indexing="ij")][::-1], -1)
        return cls(law, shape, law.lower + (law.upper - law.lower) * unit)

    @property
    def widths(self) -> Tensor:
        """Size of a cell along each coordinate, [3]."""
        counts = torch.tensor(self.shape[::-1], device=self.law.lower.device)
        return (self.law.upper - self.law.lower) / counts

    @property
    def log_volume(self) -> Tensor:
        """Log of a cell's volume."""
        return self.widths.log().sum()

    def place(self, cell: Tensor, inside: Tensor) -> Tensor:
        """Return places at shares [..., 3] of the widths of cells [...]."""
        corner = torch.stack(torch.unravel_index(cell, self.shape)[::-1], -1)
        return self.law.lower + self.widths * (corner + inside)

    def index(self, places: Tensor) -> Tensor:
        """Return the cells [...] that hold places [..., 3]; the nearest for places outside."""
        counts = torch.tensor(self.shape[::-1], device=places.device)
        index = ((places - self.law.lower) / self.widths).floor().long()
        azimuth, elevation, inverse = index.minimum(counts - 1).clamp(min=0).unbind(-1)
        return (inverse * self.shape[1] + elevation) * self.shape[2] + azimuth

    def pair_prior(self) -> Tensor:
        """Return the log prior of pairs of cells [G, G]; -inf where no places are far apart."""
        law, middles = self.law, self.middles
        sizes = law.upper.new_tensor(law.scene.beams)
        direction = cosines(middles) * (sizes / 2)  # in beams
        # two middles may be closer than two places in their cells by a cell's diagonal
        possible = torch.cdist(direction, direction) > 1 - (self.widths[:2] * sizes / 2).norm()
        free = 1 / law.free_share(middles)
        weight = (free.unsqueeze(-1) + free).log()
        weight = weight - 2 * (middles[:, 2].log().unsqueeze(-1) + middles[:, 2].log())
        return weight.where(possible, torch.full_like(weight, -torch.inf))


@dataclass(frozen=True)
class CellProposal:
    """Cells, or pairs of cells, with probabilities; uniform inside.

    Attributes:
        log_mass: of the cells [B, G], or of ordered pairs of cells [B, G G].
    """

    cells: Cells
    num_sources: int
    log_mass: Tensor

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` draws per scene, stratified over the cells: [B, count, K, 3]."""
        batch, device = len(self.log_mass), self.log_mass.device
        offset = torch.rand(batch, count, generator=generator, device=device, dtype=torch.float64)
        level = (torch.arange(count, device=device) + offset) / count
        cell = index_at(self.log_mass.double().exp(), level)
        size = len(self.cells.middles)
        chosen = [cell] if self.num_sources == 1 else [cell // size, cell % size]
        inside = torch.rand(batch, count, self.num_sources, 3, generator=generator, device=device)
        return self.cells.place(torch.stack(chosen, -1), inside)

    def log_density(self, places: Tensor) -> Tensor:
        """Return the log density of places [B, S, K, 3]; -inf outside of the box."""
        index = self.cells.index(places)
        size = len(self.cells.middles)
        flat = index[..., 0] if self.num_sources == 1 else index[..., 0] * size + index[..., 1]
        density = self.log_mass.gather(-1, flat) - self.num_sources * self.cells.log_volume
        return density.where(self.cells.law.inside(places), torch.full_like(density, -torch.inf))


def propose_cells(
    likelihood: ScaleFreeLikelihood, law: LawOfPlaces, snr_db: Tensor, num_sources: int
) -> CellProposal:
    """Return the proposal of one or two sources in every scene, at its SNR [B]."""
    cells = Cells.of_density(law, CELLS_PER_BEAM[num_sources], CELL_PHASE[num_sources])
    middles = cells.middles
    echoes = likelihood.echoes(middles.expand(len(snr_db), -1, -1))
    if num_sources == 1:
        log_mass = TEMPER * likelihood.log_likelihood(echoes.single_forms(), snr_db)
        log_mass = log_mass + law.log_density(middles.unsqueeze(1))
    else:
        pairs = _pair_likelihoods(likelihood, echoes, snr_db)
        log_mass = (TEMPER * pairs + cells.pair_prior()).flatten(1)
    log_mass = log_mass - log_mass.logsumexp(-1, keepdim=True)
    possible = torch.isfinite(log_mass)
    flat = (UNIFORM / possible.sum(-1, keepdim=True)).log()
    mixed = torch.logaddexp(log_mass + math.log1p(-UNIFORM), flat)
    return CellProposal(cells, num_sources, mixed.where(possible, log_mass))


def _pair_likelihoods(likelihood: ScaleFreeLikelihood, echoes: Echoes, snr_db: Tensor) -> Tensor:
    """Return the log likelihood of all pairs of cells, [B, G, G]."""
    batch, cells, snapshots = echoes.gain.shape
    found = echoes.gain.new_empty(batch, cells, cells)
    rows = max(1, PART[found.device.type] // (batch * snapshots * cells))
    for start in range(0, cells, rows):
        # a pair and its reverse are alike: each block of rows begins at its own first column
        row, column = slice(start, start + rows), slice(start, None)
        first, second = (Echoes(*(x[:, part] for x in echoes)) for part in (row, column))
        value = likelihood.log_likelihood(all_pairs(first, second), snr_db)
        found[:, row, column] = value
        found[:, column, row] = value.mT
    return found
