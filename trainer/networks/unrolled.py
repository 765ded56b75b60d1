"""The network `unrolled`: a few steps of covariance fitting, each with learned parameters.

It starts from powers that combine the likelihoods of a single source (`single_source`) with
convolutions over these and the maps of `power_map`. Every stage computes the gradient of the
snapshots' likelihood (`trainer.covariance.covariance_fit`) and updates the log powers,

    log γ <- keep · log γ + step · log(num / den) + convolutions(log γ, num / den, den, λ),

normalised to sum_g γ_g = 1. With keep = 1, step = 1/2 and no convolutions, where training starts,
this is the majorise-minimise update, which alone needs tens of steps. The gradient shows weak
sources that a map of back-projected power cannot tell from noise, because C_l⁻¹ suppresses the
strong ones. On unrolled iterations: Gregor and LeCun 2010; Monga, Li and Eldar 2021.

At high SNR a grid of steering vectors no longer fits the snapshots: what lies between its points
looks like noise, and a likelihood that is told of less puts all power on one point, from where no
few steps return. With `noise_floor` the start and every stage assume noise that is at least so
strong, less from stage to stage, and no power falls below `LEAST_LOG_POWER`.
"""

import math

import torch
from torch import Tensor, nn

from trainer.config import NetworkConfig, TrainConfig
from trainer.covariance import (
    NOISE_FLOOR,
    Covariance,
    LikelihoodGradient,
    Observations,
    likelihood_gradient,
    normalise,
    update_noise,
)
from trainer.scenes import Scenes

from .dictionary_module import DictionaryModule
from .power_map import NOISE_RANGE, MapTrunk, PowerMaps, convolve, power_maps
from .single_source import SHARES, single_source_likelihoods

LEAST_LOG_POWER = -8.0
"""Lower bound of log powers, relative to uniform ones, at the input of convolutions."""
LOG_POWER_UNIT = 3.0
"""Scale of log powers at the input of convolutions."""
LEAST_LOG_LIKELIHOOD = -30.0
"""Lower bound of log likelihoods, relative to their mean, at the input of convolutions."""
LOG_LIKELIHOOD_UNIT = 10.0
"""Scale of log likelihoods at the input of convolutions."""
FLOOR_DECAY = 0.5
"""Ratio of the noise floors of one stage and the one before."""
EXPONENT_UNIT = 4.0
"""Scale of the learned exponents: one learning rate then suits them and the convolutions."""


class Start(nn.Module):
    """The first powers: weighted log likelihoods of a single source, plus convolutions."""

    def __init__(self, network: NetworkConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        count = len(SHARES)
        self.trunk = MapTrunk(2 + count, 1, network, shape)
        self.soften = nn.Parameter(torch.full((count,), 0.3 / EXPONENT_UNIT))

    def forward(self, maps: PowerMaps, likelihoods: Tensor) -> Tensor:
        """Return log powers, [B, G], from log likelihoods [B, len(SHARES), G]."""
        relative = likelihoods + math.log(likelihoods.shape[-1])
        relative = relative.clamp(min=LEAST_LOG_LIKELIHOOD) / LOG_LIKELIHOOD_UNIT
        image = torch.cat([torch.stack([maps.power, maps.normaliser], dim=1), relative], dim=1)
        learned = convolve(self.trunk, image, maps.log_noise / NOISE_RANGE, self.shape).squeeze(1)
        softened = torch.einsum("k,bkg->bg", EXPONENT_UNIT * self.soften, likelihoods)
        return (softened + learned).log_softmax(-1)


class Stage(nn.Module):
    """One update of the powers; with a noise floor, the powers have a lower bound."""

    def __init__(self, network: NetworkConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.bounded = network.noise_floor is not None
        self.trunk = MapTrunk(3, 1, network, shape)
        self.keep = nn.Parameter(torch.tensor(1.0 / EXPONENT_UNIT))
        self.step = nn.Parameter(torch.tensor(0.5 / EXPONENT_UNIT))

    def forward(
        self, log_powers: Tensor, gradient: LikelihoodGradient, log_noise: Tensor
    ) -> Tensor:
        """Return updated log powers, [B, G]; `log_noise` [B] in units of `NOISE_RANGE`."""
        uniform = -math.log(log_powers.shape[-1])
        if self.bounded:
            log_powers = log_powers.clamp(min=LEAST_LOG_POWER + uniform)
        relative = (log_powers - uniform).clamp(min=LEAST_LOG_POWER) / LOG_POWER_UNIT
        image = torch.stack([relative, gradient.log_ratio, gradient.log_information], dim=1)
        learned = convolve(self.trunk, image, log_noise, self.shape).squeeze(1)
        moved = EXPONENT_UNIT * (self.keep * log_powers + self.step * gradient.log_ratio)
        return (moved + learned).log_softmax(-1)


class UnrolledNetwork(DictionaryModule):
    """A network that fits one power per grid point to the snapshots in learned stages."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert config.network.stages is not None, "an unrolled network has stages"
        self.noise_floor = config.network.noise_floor
        self.start = Start(config.network, self.shape)
        self.stages = nn.ModuleList(
            Stage(config.network, self.shape) for _ in range(config.network.stages)
        )

    def forward(self, scenes: Scenes) -> Covariance:
        """Return R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        maps = power_maps(scenes, self.products)
        observations = Observations.from_scenes(scenes)
        loading, floor = maps.loading, self.noise_floor or 0.0
        if floor:
            loading = loading.maximum(floor * maps.modes.gain.mean((-2, -1)))
        likelihoods = single_source_likelihoods(
            scenes, maps.modes, maps.signal, loading, self.products
        )
        log_powers = self.start(maps, likelihoods)
        log_noise = maps.log_noise  # relative to the channel's mean gain
        for number, stage in enumerate(self.stages, 1):
            least = math.log(max(floor * FLOOR_DECAY**number, NOISE_FLOOR))
            log_noise = log_noise.clamp(min=least)
            powers = log_powers.exp()
            mixture = self.products.mixture(powers)
            gradient = likelihood_gradient(observations, mixture, log_noise, self.products)
            noise_input = log_noise.clamp(-NOISE_RANGE, NOISE_RANGE) / NOISE_RANGE
            log_powers = stage(log_powers, gradient, noise_input)
            log_noise = update_noise(log_noise, powers, gradient).clamp(min=math.log(NOISE_FLOOR))
        return normalise(matrix=self.products.mixture(log_powers.exp()), eps_psd=self.eps_psd)
