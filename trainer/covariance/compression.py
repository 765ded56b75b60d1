"""The table of packed outer products a_g a_gᴴ as two small factors: mirrored, then interpolated.

    T_gc = Re (a_g a_gᴴ)_nm + Im (a_g a_gᴴ)_nm,   c = (n, m),   T_gᵀ T_h = |a_gᴴ a_h|²

1. *Mirrors.* A reflection that maps the panel and the grid onto themselves leaves T as it is,
   T[πg, πc] = T[g, c]. Sums and differences over the orbits of the reflections hence turn T into
   independent tables, one per character: four for a lattice, each with a quarter of the rows and
   of the columns. This is exact (Serre 1977, Linear Representations of Finite Groups, 2.6).
2. *Interpolation.* Power varies slowly from one grid point to the next. Some rows are selected and
   the others interpolated from them, T ≈ X T[selected] (interpolative decomposition: Cheng,
   Gimbutas, Martinsson and Rokhlin 2005), by a Cholesky decomposition with pivoting of T Tᵀ,
   which needs no T (Harbrecht, Peters and Schneider 2012). It takes the row that is worst
   interpolated by those before it until |T - X T[selected]| <= tolerance · |T| (Frobenius norm);
   what is left of the diagonal is the square of that error.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import scipy.linalg.lapack
import torch
from torch import Tensor

from trainer.linalg import squared_magnitude
from trainer.scenes import Panel, SearchGrid

ROWS = 64
"""Rows of a Gram matrix that are computed at a time."""
PART = 2**18
"""Entries of the table that are computed at a time, for every element of the group."""


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
        error: |T - X T[selected]| / |T|.
    """

    characters: Tensor
    points: "Orbits"
    entries: "Orbits"
    elements: "Orbits"
    steering: Tensor
    parts: tuple["Interpolation", ...]
    error: float


def compress_table(grid: SearchGrid, tolerance: float, dtype: torch.dtype) -> CompressedTable:
    """Return the compressed table of a grid in double precision, on the CPU.

    Args:
        tolerance: largest error, relative to the table's norm.
        dtype: of the factors, real.
    """
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
    steering = grid.steering[points.images[0]]
    folded = torch.einsum(
        "cs,jsq->cqj", characters.to(steering.dtype), steering[:, elements.images]
    )
    # an orbit with fewer points has fewer rows of T
    share = (points.slots < on_grid.numel()).to(characters.dtype).mean(0).sqrt()
    parts, left, whole = [], 0.0, 0.0
    for character in characters:
        order, weights, missed, trace = _interpolate(
            _gram(grid, points, character, share), tolerance
        )
        left, whole = left + missed, whole + trace
        chosen, others = order.tensor_split([len(weights)])
        parts.append(
            Interpolation(
                rows=_folded_rows(steering[chosen], entries.images, character, dtype),
                weights=(weights * share[chosen, None] / share[others]).to(dtype),
                order=order,
            )
        )
    return CompressedTable(
        characters=characters.to(dtype),
        points=points,
        entries=entries,
        elements=elements,
        steering=torch.cat([folded.real, folded.imag], 1).to(dtype),
        parts=tuple(parts),
        error=math.sqrt(left / whole),
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


def _gram(grid: SearchGrid, points: Orbits, character: Tensor, share: Tensor) -> Tensor:
    # T Tᵀ / N² under one character, [J, J], of which only the lower triangle is filled: sums of
    # |a_gᴴ a_h|² over images of h. One character after the other takes less memory than all
    images = (grid.steering / grid.panel.num_elements)[points.images]
    weights = character * len(character) ** 0.5
    gram = share.new_empty(len(share), len(share))
    for start in range(0, len(share), ROWS):
        end = min(start + ROWS, len(share))
        echoes = grid.steering[points.images[0, start:end]].conj() @ images[:, :end].mT
        products = torch.tensordot(weights, squared_magnitude(echoes), 1)
        gram[start:end, :end] = products * share[start:end, None] * share[:end]
    return gram


def _interpolate(gram: Tensor, tolerance: float) -> tuple[Tensor, Tensor, float, float]:
    # the order of the rows [J] with the r selected ones first, the weights of the others
    # [r, J - r], the trace that they miss, and all of it; overwrites the matrix
    whole, count = float(gram.trace()), len(gram)
    allowed = tolerance**2 * whole
    triangle, pivots, rank, _ = scipy.linalg.lapack.dpstrf(
        gram.numpy().T, tol=allowed / count, overwrite_a=True
    )
    factor = torch.from_numpy(triangle)[:rank].triu()
    missed = (whole - factor.square().sum(1).cumsum(0)).clamp(min=0)
    rank = 1 + int((missed > allowed).sum())
    selected, others = factor[:rank].tensor_split([rank], -1)
    weights = torch.linalg.solve_triangular(selected, others, upper=True)
    return torch.from_numpy(pivots).long() - 1, weights, float(missed[rank - 1]), whole


def _folded_rows(
    steering: Tensor, entries: Tensor, character: Tensor, dtype: torch.dtype
) -> Tensor:
    # rows of T of some points [r, N] under one character, [r, Q], of all images of the columns
    size = steering.shape[1]
    real, imag = steering.real, steering.imag
    rows = torch.empty(len(steering), entries.shape[1], dtype=dtype)
    width = max(1, PART // len(steering))
    for part, some in zip(rows.split(width, 1), entries.split(width, 1), strict=True):
        n, m = some // size, some % size
        columns = real[:, n] * (real - imag)[:, m] + imag[:, n] * (real + imag)[:, m]
        part.copy_(torch.einsum("s,rsq->rq", character, columns))
    return rows
