"""What a spectral backend is asked, and what it answers: the contract that `_backends` keep."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """Whitened, finite, differentiable once.

    Attributes:
        operand: F [*batch, N, r] of R = F Fᴴ, in double precision, for `gram`; for all others the
            Hermitian R [*batch, N, N]. Without its shift.
        shift: to be added to every eigenvalue, [*batch].
        roundoff: unit roundoff of the numbers that the caller handed over.
        deg_thresh: relative threshold of `masked`.
    """

    operand: Tensor
    shift: Tensor
    roundoff: float
    deg_thresh: float | None

    @property
    def loaded(self) -> Tensor:
        """A dense R with its shift."""
        matrix = self.operand
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return matrix + self.shift[..., None, None] * identity


@dataclass(frozen=True, eq=False)
class Solution:
    """What a backend found; eigenvectors stay inside its closures. K [*batch] is `k`, and
    `limit` >= max K where that is known for free, else N.

    Attributes:
        distinct: n, how many eigenvalues `values` tells apart; the other N - n equal the last.
        shift: [*batch], added to every value by the caller: gaps are taken without it.
        scale: largest |eigenvalue|, shift included, [*batch]; 1 where R is 0.
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
