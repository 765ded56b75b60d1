"""MUSIC, MVDR and the beamformer on any covariance of the panel, dense or in factors.

Steering vectors have |a|² = N everywhere, so all three spectra rise and fall with one form,
‖Bᴴ a‖², and differ only in how they weigh the eigenvectors e_i of R, eigenvalues ℓ descending:

    beamformer  aᴴ R a             B = [.. sqrt(ℓ_i - ℓ_N) e_i ..]              (Bartlett 1948)
    MVDR        1 / aᴴ R⁻¹ a       B = [.. sqrt(1 - ℓ_N / ℓ_i) e_i ..]          (Capon 1969)
    MUSIC       1 / aᴴ E_n E_nᴴ a  B = [e_1 .. e_K]                             (Schmidt 1986)

Eigenvectors are used and forgotten here; no gradient passes. MVDR inverts R, so diagonal loading
changes what it finds; it cannot change MUSIC's or the beamformer's peaks.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from .covariance import Covariance
from .estimates import Estimates
from .modes import Modes, modes
from .search_grid import SearchGrid
from .source_number import SOURCE_NUMBERS
from .subspace_fit import SAME_PLACE, deflate, pick, refine

LEAST_WEIGHT = 1e-6
"""Eigenvectors with less weight are left out: their whole part in a spectrum is below this."""
ROUNDOFFS = 32
"""Eigenvalues closer to the least than this many roundoffs of the largest equal it."""

Weigh = Callable[[Modes, Tensor], Tensor]


def music(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
) -> Estimates:
    """MUSIC: R, [B, N, N] Hermitian or a `Covariance`, and K [B] -> estimates of K sources each.

    Args:
        slots: columns of the estimates, at least the largest K (the default).
        deflation: one source at a time, then all refined together; without, the highest peaks
            of the plain spectrum.
        num_snapshots: if given, the source numbers that the eigenvalues suggest are reported too.
    """
    return _estimate(
        _music, _signal_power, covariance, num_sources, search, slots, deflation, num_snapshots
    )


def mvdr(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
) -> Estimates:
    """MVDR (Capon), on a covariance that has been loaded; arguments as for `music`."""
    return _estimate(
        _mvdr, _mvdr, covariance, num_sources, search, slots, deflation, num_snapshots
    )


def beamformer(
    covariance: Tensor | Covariance,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    deflation: bool = True,
    num_snapshots: int | None = None,
) -> Estimates:
    """The conventional (Bartlett) beamformer; arguments as for `music`."""
    weigh = _beamformer
    return _estimate(
        weigh, weigh, covariance, num_sources, search, slots, deflation, num_snapshots
    )


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
) -> Estimates:
    most = max(int(num_sources.max()), 1)
    found = modes(covariance)
    weight = weigh(found, num_sources)
    kept = max(int((weight > LEAST_WEIGHT).sum(-1).max()), 1)

    def beams(weight: Tensor) -> Tensor:
        return found.vectors[..., :kept] * weight[:, None, :kept].sqrt()

    active = torch.arange(most, device=num_sources.device) < num_sources.unsqueeze(-1)
    if deflation:
        places = deflate(beams(weight), num_sources, search, most)
        joint = beams(weigh_jointly(found, num_sources))
        places, resolved = refine(joint, places, active, search), active
    else:
        places, is_peak = pick(beams(weight), search, most)
        resolved = active & is_peak
    numbers = {}
    if num_snapshots is not None:
        values = found.all_values
        numbers = {
            rule: tell(values, num_snapshots, slots or most)
            for rule, tell in SOURCE_NUMBERS.items()
        }
    resolved = resolved & ~repeated(search.response(places), active) & found.finite.unsqueeze(-1)
    return as_estimates(places, active, resolved, numbers, search, slots or most)


def as_estimates(
    places: Tensor,
    active: Tensor,
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
    active, resolved = (functional.pad(x, (0, more))[:, :slots] for x in (active, resolved))
    places = functional.pad(places, (0, 0, 0, more))[:, :slots]
    centre = (search.lower + search.upper) / 2
    azimuth, elevation, inverse = torch.where(active.unsqueeze(-1), places, centre).unbind(-1)
    return Estimates(azimuth, elevation, 1 / inverse, resolved, active, numbers)


def repeated(steering: Tensor, active: Tensor) -> Tensor:
    """Which estimates are at the place of an earlier one: [B, K, N] -> [B, K]."""
    likeness = (steering.conj() @ steering.mT).abs() / steering.shape[-1]
    both = active.unsqueeze(-1) & active.unsqueeze(-2)
    return ((likeness > SAME_PLACE) & both).tril(-1).any(-1)


def _music(found: Modes, num_sources: Tensor) -> Tensor:
    index = torch.arange(found.values.shape[-1], device=num_sources.device)
    return (index < num_sources.unsqueeze(-1)).to(found.values.dtype)


def _signal_power(found: Modes, num_sources: Tensor) -> Tensor:
    # weak eigenvectors are the least certain: subspace fitting weighs them by what they carry
    return _music(found, num_sources) * _beamformer(found, num_sources)


def _mvdr(found: Modes, num_sources: Tensor) -> Tensor:
    values, info = found.values, torch.finfo(found.values.dtype)
    least = found.floor.unsqueeze(-1).clamp(min=info.tiny)
    # a loaded low-rank covariance has a flat floor: take its noise of roundoff for flat too
    above = values - least > ROUNDOFFS * info.eps * values[:, :1]
    return (1 - least / values.clamp(min=info.tiny)).clamp(min=0) * above


def _beamformer(found: Modes, num_sources: Tensor) -> Tensor:
    # a floor common to all adds the same everywhere: without it, loading changes nothing at all
    above = (found.values - found.floor.unsqueeze(-1)).clamp(min=0)
    return above / above[:, :1].clamp(min=torch.finfo(above.dtype).tiny)
