"""Failures of a training as data: the cause, where it was seen, and the remedy.

`Diverged` is the one exception the trainer raises about its own numbers. It is raised *before* an
optimiser step is taken on a non-finite loss or gradient, so the weights are still good. Another
training loop raises it by `check_finite`.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Cause(StrEnum):
    """Cause of a divergence; its value is what the `cause` columns hold."""

    NONFINITE_DATA = "nonfinite_data"
    NONFINITE_LOSS = "nonfinite_loss"
    NONFINITE_GRADIENT = "nonfinite_gradient"
    NONFINITE_PARAMETER = "nonfinite_parameter"
    GRADIENT_OVERFLOW = "gradient_overflow"
    SPECTRAL_BREAKDOWN = "spectral_breakdown"


REMEDIES: dict[Cause, str] = {
    Cause.NONFINITE_DATA: "Check the scenes: the network's input was already non-finite.",
    Cause.NONFINITE_LOSS: "Lower the learning rate, or look at the named loss term.",
    Cause.NONFINITE_GRADIENT: (
        "The loss was finite, its derivative was not, as that of a root at 0: for the eigengap, "
        "use `spectral.backend` exact or gram, whose derivatives are finite by construction."
    ),
    Cause.NONFINITE_PARAMETER: "Lower the learning rate, or clip the gradients: a step broke it.",
    Cause.GRADIENT_OVERFLOW: (
        "Every gradient entry was finite, their norm was not: lower the learning rate or the "
        "weight of the named term."
    ),
    Cause.SPECTRAL_BREAKDOWN: (
        "The eigensolver failed: raise `eps_psd` or use `spectral.backend` exact."
    ),
}


@dataclass(frozen=True)
class Failure:
    """Record of a divergence; plain data, safe to write as JSON or Parquet.

    Attributes:
        term: name of the loss term that was (or whose gradient was) non-finite; `total` if no
            single term was.
        tensor: parameter whose gradient was non-finite, the name of the offending input, or
            `matrix` or `factor` if the predicted R itself was; empty if none.
        step: optimiser steps taken before the failure (it happened in step `step + 1`); None if
            a training loop of another's did not say.
        epoch: epoch in which it happened, from 1.
        min_eigengap: smallest finite λ_K - λ_{K+1} of the failing batch (trace-1 covariance);
            None if none was finite, or there is none.
        message: one sentence for a person.
    """

    cause: Cause
    term: str
    tensor: str
    step: int | None
    epoch: int
    min_eigengap: float | None
    message: str = ""

    @property
    def remedy(self) -> str:
        """Advice for a person."""
        return REMEDIES[self.cause]

    def as_dict(self) -> dict[str, Any]:
        """Return a plain dictionary, with `cause` as a string."""
        return asdict(self) | {"cause": self.cause.value}


class Diverged(Exception):
    """Divergence of a training, which must not go on; `failure` describes it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)  # the argument itself, so that the exception survives pickling
        self.failure = failure

    def __str__(self) -> str:
        f = self.failure
        where = f" in `{f.tensor}`" if f.tensor else ""
        when = "" if f.step is None else f" at step {f.step}"
        gap = "" if f.min_eigengap is None else f", smallest eigengap {f.min_eigengap:.2e}"
        seen = f"{f.cause}{when}: term `{f.term}`{where}{gap}."
        return " ".join(part for part in (seen, f.message, f.remedy) if part)


def check_finite(
    loss: "Tensor",
    named_parameters: "Iterable[tuple[str, Tensor]]",
    *,
    step: int | None = None,
    term: str = "total",
) -> None:
    """Raise Diverged unless the loss, all parameters and their gradients are finite.

    To be called between `backward` and the optimiser's step, which then never takes a number that
    is not finite; it synchronises with a GPU once.

    Args:
        loss: of any shape.
        named_parameters: `module.named_parameters()`.
        step: optimiser steps taken so far, for the message.
        term: name of the loss, for the message.
    """
    import torch

    named = list(named_parameters)
    gradients = [(name, one.grad) for name, one in named if one.grad is not None]
    watched = [
        (cause, name, tensor.detach())
        for cause, tensors in (
            (Cause.NONFINITE_PARAMETER, named),  # first: it spoils the loss, too
            (Cause.NONFINITE_LOSS, [("", loss)]),
            (Cause.NONFINITE_GRADIENT, gradients),
        )
        for name, tensor in tensors
        if tensor.numel()
    ]
    largest = torch.nn.utils.get_total_norm([tensor for *_, tensor in watched], math.inf)
    if math.isfinite(largest.item()):
        return
    for cause, name, tensor in watched:
        if not bool(torch.isfinite(tensor).all()):
            raise Diverged(Failure(cause, term, name, step, 0, None))
