"""Products with a steering dictionary: power maps, mixtures, responses.

    power map   a_gᴴ R a_g,           Hermitian [*batch, N, N] -> [*batch, G]
    mixture     sum_g γ_g a_g a_gᴴ,   [*batch, G] -> [*batch, N, N]
    responses   |bᵀ a_g|²,            [*batch, N] -> [*batch, G]

The first two are each other's adjoint, <map(R), γ> = <R, mixture(γ)>, and hence derivative.
A -> Re A + Im A is an isometry of Hermitian onto real matrices: Re A is symmetric and Im A
antisymmetric, so the cross terms of the inner product vanish. Both are then real products with one
G x N² table, four times cheaper than in complex form; or with its factors (`compression`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .compression import CompressedTable, Interpolation

RESPONSES = 512
"""Orbits of points whose responses are computed at a time: as many as fit a CPU's cache."""


def pack_hermitian(matrix: Tensor) -> Tensor:
    """Return Re A + Im A of Hermitian [*batch, N, N]: [*batch, N²]; keeps inner products."""
    return (matrix.real + matrix.imag).flatten(-2)


def unpack_hermitian(packed: Tensor) -> Tensor:
    """Return the inverse of `pack_hermitian`: [*batch, N²] -> [*batch, N, N]."""
    size = math.isqrt(packed.shape[-1])
    square = packed.unflatten(-1, (size, size))
    transposed = square.mT
    return torch.complex((square + transposed) / 2, (square - transposed) / 2)


class DenseProducts(nn.Module):
    """Products with the whole table.

    Attributes:
        steering: [G, N], a_g.
        table: [G, N²], `pack_hermitian` of a_g a_gᴴ.
        error: of the table, relative to its norm.
        num_points: G.
    """

    steering: Tensor
    table: Tensor
    error = 0.0

    def __init__(self, steering: Tensor, table: Tensor) -> None:
        super().__init__()
        self.num_points = len(steering)
        self.register_buffer("steering", steering, persistent=False)
        self.register_buffer("table", table, persistent=False)

    def power_map(self, matrix: Tensor) -> Tensor:
        """Return a_gᴴ R a_g of every grid point."""
        return pack_hermitian(matrix) @ self.table.mT

    def mixture(self, powers: Tensor) -> Tensor:
        """Return sum_g γ_g a_g a_gᴴ."""
        return unpack_hermitian(powers @ self.table)

    def responses(self, rows: Tensor) -> Tensor:
        """Return |bᵀ a_g|² of every grid point; no gradient passes."""
        steering = torch.cat([self.steering.real, self.steering.imag], dim=-1)
        echoes = (_real_products(rows).flatten(0, -2) @ steering.mT).square_()
        return echoes.view(2, *rows.shape[:-1], -1).sum(0)


class CompressedProducts(nn.Module):
    """Products with the factors of a compressed table.

    Attributes:
        error: of the table, relative to its norm.
        num_points: G.
    """

    characters: Tensor
    steering: Tensor

    def __init__(self, table: CompressedTable) -> None:
        super().__init__()
        self.error = table.error
        self.num_points = len(table.points.places)
        tensors = {"characters": table.characters, "steering": table.steering}
        for name in ("points", "entries", "elements"):
            orbits = getattr(table, name)
            tensors |= {f"slots_of_{name}": orbits.slots.flatten()}
            tensors |= {f"places_of_{name}": orbits.places}
        for index, part in enumerate(table.parts):
            tensors |= {f"{name}_{index}": tensor for name, tensor in part._asdict().items()}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def power_map(self, matrix: Tensor) -> Tensor:
        """Return a_gᴴ R a_g of every grid point."""
        return _Linear.apply(pack_hermitian(matrix), self._map, self._mixture)

    def mixture(self, powers: Tensor) -> Tensor:
        """Return sum_g γ_g a_g a_gᴴ."""
        return unpack_hermitian(_Linear.apply(powers, self._mixture, self._map))

    @torch.no_grad()
    def responses(self, rows: Tensor) -> Tensor:
        """Return |bᵀ a_g|² of every grid point; exact. No gradient passes."""
        folded = self._fold(torch.view_as_real(rows).movedim(-1, 0), "elements")
        folded = folded.unflatten(1, (2, -1))  # [S, 2, B, orbits of elements]
        values = _real_products(torch.complex(folded[:, 0], folded[:, 1])).transpose(0, 1)
        squared = [
            self._unfold_slots(values.flatten(1, 2) @ part).square_().unflatten(0, (2, -1)).sum(0)
            for part in self.steering.split(RESPONSES, dim=-1)
        ]
        by_orbit = torch.cat(squared, -1).flatten(1)
        return by_orbit.index_select(1, self.get_buffer("places_of_points")).view(
            *rows.shape[:-1], -1
        )

    def _map(self, packed: Tensor) -> Tensor:
        folded = self._fold(packed, "entries")
        values = []
        for one, part in zip(folded, self._parts(), strict=True):
            at_selected = one @ part.rows.mT
            ordered = torch.cat([at_selected, at_selected @ part.weights], -1)
            values.append(ordered.index_select(-1, part.order.argsort()))
        return self._unfold(torch.stack(values), "points", packed.shape)

    def _mixture(self, powers: Tensor) -> Tensor:
        folded = self._fold(powers, "points")
        values = []
        for one, part in zip(folded, self._parts(), strict=True):
            ordered = one.index_select(-1, part.order)
            selected, others = ordered.tensor_split([len(part.rows)], -1)
            values.append((selected + others @ part.weights.mT) @ part.rows)
        return self._unfold(torch.stack(values), "entries", powers.shape)

    def _parts(self) -> list[Interpolation]:
        # from the buffers, which follow the module to its device
        return [
            Interpolation(*(self.get_buffer(f"{name}_{index}") for name in Interpolation._fields))
            for index in range(len(self.characters))
        ]

    def _fold(self, values: Tensor, name: str) -> Tensor:
        # [*batch, n] -> [S, B, orbits]: sums over orbits, weighted by the characters
        padded = nn.functional.pad(values.reshape(-1, values.shape[-1]), (0, 1))
        in_slots = padded.index_select(1, self.get_buffer(f"slots_of_{name}"))
        by_orbit = in_slots.unflatten(1, (len(self.characters), -1))
        return torch.einsum("cs,bso->cbo", self.characters, by_orbit)

    def _unfold(self, folded: Tensor, name: str, shape: torch.Size) -> Tensor:
        # [S, B, orbits] -> [*batch, n]
        by_orbit = self._unfold_slots(folded).flatten(1)
        values = by_orbit.index_select(1, self.get_buffer(f"places_of_{name}"))
        return values.view(*shape[:-1], -1)

    def _unfold_slots(self, folded: Tensor) -> Tensor:
        # [S, B, orbits] -> [B, S, orbits]
        return torch.einsum("cs,cbo->bso", self.characters * len(folded) ** 0.5, folded)


def _real_products(rows: Tensor) -> Tensor:
    # rows for the real and for the imaginary part of products with [real, imaginary]: [2, ..., 2N]
    return torch.stack(
        [torch.cat([rows.real, -rows.imag], -1), torch.cat([rows.imag, rows.real], -1)]
    )


Products = DenseProducts | CompressedProducts
Map = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """A linear map that has its adjoint as derivative."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, apply: Map, adjoint: Map) -> Tensor:
        ctx.swapped = adjoint, apply
        return apply(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Linear.apply(gradient, *ctx.swapped), None, None
