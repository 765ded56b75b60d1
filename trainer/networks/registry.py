"""The networks by name, and a user's by reference; each maps a batch of scenes to a covariance.

    dictionary   powers of a steering dictionary, from maps of back-projected power
    factor       masked principal components of the back-projected snapshots
    unrolled     powers from single-source likelihoods, then learned steps of covariance fitting
    gram         a free factor from convolutions over the measured covariance, without a dictionary

No network has a weight per element or per grid point: convolutions over the grid serve every
panel. A `state_dict` holds learned parameters only.
"""

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from trainer.config import SceneConfig, TrainConfig, is_reference
from trainer.covariance import PLANE_PHASE, POINTS_PER_BEAM
from trainer.scenes import grid_shape

from .dictionary_network import DictionaryNetwork
from .factor_network import FactorNetwork
from .gram_network import GramNetwork
from .own_network import build_own_network
from .unrolled import UnrolledNetwork

NETWORKS: dict[str, Callable[[TrainConfig], nn.Module]] = {
    "dictionary": DictionaryNetwork,
    "factor": FactorNetwork,
    "unrolled": UnrolledNetwork,
    "gram": GramNetwork,
}


def build_network(config: TrainConfig) -> nn.Module:
    """Return a new network of `config.network.kind`, on the CPU in the default dtype.

    Raises:
        CodeError: if a user's network cannot be built, or has changed.
    """
    if is_reference(config.network.kind):
        return build_own_network(config)
    return NETWORKS[config.network.kind](config)


def transfer(config: TrainConfig, scene: SceneConfig) -> TrainConfig:
    """Return a configuration whose network takes the weights of another's, for another scene.

    Its convolutions keep their range planes where the scene's dictionary has other ones; a user's
    network knows of none.
    """
    if is_reference(config.network.kind):
        return replace(config, scene=scene)
    own, needed = (
        grid_shape(each, POINTS_PER_BEAM, PLANE_PHASE)[0] for each in (config.scene, scene)
    )
    planes = config.network.planes or own
    network = replace(config.network, planes=None if planes == needed else planes)
    return replace(config, scene=scene, network=network)
