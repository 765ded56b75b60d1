"""The diagnosis of a batch that led to numbers that are not finite: term by term, by tensor."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance
from trainer.failure import Cause, Failure
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
    bad = [name for name in INPUTS if not torch.isfinite(getattr(scenes, name).abs()).all()]
    if bad:
        cause, term, tensor = Cause.NONFINITE_DATA, "input", bad[0]
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
    held = "factor" if covariance.matrix is None else "matrix"
    for term, value in terms.items():
        if not torch.isfinite(value):
            return Cause.NONFINITE_LOSS, term, "" if finite else held
    for term, value in terms.items():
        gradients = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        if bad := _first_nonfinite(names, gradients):
            return Cause.NONFINITE_GRADIENT, term, bad
    # every term alone is finite: what is left is their sum, as the parameters hold it
    if bad := _first_nonfinite(names, (p.grad for p in parameters)):
        return Cause.NONFINITE_GRADIENT, "total", bad
    return Cause.GRADIENT_OVERFLOW, "total", ""


def _first_nonfinite(names: Iterable[str], gradients: Iterable[Tensor | None]) -> str:
    """Return the name of the first gradient that is not finite, or an empty string."""
    for name, gradient in zip(names, gradients, strict=True):
        if gradient is not None and not torch.isfinite(gradient).all():
            return name
    return ""
