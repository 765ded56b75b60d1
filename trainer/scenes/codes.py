"""Unit-modulus codes c_l of the panel, one per snapshot.

    random  c_ln = exp(j 2π u), u uniform; with b bits, u is rounded down to a multiple of 2^-b
    dft     rows of the N-point DFT matrix, chosen at random without repetition
    dft2    rows of the two-dimensional DFT, F_V ⊗ F_H: far-field beams on a grid of directions

Rows repeat only if L > N, after every row has been used. Codes are functions of uniform numbers,
so that training and evaluation draw them alike from different generators.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.config import SceneConfig

from .geometry import phasor


def uniforms_shape(config: SceneConfig) -> tuple[int, int]:
    """Return the shape of the uniform numbers that the codes of a scene take."""
    if config.code_kind == "random":
        return config.num_snapshots, config.num_elements
    return math.ceil(config.num_snapshots / config.num_elements), config.num_elements


def build_codes(config: SceneConfig, uniform: Tensor) -> Tensor:
    """Return codes [B, L, N] made of uniform numbers [B, *uniforms_shape]."""
    return CODES[config.code_kind](config, uniform)


def _random(config: SceneConfig, uniform: Tensor) -> Tensor:
    if config.code_bits:
        levels = 2**config.code_bits
        uniform = (uniform * levels).floor() / levels
    return phasor(2 * math.pi * uniform)


def _dft(config: SceneConfig, uniform: Tensor) -> Tensor:
    element = torch.arange(config.num_elements, device=uniform.device)
    rows = _rows(config, uniform).unsqueeze(-1)
    # integer arithmetic keeps the phase exact until the division
    turns = (rows * element) % config.num_elements
    return phasor(2 * math.pi * (-turns.to(uniform.dtype) / config.num_elements))


def _dft2(config: SceneConfig, uniform: Tensor) -> Tensor:
    element = torch.arange(config.num_elements, device=uniform.device)
    rows = _rows(config, uniform).unsqueeze(-1)
    across, down = config.num_horizontal, config.num_vertical
    horizontal = (rows % across) * (element % across) % across
    vertical = (rows // across) * (element // across) % down
    turns = horizontal.to(uniform.dtype) / across + vertical.to(uniform.dtype) / down
    return phasor(2 * math.pi * -turns)


def _rows(config: SceneConfig, uniform: Tensor) -> Tensor:
    """Return row numbers [B, L], without repetition within N."""
    # stable, so that every device orders equal numbers alike
    return uniform.sort(dim=-1, stable=True).indices.flatten(-2)[..., : config.num_snapshots]


CODES: dict[str, Callable[[SceneConfig, Tensor], Tensor]] = {
    "random": _random,
    "dft": _dft,
    "dft2": _dft2,
}
