"""Whiteness of a residual: John's test of sphericity (1971, Biometrika 58).

J = sum_lm |r_lᴴ r_m|² / (sum_l |r_l|²)² depends on neither σ² nor the amplitudes of the sources.
Its mean for known places is known; what fitting them changes, its variance and its skewness are
drawn with the projections Q_l of the scene, and a gamma distribution of these gives its tail.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from scipy.special import gammaincc
from torch import Tensor

from trainer.linalg import squared_norm

DRAWS = 128
"""Draws of white noise for the distribution of J."""
REFERENCE_DRAWS = 128 * DRAWS
"""Draws without any source, once for every L and M, that correct the others."""
DRAWN_AT_ONCE = 2**20
"""Largest number of complex numbers drawn at once for several scenes."""


def whiteness(basis: Tensor, vector: Tensor, dimensions: Tensor, fitted: Tensor) -> Tensor:
    """Return p values of J, [B]; NaN for one snapshot or a residual without dimensions.

    Args:
        basis: of the range of B_l, [B, L, M, K].
        vector: the residual r, [B, L, M].
        dimensions: complex ones of the residual, [B].
        fitted: orthonormal real columns of what fitting the places takes out, [B, 2 L M, Q]: real
            and imaginary part of an entry side by side.
    """
    _, snapshots, antennas, _ = basis.shape
    reference = _white_noise(snapshots, antennas)
    noise = reference.draws.to(vector.device).unsqueeze(-1)
    drawn = []
    part = max(1, DRAWN_AT_ONCE // noise.numel())
    parts = basis.to(torch.complex64).split(part), fitted.float().split(part)
    for each, span in zip(*parts, strict=True):
        range_of = each.unsqueeze(1)
        left = (noise - range_of @ (range_of.mH @ noise)).squeeze(-1)
        pairs = torch.view_as_real(left).movedim(-1, 2).flatten(2)  # [B, DRAWS, 2 L M]
        pairs = pairs - (pairs @ span) @ span.mT
        moved = torch.complex(*pairs.unflatten(-1, (2, *left.shape[2:])).unbind(2))
        drawn.append(torch.stack([_sphericity(left), _sphericity(moved)]).double())
    known, drawn_fitted = torch.cat(drawn, dim=1)
    spread, skewness = _shape(drawn_fitted)
    spread, skewness = spread * reference.spread, skewness + reference.skewness
    # E J = (|sum_l Q_l|² + sum_l d_l²) / (D (D + 1)), d_l = rank Q_l, D = sum_l d_l
    eye = torch.eye(antennas, dtype=basis.dtype, device=basis.device)
    ranks = antennas - squared_norm(basis)
    summed = snapshots * eye - (basis @ basis.mH).sum(1)
    freedom = dimensions * (dimensions + 1)
    mean = (squared_norm(summed) + ranks.square().sum(-1)) / freedom.clamp(min=1)
    mean = mean + (drawn_fitted - known).mean(-1)
    testable = (dimensions > snapshots) & (spread > 1e-6 * mean)
    testable = testable & (squared_norm(vector) > 0) & (snapshots > 1)
    spread = spread.where(testable, torch.ones_like(spread))
    # a gamma distribution is skewed to the right; one that is hardly skewed is normal
    skewness = skewness.nan_to_num(0).clamp(min=0.05)
    shape = 4 / skewness**2
    score = (_sphericity(vector) - mean) / spread
    at = (shape + score * shape.sqrt()).clamp(min=0)
    p_value = torch.from_numpy(gammaincc(shape.cpu().numpy(), at.nan_to_num(1).cpu().numpy()))
    return p_value.to(score).where(testable, torch.nan)


class _WhiteNoise(NamedTuple):
    """Draws of white noise, and corrections of the moments of J that they give.

    A control variate: the error of few draws for a scene is estimated from their error for white
    noise without any source, whose moments are known from many draws.
    """

    draws: Tensor  # [DRAWS, L, M]
    spread: float  # true over drawn
    skewness: float  # true - drawn


@lru_cache(maxsize=8)
def _white_noise(snapshots: int, antennas: int) -> _WhiteNoise:
    # from the CPU, so that every device tests alike
    generator = torch.Generator().manual_seed(0)
    shape = (snapshots, antennas)
    draws = torch.randn(DRAWS, *shape, generator=generator, dtype=torch.complex64)
    values = [_sphericity(draws)]
    for _ in range(REFERENCE_DRAWS // DRAWS - 1):
        more = torch.randn(DRAWS, *shape, generator=generator, dtype=torch.complex64)
        values.append(_sphericity(more))
    (few, drawn), (true, skewed) = _shape(values[0].double()), _shape(torch.cat(values).double())
    ratio = float(true / few) if few > 0 else 1.0
    return _WhiteNoise(draws, ratio, float((skewed - drawn).nan_to_num(0)))


def _shape(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviation and the skewness of values [*batch, n]: [*batch]."""
    centred = values - values.mean(-1, keepdim=True)
    spread = centred.square().mean(-1).sqrt()
    return spread, (centred**3).mean(-1) / spread**3


def _sphericity(vectors: Tensor) -> Tensor:
    """Return J of snapshots [*batch, L, M]: [*batch]."""
    gram = vectors @ vectors.mH if vectors.shape[-2] < vectors.shape[-1] else vectors.mH @ vectors
    energy = squared_norm(vectors)
    tiny = torch.finfo(energy.dtype).tiny
    return squared_norm(gram) / energy.square().clamp(min=tiny)
