"""The likelihood of two sources at all pairs of points, for one ratio of power to noise a scene.

With ρ = p / σ² fixed and every echo scaled by α = sqrt(ρ / (1 + ρ g)), the closed form of
`likelihood` needs one coefficient of each pair, c = α₁ α₂ g₁₂:

    log det     = log(1 + ρ g₁) + log(1 + ρ g₂) + log(1 - |c|²)
    explained   = (|φ₁|² + |φ₂|² - 2 Re(φ₁* c φ₂)) / (1 - |c|²),   φ = α f

so that pairs cost a product of matrices and a few operations each.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.linalg import squared_magnitude

from .likelihood import Echoes, ScaleFreeLikelihood, quarter_turn

PART = {"cpu": 2**18, "cuda": 2**26}
"""Pairs times snapshots computed at once: a CPU's cache, or a GPU full."""
BLOCKS = 4
"""Blocks of rows of a symmetric table; each begins at its own first column."""
LEAST_DETERMINANT = 1e-6
"""Of 1 - |c|², which rounding can make negative for a pair at one place."""


class ScaledEchoes(NamedTuple):
    """Echoes of points at a ratio ρ.

    Attributes:
        columns: α b, real as in `Echoes`, [B, S, L, 2M].
        matched: φ, [B, S, L].
        explained: |φ|², [B, S, L].
        logdet: sum_l log(1 + ρ g), [B, S].
    """

    columns: Tensor
    matched: Tensor
    explained: Tensor
    logdet: Tensor

    def take(self, index: Tensor) -> "ScaledEchoes":
        """Return the echoes of some of the points, index [B, R]."""
        rows = torch.arange(len(index), device=index.device).unsqueeze(-1)
        return ScaledEchoes(*(x[rows, index] for x in self))

    def part(self, scenes: slice, points: slice) -> "ScaledEchoes":
        """Return those of some scenes and points."""
        return ScaledEchoes(*(x[scenes, points] for x in self))


def scale_echoes(echoes: Echoes, ratio: Tensor) -> ScaledEchoes:
    """Return the echoes of points at a ratio ρ of each scene [B]."""
    ratio = ratio[:, None, None]
    gain = 1 + ratio * echoes.gain
    scale = (ratio / gain).sqrt()
    matched = scale * echoes.matched
    columns = echoes.columns * scale.unsqueeze(-1)
    return ScaledEchoes(columns, matched, squared_magnitude(matched), gain.log().sum(-1))


def pair_table(
    likelihood: ScaleFreeLikelihood, first: ScaledEchoes, second: ScaledEchoes
) -> Tensor:
    """Return log p(y | pair, ρ) + const. of R points with C points: [B, R, C].

    Half of it is computed where both are the same points.
    """
    batch, rows, snapshots = first.matched.shape
    columns = second.matched.shape[1]
    found = first.logdet.new_empty(batch, rows, columns)
    some = max(1, PART[found.device.type] // (snapshots * rows * columns))
    height = -(-rows // BLOCKS) if first is second else rows
    for start in range(0, batch, some):
        scenes = slice(start, start + some)
        for top in range(0, rows, height):
            row, column = slice(top, top + height), slice(top if first is second else 0, columns)
            one, two = first.part(scenes, row), second.part(scenes, column)
            value = _block(one, two, likelihood.total[scenes], likelihood.dimensions)
            found[scenes, row, column] = value
            if first is second:
                found[scenes, column, row] = value.mT
    return found


def _block(one: ScaledEchoes, two: ScaledEchoes, total: Tensor, dimensions: int) -> Tensor:
    # snapshots lead: products of matrices, and sums over the first axis
    turned = _by_snapshot(quarter_turn(one.columns))
    right = _by_snapshot(two.columns).mT
    left, imaginary = _by_snapshot(one.columns) @ right, turned @ right
    determinant = left.square_().addcmul_(imaginary, imaginary).neg_().add_(1)
    determinant.clamp_(min=LEAST_DETERMINANT)
    real, imag = one.matched.real.unsqueeze(-1), one.matched.imag.unsqueeze(-1)
    # φ₁ b₁: its product with b₂ is φ₁* c
    product = one.columns * real - quarter_turn(one.columns) * imag
    crossed = (_by_snapshot(product) @ right).mul_(_by_snapshot(two.matched.real).unsqueeze(-2))
    turned = _by_snapshot(quarter_turn(product)) @ right
    crossed.addcmul_(turned, _by_snapshot(two.matched.imag).unsqueeze(-2)).mul_(-2)
    crossed.add_(_by_snapshot(one.explained).unsqueeze(-1))
    crossed.add_(_by_snapshot(two.explained).unsqueeze(-2)).div_(determinant)
    rest = total[:, None, None] - crossed.sum(-3)
    tiny = torch.finfo(rest.dtype).tiny
    logdet = determinant.log_().sum(-3) + one.logdet.unsqueeze(2) + two.logdet.unsqueeze(1)
    return -logdet - dimensions * rest.clamp_(min=tiny).log_()


def _by_snapshot(terms: Tensor) -> Tensor:
    """Return terms [B, S, L, ...] with snapshots before points; without B if that is 1, since a
    batch of strided matrices is copied otherwise."""
    terms = terms.transpose(1, 2)
    return terms[0] if len(terms) == 1 else terms
