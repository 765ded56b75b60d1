"""The network `factor`: masked principal components of the back-projected snapshots, as a factor.

Every component has its own mask over the dictionary. The masked components are blended with the
snapshots, and R = F Fᴴ is returned as F, N x (rank + L).
"""

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, blend_factors, normalise
from trainer.scenes import Scenes

from .dictionary_module import DictionaryModule
from .power_map import GridLogits, power_maps


class Blend(nn.Module):
    """A learned share b of the measured covariance, in (0, bound)."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """Return b, a scalar."""
        return self.bound * self.logit.sigmoid()


class FactorNetwork(DictionaryModule):
    """A network that predicts one mask over the dictionary per principal component.

    Column i of F is sum_g m_ig a_g a_gᴴ u_i, with u_i the i-th principal component and m_i a
    softmax over the grid. If rank > L, components repeat, each time with another mask.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert config.network.rank is not None, "a factor network has a rank"
        self.rank = config.network.rank
        self.logits = GridLogits(config.network, self.shape, outputs=self.rank, sharpness=2.0)
        bound = config.covariance.blend_bound
        self.blend = Blend(bound) if bound else None

    def forward(self, scenes: Scenes) -> Covariance:
        """Return F = [sqrt(1-b) A, sqrt(b/L) Y], or A alone without a blend."""
        inputs = power_maps(scenes, self.products)
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
    """Return X V, V the leading right singular vectors of X: [B, N, L] -> [B, N, rank].

    They come from the eigenvectors of Xᴴ X, and repeat cyclically if rank > L.
    """
    vectors = torch.linalg.eigh(snapshots.mH @ snapshots).eigenvectors.flip(-1)
    order = torch.arange(rank, device=snapshots.device) % snapshots.shape[-1]
    return snapshots @ vectors[..., order]
