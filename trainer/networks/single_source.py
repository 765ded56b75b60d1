"""The likelihood of the snapshots under a single source, at every grid point.

With b = G_l a_g and a source that has the share h of the fitted signal power,

    log p(Y | g, h) = sum_l log w_l + h w_l |bᴴ y_l|² / p λ² + const,   w_l = 1 / (1 + h |b|² / λ)

by the matrix inversion lemma on C_l = p (h b bᴴ + λ I). Unlike a map of back-projected power it
weighs every snapshot by the response of its code to a source at that point, and so is a sufficient
statistic for one source; a second source counts as noise.

|b|² = ‖H (c_l ∘ a_g)‖² would cost more than all other terms. A channel with a line of sight has a
few strong eigenmodes: these are exact, and the others enter by their mean over random phases.
"""

import torch
from torch import Tensor

from trainer.covariance import ChannelEigenmodes, Products
from trainer.scenes import Scenes

EXACT_MODES = 2
"""Strongest eigenmodes of the channel, exact for every code. With 1, 2, 4 and all 12 the capped
error after training is .445, .435, .433 and .428 (6x6 panel, no stages)."""
SHARES = (1.0, 0.5)
"""Shares h of the signal power: one source alone, and one of two."""
PARTS = (2**18, 2**26)
"""Grid points x snapshots of one part: as many as fit a CPU's cache, and on a GPU."""


@torch.no_grad()
def single_source_likelihoods(
    scenes: Scenes, modes: ChannelEigenmodes, power: Tensor, loading: Tensor, products: Products
) -> Tensor:
    """Return the log posterior of a single source's position, uniform prior: [B, len(SHARES), G].

    Args:
        modes: of the channel.
        power, loading: p and λ of `fit_loading`, [B].
        products: with the dictionary.
    """
    size = max(1, PARTS[power.is_cuda] // (scenes.codes.shape[1] * products.num_points))
    weak = max(modes.gain.shape[-1] - EXACT_MODES, 0)
    tiny = torch.finfo(power.dtype).tiny
    scale = (power.clamp(min=tiny).sqrt() * loading)[:, None, None, None]
    data = (modes.coordinates.conj() / scale) @ modes.lift.mH  # y_lᴴ H', [B, J, L/J, N]
    strong = modes.lift[..., weak:].mH / loading.sqrt()[:, None, None, None]
    strong = strong.transpose(1, 2).unsqueeze(3).expand(-1, -1, *data.shape[1:])
    rows = torch.cat([data.unsqueeze(1), strong], 1) * modes.phases.unsqueeze(1)
    rows = rows.flatten(2, 3)  # [B, 1 + r, L, N]
    rest = modes.gain[..., :weak].sum(-1) / loading.unsqueeze(-1)
    logs = [
        _log_densities(products.responses(part), some)
        for part, some in zip(rows.split(size), rest.split(size), strict=True)
    ]
    return torch.cat(logs).log_softmax(-1)


def _log_densities(squared: Tensor, rest: Tensor) -> Tensor:
    # responses [B, 1 + r, L, G], the weak modes' part of |b|² / λ [B, 1 or L] ->
    # [B, len(SHARES), G]
    data, energy = squared[:, 0], squared[:, 1:].sum(1).add_(rest.unsqueeze(-1))
    logs = []
    for share in SHARES:
        variance = (share * energy).add_(1)
        logs.append((share * data / variance).sub_(variance.log_()).sum(1))
    return torch.stack(logs, dim=1)
