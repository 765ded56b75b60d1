"""`unrolled`: covariance fitting cut short, every step learned.

The start are powers made of how likely a lone source is at each grid point (`lone_source`),
softened, and of convolutions over that and the maps that the dictionary network sees. Then every
stage asks the likelihood of the snapshots what the powers so far do not explain
(`covariance_fit`), and moves their logarithms,

    log γ <- keep · log γ + step · log(num / den) + convolutions(log γ, num / den, den, λ),

up to the constant that makes them sum to one. With keep = 1, step = 1/2 and no convolutions this
is majorise-minimise as in textbooks, which needs tens of steps. A stage starts as just that, and
learns to go further, and which powers are likely. What a strong source hides, maps of
back-projected power cannot tell from noise; C_l⁻¹ takes the strong source away. On unrolled
iterations: Gregor & LeCun 2010; Monga, Li, Eldar 2021.

Nothing is learned per element or grid point: weights serve other panels. Gradients pass through
the likelihood, so a stage learns to leave behind what the next one can use.
"""

import math

import torch
from torch import Tensor, nn

from trainer.config import NetworkConfig, TrainConfig
from trainer.covariance import (
    NOISE_FLOOR,
    Covariance,
    DictionaryModule,
    LikelihoodGradient,
    Observations,
    likelihood_gradient,
    normalise,
    update_noise,
)
from trainer.scenes import Scenes

from .power_map import NOISE_RANGE, MapTrunk, PowerMaps, power_maps
from .single_source import SHARES, single_source_likelihoods

LEAST_LOG_POWER = -8.0
"""Log powers, relative to uniform ones, are cut here before convolutions see them."""
LOG_POWER_UNIT = 3.0
"""Scale of log powers before convolutions."""
LEAST_LOG_LIKELIHOOD = -30.0
"""Log likelihoods, relative to the mean, are cut here before convolutions see them."""
LOG_LIKELIHOOD_UNIT = 10.0
"""Scale of log likelihoods before convolutions."""
EXPONENT_UNIT = 4.0
"""Scale of the learned exponents: one learning rate then suits them and the convolutions."""


class Start(nn.Module):
    """Powers to begin with: the likelihoods of a lone source, softened, and convolutions."""

    def __init__(self, network: NetworkConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        count = len(SHARES)
        self.trunk = MapTrunk((2 + count) * shape[0] + 1, shape[0], network)
        self.soften = nn.Parameter(torch.full((count,), 0.3 / EXPONENT_UNIT))

    def forward(self, maps: PowerMaps, alone: Tensor) -> Tensor:
        """Log powers, [B, G], from log likelihoods [B, len(SHARES), G]."""
        relative = alone + math.log(alone.shape[-1])
        relative = relative.clamp(min=LEAST_LOG_LIKELIHOOD) / LOG_LIKELIHOOD_UNIT
        image = torch.cat([torch.stack([maps.power, maps.normaliser], dim=1), relative], dim=1)
        learned = over_beams(self.trunk, image, maps.log_noise / NOISE_RANGE, self.shape)
        softened = torch.einsum("k,bkg->bg", EXPONENT_UNIT * self.soften, alone)
        return (softened + learned).log_softmax(-1)


class Stage(nn.Module):
    """One learned step of the powers."""

    def __init__(self, network: NetworkConfig, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.trunk = MapTrunk(3 * shape[0] + 1, shape[0], network)
        self.keep = nn.Parameter(torch.tensor(1.0 / EXPONENT_UNIT))
        self.step = nn.Parameter(torch.tensor(0.5 / EXPONENT_UNIT))

    def forward(self, log_powers: Tensor, seen: LikelihoodGradient, log_noise: Tensor) -> Tensor:
        """Log powers before and after, [B, G]; `log_noise` [B] in units of its range."""
        relative = log_powers + math.log(log_powers.shape[-1])
        relative = relative.clamp(min=LEAST_LOG_POWER) / LOG_POWER_UNIT
        image = torch.stack([relative, seen.ratio, seen.information], dim=1)
        learned = over_beams(self.trunk, image, log_noise, self.shape)
        moved = EXPONENT_UNIT * (self.keep * log_powers + self.step * seen.ratio)
        return (moved + learned).log_softmax(-1)


class UnrolledNetwork(DictionaryModule):
    """Powers of lone sources, fitted to the snapshots in stages -> dense R."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        assert config.network.stages is not None, "an unrolled network has stages"
        self.start = Start(config.network, self.shape)
        self.stages = nn.ModuleList(
            Stage(config.network, self.shape) for _ in range(config.network.stages)
        )

    def forward(self, scenes: Scenes) -> Covariance:
        """R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        maps = power_maps(scenes, self.outer)
        observed = Observations.of(scenes)
        alone = single_source_likelihoods(
            scenes, maps.modes, maps.signal, maps.loading, self.steering
        )
        log_powers = self.start(maps, alone)
        floor = math.log(NOISE_FLOOR)
        log_noise = maps.log_noise  # relative to the channel's mean gain
        for stage in self.stages:
            powers = log_powers.exp()
            seen = likelihood_gradient(observed, self.mixture(powers), log_noise, self.outer)
            known = log_noise.clamp(-NOISE_RANGE, NOISE_RANGE) / NOISE_RANGE
            log_powers = stage(log_powers, seen, known)
            log_noise = update_noise(log_noise, powers, seen).clamp(min=floor)
        return normalise(matrix=self.mixture(log_powers.exp()), eps_psd=self.eps_psd)


def over_beams(trunk: MapTrunk, maps: Tensor, constant: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Convolutions over [B, maps, G], range planes being channels, and one number [B]: [B, G]."""
    image = maps.unflatten(-1, shape).flatten(1, 2)
    flat = constant[:, None, None, None].expand(-1, 1, *image.shape[-2:])
    return trunk(torch.cat([image, flat], dim=1)).flatten(1)
