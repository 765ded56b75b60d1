"""The diagnosis of a batch that led to numbers that are not finite: term by term, by tensor."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance
from trainer.failure import Cause, Diverged, Failure
from trainer.scenes import Scenes
from trainer.spectral import spectrum

from .terms import loss_terms

INPUTS = ("snapshots", "channel", "codes")
"""Arrays of the scenes that a network computes from."""


def diagnose(
    network: nn.Module,
    scenes: Scenes,
    config: TrainConfig,
    *,
    step: int,
    epoch: int,
    breakdown: torch.linalg.LinAlgError | None = None,
) -> Failure:
    """Compute a failing batch again and name the first term and tensor that are not finite.

    Args:
        network: with the gradients that the batch has left in its parameters.
        breakdown: error of the eigensolver, if it was that which failed.
    """
    if bad := _bad_input(scenes):
        cause, term, tensor = Cause.NONFINITE_DATA, "input", bad
    elif breakdown is not None:
        cause, term, tensor = Cause.SPECTRAL_BREAKDOWN, "total", ""
    else:
        cause, term, tensor = _find_nonfinite(network, scenes, config)
    try:
        with torch.no_grad():
            gaps = eigengaps(network(scenes), scenes)
    except torch.linalg.LinAlgError:
        gaps = torch.empty(0)  # without eigenvalues there is no gap
    finite = gaps[torch.isfinite(gaps)]
    return Failure(
        cause=cause,
        term=term,
        tensor=tensor,
        step=step,
        epoch=epoch,
        min_eigengap=float(finite.min()) if len(finite) else None,
        message="" if breakdown is None else str(breakdown),
    )


@contextmanager
def require_finite_output(network: nn.Module, *, step: int, epoch: int) -> Iterator[None]:
    """Raise Diverged once the network returns a covariance in the context that is not finite.

    For validation, where the host waits for every batch anyway: a last step, or evaluation mode
    alone, may break what every training step found finite.
    """

    def look(network: nn.Module, inputs: tuple[Any, ...], output: Covariance) -> None:
        if bool(torch.isfinite(output.held).all() & torch.isfinite(output.shift).all()):
            return
        held = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        if bad := _bad_input(inputs[0]):
            found = Cause.NONFINITE_DATA, "input", bad
        elif bad := _first_nonfinite(held, held.values()):
            found = Cause.NONFINITE_PARAMETER, "covariance", bad
        else:
            found = Cause.NONFINITE_LOSS, "covariance", _name_of_held(output)
        said = "The steps were finite, the network's output in validation was not."
        raise Diverged(Failure(*found, step, epoch, None, said))

    handle = network.register_forward_hook(look)
    try:
        yield
    finally:
        handle.remove()


def eigengaps(covariance: Covariance, scenes: Scenes) -> Tensor:
    """Return λ_K - λ_{K+1} at the true K, per scene."""
    return spectrum(**covariance.spectral_input()).gap(scenes.sources.num_sources)


def _find_nonfinite(
    network: nn.Module, scenes: Scenes, config: TrainConfig
) -> tuple[Cause, str, str]:
    names, parameters = zip(*network.named_parameters(), strict=True)
    covariance = network(scenes)
    terms = loss_terms(covariance, scenes, config).values
    finite = bool(torch.isfinite(covariance.held).all())
    for term, value in terms.items():
        if not torch.isfinite(value):
            return Cause.NONFINITE_LOSS, term, "" if finite else _name_of_held(covariance)
    for term, value in terms.items():
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        if bad := _first_nonfinite(names, gradients):
            return Cause.NONFINITE_GRADIENT, term, bad
    # every term alone is finite: what is left is their sum, as the parameters hold it
    if bad := _first_nonfinite(names, (p.grad for p in parameters)):
        return Cause.NONFINITE_GRADIENT, "total", bad
    return Cause.GRADIENT_OVERFLOW, "total", ""


def _bad_input(scenes: Scenes) -> str:
    """Return the name of the first array of the scenes that is not finite, or an empty string."""
    arrays = [getattr(scenes, name) for name in INPUTS]
    return _first_nonfinite(INPUTS, arrays)


def _name_of_held(covariance: Covariance) -> str:
    return "factor" if covariance.matrix is None else "matrix"


def _first_nonfinite(names: Iterable[str], tensors: Iterable[Tensor | None]) -> str:
    """Return the name of the first tensor that is not finite, or an empty string."""
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is not None and not torch.isfinite(tensor).all():
            return name
    return ""
