"""How likely is it that a single source, at a grid point, explains the snapshots?

With b = G_l a_g and a source of share h of the power that the snapshots suggest,

    log p(Y | g, h) = sum_l log w_l + h w_l |bᴴ y_l|² / p λ² + const,   w_l = 1 / (1 + h |b|² / λ)

(the matrix inversion lemma on C_l = p (h b bᴴ + λ I)). Unlike a map of back-projected power it
weighs every snapshot by what its code makes of a source just there, and so is all that the data
say where there is one source; where there are two, it takes the other for noise.

|b|² = ‖H (c_l ∘ a_g)‖² would cost more than everything else. A channel with a line of sight has a
few strong modes: those are exact, and the rest enter by their mean over random codes.
"""

import torch
from torch import Tensor

from .backprojection import ChannelModes
from .scene import Scenes

EXACT_MODES = 2
"""Strongest modes of the channel that are followed from code to code. With 1, 2, 4 and all 12 the
capped error after training is .445, .435, .433 and .428 (6x6 panel, no stages)."""
SHARES = (1.0, 0.5)
"""Shares h of the power: one source, one of two."""


@torch.no_grad()
def lone_source_likelihoods(
    scenes: Scenes, modes: ChannelModes, power: Tensor, loading: Tensor, steering: Tensor
) -> Tensor:
    """Log posterior of the place of a single source, prior uniform: [B, len(SHARES), G].

    Args:
        modes, power, loading: of the snapshots, p and λ as `fit_loading` has them.
        steering: of the dictionary, [G, N].
    """
    batch, snapshots, elements = scenes.codes.shape
    weak = max(modes.gain.shape[-1] - EXACT_MODES, 0)
    tiny = torch.finfo(power.dtype).tiny
    scale = (power.clamp(min=tiny).sqrt() * loading)[:, None, None]
    data = (modes.coordinates.conj() / scale) @ modes.lift.mH  # y_lᴴ H, [B, L, N]
    strong = modes.lift[..., weak:].mH / loading.sqrt()[:, None, None]
    strong = strong.unsqueeze(2).expand(-1, -1, snapshots, elements)
    rows = torch.cat([data.unsqueeze(1), strong], dim=1) * scenes.codes.unsqueeze(1)
    echoes = rows.flatten(0, 2) @ steering.mT
    squared = echoes.real.square() + echoes.imag.square()
    squared = squared.view(batch, -1, snapshots, len(steering))
    rest = modes.gain[:, :weak].sum(-1) / loading
    energy = squared[:, 1:].sum(1) + rest[:, None, None]
    logs = []
    for share in SHARES:
        weight = 1 / (1 + share * energy)
        logs.append((weight.log() + share * weight * squared[:, 0]).sum(1))
    return torch.stack(logs, dim=1).log_softmax(-1)
