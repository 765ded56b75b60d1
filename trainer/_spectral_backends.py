"""The spectral backends: each turns one Hermitian `Problem` into one `Solution`.

Adding a backend is one function and one line in `BACKENDS`. Every docstring says what is exact,
what is not, and when to choose it; docs/eigengap.md has the table with measured numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from trainer._spectral_derivatives import (
    Eigenvalues,
    GramEigenvalues,
    GramProjection,
    MaskedEigh,
    Projection,
    descending_eigh,
)

FLOOR_ROUNDOFFS = 8
"""Eigenvalues closer than this many unit roundoffs of the largest are not told apart."""


@dataclass(frozen=True, eq=False)
class Problem:
    """Whitened, finite, differentiable once; exactly one of `dense` and `factor` is given.

    Attributes:
        dense: Hermitian R [*batch, N, N], without its shift.
        factor: F [*batch, N, r] of R = F Fᴴ; in double precision for `gram`.
        shift: added to every eigenvalue, [*batch].
        roundoff: unit roundoff of the numbers that the caller handed over.
        deg_thresh: relative threshold of `masked`.
    """

    dense: Tensor | None
    factor: Tensor | None
    shift: Tensor
    roundoff: float
    deg_thresh: float | None

    @property
    def matrix(self) -> Tensor:
        """R without its shift, multiplied out if it came as a factor."""
        if self.dense is not None:
            return self.dense
        assert self.factor is not None
        return self.factor @ self.factor.mH


@dataclass(frozen=True, eq=False)
class Solution:
    """What a backend found; eigenvectors stay inside its closures.

    Attributes:
        values: distinct eigenvalues without `shift`, descending, [*batch, n].
        multiplicity: how often the last of them counts; N = n - 1 + multiplicity.
        shift: [*batch], to be added to every value.
        trace: of R without its shift, [*batch].
        scale: largest |eigenvalue| that the input's rounding refers to, [*batch]; > 0.
        project: (top [*batch, n] bool, X [*batch, N, k]) -> P X.
        check: () -> (relative residual, orthonormality error), [*batch] each.
    """

    values: Tensor
    multiplicity: int
    shift: Tensor
    trace: Tensor
    scale: Tensor
    project: Callable[[Tensor, Tensor], Tensor]
    check: Callable[[], tuple[Tensor, Tensor]]


def gram(problem: Problem) -> Solution:
    """R = F Fᴴ + shift I through the r x r Gram matrix G = Fᴴ F; never forms N x N; needs r < N.

    Exact: values, projectors and their derivatives, for every F, in double precision whatever the
    dtype of F. Directions in which F has no energy are in no P_K: for K > rank F the projector
    has rank F. Choose it whenever a factor is at hand.
    """
    factor = problem.factor
    assert factor is not None
    num_elements, rank = factor.shape[-2:]
    fixed = factor.detach()
    product = fixed.mH @ fixed
    raw, vectors = descending_eigh(product)
    raw = raw.clamp(min=0)  # G >= 0: what is below is rounding
    scale = _positive(raw[..., 0])
    floor = FLOOR_ROUNDOFFS * problem.roundoff * scale
    lowest = FLOOR_ROUNDOFFS * rank * torch.finfo(raw.dtype).eps * scale
    energetic = raw > lowest.unsqueeze(-1)
    inverse = energetic / torch.where(energetic, raw, 1)

    def project(top: Tensor, x: Tensor) -> Tensor:
        kept = top[..., :rank]
        h = kept * inverse
        result: Tensor = GramProjection.apply(
            factor, x.to(factor.dtype), raw, vectors, h, kept, floor
        )
        return result

    values = GramEigenvalues.apply(factor, raw, vectors)
    return Solution(
        values=functional.pad(values, (0, 1)),
        multiplicity=num_elements - rank,
        shift=problem.shift,
        trace=values.sum(-1),
        scale=scale,
        project=project,
        check=lambda: _check(product, raw, vectors),
    )


def exact(problem: Problem) -> Solution:
    """One detached `eigh` of the dense R; the textbook derivatives of values and projectors.

    Exact: values and projectors up to the rounding of R's own dtype, derivatives likewise, at
    every tie inside a cluster. At a tie across the K | K+1 boundary the projector has no derivative;
    differences there are floored at 8 roundoffs of the largest eigenvalue, so it stays finite.
    Choose it for a dense R, and as the oracle for everything else.
    """
    matrix = problem.matrix
    fixed = matrix.detach()
    raw, vectors = descending_eigh(fixed)
    scale = _positive(raw.abs().amax(-1))
    floor = FLOOR_ROUNDOFFS * problem.roundoff * scale

    def project(top: Tensor, x: Tensor) -> Tensor:
        result: Tensor = Projection.apply(matrix, x, raw, vectors, top, floor)
        return result

    return Solution(
        values=Eigenvalues.apply(matrix, raw, vectors),
        multiplicity=1,
        shift=problem.shift,
        trace=_trace(matrix),
        scale=scale,
        project=project,
        check=lambda: _check(fixed, raw, vectors),
    )


def auto(problem: Problem) -> Solution:
    """`gram` for a factor with r < N, else `exact`. Exact either way; the one to choose."""
    return BACKENDS[resolve_auto(problem.factor)](problem)


def eigh(problem: Problem) -> Solution:
    """PyTorch's own `linalg.eigh` and derivative, of the loaded matrix R + shift I.

    Exact for values. Projectors are exact only while no two eigenvalues tie in floating point:
    an exact tie gives NaN, also inside a cluster where the true derivative is finite, and a near
    tie gives noise over a small number. Choose it to reproduce that.
    """
    matrix = _loaded(problem)
    values, vectors = torch.linalg.eigh(matrix)
    return _native(matrix, values.flip(-1), vectors.flip(-1))


def svd(problem: Problem) -> Solution:
    """PyTorch's own `linalg.svd` of R + shift I: **singular** values, descending.

    The founding choice, with left singular vectors as eigenvectors. Equal to eigenvalues for R >= 0 only: for indefinite R it answers another
    question, with gradients of the wrong sign. Projectors fail at ties as with `eigh`, and more
    often. Choose it to reproduce the founding behaviour.
    """
    matrix = _loaded(problem)
    left, values, _ = torch.linalg.svd(matrix)
    return _native(matrix, values, left)


def masked(problem: Problem) -> Solution:
    """Eigenvectors with 1/(l_i - l_j) masked where |l_i - l_j| <= deg_thresh · l_max.

    Never NaN. Exact for values, and for projectors while no masked pair straddles K | K+1: such a
    pair is dropped and the gradient silently loses it; pairs inside a cluster that are close but
    not masked add rounding noise of order u l_max / |l_i - l_j|. Choose it to study the threshold.
    """
    matrix = _loaded(problem)
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
    """The backend behind `auto`: `gram` for a factor with fewer columns than rows, else
    `exact`."""
    return "gram" if factor is not None and factor.shape[-1] < factor.shape[-2] else "exact"


def _native(matrix: Tensor, values: Tensor, vectors: Tensor) -> Solution:
    """Values and vectors that carry derivatives of their own; the shift is in the matrix."""

    def project(top: Tensor, x: Tensor) -> Tensor:
        kept = vectors * top.unsqueeze(-2)
        return kept @ (kept.mH @ x)

    return Solution(
        values=values,
        multiplicity=1,
        shift=torch.zeros_like(values[..., 0]),
        trace=_trace(matrix),
        scale=_positive(values.detach().abs().amax(-1)),
        project=project,
        check=lambda: _check(matrix.detach(), values.detach(), vectors.detach()),
    )


def _loaded(problem: Problem) -> Tensor:
    matrix = problem.matrix
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return matrix + problem.shift[..., None, None] * identity


def _trace(matrix: Tensor) -> Tensor:
    return torch.diagonal(matrix, dim1=-2, dim2=-1).real.sum(-1)


def _positive(scale: Tensor) -> Tensor:
    """`scale`, or 1 where it is 0 (R = 0 has no scale)."""
    return torch.where(scale > 0, scale, 1)


def _check(matrix: Tensor, values: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """‖R W - W diag(l)‖_F / ‖R‖_F (‖R‖_F = 1 for R = 0), and max |Wᴴ W - I|."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    misfit = torch.linalg.matrix_norm(matrix @ vectors - vectors * values.unsqueeze(-2))
    residual = misfit / _positive(torch.linalg.matrix_norm(matrix))
    return residual, (vectors.mH @ vectors - identity).abs().amax((-2, -1))
