"""The eigengap losses, per sample.

They ask the predicted covariance (trace 1) for a clear border between K signal and N - K noise
eigenvalues. The first four definitions use eigenvalues only, and their gradients are finite on
every backend; `subspace` needs the projector P_K, whose derivative the backends take differently
(docs/eigengap.md).
"""

import math
import numbers
from typing import Any

import torch
from torch import Tensor

from trainer.config import DEFINITIONS, require, require_choice
from trainer.linalg import real_part

from .spectrum_type import Spectrum, can_read, require_tensor

TRACE_TOLERANCE, BASIS_TOLERANCE = 0.2, 1e-2
"""Largest error of a trace of 1, which may have been loaded, and of Uᴴ U = I."""
NEGATIVE_TOLERANCE = 0.05
"""Largest share of negative eigenvalues in sum |l_i|; far above rounding, also in bfloat16."""


def eigengap_loss(
    spectrum: Spectrum,
    num_sources: int | Tensor,
    *,
    definition: str,
    margin: float,
    target: Tensor | None = None,
) -> Tensor:
    """Return a hinge loss [*batch] that is 0 once the eigengap reaches `margin`.

    | definition | loss | margin |
    |---|---|---|
    | gap | relu(margin / K - (l_K - l_{K+1})) | in units of 1/K, the eigenvalue of K equal ones |
    | ratio | relu(margin - (l_K - l_{K+1}) / (l_K + l_{K+1})) | in (0, 1); tanh(ln10 · dB / 20) |
    | energy | relu(margin - sum_{i<=K} l_i / tr R) | share of the trace, in (0, 1] |
    | leak | relu(log1p(leak) - margin) | tolerated log1p(leak), >= 0 |
    | subspace | relu(1 - ‖P_K U‖²_F / K - margin) | tolerated loss of the subspace, in [0, 1) |

    Args:
        spectrum: of a trace-1 covariance, loaded or not.
        num_sources: K, an int or one per sample.
        definition: one of `trainer.config.DEFINITIONS`.
        margin: of that definition.
        target: for `subspace` only: orthonormal basis U [*batch, N, K_max] of the true steering
            matrix, with all batch axes of the spectrum; where K < K_max, K_max - K columns are
            zero.

    Raises:
        TypeError: for a target that is not a tensor, or another argument of a wrong type.
        ValueError: for an unknown definition, a negative or infinite margin, a K outside
            1 .. N-1, a target that is missing or would not be used or is not such a basis, an R
            with negative eigenvalues, or, for `gap`, another trace. Where values cannot be read
            without waiting (CUDA) or at all (torch.func), a sample with such an R or target is
            NaN.
    """
    require_choice("definition", definition, DEFINITIONS)
    _require_type("spectrum", spectrum, Spectrum, "Call trainer.spectrum(R) first.")
    _require_type("num_sources", num_sources, (numbers.Integral, Tensor), "Give an int.")
    _require_type("margin", margin, numbers.Real, "Give a number.")
    rule = "0 <= margin < inf"
    require(0 <= margin < math.inf, rule, f"{margin=}", "To switch the term off, use weight 0.")
    most = 1.0 if definition in ("ratio", "energy", "subspace") else math.inf
    rule = f"the margin of {definition} is at most {most:g}, beyond which nothing changes"
    require(margin <= most, rule, f"{margin=}", "Give a share, not per cent or decibels.")
    if (target is not None) != (definition == "subspace"):
        raise ValueError(
            "`target` is given exactly for definition `subspace`, but got "
            f"{'a' if target is not None else 'no'} target with {definition!r}. "
            "Hand over an orthonormal basis of the true steering matrix, or drop it."
        )
    sound = _sound(
        spectrum.negative_share(),
        NEGATIVE_TOLERANCE,
        "R must have no negative eigenvalues, but their share of sum |l_i|",
        "Hand over R itself, not -R or a difference; a factor F of R = F Fᴴ has none.",
    )
    if definition == "gap":
        trace = spectrum.unloaded_trace()
        sound &= _sound(
            # R = 0 has no trace to divide by
            torch.where(trace == 0, 0.0, (trace - 1).abs()),
            TRACE_TOLERANCE,
            "R must have trace 1, but its trace",
            "Divide R by its trace, or F by the root of its squared norm.",
        )
        gap = spectrum.gap(num_sources)
        shortfall = margin / torch.as_tensor(num_sources).to(gap) - gap
    elif definition == "ratio":
        shortfall = margin - spectrum.ratio(num_sources)
    elif definition == "energy":
        shortfall = margin - spectrum.energy(num_sources)
    elif definition == "leak":
        # rounding may make eigenvalues, and so the leak, negative
        shortfall = torch.log1p(spectrum.leak(num_sources).relu()) - margin
    else:
        require_tensor("target", target)
        assert target is not None
        sound &= _sound(
            spectrum.basis_error(num_sources, target),
            BASIS_TOLERANCE,
            "`target` U must have K orthonormal columns and otherwise zeros, but Uᴴ U",
            "Of a steering matrix A [*batch, N, K] hand over torch.linalg.qr(A).Q.",
        )
        captured = spectrum.capture(num_sources, target)
        shortfall = 1 - captured / torch.as_tensor(num_sources).to(captured) - margin
    return torch.where(sound, shortfall.relu(), torch.nan)


def _require_type(name: str, value: object, kind: Any, remedy: str) -> None:
    """Raise TypeError for a value of another type, and for True and False."""
    if isinstance(value, bool) or not isinstance(value, kind):
        got = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"`{name}` must not be of type {got}. {remedy}")


def _sound(error: Tensor, tolerance: float, rule: str, remedy: str) -> Tensor:
    """Return the samples whose error [*batch] is not too large.

    Raises:
        ValueError: if one is, where values can be read without waiting.
    """
    sound = ~(error > tolerance)  # True for a NaN, which has its own policy
    if can_read(sound) and not bool(sound.all()):
        sample = (~sound).nonzero()[0].tolist()
        where = f" of sample {sample}" if sample else ""
        by = float(error[~sound][0])
        off = f"is off by {by:.3g}" if by < math.inf else "has not K columns that are not 0"
        raise ValueError(f"{rule}{where} {off}. {remedy}")
    return sound


def dominance_loss(covariance: Tensor) -> Tensor:
    """Return relu(-dominance) [*batch] of a dense R [*batch, N, N], the proxy of failed samples.

    Dominance is the mean over rows of R_nn - sum_{m != n} |R_nm|, in units of tr R. It does not
    measure a gap: the loss is least for a white R, which has no signal subspace, and greatest for
    a single source, which has the clearest (docs/eigengap.md).
    """
    diagonal = real_part(torch.diagonal(covariance, dim1=-2, dim2=-1)).sum(-1)
    dominance = (2 * diagonal - covariance.abs().sum((-2, -1))) / covariance.shape[-1]
    return (-dominance / diagonal).relu()
