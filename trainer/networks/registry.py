"""The networks by name; each maps a batch of scenes to a covariance.

    dictionary   powers of a steering dictionary, from maps of back-projected power
    factor       masked principal components of the back-projected snapshots
    unrolled     powers from single-source likelihoods, then learned steps of covariance fitting

No network has a weight per element or per grid point: convolutions over the grid serve every
panel. A `state_dict` holds learned parameters only.
"""

from collections.abc import Callable

from torch import nn

from trainer.config import TrainConfig

from .dictionary_network import DictionaryNetwork
from .factor_network import FactorNetwork
from .unrolled import UnrolledNetwork

NETWORKS: dict[str, Callable[[TrainConfig], nn.Module]] = {
    "dictionary": DictionaryNetwork,
    "factor": FactorNetwork,
    "unrolled": UnrolledNetwork,
}


def build_network(config: TrainConfig) -> nn.Module:
    """Return a new network of `config.network.kind`, on the CPU in the default dtype."""
    return NETWORKS[config.network.kind](config)
