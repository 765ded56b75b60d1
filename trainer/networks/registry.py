"""The networks, by name. Each maps a batch of scenes to a covariance, and is a file of its own.

    dictionary   powers of a steering dictionary, from maps of back-projected power
    factor       masked principal components of the back-projected snapshots
    unrolled     powers from the likelihood of a lone source, then learned covariance fitting

None has a weight per element or per grid point: convolutions over beams serve every panel. A
`state_dict` holds learned parameters only.
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
    """The network that `config.network.kind` names, on the CPU in the default dtype."""
    return NETWORKS[config.network.kind](config)
