"""The spectral backends: each turns one Hermitian `Problem` into one `Solution`.

To add a backend, write one function and add a line to `BACKENDS`. Each docstring states what is
exact, what is not, and when to choose the backend; docs/eigengap.md compares them by measurement.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.linalg import real_part, squared_norm

from .dense_derivatives import (
    Capture,
    Eigenvalues,
    MaskedEigh,
    Projection,
    descending_eigh,
    inverse_gaps,
)
from .factor_derivatives import (
    GramCapture,
    GramEigenvalues,
    GramProjection,
    adjoint_times,
    divided_differences,
)
from .problem import Problem, Solution

FLOOR_ROUNDOFFS = 8
"""Least difference of eigenvalues to divide by, in unit roundoffs of the largest."""


def gram(problem: Problem) -> Solution:
    """Solve R = F Fᴴ + shift I, r < N, through the r x r Gram matrix G = Fᴴ F.

    Exact for values, projectors and their derivatives of every F, in double precision whatever
    the dtype of F. Directions in which F has no energy are in no P_K: for K > rank F the
    projector has the rank of F. Choose it whenever there is a factor.
    """
    factor = problem.operand
    rank = factor.shape[-1]
    fixed = factor.detach()
    product = fixed.mH @ fixed
    raw, vectors = descending_eigh(product)
    raw = raw.clamp(min=0)  # G >= 0: negative values are rounding errors
    largest = _positive(raw[..., 0])
    floor = FLOOR_ROUNDOFFS * problem.roundoff * largest
    silent = FLOOR_ROUNDOFFS * rank * torch.finfo(raw.dtype).eps * largest
    energetic = raw > silent.unsqueeze(-1)
    inverse = energetic / torch.where(energetic, raw, 1)

    def values(index: Tensor | None) -> Tensor:
        if index is None:
            distinct = GramEigenvalues.apply(factor, raw, vectors, None)
            return torch.cat((distinct, torch.zeros_like(raw[..., :1])), -1)
        within = GramEigenvalues.apply(factor, raw, vectors, index.clamp(max=rank - 1))
        return torch.where(index < rank, within, 0)

    def projector(k: Tensor) -> tuple[Tensor, Tensor]:
        top = _top(k, rank)
        return top * inverse, divided_differences(raw, top * inverse, top, floor)

    def project(k: Tensor, limit: int, x: Tensor) -> Tensor:
        return GramProjection.apply(factor, x, vectors, *projector(k))

    def capture(k: Tensor, limit: int, x: Tensor) -> Tensor:
        y = vectors.mH @ adjoint_times(fixed, x.detach())
        return GramCapture.apply(factor, x, y, vectors, *projector(k))

    return Solution(
        distinct=rank + 1,
        shift=problem.shift,
        scale=_positive(raw[..., 0] + problem.shift.abs()),
        values=values,
        trace=lambda: squared_norm(factor),
        project=project,
        capture=capture,
        check=lambda: _check(product, raw, vectors),
    )


def exact(problem: Problem) -> Solution:
    """Solve a dense R by one detached `eigh`, with the textbook derivatives.

    Exact for values, projectors and their derivatives up to the rounding of R's dtype, also at
    ties inside a cluster. At a tie across the border K | K+1 P_K has no derivative: differences
    are floored at 8 roundoffs of the largest eigenvalue, so that gradients stay finite. Choose it
    for a dense R, and as the reference for all others.
    """
    matrix = problem.operand
    fixed = matrix.detach()
    raw, vectors = descending_eigh(fixed)
    largest = raw.abs().amax(-1)
    floor = FLOOR_ROUNDOFFS * problem.roundoff * _positive(largest)

    def values(index: Tensor | None) -> Tensor:
        return Eigenvalues.apply(matrix, raw, vectors, index)

    def projector(k: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        top = _top(k, raw.shape[-1])
        leading = vectors[..., :limit] * top[..., :limit].unsqueeze(-2)
        return leading, inverse_gaps(raw, top, floor, limit)

    def project(k: Tensor, limit: int, x: Tensor) -> Tensor:
        return Projection.apply(matrix, x, vectors, *projector(k, limit))

    def capture(k: Tensor, limit: int, x: Tensor) -> Tensor:
        return Capture.apply(matrix, x, vectors, *projector(k, limit))

    return Solution(
        distinct=raw.shape[-1],
        shift=problem.shift,
        scale=_positive(largest + problem.shift.abs()),
        values=values,
        trace=lambda: _trace(matrix),
        project=project,
        capture=capture,
        check=lambda: _check(fixed, raw, vectors),
    )


def auto(problem: Problem) -> Solution:
    """Solve by `gram` for a factor with r < N, else by `exact`.

    As exact as the one it stands for. Choose it unless backends are being compared.
    """
    rows, columns = problem.operand.shape[-2:]
    return (gram if columns < rows else exact)(problem)


def eigh(problem: Problem) -> Solution:
    """Solve R + shift I by `torch.linalg.eigh` and its derivative.

    Exact for values. For projectors only without ties: an exact tie gives NaN, also inside a
    cluster, where the true derivative is finite, and a near tie divides rounding errors by a
    small number. Choose it to reproduce these failures.
    """
    matrix = problem.loaded
    values, vectors = torch.linalg.eigh(matrix)
    return _native(matrix, values.flip(-1), vectors.flip(-1))


def svd(problem: Problem) -> Solution:
    """Solve R + shift I by `torch.linalg.svd`: singular values and left singular vectors.

    These are eigenvalues and eigenvectors for R >= 0 only; an indefinite R gets gradients of the
    wrong sign. Projectors fail at ties as with `eigh`, and more often. Choose it to reproduce
    losses on singular values.
    """
    matrix = problem.loaded
    left, values, _ = torch.linalg.svd(matrix)
    return _native(matrix, values, left)


def masked(problem: Problem) -> Solution:
    """Solve R + shift I with 1 / (l_i - l_j) set to 0 where |l_i - l_j| <= deg_thresh · l_max.

    Never NaN. Exact for values, and for projectors unless a masked pair lies across the border
    K | K+1: the gradient then lacks that pair without notice. Close pairs inside a cluster that
    are not masked add rounding errors of order u l_max / |l_i - l_j|. Choose it to study the
    threshold.
    """
    matrix = problem.loaded
    threshold = problem.deg_thresh
    if threshold is None:
        threshold = 10 * torch.finfo(matrix.dtype).eps / 2
    values, vectors = MaskedEigh.apply(matrix, threshold)
    return _native(matrix, values, vectors)


BACKENDS: dict[str, Callable[[Problem], Solution]] = {
    "gram": gram,
    "exact": exact,
    "auto": auto,
    "eigh": eigh,
    "svd": svd,
    "masked": masked,
}


def resolve_auto(factor: Tensor | None) -> str:
    """Return the backend behind `auto`: `gram` for a factor with r < N, else `exact`."""
    return "gram" if factor is not None and factor.shape[-1] < factor.shape[-2] else "exact"


def _native(matrix: Tensor, values: Tensor, vectors: Tensor) -> Solution:
    """Return the solution for values and vectors that torch differentiates, shift included."""

    def leading(k: Tensor) -> Tensor:
        return vectors * _top(k, vectors.shape[-1]).unsqueeze(-2)

    def project(k: Tensor, limit: int, x: Tensor) -> Tensor:
        kept = leading(k)
        return kept @ (kept.mH @ x)

    return Solution(
        distinct=values.shape[-1],
        shift=torch.zeros_like(values[..., 0]),
        scale=_positive(values.detach().abs().amax(-1)),
        values=lambda index: values if index is None else values.gather(-1, index),
        trace=lambda: _trace(matrix),
        project=project,
        capture=lambda k, limit, x: squared_norm(leading(k).mH @ x),
        check=lambda: _check(matrix.detach(), values.detach(), vectors.detach()),
    )


def _top(k: Tensor, size: int) -> Tensor:
    """Return the mask [*batch, size] of the first K positions."""
    return torch.arange(size, device=k.device) < k.unsqueeze(-1)


def _trace(matrix: Tensor) -> Tensor:
    return real_part(torch.diagonal(matrix, dim1=-2, dim2=-1)).sum(-1)


def _positive(scale: Tensor) -> Tensor:
    """Return `scale`, or 1 where it is 0."""
    return torch.where(scale > 0, scale, 1)


def _check(matrix: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖R W - W diag(l)‖_F / ‖R‖_F, undivided for R = 0, and max |Wᴴ W - I|."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    misfit = torch.linalg.matrix_norm(matrix @ vectors - vectors * values.unsqueeze(-2))
    residual = misfit / _positive(torch.linalg.matrix_norm(matrix))
    return residual, (vectors.mH @ vectors - identity).abs().amax((-2, -1))
