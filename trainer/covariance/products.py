"""Products with the outer products a_g a_gᴴ of a steering dictionary: power maps and mixtures.

    power map   a_gᴴ R a_g,           Hermitian [*batch, N, N] -> [*batch, G]
    mixture     sum_g γ_g a_g a_gᴴ,   [*batch, G] -> [*batch, N, N]

Each is the other's adjoint, <map(R), γ> = <R, mixture(γ)>, and so is its derivative. A -> Re A +
Im A is an isometry of Hermitian onto real matrices: Re A is symmetric and Im A antisymmetric, so
the cross terms of the inner product vanish. Both are then real products with one G x N² table,
four times cheaper than in complex form; or with its factors (`compression`).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .compression import CompressedTable


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
        table: [G, N²], `pack_hermitian` of a_g a_gᴴ.
        error: of the table, relative to its norm.
    """

    table: Tensor
    error = 0.0

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)

    def power_map(self, matrix: Tensor) -> Tensor:
        """Return a_gᴴ R a_g of every grid point."""
        return pack_hermitian(matrix) @ self.table.mT

    def mixture(self, powers: Tensor) -> Tensor:
        """Return sum_g γ_g a_g a_gᴴ."""
        return unpack_hermitian(powers @ self.table)


class CompressedProducts(nn.Module):
    """Products with the factors of a compressed table.

    Attributes:
        error: of the table, relative to its norm.
    """

    characters: Tensor

    def __init__(self, table: CompressedTable) -> None:
        super().__init__()
        self.error = table.error
        tensors = {"characters": table.characters}
        for name, orbits in (("points", table.points), ("entries", table.entries)):
            tensors |= {f"slots_of_{name}": orbits.slots.flatten()}
            tensors |= {f"places_of_{name}": orbits.places}
        for index, factors in enumerate(zip(table.selected, table.weights, strict=True)):
            tensors |= {f"selected_{index}": factors[0], f"weights_{index}": factors[1]}
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor, persistent=False)

    def power_map(self, matrix: Tensor) -> Tensor:
        """Return a_gᴴ R a_g of every grid point."""
        return _Linear.apply(pack_hermitian(matrix), self._map, self._mixture)

    def mixture(self, powers: Tensor) -> Tensor:
        """Return sum_g γ_g a_g a_gᴴ."""
        return unpack_hermitian(_Linear.apply(powers, self._mixture, self._map))

    def _map(self, packed: Tensor) -> Tensor:
        folded = self._fold(packed, "entries")
        values = [
            (one @ selected.mT) @ weights
            for one, (selected, weights) in zip(folded, self._factors(), strict=True)
        ]
        return self._unfold(torch.stack(values), "points", packed.shape)

    def _mixture(self, powers: Tensor) -> Tensor:
        folded = self._fold(powers, "points")
        values = [
            (one @ weights.mT) @ selected
            for one, (selected, weights) in zip(folded, self._factors(), strict=True)
        ]
        return self._unfold(torch.stack(values), "entries", powers.shape)

    def _factors(self) -> list[tuple[Tensor, Tensor]]:
        return [
            (self.get_buffer(f"selected_{index}"), self.get_buffer(f"weights_{index}"))
            for index in range(len(self.characters))
        ]

    def _fold(self, values: Tensor, name: str) -> Tensor:
        # [*batch, n] -> [S, B, orbits]: sums over orbits, weighted by the characters
        padded = nn.functional.pad(values.flatten(0, -2), (0, 1))
        in_slots = padded.index_select(1, self.get_buffer(f"slots_of_{name}"))
        by_orbit = in_slots.unflatten(1, (len(self.characters), -1))
        return torch.einsum("cs,bso->cbo", self.characters, by_orbit)

    def _unfold(self, folded: Tensor, name: str, shape: torch.Size) -> Tensor:
        # [S, B, orbits] -> [*batch, n]
        by_orbit = torch.einsum("cs,cbo->bso", self.characters, folded).flatten(1)
        values = by_orbit.index_select(1, self.get_buffer(f"places_of_{name}"))
        return (values * len(self.characters) ** 0.5).view(*shape[:-1], -1)


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
