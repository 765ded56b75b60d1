"""Do the sources stay where they are while the snapshots are taken?

Each half of the snapshots is fitted with places of its own, and with those of the whole scene,
powers and noise free in both. Twice the log likelihood that the former gain is about χ² with 3 K
degrees of freedom if nothing moves (Wilks 1938): 6 K places in place of 3 K.
"""

import torch
from scipy.special import chdtrc
from torch import Tensor

from trainer.covariance import Whitened, whiten
from trainer.estimation import score
from trainer.scenes import Scenes, SearchGrid

STEPS = 8
"""Of scoring, from the places of the whole scene."""
LEAST_DIMENSIONS = 64
"""Fewest complex dimensions of the residual of a half: the law of fewer is not χ²."""


@torch.no_grad()
def constancy_p_value(
    scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid
) -> Tensor:
    """Return p of sources at positions [B, K, 3] that stay there, [B]; 1 if there is no test.

    Args:
        active: [B, K].
    """
    data = whiten(scenes).to(torch.complex128)
    half, count = scenes.num_snapshots // 2, active.sum(-1)
    ratio = torch.zeros_like(positions[:, 0, 0], dtype=torch.float64)
    for part in (slice(0, half), slice(half, None)):
        some = Whitened(data.snapshots[:, part], data.channel, data.codes[:, part])
        if not some.snapshots.numel():
            return torch.ones_like(ratio)
        free, _ = score(some, positions, active, search, steps=STEPS)
        held, _ = score(some, positions, active, search, steps=STEPS, held=True)
        ratio = ratio + 2 * (held.value - free.value)
    p_value = chdtrc((3 * count.clamp(min=1)).cpu().numpy(), ratio.clamp(min=0).cpu().numpy())
    tested = (half * (scenes.num_antennas - count) >= LEAST_DIMENSIONS) & (count > 0)
    return torch.from_numpy(p_value).to(ratio).where(tested, 1)
