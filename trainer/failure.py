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
        "The loss was finite, its derivative was not, as that of a root, norm or logarithm at 0: "
        "keep its argument away from 0 in the named term."
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

EIGENGAP_REMEDY = (
    "The loss was finite, its derivative was not: use `spectral.backend` exact or gram, whose "
    "derivatives are finite by construction."
)
"""Advice for a gradient of the eigengap term that is not finite."""


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
        if self.cause is Cause.NONFINITE_GRADIENT and self.term == "eigengap":
            return EIGENGAP_REMEDY
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
    loss: "Tensor | float",
    named_parameters: "Iterable[tuple[str, Tensor]]",
    *,
    step: int | None = None,
    term: str = "total",
    named_buffers: "Iterable[tuple[str, Tensor]]" = (),
) -> None:
    """Raise Diverged unless the loss, all parameters, their gradients and the buffers are finite.

    To be called between `backward` and the optimiser's step, which then never takes a number that
    is not finite; it synchronises with a GPU once.

    Args:
        loss: a number, or a tensor of any shape.
        named_parameters: `module.named_parameters()`; those of integers cannot be otherwise.
        step: optimiser steps taken so far, for the message.
        term: name of the loss, for the message.
        named_buffers: `module.named_buffers()`, such as the means of a batch normalisation.

    Raises:
        TypeError: for parameters or buffers without names.
    """
    import torch

    named = _named("parameters", named_parameters)
    gradients = [(name, one.grad) for name, one in named if one.grad is not None]
    watched = [
        (cause, name, _numbers(tensor))
        for cause, tensors in (
            # first: they spoil the loss, too
            (Cause.NONFINITE_PARAMETER, [*named, *_named("buffers", named_buffers)]),
            (Cause.NONFINITE_LOSS, [("", torch.as_tensor(loss))]),
            (Cause.NONFINITE_GRADIENT, gradients),
        )
        for name, tensor in tensors
        if tensor.numel() and (tensor.is_floating_point() or tensor.is_complex())
    ]
    largest = torch.nn.utils.get_total_norm([tensor for *_, tensor in watched], math.inf)
    if math.isfinite(largest.item()):
        return
    for cause, name, tensor in watched:
        if not bool(torch.isfinite(tensor).all()):
            raise Diverged(Failure(cause, term, name, step, 0, None))


def _named(what: str, given: Any) -> "list[tuple[str, Tensor]]":
    found = list(given) if isinstance(given, Iterable) else [given]
    for pair in found:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise TypeError(
                f"`named_{what}` must be pairs of a name and a tensor, but got a "
                f"{type(pair).__name__}. Pass network.named_{what}()."
            )
    return found


def _numbers(tensor: "Tensor") -> "Tensor":
    """Return the real numbers of a tensor, which may be sparse or complex."""
    import torch

    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = (tensor.coalesce() if tensor.is_sparse else tensor).values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
