"""`spectrum`: check, whiten and decompose a batch of covariances, once.

A sample with a NaN or an infinity anywhere in its input has NaN results and leaves its neighbours
alone. Formulas are in docs/eigengap.md, their derivatives in `dense_derivatives` (R itself) and
`factor_derivatives` (R = F Fᴴ through Fᴴ F).
"""

import math

import torch
from torch import Tensor

from trainer.config import require, require_choice
from trainer.linalg import hermitian_part, squared_norm

from .backends import BACKENDS, resolve_auto
from .once_differentiable import once_differentiable
from .problem import Problem
from .spectrum_type import (
    Spectrum,
    can_read,
    finite_gram,
    finite_samples,
    narrowed_by_autocast,
    over_batch,
    require_tensor,
)

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
LARGEST_ASYMMETRY = 0.05
"""Of a covariance, ‖R - Rᴴ‖_F / ‖R‖_F: far above rounding, also in bfloat16, and far below that of
a triangle (up to √2) or of X Xᵀ for complex X."""


def spectrum(
    covariance: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    shift: float | Tensor = 0.0,
    backend: str = "auto",
    deg_thresh: float | None = None,
    metric: Tensor | None = None,
) -> Spectrum:
    """Decompose R = covariance + shift I, or R = F Fᴴ + shift I.

    Args:
        covariance: dense R [*batch, N, N], Hermitian; of rounding errors the Hermitian part is
            used.
        factor: F [*batch, N, r], instead of `covariance`.
        shift: absolute diagonal loading, a number or [*batch]; shift · B with a metric.
        backend: a name in `BACKENDS`.
        deg_thresh: for `masked` only, relative to the largest eigenvalue; by default 10 unit
            roundoffs.
        metric: B > 0 [*batch or none, N, N], to solve R v = l B v by whitening with the Cholesky
            factor of B; differentiable in R (or F) and B.

    Under autocast, single precision is computed in double, and so never in half.

    Raises:
        TypeError: for a NumPy array or a list.
        ValueError: for an unknown backend, both or none of covariance and factor, `gram` without
            a factor of r < N, a `deg_thresh` that would not be used, shapes that do not fit, a
            complex shift, a complex metric of a real R, a covariance that is not Hermitian, or a
            metric that is not positive definite (for the last two, on CUDA and in torch.func,
            where values cannot be read without waiting or at all, that sample is NaN instead).
    """
    given = _checked(backend, covariance, factor, deg_thresh)
    resolved = resolve_auto(factor) if backend == "auto" else backend
    # r x r is small enough for double precision, whatever the dtype of F; and double precision
    # is what autocast leaves alone, in the backward pass too
    double = resolved == "gram" or narrowed_by_autocast(given)
    wide = torch.promote_types(given.dtype, torch.float64) if double else given.dtype
    *batch, num_elements, _ = given.shape

    if not isinstance(shift, Tensor):
        valid = isinstance(shift, int | float) and 0 <= shift < math.inf
        require(valid, "0 <= shift < inf", f"{shift=}", "Give a number or a tensor [*batch].")
        shift = torch.full((), shift, dtype=torch.float64, device=given.device)
    load = over_batch(once_differentiable(shift, wide.to_real()), batch, 0, "shift")
    finite = finite_samples(given, 2) & torch.isfinite(load)
    whitener = None
    if metric is not None:
        require_tensor("metric", metric)
        metric = _checked_metric(once_differentiable(metric, wide), given)
        whitener, finite = _cholesky(metric, finite)
    operand = once_differentiable(_without(given, finite), wide)
    if factor is None:
        kept = hermitian_part(operand)
        finite = finite & _is_hermitian(operand, kept)
        operand = kept
    if whitener is not None:
        operand = torch.linalg.solve_triangular(whitener, operand, upper=False)
        if factor is None:
            operand = torch.linalg.solve_triangular(whitener, operand.mH, upper=False)
            operand = hermitian_part(operand)
    if factor is not None and resolved != "gram":
        operand = operand @ operand.mH
    # finite numbers may overflow in whitening and products, those of a factor in Fᴴ F
    finite = finite & (finite_gram(operand) if resolved == "gram" else finite_samples(operand, 2))
    operand, load = _without(operand, finite), torch.where(finite, load, 0)
    problem = Problem(
        operand,
        shift=load,
        roundoff=torch.finfo(given.dtype).eps / 2,
        deg_thresh=deg_thresh,
    )
    solution = BACKENDS[backend](problem)
    return Spectrum(num_elements, solution, finite, given.dtype, whitener, operand, load)


def _checked(
    backend: str, covariance: Tensor | None, factor: Tensor | None, deg_thresh: float | None
) -> Tensor:
    """Return the one operand that is given; raise ValueError as `spectrum` does."""
    require_choice("backend", backend, tuple(BACKENDS))
    given = covariance if covariance is not None else factor
    if given is None or (covariance is not None and factor is not None):
        raise ValueError(
            "exactly one of `covariance` and `factor` must be given, but got "
            f"{'none' if given is None else 'both'}. Hand over the form that the network makes."
        )
    require_tensor("covariance" if covariance is not None else "factor", given)
    if given.dim() < 2 or 0 in given.shape[-2:]:
        raise ValueError(
            "a covariance [*batch, N, N] or factor [*batch, N, r] must have two axes or more, "
            f"the last two not empty, but got shape {tuple(given.shape)}. Of a vector x hand over "
            "x.unsqueeze(-1) as `factor=`."
        )
    if given.dtype not in DTYPES:
        raise ValueError(
            "a covariance [*batch, N, N] or factor [*batch, N, r] must be float or complex, in "
            f"single or double precision, but got {given.dtype} of shape {tuple(given.shape)}. "
            "Convert it."
        )
    if covariance is not None and covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(
            f"`covariance` must be square, but got {tuple(covariance.shape)=}. "
            "Hand a factor over as `factor=`."
        )
    if backend == "gram" and resolve_auto(factor) != "gram":
        got = "no factor" if factor is None else f"{tuple(factor.shape)=}"
        raise ValueError(
            f"backend `gram` needs a factor [*batch, N, r] with r < N, but got {got}. "
            "Use `exact` (or `auto`, which chooses)."
        )
    if deg_thresh is not None and not (backend == "masked" and 0 < deg_thresh < 1):
        raise ValueError(
            "`deg_thresh` in (0, 1) is for backend `masked` only, but got "
            f"{deg_thresh=}, {backend=}. It is relative to the largest eigenvalue: drop it, or "
            "try 1e-6."
        )
    return given


def _checked_metric(metric: Tensor, given: Tensor) -> Tensor:
    """Return `metric` if its shape fits; not expanded, so that a shared one is factored once."""
    *batch, num_elements, _ = given.shape
    if metric.shape[-2:] != (num_elements, num_elements):
        raise ValueError(
            f"`metric` must be [*batch, {num_elements}, {num_elements}], the size of R, but got "
            f"{tuple(metric.shape)}. Hand over the noise covariance of the same elements."
        )
    over_batch(metric, batch, 2, "metric")
    return metric


@torch.no_grad()
def _is_hermitian(given: Tensor, hermitian: Tensor) -> Tensor:
    """Return True [*batch] for R that equal their Hermitian part H, or are not finite.

    Raises:
        ValueError: if one does not, where values can be read without waiting.
    """
    # R - H is orthogonal to H: ‖R - Rᴴ‖² = 4 (‖R‖² - ‖H‖²)
    whole, kept = squared_norm(given.detach()), squared_norm(hermitian.detach())
    apart = 4 * (whole - kept) > LARGEST_ASYMMETRY**2 * whole
    if can_read(apart) and bool(apart.any()):
        worst = (2 * (1 - kept / whole).clamp(min=0).sqrt()).nan_to_num().max()
        raise ValueError(
            f"`covariance` must be Hermitian, ‖R - Rᴴ‖ <= {LARGEST_ASYMMETRY} ‖R‖, but got "
            f"{worst:.2g} ‖R‖. Fill both triangles (of a lower one L: L + L.tril(-1).mH), and "
            "multiply by .mH, not by .mT."
        )
    return ~apart


def _without(given: Tensor, finite: Tensor) -> Tensor:
    """Return `given` with zeros for samples that are not finite: LAPACK refuses whole batches."""
    if can_read(finite) and bool(finite.all()):
        return given
    return torch.where(finite[..., None, None], given, 0)


def _cholesky(metric: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
    """Return the Cholesky factor of B, and `finite` without the samples where B has none (not
    finite or not positive definite), whose factor is that of I."""
    identity = torch.eye(metric.shape[-1], dtype=metric.dtype, device=metric.device)
    usable = finite_samples(metric, 2)
    metric = torch.where(usable[..., None, None], hermitian_part(metric), identity)
    with torch.no_grad():
        positive = torch.linalg.cholesky_ex(metric)[1] == 0
    if can_read(positive) and not bool(positive.all()):
        raise ValueError(
            "`metric` must be positive definite, but sample "
            f"{(~positive).nonzero()[0].tolist()} of {tuple(positive.shape)} is not. "
            "Load its diagonal."
        )
    metric = torch.where(positive[..., None, None], metric, identity)
    return torch.linalg.cholesky_ex(metric)[0], finite & usable & positive
