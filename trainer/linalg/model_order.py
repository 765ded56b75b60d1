"""Description lengths of the number of sources, from eigenvalues (Wax & Kailath 1985).

With positive eigenvalues l_1 >= ... >= l_p of the covariance of L snapshots and k sources, the
p - k smallest should be equal; g_k is the ratio of their geometric to their arithmetic mean:

    cost(k) = -L (p - k) ln g_k + penalty · k (2p - k)

penalty = ln(L) / 2 is MDL (eq. 17), 1 half of AIC (eq. 16). The covariance of L snapshots has at
most L eigenvalues other than zero, so p = min(N, L): others would be noise without power.
"""

import math

import torch
from torch import Tensor


def description_lengths(
    values: Tensor, num_snapshots: int, max_sources: int, penalty: float
) -> Tensor:
    """Return cost(k) [*batch, min(max_sources, p - 1) + 1] for k = 0, 1, ...

    Args:
        values: positive, descending [*batch, N].
    """
    count = min(values.shape[-1], num_snapshots)
    kept = values[..., :count]
    orders = torch.arange(min(max_sources, count - 1) + 1, device=values.device)
    # sums over the p - k smallest, for every k at once
    tail = kept.flip(-1).cumsum(-1).flip(-1)[..., : len(orders)]
    log_tail = kept.log().flip(-1).cumsum(-1).flip(-1)[..., : len(orders)]
    noise = (count - orders).to(values.dtype)
    misfit = num_snapshots * (noise * (tail / noise).log() - log_tail)
    return misfit + penalty * (orders * (2 * count - orders)).to(values.dtype)


def mdl_penalty(num_snapshots: int) -> float:
    """Return ln(L) / 2."""
    return 0.5 * math.log(num_snapshots)
