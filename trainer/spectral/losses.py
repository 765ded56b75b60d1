"""The eigengap losses, per sample.

They ask the predicted covariance (trace 1) for a clear border between K signal and N - K noise
eigenvalues. All definitions but `subspace` use eigenvalues only, and their gradients are finite on
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
    num_snapshots: int | None = None,
    max_sources: int | None = None,
) -> Tensor:
    """Return a loss [*batch] >= 0: hinges are 0 once the eigengap reaches `margin`.

    | definition | loss | margin |
    |---|---|---|
    | gap | relu(margin / K - (l_K - l_{K+1})) | in units of 1/K, the eigenvalue of K equal ones |
    | ratio | relu(margin - (l_K - l_{K+1}) / (l_K + l_{K+1})) | in (0, 1); tanh(ln10 · dB / 20) |
    | energy | relu(margin - sum_{i<=K} l_i / tr R) | share of the trace, in (0, 1] |
    | leak | relu(log1p(leak) - margin) | tolerated log1p(leak), >= 0 |
    | subspace | relu(1 - ‖P_K U‖²_F / K - margin) | tolerated loss of the subspace, in [0, 1) |
    | threshold | (l_K/l_1 - t)(l_{K+1}/l_1 - t) + t (1 - t) | t in (0, 1) |
    | count | -ln softmax(-MDL(k) / T)_K over k = 0 ... max_sources | temperature T > 0 |

    `threshold` is the eigen-regulariser of Gast, Le Magoarou and Shlezinger 2025 (Near Field
    Localization via AI-Aided Subspace Methods, arXiv 2504.00599, model-order-aware training),
    plus a constant that makes its least value 0. MDL is that of `model_order`.

    Args:
        spectrum: of a trace-1 covariance, loaded or not.
        num_sources: K, an int or one per sample.
        definition: one of `trainer.config.DEFINITIONS`.
        margin: of that definition, or its t or T.
        target: for `subspace` only: orthonormal basis U [*batch, N, K_max] of the true steering
            matrix, with all batch axes of the spectrum; where K < K_max, K_max - K columns are
            zero.
        num_snapshots, max_sources: for `count` only: L, and the largest K that is weighed, below
            N and L.

    Raises:
        TypeError: for a target that is not a tensor, or another argument of a wrong type.
        ValueError: for an unknown definition, a negative or infinite margin, a K outside
            1 .. N-1, or above max_sources, a target, num_snapshots or max_sources that is missing
            or would not be used, a target that is not such a basis, an R
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
    most = math.inf if definition in ("gap", "leak", "count") else 1.0
    rule = f"the margin of {definition} is at most {most:g}, beyond which nothing changes"
    require(margin <= most, rule, f"{margin=}", "Give a share, not per cent or decibels.")
    if (target is not None) != (definition == "subspace"):
        raise ValueError(
            "`target` is given exactly for definition `subspace`, but got "
            f"{'a' if target is not None else 'no'} target with {definition!r}. "
            "Hand over an orthonormal basis of the true steering matrix, or drop it."
        )
    if {num_snapshots is None, max_sources is None} != {definition != "count"}:
        raise ValueError(
            "`num_snapshots` and `max_sources` are given exactly for definition `count`, but got "
            f"{num_snapshots=}, {max_sources=} with {definition!r}. Give both, or drop them."
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
    elif definition == "threshold":
        shortfall = spectrum.straddling(num_sources, margin) + margin * (1 - margin)
    elif definition == "count":
        assert num_snapshots is not None
        assert max_sources is not None
        require(margin > 0, "temperature > 0", f"{margin}", "1 weighs as Schwarz does.")
        least = min(spectrum.num_elements, num_snapshots)
        rule = "1 <= max_sources < num_snapshots, num_elements"
        got = f"{max_sources=}, {num_snapshots=}, num_elements={spectrum.num_elements}"
        require(1 <= max_sources < least, rule, got, "A noise eigenvalue must be left.")
        shortfall = spectrum.order_entropy(
            num_sources,
            num_snapshots=num_snapshots,
            max_sources=max_sources,
            temperature=margin,
        )
        above = (torch.as_tensor(num_sources).to(shortfall) - max_sources).clamp(min=0)
        rule = "`num_sources` must not exceed `max_sources`, but K"
        sound = sound & _sound(above, 0.0, rule, "Weigh more orders, or drop the scene.")
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
