"""MUSIC, MVDR and the beamformer on any covariance of the panel, dense or in factors.

Steering vectors have |a|² = N everywhere, so all three spectra rise and fall with one form,
‖Bᴴ a‖², and differ only in how they weigh the eigenvectors e_i of R, eigenvalues ℓ descending:

    beamformer  aᴴ R a             B = [.. sqrt(ℓ_i - ℓ_N) e_i ..]              (Bartlett 1948)
    MVDR        1 / aᴴ R⁻¹ a       B = [.. sqrt(1 - ℓ_N / ℓ_i) e_i ..]          (Capon 1969)
    MUSIC       1 / aᴴ E_n E_nᴴ a  B = [e_1 .. e_K]                             (Schmidt 1986)

Eigenvectors are used and forgotten here; no gradient passes. MVDR inverts R, so diagonal loading
changes what it finds; it cannot change MUSIC's or the beamformer's peaks.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from scipy.special import betainccinv
from torch import Tensor
from torch.nn import functional

from trainer.covariance import Covariance, Eigendecomposition, eigendecompose
from trainer.linalg import squared_magnitude
from trainer.scenes import SearchGrid

from .estimates import CHANCE, Estimates
from .source_number import SOURCE_NUMBERS
from .subspace_fit import JITTER, SAME_PLACE, deflate, pick, refine

LEAST_WEIGHT = 1e-6
"""Eigenvectors with less weight are left out: their whole part in a spectrum is below this."""
ROUNDOFFS = 32
"""Eigenvalues closer to the least than this many roundoffs of the largest equal it."""
EDGE = 1e-6
"""Share of the region's width that counts as its edge."""

Weigh = Callable[[Eigendecomposition, Tensor], Tensor]


def music(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
    loading: float = 0.0,
) -> Estimates:
    """MUSIC: R, [B, N, N] Hermitian or a `Covariance`, and K [B] -> estimates of K sources each.

    Args:
        slots: columns of the estimates, at least the largest K (the default).
        deflation: one source at a time, then all refined together; without, the highest peaks
            of the plain spectrum.
        num_snapshots: if given, the source numbers that the eigenvalues suggest are reported too.
        loading: added to every eigenvalue, after the source numbers have been told.
    """
    how = search, slots, deflation, num_snapshots, loading
    return _estimate(_music, _signal_power, covariance, num_sources, *how)


def mvdr(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
    loading: float = 0.0,
) -> Estimates:
    """MVDR (Capon), which needs loading or a covariance of full rank; arguments as for `music`."""
    how = search, slots, deflation, num_snapshots, loading
    return _estimate(_mvdr, _mvdr, covariance, num_sources, *how)


def beamformer(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
    loading: float = 0.0,
) -> Estimates:
    """The conventional (Bartlett) beamformer; arguments as for `music`."""
    how = search, slots, deflation, num_snapshots, loading
    return _estimate(_beamformer, _beamformer, covariance, num_sources, *how)


ESTIMATORS = {"music": music, "mvdr": mvdr, "beamformer": beamformer}


def _estimate(
    weigh: Weigh,
    weigh_jointly: Weigh,
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    slots: int | None,
    deflation: bool,
    num_snapshots: int | None,
    loading: float,
) -> Estimates:
    most = max(int(num_sources.max()), 1)
    unloaded = eigendecompose(covariance)
    found = replace(unloaded, values=unloaded.values + loading, floor=unloaded.floor + loading)
    weight = weigh(found, num_sources)
    kept = max(int((weight > LEAST_WEIGHT).sum(-1).max()), 1)

    def beams(weight: Tensor) -> Tensor:
        return found.vectors[..., :kept] * weight[:, None, :kept].sqrt()

    active = torch.arange(most, device=num_sources.device) < num_sources.unsqueeze(-1)
    if deflation:
        places = deflate(beams(weight), num_sources, search, most)
        joint = beams(weigh_jointly(found, num_sources))
        places, separate = refine(joint, places, active, search), active
    else:
        places, is_peak = pick(beams(weight), search, most)
        separate = active & is_peak
    numbers = {}
    if num_snapshots is not None:
        values = unloaded.all_values
        numbers = {
            rule: tell(values, num_snapshots, slots or most)
            for rule, tell in SOURCE_NUMBERS.items()
        }
    steering = search.response(places)
    separate = separate & ~repeated(steering, active) & found.finite.unsqueeze(-1)
    resolved = (
        separate
        & interior(places, search)
        & stands_out(unloaded, steering, active, len(search.points))
    )
    return as_estimates(places, active, separate, resolved, numbers, search, slots or most)


def as_estimates(
    places: Tensor,
    active: Tensor,
    separate: Tensor,
    resolved: Tensor,
    numbers: Mapping[str, Tensor],
    search: SearchGrid,
    slots: int,
) -> Estimates:
    """Places [B, K, 3] of a search as estimates with `slots` columns; inactive ones at the centre.

    Raises:
        ValueError: if there are fewer slots than active sources.
    """
    if int(active.sum(-1).max()) > slots:
        raise ValueError(
            f"`slots >= num_sources` must hold, but got {slots=}, "
            f"num_sources up to {int(active.sum(-1).max())}. Ask for more slots."
        )
    more = max(slots - active.shape[-1], 0)
    active, separate, resolved = (
        functional.pad(x, (0, more))[:, :slots] for x in (active, separate, resolved)
    )
    places = functional.pad(places, (0, 0, 0, more))[:, :slots]
    centre = (search.lower + search.upper) / 2
    azimuth, elevation, inverse = torch.where(active.unsqueeze(-1), places, centre).unbind(-1)
    return Estimates(azimuth, elevation, 1 / inverse, resolved, active, numbers, separate)


def repeated(steering: Tensor, active: Tensor) -> Tensor:
    """Which estimates are at the place of an earlier one: [B, K, N] -> [B, K]."""
    likeness = (steering.conj() @ steering.mT).abs() / steering.shape[-1]
    both = active.unsqueeze(-1) & active.unsqueeze(-2)
    return ((likeness > SAME_PLACE) & both).tril(-1).any(-1)


def interior(places: Tensor, search: SearchGrid) -> Tensor:
    """Which places [B, K, 3] have a direction strictly inside the region: [B, K]."""
    # an edge, written in another precision, is still that edge
    margin = EDGE * (search.upper - search.lower)
    inside = (places > search.lower + margin) & (places < search.upper - margin)
    return inside[..., :2].all(-1)


def stands_out(found: Eigendecomposition, steering: Tensor, active: Tensor, points: int) -> Tensor:
    """Which steering vectors [B, K, N] the signal subspace holds, apart from the others': [B, K].

    A⁺'s k-th row is p_kᴴ / ‖p_k‖² with p_k the part of a_k outside the others, so the share of p_k
    in the subspace is that of the row. `points`: of the grid, which chance had to try.
    """
    count, elements = active.sum(-1), steering.shape[-1]
    chance = [_least_share(k, elements, points) for k in range(active.shape[-1] + 1)]
    least = torch.tensor(chance, device=count.device)[count].unsqueeze(-1)
    kept = min(active.shape[-1], found.values.shape[-1])
    roundoff = ROUNDOFFS * torch.finfo(found.values.dtype).eps
    above = found.values - found.floor.unsqueeze(-1) > roundoff * found.values[:, :1]
    enough = above[:, :kept].sum(-1) >= count
    signal = found.vectors[..., :kept] * active[:, None, :kept]
    masked = steering * active.unsqueeze(-1)
    gram = masked.conj() @ masked.mT
    ridge = JITTER * elements + (~active).to(gram.real.dtype)
    factor = torch.linalg.cholesky(gram + torch.diag_embed(ridge).to(gram.dtype))
    own = torch.cholesky_solve(masked.conj(), factor)  # A⁺, [B, K, N]
    norm = squared_magnitude(own).sum(-1).clamp(min=torch.finfo(ridge.dtype).tiny)
    share = squared_magnitude(own @ signal).sum(-1) / norm
    return active & enough.unsqueeze(-1) & (share > least)


@functools.cache
def _least_share(count: int, elements: int, points: int) -> float:
    # SciPy's `beta.isf`, without all of its distributions: a second of every worker's start
    if not 0 < count < elements:
        return 1.0
    return float(betainccinv(count, elements - count, CHANCE / points))


def _music(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    index = torch.arange(found.values.shape[-1], device=num_sources.device)
    return (index < num_sources.unsqueeze(-1)).to(found.values.dtype)


def _signal_power(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    # weak eigenvectors are the least certain: subspace fitting weighs them by what they carry
    return _music(found, num_sources) * _beamformer(found, num_sources)


def _mvdr(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    values, info = found.values, torch.finfo(found.values.dtype)
    least = found.floor.unsqueeze(-1).clamp(min=info.tiny)
    # a loaded low-rank covariance has a flat floor: take its noise of roundoff for flat too
    above = values - least > ROUNDOFFS * info.eps * values[:, :1]
    return (1 - least / values.clamp(min=info.tiny)).clamp(min=0) * above


def _beamformer(found: Eigendecomposition, num_sources: Tensor) -> Tensor:
    # a floor common to all adds the same everywhere: without it, loading changes nothing at all
    above = (found.values - found.floor.unsqueeze(-1)).clamp(min=0)
    return above / above[:, :1].clamp(min=torch.finfo(above.dtype).tiny)
