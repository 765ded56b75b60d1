"""The spectral backends: each turns one Hermitian `Problem` into one `Solution`.

Adding a backend is one function and one line in `BACKENDS`. Every docstring says what is exact,
what is not, and when to choose it; docs/eigengap.md has the table with measured numbers.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainer.linalg import real_part, squared_norm

from .dense_gradients import (
    Capture,
    Eigenvalues,
    MaskedEigh,
    Projection,
    descending_eigh,
)
from .factor_gradients import GramCapture, GramEigenvalues, GramProjection, coefficients
from .problem import Problem, Solution

FLOOR_ROUNDOFFS = 8
"""Eigenvalues closer than this many unit roundoffs of the largest are not told apart."""


def gram(problem: Problem) -> Solution:
    """R = F Fᴴ + shift I through the r x r Gram matrix G = Fᴴ F; never forms N x N; needs r < N.

    Exact: values, projectors and their derivatives, for every F, in double precision whatever the
    dtype of F. Directions in which F has no energy are in no P_K: for K > rank F the projector
    has rank F. Choose it whenever a factor is at hand.
    """
    factor = problem.operand
    rank = factor.shape[-1]
    fixed = factor.detach()
    product = fixed.mH @ fixed
    raw, vectors = descending_eigh(product)
    raw = raw.clamp(min=0)  # G >= 0: what is below is rounding
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

    def project(k: Tensor, limit: int, x: Tensor) -> Tensor:
        top = _top(k, rank)
        return GramProjection.apply(factor, x, raw, vectors, top * inverse, top, floor)

    def capture(k: Tensor, limit: int, x: Tensor) -> Tensor:
        top = _top(k, rank)
        y = vectors.mH @ coefficients(fixed, x.detach())
        return GramCapture.apply(factor, x, y, raw, vectors, top * inverse, top, floor)

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
    """One detached `eigh` of the dense R; the textbook derivatives of values and projectors.

    Exact: values and projectors up to the rounding of R's own dtype, derivatives likewise, at
    every tie inside a cluster. A tie across the K | K+1 border leaves no derivative of P_K;
    differences there are floored at 8 roundoffs of the largest eigenvalue, so it stays finite.
    Choose it for a dense R, and as the oracle for everything else.
    """
    matrix = problem.operand
    fixed = matrix.detach()
    raw, vectors = descending_eigh(fixed)
    largest = raw.abs().amax(-1)
    floor = FLOOR_ROUNDOFFS * problem.roundoff * _positive(largest)

    def values(index: Tensor | None) -> Tensor:
        return Eigenvalues.apply(matrix, raw, vectors, index)

    def project(k: Tensor, limit: int, x: Tensor) -> Tensor:
        top = _top(k, raw.shape[-1])
        return Projection.apply(matrix, x, raw, vectors, top, floor, limit)

    def capture(k: Tensor, limit: int, x: Tensor) -> Tensor:
        top = _top(k, raw.shape[-1])
        return Capture.apply(matrix, x, raw, vectors, top, floor, limit)

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
    """`gram` for a factor with r < N, else `exact`. Exact, and not, as the one it stands for; the
    one to choose unless backends are the question.
    """
    rows, columns = problem.operand.shape[-2:]
    return (gram if columns < rows else exact)(problem)


def eigh(problem: Problem) -> Solution:
    """PyTorch's own `linalg.eigh` and derivative, of the loaded matrix R + shift I.

    Exact for values. Projectors are exact only while no two eigenvalues tie in floating point:
    an exact tie gives NaN, also inside a cluster where the true derivative is finite, and a near
    tie gives noise over a small number. Choose it to reproduce that.
    """
    matrix = problem.loaded
    values, vectors = torch.linalg.eigh(matrix)
    return _native(matrix, values.flip(-1), vectors.flip(-1))


def svd(problem: Problem) -> Solution:
    """PyTorch's own `linalg.svd` of R + shift I: **singular** values, descending.

    The founding choice, with left singular vectors as eigenvectors. Equal to eigenvalues for
    R >= 0 only: for indefinite R it answers another question, with gradients of the wrong sign.
    Projectors fail at ties as with `eigh`, and more often. Choose it to reproduce the founding
    behaviour.
    """
    matrix = problem.loaded
    left, values, _ = torch.linalg.svd(matrix)
    return _native(matrix, values, left)


def masked(problem: Problem) -> Solution:
    """Eigenvectors with 1/(l_i - l_j) masked where |l_i - l_j| <= deg_thresh · l_max.

    Never NaN. Exact for values, and for projectors while no masked pair straddles K | K+1: such a
    pair is dropped and the gradient silently loses it; pairs inside a cluster that are close but
    not masked add rounding noise of order u l_max / |l_i - l_j|. Choose it to study the threshold.
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
    """The backend behind `auto`: `gram` for a factor with r < N, else `exact`."""
    return "gram" if factor is not None and factor.shape[-1] < factor.shape[-2] else "exact"


def _native(matrix: Tensor, values: Tensor, vectors: Tensor) -> Solution:
    """Values and vectors that carry derivatives of their own; the shift is in the matrix."""

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
    """[*batch, size]: which positions are below K."""
    return torch.arange(size, device=k.device) < k.unsqueeze(-1)


def _trace(matrix: Tensor) -> Tensor:
    return real_part(torch.diagonal(matrix, dim1=-2, dim2=-1)).sum(-1)


def _positive(scale: Tensor) -> Tensor:
    """`scale`, or 1 where it is 0 (R = 0 has no scale)."""
    return torch.where(scale > 0, scale, 1)


def _check(matrix: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """‖R W - W diag(l)‖_F / ‖R‖_F (‖R‖_F = 1 for R = 0), and max |Wᴴ W - I|."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    misfit = torch.linalg.matrix_norm(matrix @ vectors - vectors * values.unsqueeze(-2))
    residual = misfit / _positive(torch.linalg.matrix_norm(matrix))
    return residual, (vectors.mH @ vectors - identity).abs().amax((-2, -1))
