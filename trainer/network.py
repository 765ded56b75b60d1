"""The networks, by name. Each maps a batch of scenes to a covariance.

`dictionary`: softmax powers over a steering dictionary, R = sum_g γ_g a_g a_gᴴ / N, handed over
dense. The softmax makes a posterior of it: where the data cannot tell two places apart, both get
power. The form is that of sparse covariance fitting (Stoica, Babu, Li 2011, SPICE), with powers
predicted instead of iterated.

`factor`: the principal components of the back-projected snapshots, each filtered by its own mask
over the dictionary, blended with the snapshots themselves; handed over as F, never as N x N. (A
dense layer onto the N x rank entries learns less, and only for one panel.)

`unrolled`: the dictionary network, followed by learned steps of covariance fitting; see there.

None has a weight per element or per grid point: convolutions over beams serve every panel. A
`state_dict` holds learned parameters only.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .covariance import Covariance, blend_factors, normalise
from .dictionary import Dictionary, dictionary, unpack_hermitian
from .power_map import GridLogits, power_maps
from .scene import Scenes
from .unrolled import UnrolledNetwork


class Blend(nn.Module):
    """The learned share b of the measured covariance, in (0, bound)."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """b, a scalar."""
        return self.bound * self.logit.sigmoid()


class DictionaryNetwork(nn.Module):
    """Softmax powers over the dictionary -> dense R."""

    outer: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        table = _dictionary(config)
        # not persistent: follows from the scene, and all networks of a process share it
        self.register_buffer("outer", table.outer, persistent=False)
        self.logits = GridLogits(config.network, table, outputs=1, sharpness=4.0)

    def forward(self, scenes: Scenes) -> Covariance:
        """R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        powers = self.logits(power_maps(scenes, self.outer)).squeeze(1).softmax(-1)
        return normalise(matrix=unpack_hermitian(powers @ self.outer), eps_psd=self.eps_psd)


class FactorNetwork(nn.Module):
    """Masked principal components of the back-projected snapshots -> F, N x (rank + L).

    Column i is sum_g m_ig a_g a_gᴴ u_i with u_i the i-th principal component and m_i a softmax
    over the dictionary: a posterior filter. Components repeat, with masks of their own, if rank >
    L.
    """

    outer: Tensor
    steering: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        assert config.network.rank is not None, "a factor network has a rank"
        self.eps_psd = config.eps_psd
        self.rank = config.network.rank
        table = _dictionary(config)
        self.register_buffer("outer", table.outer, persistent=False)
        self.register_buffer("steering", table.steering, persistent=False)
        self.logits = GridLogits(config.network, table, outputs=self.rank, sharpness=2.0)
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


NETWORKS: dict[str, Callable[[TrainConfig], nn.Module]] = {
    "dictionary": DictionaryNetwork,
    "factor": FactorNetwork,
    "unrolled": UnrolledNetwork,
}


def build(config: TrainConfig) -> nn.Module:
    """The network that `config.network.kind` names, on the CPU in the default dtype."""
    return NETWORKS[config.network.kind](config)


def _dictionary(config: TrainConfig) -> Dictionary:
    return dictionary(config.scene, torch.get_default_dtype(), torch.device("cpu"))
