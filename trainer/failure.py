"""Failures of a training as data: the cause, where it was seen, and the remedy.

`Diverged` is the one exception the trainer raises about its own numbers. It is raised *before* an
optimiser step is taken on a non-finite loss or gradient, so the weights are still good.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Cause(StrEnum):
    """Cause of a divergence; its value is what the `cause` columns hold."""

    NONFINITE_DATA = "nonfinite_data"
    NONFINITE_LOSS = "nonfinite_loss"
    NONFINITE_GRADIENT = "nonfinite_gradient"
    GRADIENT_OVERFLOW = "gradient_overflow"
    SPECTRAL_BREAKDOWN = "spectral_breakdown"


REMEDIES: dict[Cause, str] = {
    Cause.NONFINITE_DATA: "Check the scenes: the network's input was already non-finite.",
    Cause.NONFINITE_LOSS: "Lower the learning rate, or look at the named loss term.",
    Cause.NONFINITE_GRADIENT: (
        "The loss was finite, its derivative was not: use `spectral.backend` exact or gram, "
        "whose derivatives are finite by construction."
    ),
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
        step: optimiser steps taken before the failure (it happened in step `step + 1`).
        epoch: epoch in which it happened, from 1.
        min_eigengap: smallest finite λ_K - λ_{K+1} of the failing batch (trace-1 covariance);
            None if none was finite.
        message: one sentence for a person.
    """

    cause: Cause
    term: str
    tensor: str
    step: int
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
        gap = f"{f.min_eigengap:.2e}" if f.min_eigengap is not None else "not finite"
        seen = f"{f.cause} at step {f.step}: term `{f.term}`{where}, smallest eigengap {gap}."
        return " ".join(part for part in (seen, f.message, f.remedy) if part)
