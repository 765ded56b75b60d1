"""Scenes measured again with other codes or with another panel: same places, new amplitudes."""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.scenes.measurement import Scenes, expected_signal


def resimulated(scenes: Scenes, *, snr_db: float, seed: int = 0, **changes: object) -> Scenes:
    """Return scenes of white noise with `changes` of codes, channel or panel, measured again."""
    changed = replace(scenes, **changes)
    mixed, power = expected_signal(changed.panel, changed.channel, changed.codes, changed.sources)
    generator = torch.Generator().manual_seed(seed)
    size, snapshots, antennas, sources = mixed.shape

    def normal(*shape: int) -> Tensor:
        return torch.randn(size, snapshots, *shape, generator=generator, dtype=mixed.dtype)

    variance = power / 10 ** (snr_db / 10)
    signal = (mixed @ normal(sources, 1)).squeeze(-1)
    return replace(
        changed,
        snapshots=signal + variance.sqrt()[:, None, None] * normal(antennas),
        snr_db=torch.full_like(power, snr_db),
        noise_variance=variance,
        noise_covariance=None,
    )


def two_state_codes(scenes: Scenes, gains: tuple[float, float] = (0.7, 1.0)) -> Tensor:
    """Return codes of a panel of one bit whose states differ in gain: [B, L, N]."""
    states = torch.tensor([gains[0], -gains[1]], dtype=scenes.codes.dtype)
    return states[(scenes.codes.real > 0).long()]
