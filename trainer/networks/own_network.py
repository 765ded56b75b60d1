"""A user's network by reference, held to the contract of all networks (docs/own_code.md)."""

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance
from trainer.linalg import squared_norm
from trainer.scenes import Scenes
from trainer.user_code import CodeError, bind, place_in

TOLERANCE = 1e-3
"""Largest error of the trace, and of R = Rᴴ relative to R, in single precision."""


def build_own_network(config: TrainConfig) -> nn.Module:
    """Return a new network of the class that `config.network.kind` refers to.

    Raises:
        CodeError: if it cannot be built, or its code has changed.
    """
    kind = config.network.kind
    make = bind(kind, config.network.sha256, ("config",), config.network.args)
    try:
        network = make(config)
    except (Exception, SystemExit) as error:
        raise CodeError(f"`{kind}` must be built, but raised {place_in(error)}.") from error
    if not isinstance(network, nn.Module):
        raise CodeError(f"`{kind}` must be an nn.Module, but is a {type(network).__name__}.")
    if not any(each.requires_grad for each in network.parameters()):
        raise CodeError(
            f"`{kind}` must have parameters to train, but has none. Assign nn.Parameter or "
            "modules to attributes of self; a list of modules is an nn.ModuleList."
        )
    for name, kept in network.state_dict().items():
        if not isinstance(kept, Tensor):
            raise CodeError(
                f"`{kind}` must keep tensors only in its state_dict, as checkpoints do, but "
                f"`{name}` is a {type(kept).__name__}. Make it anew in the constructor."
            )
    network.register_forward_pre_hook(_hide_truth)
    network.register_forward_hook(partial(_require_covariance, kind, []))
    return network


def _hide_truth(network: nn.Module, inputs: tuple[Scenes, ...]) -> tuple[Scenes, ...]:
    """Return the scenes without their truth, which recorded ones do not have either."""
    del network
    return replace(inputs[0], truth=None), *inputs[1:]


def _require_covariance(
    name: str, mode: list[bool], network: nn.Module, inputs: tuple[Scenes, ...], output: Any
) -> None:
    """Raise CodeError unless a user's network has returned a `Covariance` of its scenes.

    Shapes and types are looked at every time; trace and symmetry, which wait for the device, in
    the first forward and in the first of every validation, which waits anyway.
    """
    scenes = inputs[0]
    if not isinstance(output, Covariance):
        raise CodeError(
            f"`{name}` must return a Covariance, but returned a {type(output).__name__}. Build it "
            "with trainer.covariance.normalise(matrix=... or factor=..., eps_psd=config.eps_psd)."
        )
    batch, elements = scenes.batch_size, scenes.channel.shape[-1]
    held, shift = output.held, output.shift
    columns = held.shape[-1] if output.matrix is None else elements
    shapes = tuple(held.shape), tuple(shift.shape)
    if shapes != ((batch, elements, columns), (batch,)) or not held.is_complex():
        raise CodeError(
            f"`{name}` must return a complex matrix [B, N, N] or factor [B, N, r] with a shift "
            f"[B] for B = {batch} scenes of N = {elements} elements, but returned "
            f"{'a matrix' if output.factor is None else 'a factor'} {shapes[0]} of {held.dtype} "
            f"and a shift {shapes[1]}."
        )
    expected = scenes.snapshots.dtype
    if (held.dtype, shift.dtype) != (expected, expected.to_real()):
        raise CodeError(
            f"`{name}` must return a covariance of the snapshots' type, {expected}, but returned "
            f"one of {held.dtype} with a shift of {shift.dtype}. Call .to(scenes.snapshots.dtype)."
        )
    if torch.is_grad_enabled() and not held.requires_grad:
        raise CodeError(
            f"`{name}` must return a covariance that its parameters can be trained by, but it has "
            "no gradient. Leave out .detach(), torch.no_grad and NumPy in forward."
        )
    first = not mode or (mode[0] and not network.training)
    mode[:] = [network.training]
    if first:
        if output.matrix is not None:
            skew = squared_norm(held - held.mH) > TOLERANCE**2 * squared_norm(held)
            if bool(skew.any()):
                raise CodeError(
                    f"`{name}` must return a Hermitian matrix, R = Rᴴ, but it is not. Build it "
                    "with trainer.covariance.normalise."
                )
        loaded = output.dense().detach().diagonal(dim1=-2, dim2=-1).real.sum(-1)
        trace = loaded - elements * shift
        wrong = float((trace - 1).abs().where(trace != 0, 0).max())
        if TOLERANCE < wrong < math.inf:  # inf or NaN is a divergence, with its diagnosis
            raise CodeError(
                f"`{name}` must return a covariance of trace 1, but the trace differs by "
                f"{wrong:.3g}. Build it with trainer.covariance.normalise."
            )
