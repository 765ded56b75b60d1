"""The networks, by name. Each maps a batch of scenes to a covariance.

`dictionary`: softmax powers over a steering dictionary, R = sum_g γ_g a_g a_gᴴ / N, handed over
dense. The softmax makes a posterior of it: where the data cannot tell two places apart, both get
power. The form is that of sparse covariance fitting (Stoica, Babu, Li 2011, SPICE), with powers
predicted instead of iterated.

`factor`: the principal components of the back-projected snapshots, each filtered by its own mask
over the dictionary, blended with the snapshots themselves; handed over as F, never as N x N. (A
dense layer onto the N x rank entries learns less, and only for one panel.)

Both work for every panel and region: what is learned is convolutions over beams. A `state_dict`
holds learned parameters only.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .covariance import Covariance, blend_factors, normalise
from .dictionary import dictionary, unpack_hermitian
from .power_map import NUM_MAPS, MapTrunk, PowerMaps, power_maps
from .scene import Scenes


class Blend(nn.Module):
    """The learned share b of the measured covariance, in (0, bound)."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self) -> Tensor:
        """b, a scalar."""
        return self.bound * self.logit.sigmoid()


class GridLogits(nn.Module):
    """Scenes -> power maps -> one or more logits per point of the dictionary.

    Logits start as the log power map, sharpened; convolutions learn what to add.
    """

    outer: Tensor
    columns: Tensor

    def __init__(self, config: TrainConfig, maps_out: int, sharpness: float) -> None:
        super().__init__()
        table = dictionary(config.scene, torch.get_default_dtype(), torch.device("cpu"))
        self.shape = table.shape
        # not persistent: derived from the scene, shared by all networks of a process
        self.register_buffer("outer", table.outer, persistent=False)
        self.register_buffer("columns", table.columns, persistent=False)
        planes = table.shape[0]
        self.trunk = MapTrunk(NUM_MAPS * planes, maps_out * planes, config.network)
        self.sharpness = nn.Parameter(torch.tensor([0.0, sharpness, 0.0]))

    def forward(self, scenes: Scenes) -> tuple[Tensor, PowerMaps]:
        """Logits [B, maps_out, G], and the maps they came from."""
        inputs = power_maps(scenes, self.shape, self.outer)
        maps = inputs.maps.unflatten(1, (NUM_MAPS, -1)).flatten(2)
        residual = self.sharpness @ maps
        learned = self.trunk(inputs.maps).unflatten(1, (-1, self.shape[0])).flatten(2)
        return learned + residual.unsqueeze(1), inputs


class DictionaryNetwork(nn.Module):
    """Softmax powers over the dictionary -> dense R."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        self.logits = GridLogits(config, maps_out=1, sharpness=4.0)

    def forward(self, scenes: Scenes) -> Covariance:
        """R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        logits, _ = self.logits(scenes)
        powers = logits.squeeze(1).softmax(-1)
        matrix = unpack_hermitian(powers @ self.logits.outer)
        return normalise(matrix=matrix, eps_psd=self.eps_psd)


class FactorNetwork(nn.Module):
    """Masked principal components of the back-projected snapshots -> F, N x (rank + L).

    Column i is sum_g m_ig a_g a_gᴴ u_i with u_i the i-th principal component and m_i a softmax
    over the dictionary: a posterior filter. Components repeat, with masks of their own, if rank >
    L.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        assert config.network.rank is not None, "a factor network has a rank"
        self.eps_psd = config.eps_psd
        self.rank = config.network.rank
        self.logits = GridLogits(config, maps_out=self.rank, sharpness=2.0)
        self.blend = (
            Blend(config.covariance.blend_bound) if config.covariance.blend_bound else None
        )

    def forward(self, scenes: Scenes) -> Covariance:
        """F = [sqrt(1-b) A, sqrt(b/L) Y], or A alone without a blend."""
        logits, inputs = self.logits(scenes)
        rows = self.logits.columns.mT
        with torch.no_grad():
            components = principal_components(inputs.measured, self.rank)
            # one product for the whole batch: rows [B rank, N] times the [N, G] dictionary
            echoes = (components.mT.flatten(0, 1) @ self.logits.columns.conj()).view_as(logits)
        learned = ((logits.softmax(-1) * echoes).flatten(0, 1) @ rows).view_as(components.mT).mT
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
}


def build(config: TrainConfig) -> nn.Module:
    """The network that `config.network.kind` names, on the CPU in the default dtype."""
    return NETWORKS[config.network.kind](config)
