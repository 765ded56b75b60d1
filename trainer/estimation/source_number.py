"""How many sources: information criteria and the eigengap, on the eigenvalues of a covariance.

With ℓ_1 >= ... >= ℓ_p, k sources and L snapshots, the p - k smallest should be equal; their
geometric over arithmetic mean g_k says how far they are from it:

    AIC(k) = -2 L (p - k) ln g_k + 2 k (2p - k)
    MDL(k) = -  L (p - k) ln g_k + k (2p - k) ln(L) / 2          (Wax & Kailath 1985, eqs. 16, 17)

The covariance of L snapshots has no more than L eigenvalues that say anything, so p = min(N, L);
without this the zeros of a rank-deficient one are taken for noise of no power.

The eigengap's rule needs no L: the k whose gap ℓ_k - ℓ_(k+1) is the widest. Its relative form
divides by ℓ_k + ℓ_(k+1), which finds weak sources above a flat floor.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.covariance import Covariance, eigendecompose

FLOOR = 1e-7
"""Least eigenvalue, relative to the largest: log and ratio of a rank-deficient covariance."""


def aic(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Akaike's criterion: descending eigenvalues [B, N] -> K in 0 ... max_sources, [B]."""
    return _criterion(values, num_snapshots, max_sources, penalty=1.0)


def mdl(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """Minimum description length: descending eigenvalues [B, N] -> K in 0 ... max_sources, [B]."""
    snapshots = torch.tensor(float(num_snapshots), dtype=values.dtype, device=values.device)
    return _criterion(values, num_snapshots, max_sources, penalty=0.5 * snapshots.log())


def widest_gap(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """k of the widest ℓ_k - ℓ_(k+1): descending eigenvalues [B, N] -> K in 1 ... max_sources."""
    gaps = values[:, :max_sources] - values[:, 1 : max_sources + 1]
    return gaps.argmax(-1) + 1


def widest_ratio(values: Tensor, num_snapshots: int, max_sources: int) -> Tensor:
    """k of the widest relative gap: descending eigenvalues [B, N] -> K in 1 ... max_sources."""
    values = _floored(values)
    upper, lower = values[:, :max_sources], values[:, 1 : max_sources + 1]
    return ((upper - lower) / (upper + lower)).argmax(-1) + 1


SOURCE_NUMBERS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "mdl": mdl,
    "aic": aic,
    "gap": widest_gap,
    "ratio": widest_ratio,
}
"""Rules by name; each takes eigenvalues [B, N], L and the largest K, which must be below N."""


def estimate_num_sources(covariance: Covariance, num_snapshots: int, max_sources: int) -> Tensor:
    """Return K in 1 ... max_sources by the widest relative eigengap of a covariance: [B]."""
    return widest_ratio(eigendecompose(covariance).all_values, num_snapshots, max_sources)


def _criterion(
    values: Tensor, num_snapshots: int, max_sources: int, *, penalty: float | Tensor
) -> Tensor:
    count = min(values.shape[-1], num_snapshots)
    kept = _floored(values)[:, :count]
    orders = torch.arange(min(max_sources, count - 1) + 1, device=values.device)
    # sums over the p - k smallest, for every k at once
    tail = kept.flip(-1).cumsum(-1).flip(-1)[:, : len(orders)]
    log_tail = kept.log().flip(-1).cumsum(-1).flip(-1)[:, : len(orders)]
    noise = (count - orders).to(values.dtype)
    misfit = num_snapshots * (noise * (tail / noise).log() - log_tail)
    return (misfit + penalty * (orders * (2 * count - orders))).argmin(-1)


def _floored(values: Tensor) -> Tensor:
    tiny = torch.finfo(values.dtype).tiny
    return values.maximum((FLOOR * values[:, :1]).clamp(min=tiny))
