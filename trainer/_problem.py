"""What a spectral backend is asked, and what it answers: the contract that `_backends` keep."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Whitened, finite, differentiable once; exactly one of `dense` and `factor` is given.

    Attributes:
        dense: Hermitian R [*batch, N, N], without its shift.
        factor: F [*batch, N, r] of R = F Fᴴ; in double precision for `gram`.
        shift: to be added to every eigenvalue, [*batch].
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
        assert self.factor is not None, "a problem is dense or a factor"
        return self.factor @ self.factor.mH

    @property
    def loaded(self) -> Tensor:
        """R with its shift."""
        matrix = self.matrix
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return matrix + self.shift[..., None, None] * identity


@dataclass(frozen=True, eq=False)
class Solution:
    """What a backend found; eigenvectors stay inside its closures. K [*batch] is `k`, and
    `limit` >= max K where that is known for free, else N.

    Attributes:
        distinct: n, how many eigenvalues `values` tells apart; the other N - n equal the last.
        shift: [*batch], added to every value by the caller: gaps are taken without it.
        scale: largest |eigenvalue| that the rounding of the input refers to, [*batch]; > 0.
        values: (index [*batch, m] or None) -> eigenvalues without shift, descending: those at
            `index` in 0 .. N-1, or the n distinct ones.
        trace: () -> tr R without shift [*batch].
        project: (k, limit, X [*batch, N, c]) -> P_K X [*batch, N, c].
        capture: (k, limit, X) -> ‖P_K X‖²_F [*batch].
        check: () -> (relative residual, orthonormality error), [*batch] each.
    """

    distinct: int
    shift: Tensor
    scale: Tensor
    values: Callable[[Tensor | None], Tensor]
    trace: Callable[[], Tensor]
    project: Callable[[Tensor, int, Tensor], Tensor]
    capture: Callable[[Tensor, int, Tensor], Tensor]
    check: Callable[[], tuple[Tensor, Tensor]]
