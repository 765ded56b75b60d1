"""The base of all networks: a module with the steering dictionary of its scene."""

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import steering_dictionary


class DictionaryModule(nn.Module):
    """A module that holds a steering dictionary, which is not a part of its `state_dict`.

    Attributes:
        shape, steering: of the `SteeringDictionary`.
        products: with the outer products of its steering vectors.
        eps_psd: diagonal loading of the covariances it makes, relative to tr(R) / N.
    """

    steering: Tensor

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        dictionary = steering_dictionary(config.scene, torch.get_default_dtype())
        self.shape = dictionary.shape
        # not persistent: it follows from the scene, and all networks of a process share it
        self.register_buffer("steering", dictionary.steering, persistent=False)
        self.products = dictionary.products()
