"""Goodness of fit: do the snapshots of a scene look as sources at given places make them look?

Let y_l = B_l s_l + n_l, B_l = G_l A, with white noise (`whiten`). Least squares at the places
gives amplitudes ŝ_l and residuals r_l = Q_l y_l, where Q_l projects onto the complement of B_l.
If the places are right, r_l is white noise in that complement and independent of ŝ_l, for any
power, correlation or number of sources. Four tests ask whether it is:

    wavefront   Do other steering vectors explain the residual? The amplitudes being known, a
                perturbation (polynomial of degree <= 3 in the element's coordinates) ∘ a_k is
                linear, so an F test of these columns is exact. What moving the sources explains is
                taken out of numerator and denominator: places are fitted.
    whiteness   Does anything else arrive? John's test of sphericity (`whiteness`).
    scale       Do all distances of the elements in wavelengths have one wrong factor s, as those
                of another carrier? The perturbation sum_k ∂a_k/∂s has one unknown, s - 1:
                Student's t of its least-squares estimate, what moving the sources explains taken
                out. To a planar wave a factor is another direction: only curvature tells.
    noise       Where σ² is known: 2 sum_l |r_l|² / σ² is χ² with as many degrees of freedom as the
                residual has, less those of the places; neither too large nor too small.

The p value is that of the least of them, times their number (Bonferroni). Below threshold, where
the places of highest likelihood are wrong, more of the noise is explained than at the true ones,
and the tests are conservative (`benchmarks/goodness_of_fit.py`).

A sixth test, `further_source`, is apart: one more source, anywhere in front of the panel. With the
B_l taken out, whatever the amplitudes, the gain in log likelihood of a source there, power and σ²
at their best, grows if one was not told, if one lies outside the region, and where one moves while
the snapshots are taken. No place of a grid of G gains more than t in noise of D dimensions but
with the probability exp(-t (D - 1) / D) or less, so that G exp(-t (D - 1) / D) bounds the p value
(Bonferroni); the places fitted take 3 K real dimensions away.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import chdtr, chdtrc, fdtrc, stdtr
from torch import Tensor

from trainer.config import ConfigError, SceneConfig
from trainer.covariance import Whitened, whiten
from trainer.estimation import GridLikelihood, profile_likelihood
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, respond, search_grid

from .whiteness import whiteness

DEGREE = 3
"""Degree of the polynomials of the wavefront test."""
RANK = 1e-9
"""Eigenvalues of normalised Gram matrices below this times the largest count as zero."""


ROUNDING = 1e-6
"""Share of the energy that may be left without being noise: 60 dB, finer than arrays are known."""
LEAST_OWN = 0.05
"""Share of a response's energy outside the span of those taken out, for a source of its own."""
WIDEST_DEG = 85.0
"""Largest angles of places in front of a panel; nearer its plane they hardly differ."""
GRID_PART = 2**22
"""Largest number of grid responses at once."""


class Fit(NamedTuple):
    """The fit of sources at given places to each of B scenes.

    Attributes:
        explained: share of the snapshots' (whitened) energy in the least-squares fit, [B].
        p_value: [B]; NaN where nothing can be tested: silence, or no more antennas, or modes of
            the channel, than sources.
        noise: σ² by the residual, [B].
        scale, scale_std: factor of the elements' distances by least squares, and its standard
            deviation, [B]; NaN where the snapshots tell nothing of it.
    """

    explained: Tensor
    p_value: Tensor
    noise: Tensor
    scale: Tensor
    scale_std: Tensor


class Residual(NamedTuple):
    """A least-squares fit of the amplitudes at given places."""

    data: Whitened
    amplitudes: Tensor  # ŝ, [B, L, K]
    basis: Tensor  # of the range of B_l, [B, L, M, K]
    vector: Tensor  # r, [B, L, M]
    dimensions: Tensor  # complex ones of the residual, [B]

    def project(self, columns: Tensor) -> Tensor:
        """Return Q_l x of columns x [B, L, M, Q], as columns of all snapshots [B, L M, Q]."""
        return (columns - self.basis @ (self.basis.mH @ columns)).flatten(1, 2)


@torch.no_grad()
def goodness_of_fit(scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid) -> Fit:
    """Test whether sources at positions [B, K, 3], where `active` [B, K], explain the snapshots.

    Computed in double precision; J's draws in single.
    """
    data = whiten(scenes).to(torch.complex128)
    positions = positions.double()
    steering = search.response(positions) * active.unsqueeze(-1)
    residual = fit_amplitudes(data, steering)
    total, rest = squared_norm(data.snapshots), squared_norm(residual.vector)
    slopes = search.slopes(positions) * active[..., None, None]
    moves = residual.project(_columns(residual, slopes))
    fitted = _span(moves)
    stretch = search.scale_slope(positions) * active.unsqueeze(-1)
    stretch = _columns(residual, stretch.unsqueeze(2)).sum(-1, keepdim=True)
    scale, scale_std, by_scale = _scale(residual, residual.project(stretch), fitted)
    p_values = torch.stack(
        [
            _wavefront(residual, steering, moves, search),
            whiteness(residual.basis, residual.vector, residual.dimensions, fitted),
            by_scale,
            _noise(residual, moves, scenes.noise_variance),
        ]
    )
    apply = torch.isfinite(p_values)
    least = p_values.where(apply, torch.inf).amin(0)
    p_value = (apply.sum(0) * least).clamp(max=1).where(apply.any(0), torch.nan)
    explained = 1 - rest / total.where(total > 0, torch.ones_like(total))
    # residuals of data without noise are rounding errors, which are not white
    p_value = p_value.where(explained < 1 - ROUNDING, 1)
    testable = (total > 0) & (active.sum(-1) < data.num_modes)
    return Fit(
        explained * (total > 0),
        p_value.where(testable, torch.nan),
        rest / residual.dimensions.clamp(min=1),
        scale,
        scale_std,
    )


def fit_amplitudes(data: Whitened, steering: Tensor) -> Residual:
    """Fit the amplitudes of steering vectors [B, K, N], zero in slots without a source."""
    responses = respond(data.channel, data.codes, steering)
    left, values, right = torch.linalg.svd(responses, full_matrices=False)
    # a slot without a source has a zero column; a dead channel has nothing else
    kept = values > RANK**0.5 * values.amax((1, 2), keepdim=True)
    basis = left * kept.unsqueeze(-2)
    inside = basis.mH @ data.snapshots.unsqueeze(-1)
    inverse = torch.where(kept, 1 / values.where(kept, torch.ones_like(values)), 0)
    amplitudes = right.mH @ (inverse.unsqueeze(-1) * inside)
    vector = data.snapshots - (basis @ inside).squeeze(-1)
    dimensions = data.snapshots[0].numel() - kept.sum((1, 2))
    return Residual(data, amplitudes.squeeze(-1), basis, vector, dimensions)


def _columns(residual: Residual, changes: Tensor) -> Tensor:
    """Return G_l x ŝ_lk of changes x [B, K, J, N] of the steering vectors: [B, L, M, K J]."""
    echoes = respond(residual.data.channel, residual.data.codes, changes.flatten(1, 2))
    echoes = echoes.unflatten(-1, changes.shape[1:3])
    return (echoes * residual.amplitudes[:, :, None, :, None]).flatten(-2)


def _wavefront(residual: Residual, steering: Tensor, moves: Tensor, search: SearchGrid) -> Tensor:
    """Return p values of the F test, [B]; NaN where the residual has too few dimensions."""
    nan = torch.full_like(residual.dimensions, torch.nan, dtype=torch.float64)
    most = int(residual.dimensions.min()) // (2 * steering.shape[1])
    shapes = wavefront_polynomials(search, most)
    if not len(shapes):
        return nan
    bent = residual.project(_columns(residual, steering.unsqueeze(2) * shapes))
    vector = residual.vector.flatten(1)
    anything, rank = _explained(torch.cat([bent, moves], dim=-1), vector)
    moved, fitted = _explained(_as_real(moves), _as_real(vector.unsqueeze(-1)).squeeze(-1))
    above, below = 2 * rank - fitted, 2 * (residual.dimensions - rank)
    mean_above = (anything - moved).clamp(min=0) / above
    mean_below = (squared_norm(residual.vector) - anything) / below
    p_value = torch.from_numpy(
        fdtrc(*(x.cpu().numpy() for x in (above, below, mean_above / mean_below)))
    )
    return p_value.to(nan).where((above > 0) & (below > 0), nan)


def wavefront_polynomials(search: SearchGrid, most: int) -> Tensor:
    """Return at most `most` orthogonal polynomials on the panel, [J, N], of degree 1 to `DEGREE`.

    A constant bends nothing: the amplitudes have explained it.
    """
    across, up = search.panel.element_positions(torch.float64, search.points.device)
    size = torch.maximum(across.abs().max(), up.abs().max()).clamp(min=1e-300)
    degrees = [d for d in range(DEGREE + 1) if (d + 1) * (d + 2) // 2 <= most + 1]
    powers = [(i, d - i) for d in degrees for i in range(d + 1)]
    if not powers:
        return across.new_zeros(0, len(across))
    columns = torch.stack([(across / size) ** i * (up / size) ** j for i, j in powers], dim=-1)
    # on a line some are multiples of others
    orthogonal, triangle = torch.linalg.qr(columns)
    kept = triangle.diagonal().abs() > RANK * triangle.diagonal().abs().max()
    return orthogonal[:, : len(kept)][:, kept][:, 1:].mT


def _as_real(columns: Tensor) -> Tensor:
    """Return complex columns [B, P, Q] as real ones [B, 2 P, Q].

    Places are real: a move by an imaginary angle is not among the fitted.
    """
    return torch.view_as_real(columns).movedim(-1, 1).flatten(1, 2)


def _explained(columns: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy of `vector` [B, P] in the span of columns [B, P, Q], and its rank: [B]."""
    unit = columns / _norms(columns)
    values, vectors = torch.linalg.eigh(unit.mH @ unit)
    kept = values > RANK * values[:, -1:].clamp(min=1)
    inside = squared_magnitude((vectors.mH @ (unit.mH @ vector.unsqueeze(-1))).squeeze(-1))
    energy = torch.where(kept, inside / values.where(kept, torch.ones_like(values)), 0).sum(-1)
    return energy, kept.sum(-1)


def _span(moves: Tensor) -> Tensor:
    """Return orthonormal real columns [B, 2 P, Q] of the real combinations of moves [B, P, Q]."""
    orthogonal, triangle = torch.linalg.qr(_as_real(moves / _norms(moves)))
    # columns of slots without a source are zero, those on a line multiples of others
    independent = triangle.diagonal(dim1=-2, dim2=-1).abs() > RANK**0.5
    return orthogonal * independent.unsqueeze(-2)


def _norms(columns: Tensor) -> Tensor:
    """Return the norms of columns [B, P, Q], [B, 1, Q]; 1 where they are zero."""
    norm = columns.norm(dim=1, keepdim=True)
    return norm.where(norm > 0, torch.ones_like(norm))


def _scale(residual: Residual, stretch: Tensor, fitted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factor of the elements' distances, its standard deviation and p value: [B].

    Args:
        stretch: the change of all snapshots with the factor, [B, L M, 1].
        fitted: of `_span`.
    """
    column, vector = _as_real(stretch), _as_real(residual.vector.flatten(1).unsqueeze(-1))
    column, vector = ((x - fitted @ (fitted.mT @ x)).squeeze(-1) for x in (column, vector))
    told = column.square().sum(-1)
    freedom = 2 * residual.dimensions - fitted.shape[-1] - 1
    known = (told > RANK * squared_norm(stretch)) & (freedom > 0)
    told = told.where(known, torch.nan)
    inside = (column * vector).sum(-1)
    rest = (vector.square().sum(-1) - inside.square() / told).clamp(min=0)
    change, std = inside / told, (rest / freedom.clamp(min=1) / told).sqrt()
    score = -(change / std).abs().cpu().numpy()
    p_value = torch.from_numpy(2 * stdtr(freedom.clamp(min=1).cpu().numpy(), score)).to(change)
    return 1 + change, std, p_value


def _noise(residual: Residual, moves: Tensor, variance: Tensor) -> Tensor:
    """Return p values of the two-sided χ² test, [B]; NaN where σ² is not known."""
    pairs = _as_real(moves)
    _, fitted = _explained(pairs, pairs[..., 0])
    freedom = (2 * residual.dimensions - fitted).clamp(min=0)
    ratio = (2 * squared_norm(residual.vector) / variance).cpu().numpy()
    tails = [np.asarray(tail(freedom.cpu().numpy(), ratio)) for tail in (chdtr, chdtrc)]
    p_value = torch.from_numpy(2 * np.minimum(*tails))
    return p_value.to(residual.vector.real).where(freedom > 0, torch.nan)


def in_front(scene: SceneConfig, device: torch.device) -> SearchGrid:
    """Return the grid of all directions in front of the panel that it can tell apart."""
    waves = scene.wavelength_m / scene.spacing_m
    told = math.degrees(math.asin(min(max(waves - 1, 0), 1)))
    lines = {"azimuth_max_deg": scene.num_horizontal, "elevation_max_deg": scene.num_vertical}
    limits = {name: WIDEST_DEG if count == 1 else told for name, count in lines.items()}
    wide = {x: max(getattr(scene, x), min(WIDEST_DEG, limits[x])) for x in limits}
    try:
        return search_grid(replace(scene, **wide), torch.float32, device)
    except ConfigError:  # too many places, or placed elements to which some of them look alike
        return search_grid(scene, torch.float32, device)


@torch.no_grad()
def further_source(
    scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the p value of no other source than those at positions [B, K, 3], [B]; and where one
    more is likeliest, [B, 3].

    Args:
        active: [B, K].
        search: the places asked.
    """
    data = whiten(scenes).to(torch.complex128)
    steering = search.response(positions.double()) * active.unsqueeze(-1)
    residual = fit_amplitudes(data, steering)
    step = max(1, GRID_PART // (data.snapshots[0].numel() * len(search.points)))
    found = []
    for first in range(0, scenes.batch_size, step):
        part = slice(first, first + step)
        left = Whitened(residual.vector[part], data.channel[part], data.codes[part])
        found.append(_further_gain(left, residual.basis[part], residual.dimensions[part], search))
    gain, places = (torch.cat(x) for x in zip(*found, strict=True))
    freedom = residual.dimensions - 1.5 * active.sum(-1) - 1
    rate = freedom.clamp(min=0) / residual.dimensions.clamp(min=1)
    p_value = (math.log(len(search.points)) - gain * rate).exp().clamp(max=1)
    total, rest = squared_norm(data.snapshots), squared_norm(residual.vector)
    return p_value.where(rest > ROUNDING * total, 1), places


def _further_gain(
    left: Whitened, basis: Tensor, dimensions: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the log likelihood gained by the best source, [B], and its place [B, 3].

    Args:
        left: the residual in place of the snapshots.
        basis: of the responses taken out, [B, L, M, K].
        dimensions: D, [B].
    """
    grid = GridLikelihood(left, search)
    inside = squared_magnitude(grid.correlate(basis.to(grid.energy.dtype.to_complex()))).sum(2)
    energy = (grid.energy - inside).clamp(min=0)
    own = energy.sum(1) > LEAST_OWN * grid.energy.sum(1)
    count = dimensions.clamp(min=1).to(energy).unsqueeze(-1)
    total = squared_norm(left.snapshots).to(energy)
    value, *_ = profile_likelihood(energy, squared_magnitude(grid.matched), total, count)
    tiny = torch.finfo(energy.dtype).tiny
    least, best = value.where(own, torch.inf).min(-1)
    gain = (count.squeeze(-1) * total.clamp(min=tiny).log() - least).clamp(min=0)
    return gain.double(), search.points[best].double()
