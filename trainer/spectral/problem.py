"""The contract of a spectral backend: a `Problem` in, a `Solution` out."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Problem:
    """A whitened, finite R + shift I that may be differentiated once.

    Attributes:
        operand: F [*batch, N, r] of R = F Fᴴ, in double precision, for `gram`; for all others the
            Hermitian R [*batch, N, N].
        shift: added to every eigenvalue, [*batch].
        roundoff: unit roundoff of the caller's dtype.
        deg_thresh: relative threshold of `masked`.
    """

    operand: Tensor
    shift: Tensor
    roundoff: float
    deg_thresh: float | None

    @property
    def loaded(self) -> Tensor:
        """R + shift I of a dense R."""
        matrix = self.operand
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        return matrix + self.shift[..., None, None] * identity


@dataclass(frozen=True, eq=False)
class Solution:
    """Functions of a decomposition; its eigenvectors stay inside them.

    K [*batch] is `k`, and `limit` is max K where that can be read without waiting, else N.

    Attributes:
        distinct: n, the number of eigenvalues listed; the other N - n equal the last.
        shift: [*batch], added to every value by the caller, so that gaps are taken without it.
        scale: largest |eigenvalue|, shift included, [*batch]; 1 where R is 0.
        values: (index [*batch, m] or None) -> eigenvalues without shift, descending: those at
            `index` in 0 .. N-1, or the n listed ones.
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
