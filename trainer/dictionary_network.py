"""`dictionary`: softmax powers over a steering dictionary, R = sum_g γ_g a_g a_gᴴ / N, dense.

The softmax makes a posterior of it: where the data cannot tell two places apart, both get power.
The form is that of sparse covariance fitting (Stoica, Babu, Li 2011, SPICE), with powers predicted
instead of iterated.
"""

import torch
from torch import Tensor, nn

from .config import TrainConfig
from .covariance import Covariance, normalise
from .dictionary import dictionary, unpack_hermitian
from .power_map import GridLogits, power_maps
from .scene import Scenes


class DictionaryNetwork(nn.Module):
    """Softmax powers over the dictionary -> dense R."""

    outer: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        table = dictionary(config.scene, torch.get_default_dtype(), torch.device("cpu"))
        # not persistent: follows from the scene, and all networks of a process share it
        self.register_buffer("outer", table.outer, persistent=False)
        self.logits = GridLogits(config.network, table, outputs=1, sharpness=4.0)

    def forward(self, scenes: Scenes) -> Covariance:
        """R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        powers = self.logits(power_maps(scenes, self.outer)).squeeze(1).softmax(-1)
        return normalise(matrix=unpack_hermitian(powers @ self.outer), eps_psd=self.eps_psd)
