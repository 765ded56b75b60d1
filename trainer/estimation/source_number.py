"""The number of sources, by the eigenvalues of a covariance or the likelihood of the snapshots.

The information criteria ask by how much the smallest eigenvalues differ from each other
(`trainer.linalg.description_lengths`).

The eigengap rule takes the k with the widest gap ℓ_k - ℓ_(k+1), whatever L. Its relative form
divides the gap by ℓ_k + ℓ_(k+1), which finds weak sources above a flat floor.

The likelihood of the snapshots needs no covariance: k grows as long as the next source of `sml`
adds more than `LEAST_RATIO` to twice its logarithm, as much as a resolved source has to.

The evidence of k sources is the likelihood averaged over places. Laplace's approximation (MacKay
2003, Information Theory, ch. 27) has it from the fit that scoring reaches from an estimator's
places, with value V and Fisher information J of the places, the region's included:

    ln Z_k = -V - ln det(J) / 2 + 3 k ln(2π) / 2 - k ln(volume of the region)
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import COUNT_RULES
from trainer.covariance import Covariance, eigendecompose, whiten
from trainer.linalg import description_lengths, mdl_penalty
from trainer.scenes import Scenes, SearchGrid

from .estimates import LEAST_RATIO, Estimates
from .fisher_scoring import score
from .levenberg_marquardt import Minimum
from .maximum_likelihood import noise_only_start, sml

SCORING_STEPS = 8
"""Steps from the places of `sml` to powers and noise of the highest likelihood."""
POWER_COST = 1.0
"""Log evidence that the unknown power of sources costs. Of 0, 1, 2 and 3, which call noise alone
a source in 6, 1, 0 and 0 % of scenes, the least that does so in under 5 %."""
FLOOR = 1e-7
"""Smallest eigenvalue in a logarithm or a ratio, relative to the largest."""


def aic(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Return K in 0 ... max_sources, [B], by Akaike's criterion on eigenvalues [B, N]."""
    return description_lengths(_floored(values), num_snapshots, max_sources, 1.0).argmin(-1)


def mdl(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Return K in 0 ... max_sources, [B], by minimum description length on eigenvalues [B, N]."""
    penalty = mdl_penalty(num_snapshots)
    return description_lengths(_floored(values), num_snapshots, max_sources, penalty).argmin(-1)


def widest_gap(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Return the k in 1 ... max_sources, [B], of the widest ℓ_k - ℓ_(k+1) of [B, N]."""
    gaps = values[:, :max_sources] - values[:, 1 : max_sources + 1]
    return gaps.argmax(-1) + 1


def widest_ratio(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Return the k in 1 ... max_sources, [B], of the widest relative gap of [B, N]."""
    values = _floored(values)
    upper, lower = values[:, :max_sources], values[:, 1 : max_sources + 1]
    return ((upper - lower) / (upper + lower)).argmax(-1) + 1


def above_half(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Return K in 1 ... max_sources, [B], the number of eigenvalues [B, N] above half of the
    largest."""
    return (values > values[:, :1] / 2).sum(-1).clamp(1, max_sources)


SOURCE_NUMBERS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "mdl": mdl,
    "aic": aic,
    "gap": widest_gap,
    "ratio": widest_ratio,
}
"""Rules by name: descending eigenvalues [B, N], L and the largest K, below N -> K [B]."""


COUNTERS = {name: (SOURCE_NUMBERS | {"half": above_half})[name] for name in COUNT_RULES}
"""The rules that ablations compare, by name."""


def estimate_num_sources(covariance: Covariance, num_snapshots: int, max_sources: int) -> Tensor:
    """Return K in 1 ... max_sources by the widest relative eigengap of a covariance: [B]."""
    return widest_ratio(eigendecompose(covariance).all_values, num_snapshots, max_sources)


@torch.no_grad()
def most_likely_number(scenes: Scenes, search: SearchGrid, max_sources: int) -> Tensor:
    """Return K in 1 ... max_sources by the likelihood of the snapshots, [B].

    Stops at the first source that is not significant.
    """
    number = torch.ones(scenes.batch_size, dtype=torch.long, device=scenes.snapshots.device)
    least = torch.full_like(number, torch.inf, dtype=torch.float64)
    going = torch.arange(scenes.batch_size, device=number.device)
    for k in range(1, max_sources + 1):
        part = scenes.take(going)
        found = sml(part, torch.full_like(going, k), search)
        data = whiten(part).to(torch.complex128)
        fitted, _ = score(data, found.positions, found.active, search, steps=SCORING_STEPS)
        more = 2 * (least[going] - fitted.value) > LEAST_RATIO
        going, value = going[more], fitted.value[more]
        number[going], least[going] = k, value
        if not len(going):
            break
    return number


@torch.no_grad()
def likeliest_number(
    scenes: Scenes,
    locate: Callable[[Scenes, Tensor], Estimates],
    search: SearchGrid,
    max_sources: int,
) -> Tensor:
    """Return K in 0 ... max_sources by the evidence of the snapshots, [B].

    Args:
        locate: the estimator whose places are scored, of scenes and K.
    """
    data = whiten(scenes).to(torch.complex128)
    noise_only, _, _ = noise_only_start(data, search, 1)
    evidence = [-data.snapshots[0].numel() * (1 + noise_only[:, -1])]
    for k in range(1, max_sources + 1):
        found = locate(scenes, torch.full_like(scenes.snr_db, k, dtype=torch.long))
        places, active = found.positions[:, :k], found.active[:, :k]
        fitted, _ = score(data, places, active, search, steps=SCORING_STEPS)
        evidence.append(laplace_evidence(fitted, k, search) - POWER_COST)
    return torch.stack(evidence, dim=-1).argmax(-1)


def laplace_evidence(fitted: Minimum, slots: int, search: SearchGrid) -> Tensor:
    """Return ln Z of the module docstring of a peak, [B]; a fit of K = `slots` sources."""
    width = (search.upper - search.lower).double()
    information = fitted.curvature[:, : 3 * slots, : 3 * slots]
    information = information + torch.diag((12 / width.square()).repeat(slots))
    volume = torch.linalg.slogdet(information).logabsdet / 2 + slots * width.log().sum()
    return 3 * slots * math.log(2 * math.pi) / 2 - volume - fitted.value


def _floored(values: Tensor) -> Tensor:
    tiny = torch.finfo(values.dtype).tiny
    return values.maximum((FLOOR * values[:, :1]).clamp(min=tiny))
