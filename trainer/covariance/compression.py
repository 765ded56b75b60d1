"""The table of packed outer products a_g a_gᴴ as two small factors: mirrored, then interpolated.

    T_gc = Re (a_g a_gᴴ)_nm + Im (a_g a_gᴴ)_nm,   c = (n, m),   |T_g| = N

1. *Mirrors.* A reflection that maps the panel and the grid onto themselves leaves T as it is,
   T[πg, πc] = T[g, c]. Sums and differences over the orbits of the reflections hence turn T into
   independent tables, one per character: four for a lattice, each with a quarter of the rows and
   of the columns. This is exact (Serre 1977, Linear Representations of Finite Groups, 2.6).
2. *Interpolation.* Power varies slowly from one grid point to the next. Some rows are selected by
   QR with column pivoting, and the others interpolated from them, T ≈ X T[selected]
   (interpolative decomposition: Cheng, Gimbutas, Martinsson and Rokhlin 2005).

Rows are selected on random maps of rank 1, Re and Im of (a_gᴴ u)(vᴴ a_g) with normal u and v:
inner products of rows are those of T on average, at a cost of N instead of N². As few are
selected as keep |T - X T[selected]| <= tolerance · |T| (Frobenius norm),
measured on maps that took no part.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import scipy.linalg
import torch
from torch import Tensor

from trainer.scenes import Panel, SearchGrid

PROBES = 512
"""Random maps that the error is measured by."""
SEED = 0
"""Of the random maps: equal scenes have equal factors."""
MAPS = 128
"""Random maps that are computed at a time."""
PART = 2**18
"""Entries of the table that are computed at a time, for every element of the group."""
MARGIN = 0.9
"""Share of the tolerance that the measured error may take: it is itself
measured to 2 % on large panels, to 10 % on lines of a few elements."""


@dataclass(frozen=True)
class CompressedTable:
    """Factors of the table, and where its rows and columns are.

    S is the order of the group of reflections, and the number of its characters; J and Q are the
    numbers of orbits of rows and columns.

    Attributes:
        characters: [S, S], orthogonal.
        points: of the rows, orbits of grid points.
        entries: of the columns, orbits of packed entries.
        elements: orbits of the panel's elements.
        steering: steering vectors, real and imaginary parts folded like the rows of T,
            [S, 2 · orbits of elements, J].
        parts: the factors for every character.
        error: |T - X T[selected]| / |T| as measured.
    """

    characters: Tensor
    points: "Orbits"
    entries: "Orbits"
    elements: "Orbits"
    steering: Tensor
    parts: tuple["Interpolation", ...]
    error: float


def compress_table(grid: SearchGrid, tolerance: float) -> CompressedTable:
    """Return the compressed table of a grid on the CPU, in its precision."""
    size = grid.panel.num_elements
    flips = mirrors(grid.panel)
    on_grid = torch.arange(len(grid.steering)).view(grid.shape)
    points = Orbits.of([on_grid.flip(axis).flatten() for _, axis in flips], on_grid.numel())
    on_pairs = [(flip.unsqueeze(1) * size + flip).flatten() for flip, _ in flips]
    entries = Orbits.of(on_pairs, size**2)
    elements = Orbits.of([flip for flip, _ in flips], size)
    characters = grid.points.new_ones(1, 1)
    for _ in flips:
        characters = torch.kron(characters, characters.new_tensor([[1, 1], [1, -1]]) / 2**0.5)
    # an orbit with fewer points has fewer rows of T
    share = (points.slots < on_grid.numel()).to(characters.dtype).mean(0).sqrt()
    generator = torch.Generator().manual_seed(SEED)

    def random_maps(count: int) -> Tensor:
        # [S, count, J], with contiguous columns: QR can overwrite them
        made = share.new_empty(len(characters), len(share), count).mT
        for start in range(0, count, MAPS):
            maps = _random_maps(grid.steering, min(MAPS, count - start), generator)
            folded = torch.tensordot(characters * count**-0.5, maps[points.images], 1).mT * share
            made[:, start : start + MAPS] = folded
        return made

    picks, error = _interpolate(random_maps, len(share) // 2, tolerance)
    steering = grid.steering[points.images[0]]
    folded = torch.einsum(
        "cs,jsq->cqj", characters.to(steering.dtype), steering[:, elements.images]
    )
    return CompressedTable(
        characters=characters,
        points=points,
        entries=entries,
        elements=elements,
        steering=torch.cat([folded.real, folded.imag], 1),
        parts=tuple(
            Interpolation(
                rows=_folded_rows(steering[order[: len(weights)]], entries.images, character),
                weights=weights
                * share[order[: len(weights)], None]
                / share[order[len(weights) :]],
                order=order,
            )
            for (order, weights), character in zip(picks, characters, strict=True)
        ),
        error=error,
    )


class Interpolation(NamedTuple):
    """Factors of the table of one character, of which r rows are selected.

    Attributes:
        rows: [r, Q], the selected rows.
        weights: [r, J - r], Xᵀ of the others.
        order: [J], the selected rows, then the others.
    """

    rows: Tensor
    weights: Tensor
    order: Tensor


class Orbits(NamedTuple):
    """Orbits of 0 ... n - 1 under a group of commuting reflections.

    Attributes:
        images: [S, orbits], of one member of every orbit under every element of the group.
        slots: images, with n in the place of one that stands in the column already.
        places: [n], where each of 0 ... n - 1 is in the flattened slots.
    """

    images: Tensor
    slots: Tensor
    places: Tensor

    @classmethod
    def of(cls, flips: list[Tensor], count: int) -> "Orbits":
        """Return the orbits of 0 ... count - 1 under all products of some reflections."""
        images = torch.arange(count).unsqueeze(0)
        for flip in flips:
            images = torch.stack([images, flip[images]], 1).flatten(0, 1)
        images = images[:, images.amin(0) == images[0]]
        slots = images.clone()
        for row in range(1, len(slots)):
            slots[row, (images[row] == images[:row]).any(0)] = count
        return cls(images, slots, slots.flatten().argsort(stable=True)[:count])


def mirrors(panel: Panel) -> list[tuple[Tensor, int]]:
    """Return the reflections that map a panel onto itself: images of its elements, [N], each.

    The number beside them is the axis of the grid that is reflected as well: 1 (elevations) for
    up-down, 2 (azimuths) for left-right.
    """
    places = torch.stack(panel.element_positions(torch.float64, torch.device("cpu")), -1)
    found = []
    for axis, signs in ((1, (1.0, -1.0)), (2, (-1.0, 1.0))):
        apart = (places.unsqueeze(1) * places.new_tensor(signs) - places).abs().amax(-1)
        distance, image = apart.min(1)
        moved = not torch.equal(image, torch.arange(len(places)))
        if moved and distance.max() < 1e-9 * panel.spacing_m:
            found.append((image, axis))
    return found


def _random_maps(steering: Tensor, count: int, generator: torch.Generator) -> Tensor:
    # [G, count], of variance 1
    shape = (2, steering.shape[1], -(-count // 2))
    one, other = torch.randn(shape, dtype=steering.dtype, generator=generator)
    product = (steering @ one) * (steering @ other).conj()
    maps = torch.cat([product.real, product.imag], 1)[:, :count]
    return maps * (2**0.5 / steering.shape[1])


def _interpolate(
    random_maps: Callable[[int], Tensor], count: int, tolerance: float
) -> tuple[list[tuple[Tensor, Tensor]], float]:
    # per character, the order of the rows [J] with the r selected ones first, and the weights of
    # the others [r, J - r]; and their error
    probes = random_maps(PROBES)
    while True:
        fits = [_Fit.of(maps) for maps in random_maps(max(count, PROBES))]
        budget = tolerance
        for _ in range(4):
            picks = [fit.interpolation(budget) for fit in fits]
            error = _error(probes, picks)
            if error <= MARGIN * tolerance:
                return picks, error
            budget *= MARGIN**2 * tolerance / error
        count *= 2  # too few maps to tell the rows apart


def _error(maps: Tensor, picks: list[tuple[Tensor, Tensor]]) -> float:
    left = 0.0
    for one, (order, weights) in zip(maps, picks, strict=True):
        selected, others = one[:, order].tensor_split([len(weights)], -1)
        left += float((others - selected @ weights).square().sum())
    return math.sqrt(left) / float(maps.norm())


@dataclass(frozen=True)
class _Fit:
    """QR with column pivoting of maps [count, J].

    Attributes:
        triangle: R, in an upper triangle with other numbers below.
        order: of the rows of T.
        left: the share of the maps that the first 0, 1, 2, ... rows leave.
    """

    triangle: Tensor
    order: Tensor
    left: Tensor

    @classmethod
    def of(cls, maps: Tensor) -> "_Fit":
        (overwritten, _), triangle, order = scipy.linalg.qr(
            maps.numpy(), mode="raw", pivoting=True, overwrite_a=True, check_finite=False
        )
        energy = torch.from_numpy(triangle).square().sum(1)
        left = (energy.flip(0).cumsum(0).flip(0) / energy.sum()).sqrt()
        return cls(torch.from_numpy(overwritten), torch.from_numpy(order).long(), left)

    def interpolation(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return the order of the rows, and the weights of all but the fewest that suffice."""
        rank = int((self.left > tolerance).sum())
        selected, others = self.triangle[:rank].tensor_split([rank], -1)
        return self.order, torch.linalg.solve_triangular(selected, others, upper=True)


def _folded_rows(steering: Tensor, entries: Tensor, character: Tensor) -> Tensor:
    # rows of T of some points [r, N] under one character, [r, Q], of all images of the columns
    size = steering.shape[1]
    real, imag = steering.real, steering.imag
    rows = real.new_empty(len(steering), entries.shape[1])
    width = max(1, PART // max(1, len(steering)))
    for part, some in zip(rows.split(width, 1), entries.split(width, 1), strict=True):
        n, m = some // size, some % size
        columns = real[:, n] * (real - imag)[:, m] + imag[:, n] * (real + imag)[:, m]
        part.copy_(torch.einsum("s,rsq->rq", character, columns))
    return rows
