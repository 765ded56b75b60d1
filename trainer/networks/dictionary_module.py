"""The base of all networks: a module with the steering dictionary of its scene."""

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import steering_dictionary, unpack_hermitian


class DictionaryModule(nn.Module):
    """A module that holds a steering dictionary, which is not a part of its `state_dict`.

    Attributes:
        shape, steering, outer: of the `SteeringDictionary`.
        eps_psd: diagonal loading of the covariances it makes, relative to tr(R) / N.
    """

    steering: Tensor
    outer: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        table = steering_dictionary(config.scene, torch.get_default_dtype(), torch.device("cpu"))
        self.shape = table.shape
        # not persistent: it follows from the scene, and all networks of a process share it
        self.register_buffer("steering", table.steering, persistent=False)
        self.register_buffer("outer", table.outer, persistent=False)

    def mixture(self, powers: Tensor) -> Tensor:
        """Return sum_g γ_g a_g a_gᴴ: [*batch, G] -> [*batch, N, N]."""
        return unpack_hermitian(powers @ self.outer)
