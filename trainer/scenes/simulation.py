"""Simulated scenes: snapshots of a base station that sees sources through a panel.

    y_l = G_l A s_l + n_l,  G_l = H diag(c_l),  l = 1 ... L
    s_l ~ CN(0, P), drawn anew for every snapshot;  n_l ~ CN(0, σ² Q)

H [M, N] is the known channel from panel to antennas, c_l a known code of modulus 1, A [N, K] the
exact spherical steering matrix, P the covariance of the sources, Q that of the noise (unit
diagonal, I if white).

The SNR is the expected power of all sources over that of the noise, for the channel, codes and
directions of the scene: sum_l tr(G_l A P Aᴴ G_lᴴ) / (L M σ²). It sets σ².
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.config import SceneConfig, require

from .channel import antenna_noise_covariance, rician_channel
from .codes import build_codes, uniforms_shape
from .geometry import Panel
from .measurement import Scenes, Sources, expected_signal, with_unit_modulus
from .placement import ROUNDS, candidates_shape, place, place_unread


class _Draws(NamedTuple):
    """The random numbers of a batch: uniform in [0, 1), normal CN(0, 1)."""

    azimuth: Tensor  # [B, K], placed
    elevation: Tensor  # [B, K], placed
    how_many: Tensor  # [B, 1] uniform
    range_m: Tensor  # [B, K] uniform
    power: Tensor  # [B, K] uniform
    line_of_sight: Tensor  # [B, 3] uniform
    codes: Tensor  # [B, *uniforms_shape] uniform
    scatter: Tensor  # [B, M, N] normal
    amplitude: Tensor  # [B, L, K] normal
    noise: Tensor  # [B, L, M] normal


def simulate(
    config: SceneConfig,
    batch_size: int,
    *,
    snr_db: float | tuple[float, float] | Tensor,
    num_sources: int | Tensor | None = None,
    generator: torch.Generator,
    device: torch.device | str,
    dtype: torch.dtype = torch.complex64,
) -> Scenes:
    """Draw a batch of new scenes, on the device of the generator.

    Where tensors cannot be read without waiting (CUDA), a scene that has no room for its sources
    has NaN for their angles, so for its snapshots; `require_placed` tells.

    Args:
        snr_db: one value, a (low, high) range to draw from per scene, or a tensor [B].
        num_sources: K, or a tensor [B]; by default uniform in 1 ... max_sources per scene.
            0 is a scene of noise alone.
        dtype: of snapshots, channel and codes; all others have its real counterpart.
    """
    real = dtype.to_real()

    def uniform(*shape: int) -> Tensor:
        return torch.rand(batch_size, *shape, generator=generator, dtype=real, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch_size, *shape, generator=generator, dtype=dtype, device=device)

    if torch.device(device).type == "cpu":
        azimuth, elevation = place(config, lambda _: uniform(*candidates_shape(config)))
    else:
        azimuth, elevation = place_unread(config, uniform(ROUNDS, *candidates_shape(config)))
    draws = _Draws(
        azimuth,
        elevation,
        *(uniform(*shape) for shape in _uniform_shapes(config)),
        *(normal(*shape) for shape in _normal_shapes(config)),
    )
    if isinstance(snr_db, tuple):
        low, high = snr_db
        snr_db = low + (high - low) * uniform(1).squeeze(-1)
    return _assemble(config, draws, snr_db, num_sources)


@dataclass(frozen=True)
class EvalScenes:
    """Fixed, numbered scenes: a scene depends on the seed, its number and the SNR alone.

    Every scene has its own counter-based generator (Philox, Salmon et al. 2011), so that batch
    size, order and device do not matter. At another SNR a scene keeps sources, channel, codes and
    noise, which is scaled; with another number of sources it keeps the sources both have. So
    differences between conditions are paired.
    """

    config: SceneConfig
    seed: int

    def __post_init__(self) -> None:
        allowed = 0 <= self.seed < 2**64
        require(allowed, "0 <= seed < 2**64", f"{self.seed}", "Use a non-negative seed.")

    def batch(
        self,
        scene_ids: Sequence[int] | Tensor,
        *,
        snr_db: float | Tensor,
        num_sources: int | Tensor | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.complex64,
    ) -> Scenes:
        """Return the scenes of these numbers, in this order.

        Args:
            snr_db: one value, or a tensor [B].
            num_sources: forces K (0 is noise alone), or a tensor [B]; by default each scene's own.
        """
        ids = [int(i) for i in scene_ids]

        def draw_round(number: int) -> Tensor:
            shape = candidates_shape(self.config)
            # its own stream, so that a rare second round shifts no other numbers
            rows = [self._generator(i, number + 1).random(shape) for i in ids]
            return torch.from_numpy(np.stack(rows))

        # on the CPU in float64: a device's rounding must not decide whether a direction is free
        azimuth, elevation = place(self.config, draw_round)
        uniform_shapes = _uniform_shapes(self.config)
        normal_shapes = _normal_shapes(self.config)
        # float32, so that scenes of either dtype are the same
        uniform = np.empty((len(ids), sum(map(math.prod, uniform_shapes))), np.float32)
        normal = np.empty((len(ids), sum(map(math.prod, normal_shapes)), 2), np.float32)
        for row, i in enumerate(ids):
            generator = self._generator(i, 0)
            generator.random(out=uniform[row], dtype=np.float32)
            generator.standard_normal(out=normal[row], dtype=np.float32)
        real = dtype.to_real()
        standard = torch.view_as_complex(torch.from_numpy(normal)).to(device, dtype)
        draws = _Draws(
            azimuth.to(device, real),
            elevation.to(device, real),
            *_split(torch.from_numpy(uniform).to(device, real), uniform_shapes),
            *_split(standard * math.sqrt(0.5), normal_shapes),
        )
        return _assemble(self.config, draws, snr_db, num_sources)

    def _generator(self, scene_id: int, stream: int) -> np.random.Generator:
        key = np.array([self.seed, scene_id], dtype=np.uint64)
        counter = np.array([0, 0, 0, stream], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))


def _uniform_shapes(config: SceneConfig) -> list[tuple[int, ...]]:
    sources = (config.max_sources,)
    return [(1,), sources, sources, (3,), uniforms_shape(config)]


def _normal_shapes(config: SceneConfig) -> list[tuple[int, ...]]:
    antennas, snapshots = config.num_antennas, config.num_snapshots
    return [
        (antennas, config.num_elements),
        (snapshots, config.max_sources),
        (snapshots, antennas),
    ]


def _split(numbers: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    parts = numbers.split([math.prod(s) for s in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def _assemble(
    config: SceneConfig,
    draws: _Draws,
    snr_db: float | Tensor,
    num_sources: int | Tensor | None,
) -> Scenes:
    panel = Panel.from_config(config)
    sources = _sources(config, draws, num_sources)
    channel = rician_channel(config, panel, draws.line_of_sight, draws.scatter)
    codes = with_unit_modulus(build_codes(config, draws.codes))
    mixed, power = expected_signal(panel, channel, codes, sources)
    # without sources: σ² as for one source of unit power
    power = power.where(power > 0, torch.full_like(power, config.num_elements))
    snr_db = torch.as_tensor(snr_db, dtype=power.dtype, device=power.device).expand_as(power)
    variance = power / 10 ** (snr_db / 10)
    noise, noise_covariance = draws.noise, antenna_noise_covariance(config, codes)
    if noise_covariance is not None:
        noise = noise @ torch.linalg.cholesky(noise_covariance).mT
        noise_covariance = noise_covariance.expand(codes.shape[0], -1, -1)
    signal = (mixed * draws.amplitude.unsqueeze(2)).sum(-1)
    snapshots = signal + variance.sqrt()[:, None, None] * noise
    return Scenes(panel, snapshots, channel, codes, sources, snr_db, variance, noise_covariance)


def _sources(config: SceneConfig, draws: _Draws, num_sources: int | Tensor | None) -> Sources:
    most = config.max_sources
    if num_sources is None:
        count = 1 + (draws.how_many * most).floor()
    else:
        count = torch.as_tensor(num_sources, device=draws.how_many.device).view(-1, 1)
        require(
            bool(((count >= 0) & (count <= most)).all()),
            "0 <= num_sources <= max_sources",
            f"{num_sources=}, max_sources={most}",
            "Raise scene.max_sources.",
        )
    index = torch.arange(most, device=draws.how_many.device)
    active = (index < count).expand_as(draws.azimuth)
    span = config.range_max_m - config.range_min_m
    decibels = (draws.power - 0.5) * config.power_spread_db
    zero = torch.zeros_like(draws.azimuth)
    return Sources(
        azimuth=draws.azimuth.where(active, zero),
        elevation=draws.elevation.where(active, zero),
        range_m=(config.range_min_m + span * draws.range_m).where(
            active, zero + config.range_max_m
        ),
        power=(10 ** (decibels / 10)).where(active, zero),
        active=active,
        correlation=config.source_correlation,
    )
