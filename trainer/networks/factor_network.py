"""`factor`: principal components of the back-projected snapshots, filtered by masks, as a factor.

Every component has a mask of its own over the dictionary. They are blended with the snapshots
themselves, and handed over as F, never as N x N. (A dense layer onto the N x rank entries learns
less, and only for one panel.)
"""

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, DictionaryModule, blend_factors, normalise
from trainer.scenes import Scenes

from .power_map import GridLogits, power_maps


class Blend(nn.Module):
    """The learned share b of the measured covariance, in (0, bound)."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """b, a scalar."""
        return self.bound * self.logit.sigmoid()


class FactorNetwork(DictionaryModule):
    """Masked principal components of the back-projected snapshots -> F, N x (rank + L).

    Column i is sum_g m_ig a_g a_gᴴ u_i with u_i the i-th principal component and m_i a softmax
    over the dictionary: a posterior filter. Components repeat, with masks of their own, if rank >
    L.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert config.network.rank is not None, "a factor network has a rank"
        self.rank = config.network.rank
        self.logits = GridLogits(config.network, self.shape, outputs=self.rank, sharpness=2.0)
        bound = config.covariance.blend_bound
        self.blend = Blend(bound) if bound else None

    def forward(self, scenes: Scenes) -> Covariance:
        """F = [sqrt(1-b) A, sqrt(b/L) Y], or A alone without a blend."""
        inputs = power_maps(scenes, self.outer)
        masks = self.logits(inputs).softmax(-1)
        with torch.no_grad():
            components = principal_components(inputs.measured, self.rank)
            # one product for the whole batch: rows [B rank, N] times the [N, G] dictionary
            echoes = (components.mT.flatten(0, 1) @ self.steering.mH).view_as(masks)
        rows = (masks * echoes).flatten(0, 1) @ self.steering
        learned = rows.unflatten(0, masks.shape[:2]).mT
        if self.blend is None:
            return normalise(factor=learned, eps_psd=self.eps_psd)
        blended = blend_factors(learned, inputs.measured, self.blend())
        return normalise(factor=blended, eps_psd=self.eps_psd)


def principal_components(snapshots: Tensor, rank: int) -> Tensor:
    """X V, V the first right singular vectors of X, from its Gram: [B, N, L] -> [B, N, rank].

    Repeated cyclically if rank > L.
    """
    vectors = torch.linalg.eigh(snapshots.mH @ snapshots).eigenvectors.flip(-1)
    order = torch.arange(rank, device=snapshots.device) % snapshots.shape[-1]
    return snapshots @ vectors[..., order]
