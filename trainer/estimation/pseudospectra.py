"""MUSIC, MVDR and the beamformer on any covariance of the panel, dense or as a factor.

Steering vectors have |a|² = N everywhere, so all three pseudospectra are monotonic functions of
‖Bᴴ a‖² and differ only in the weights of the eigenvectors e_i of R, eigenvalues ℓ descending:

    beamformer  aᴴ R a             B = [.. sqrt(ℓ_i - ℓ_N) e_i ..]              (Bartlett 1948)
    MVDR        1 / aᴴ R⁻¹ a       B = [.. sqrt(1 - ℓ_N / ℓ_i) e_i ..]          (Capon 1969)
    MUSIC       1 / aᴴ E_n E_nᴴ a  B = [e_1 .. e_K]                             (Schmidt 1986)

No gradient passes. MVDR inverts R, so diagonal loading changes its result; it cannot change the
peaks of MUSIC or of the beamformer.
"""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from scipy.special import betainccinv
from torch import Tensor

from trainer.covariance import Covariance, Eigendecomposition, eigendecompose
from trainer.linalg import squared_magnitude
from trainer.scenes import SearchGrid

from .estimates import Estimates, is_interior, is_repetition, make_estimates
from .peak_refinement import RIDGE, deflate, pick_peaks, refine_jointly
from .source_number import SOURCE_NUMBERS
from .uncertainty import panel_tells

LEAST_WEIGHT = 1e-6
"""Eigenvectors with less weight are left out: they change a pseudospectrum by less than this."""
ROUNDOFFS = 32
"""Eigenvalues closer to the smallest than this many roundoffs of the largest equal it."""
CHANCE = 0.01
"""Probability that a random subspace has a significant steering vector anywhere on the grid.
Back-projected noise is not quite random: about one position in thirty passes."""

Weights = Callable[[Eigendecomposition, Tensor], Tensor]
"""Squared weights of the eigenvectors, [B, r], from an eigendecomposition and K [B]."""


def find_sources(
    weights: Weights,
    joint_weights: Weights,
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
    loading: float = 0.0,
) -> Estimates:
    """Return estimates of K sources at the peaks of a pseudospectrum.

    Args:
        weights, joint_weights: of the pseudospectrum and of the joint refinement.
        covariance: R, [B, N, N] or a `Covariance`.
        num_sources: K, [B].
        slots: columns of the estimates, at least the largest K (the default).
        deflation: find one source at a time, then refine all together; False takes the highest
            peaks of the pseudospectrum.
        num_snapshots: if given, the source numbers that the eigenvalues suggest are reported too.
        loading: added to every eigenvalue, except for the source numbers.
    """
    most = max(int(num_sources.max()), 1)
    unloaded = eigendecompose(covariance)
    loaded = replace(unloaded, values=unloaded.values + loading, floor=unloaded.floor + loading)
    weight = weights(loaded, num_sources)
    kept = max(int((weight > LEAST_WEIGHT).sum(-1).max()), 1)

    def beams(weight: Tensor) -> Tensor:
        return loaded.vectors[..., :kept] * weight[:, None, :kept].sqrt()

    active = torch.arange(most, device=num_sources.device) < num_sources.unsqueeze(-1)
    separate = active
    if deflation:
        positions = deflate(beams(weight), num_sources, search, most)
        joint = beams(joint_weights(loaded, num_sources))
        positions = refine_jointly(joint, positions, active, search)
    else:
        positions, is_peak = pick_peaks(beams(weight), search, most)
        separate = active & is_peak
    numbers = {}
    if num_snapshots is not None:
        values = unloaded.all_values
        numbers = {
            rule: tell(values, num_snapshots, slots or most)
            for rule, tell in SOURCE_NUMBERS.items()
        }
    steering = search.response(positions)
    separate = separate & ~is_repetition(steering, active) & unloaded.finite.unsqueeze(-1)
    significant = is_significant(unloaded, steering, active, len(search.points))
    significant = significant & panel_tells(positions, search)
    resolved = separate & is_interior(positions, search) & significant
    return make_estimates(positions, active, separate, resolved, search, slots or most, numbers)


def is_significant(
    found: Eigendecomposition, steering: Tensor, active: Tensor, points: int
) -> Tensor:
    """Return True for steering vectors that the signal subspace holds: [B, K, N] -> [B, K].

    The share of a vector in K random dimensions is Beta(K, N - K). What counts is p_k, the part of
    a_k outside the span of the others; the k-th row of A⁺ is p_kᴴ / ‖p_k‖².

    Args:
        points: number of grid points, the trials of a random subspace.
    """
    count, elements = active.sum(-1), steering.shape[-1]
    shares = [_least_share(k, elements, points) for k in range(active.shape[-1] + 1)]
    least = torch.tensor(shares, device=count.device)[count].unsqueeze(-1)
    kept = min(active.shape[-1], found.values.shape[-1])
    enough = _exceeds_floor(found)[:, :kept].sum(-1) >= count
    signal = found.vectors[..., :kept] * active[:, None, :kept]
    masked = steering * active.unsqueeze(-1)
    gram = masked.conj() @ masked.mT
    ridge = RIDGE * elements + (~active).to(gram.real.dtype)
    factor = torch.linalg.cholesky(gram + torch.diag_embed(ridge).to(gram.dtype))
    own = torch.cholesky_solve(masked.conj(), factor)  # A⁺, [B, K, N]
    power = squared_magnitude(own).sum(-1).clamp(min=torch.finfo(ridge.dtype).tiny)
    share = squared_magnitude(own @ signal).sum(-1) / power
    return active & enough.unsqueeze(-1) & (share > least)


@functools.cache
def _least_share(count: int, elements: int, points: int) -> float:
    # `scipy.stats.beta.isf`; importing `scipy.stats` takes a second of every worker's start
    if not 0 < count < elements:
        return 1.0
    return float(betainccinv(count, elements - count, CHANCE / points))


def _exceeds_floor(found: Eigendecomposition) -> Tensor:
    roundoff = ROUNDOFFS * torch.finfo(found.values.dtype).eps
    return found.values - found.floor.unsqueeze(-1) > roundoff * found.values[:, :1]


def _music_weights(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    index = torch.arange(found.values.shape[-1], device=num_sources.device)
    return (index < num_sources.unsqueeze(-1)).to(found.values.dtype)


def _subspace_fitting_weights(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    # weak eigenvectors are the least certain: subspace fitting weighs them by their power
    return _music_weights(found, num_sources) * _beamformer_weights(found, num_sources)


def _mvdr_weights(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    tiny = torch.finfo(found.values.dtype).tiny
    floor = found.floor.unsqueeze(-1).clamp(min=tiny)
    # a loaded covariance of low rank has a flat floor, up to roundoff
    return (1 - floor / found.values.clamp(min=tiny)).clamp(min=0) * _exceeds_floor(found)


def _beamformer_weights(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    # less the floor, which adds the same everywhere, so that loading changes nothing at all
    above = (found.values - found.floor.unsqueeze(-1)).clamp(min=0)
    return above / above[:, :1].clamp(min=torch.finfo(above.dtype).tiny)


music = functools.partial(find_sources, _music_weights, _subspace_fitting_weights)
mvdr = functools.partial(find_sources, _mvdr_weights, _mvdr_weights)
beamformer = functools.partial(find_sources, _beamformer_weights, _beamformer_weights)
ESTIMATORS = {"music": music, "mvdr": mvdr, "beamformer": beamformer}
"""Estimators by name; each takes R, K and the grid as `find_sources` does, and its options."""
