"""The likelihood of two sources at all pairs of points, for one ratio of power to noise a scene.

With ρ = p / σ² fixed and every echo scaled by α = sqrt(ρ / (1 + ρ g)), the closed form of
`likelihood` needs one coefficient of each pair, c = α₁ α₂ g₁₂:

    log det     = log(1 + ρ g₁) + log(1 + ρ g₂) + log(1 - |c|²)
    explained   = (|φ₁|² + |φ₂|² - 2 Re(φ₁* c φ₂)) / (1 - |c|²),   φ = α f

so that pairs cost two products of matrices and a few operations each.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .likelihood import Echoes, ScaleFreeLikelihood, quarter_turn, sum_of_logs

PART = {"cpu": 2**18, "cuda": 2**26}
"""Pairs times snapshots computed at once: a CPU's cache, or a GPU full."""
BLOCKS = 8
"""Blocks of rows of a symmetric table; each begins at its own first column."""
LEAST_DETERMINANT = 1e-6
"""Of 1 - |c|², which rounding can make negative for a pair at one place."""
FACTORS = 4
"""Determinants that are multiplied before the logarithm: their product is above 1e-24."""


class ScaledEchoes(NamedTuple):
    """Echoes of points at a ratio ρ; snapshots lead points, as products of matrices want it.

    Attributes:
        columns: α b, real as in `Echoes`, [B, L, S, 2M].
        matched: φ, its real and its imaginary part, [2, B, L, S].
        size: |φ|, [B, L, S].
        logdet: sum_l log(1 + ρ g), [B, S].
    """

    columns: Tensor
    matched: Tensor
    size: Tensor
    logdet: Tensor

    def take(self, index: Tensor) -> "ScaledEchoes":
        """Return the echoes of some of the points, index [B, R]."""
        scene = torch.arange(len(index), device=index.device)[:, None, None]
        snapshot = torch.arange(self.size.shape[1], device=index.device).unsqueeze(-1)
        at = scene, snapshot, index.unsqueeze(1)
        matched = torch.stack([part[at] for part in self.matched])
        return ScaledEchoes(self.columns[at], matched, self.size[at], self.logdet.gather(1, index))

    def part(self, scenes: slice, points: slice) -> "ScaledEchoes":
        """Return those of some scenes and points."""
        return ScaledEchoes(
            self.columns[scenes, :, points],
            self.matched[:, scenes, :, points],
            self.size[scenes, :, points],
            self.logdet[scenes, points],
        )


def scale_echoes(echoes: Echoes, ratio: Tensor) -> ScaledEchoes:
    """Return the echoes of points at a ratio ρ of each scene [B]."""
    ratio = ratio[:, None, None]
    gain = (1 + ratio * echoes.gain).transpose(1, 2).contiguous()
    scale = (ratio / gain).sqrt()
    columns = torch.mul(echoes.columns.transpose(1, 2), scale.unsqueeze(-1)).contiguous()
    matched = echoes.matched.transpose(1, 2)
    matched = torch.stack([matched.real, matched.imag]) * scale
    size = matched.square().sum(0).sqrt()
    return ScaledEchoes(columns, matched, size, sum_of_logs(gain, 1, 2))


def pair_table(
    likelihood: ScaleFreeLikelihood, first: ScaledEchoes, second: ScaledEchoes
) -> Tensor:
    """Return log p(y | pair, ρ) + const. of R points with C points: [B, R, C].

    Half of it is computed where both are the same points.
    """
    batch, snapshots, rows = first.size.shape
    columns = second.size.shape[2]
    found = first.logdet.new_empty(batch, rows, columns)
    height = -(-rows // BLOCKS) if first is second else rows
    some = max(1, PART[found.device.type] // (snapshots * height * columns))
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
    size = one.size.unsqueeze(-1)
    phase = one.matched.unsqueeze(-1) / size.clamp(min=torch.finfo(size.dtype).tiny)
    phase[0] += size == 0  # silent snapshots have none
    turned = quarter_turn(one.columns)
    # d = c φ₁* / |φ₁|, so that φ₁* c φ₂ = |φ₁| d φ₂
    right = two.columns.mT
    real = (one.columns * phase[0] - turned * phase[1]) @ right
    imaginary = (turned * phase[0] + one.columns * phase[1]) @ right  # of d*
    determinant = torch.addcmul(real.new_ones(()), real, real, value=-1)
    determinant.addcmul_(imaginary, imaginary, value=-1).clamp_(min=LEAST_DETERMINANT)
    matched = two.matched.unsqueeze(-2)
    real.mul_(matched[0]).addcmul_(imaginary, matched[1])
    explained = torch.addcmul(size.square(), real, size, value=-2)
    explained.add_(two.size.square().unsqueeze(-2)).div_(determinant)
    rest = total[:, None, None] - explained.sum(1)
    logdet = sum_of_logs(determinant, 1, FACTORS)
    logdet.add_(one.logdet.unsqueeze(2)).add_(two.logdet.unsqueeze(1))
    tiny = torch.finfo(rest.dtype).tiny
    return rest.clamp_(min=tiny).log_().mul_(-dimensions).sub_(logdet)
