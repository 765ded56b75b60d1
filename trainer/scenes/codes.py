"""Unit-modulus codes c_l that the panel applies to the wave it passes on, one per snapshot.

    random  c_ln = exp(j 2π u), u uniform; with b bits, u is rounded down to a multiple of 2^-b
    dft     rows of the N-point DFT matrix, chosen at random without repetition
    dft2    rows of the two-dimensional DFT, F_V ⊗ F_H: far-field beams on a grid of directions

Rows repeat only if L > N, after every row was used once. A code is a function of uniform numbers,
so that training and evaluation draw it in the same way from different generators.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import SceneConfig


def uniforms_shape(config: SceneConfig) -> tuple[int, int]:
    """Uniform numbers that the codes of a scene take."""
    if config.code_kind == "random":
        return config.num_snapshots, config.num_elements
    return math.ceil(config.num_snapshots / config.num_elements), config.num_elements


def build_codes(config: SceneConfig, uniform: Tensor) -> Tensor:
    """Codes [B, L, N] from uniform numbers [B, *uniforms_shape]."""
    return CODES[config.code_kind](config, uniform)


def _random(config: SceneConfig, uniform: Tensor) -> Tensor:
    if config.code_bits:
        levels = 2**config.code_bits
        uniform = (uniform * levels).floor() / levels
    return _unit_phasor(uniform)


def _dft(config: SceneConfig, uniform: Tensor) -> Tensor:
    element = torch.arange(config.num_elements, device=uniform.device)
    rows = _rows(config, uniform).unsqueeze(-1)
    # integers first: the phase is exact before it is rounded
    turns = (rows * element) % config.num_elements
    return _unit_phasor(-turns.to(uniform.dtype) / config.num_elements)


def _dft2(config: SceneConfig, uniform: Tensor) -> Tensor:
    element = torch.arange(config.num_elements, device=uniform.device)
    rows = _rows(config, uniform).unsqueeze(-1)
    across, down = config.num_horizontal, config.num_vertical
    horizontal = (rows % across) * (element % across) % across
    vertical = (rows // across) * (element // across) % down
    turns = horizontal.to(uniform.dtype) / across + vertical.to(uniform.dtype) / down
    return _unit_phasor(-turns)


def _rows(config: SceneConfig, uniform: Tensor) -> Tensor:
    """Row numbers [B, L], without repetition within N."""
    # stable: equal numbers, rare as they are, must not be ordered differently by another device
    return uniform.sort(dim=-1, stable=True).indices.flatten(-2)[..., : config.num_snapshots]


def _unit_phasor(turns: Tensor) -> Tensor:
    phase = 2 * math.pi * turns
    return torch.complex(phase.cos(), phase.sin())


CODES: dict[str, Callable[[SceneConfig, Tensor], Tensor]] = {
    "random": _random,
    "dft": _dft,
    "dft2": _dft2,
}
