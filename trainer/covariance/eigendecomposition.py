"""Eigenvalues and leading eigenvectors of a covariance, computed from the form it is held in.

A factor F, R = F Fᴴ + shift I with r < N columns, has the eigenpairs of its r x r Gram matrix
G = Fᴴ F = W diag(γ) Wᴴ: values γ + shift, vectors F W diag(γ)^-1/2, and N - r times the shift.
For 16 snapshots of 144 elements this is a hundred times cheaper than the 144 x 144 problem, even
in double precision, which is needed because a Gram matrix squares the condition of its factor.

For estimators, which need no gradient; losses use `trainer.spectral`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .covariance import Covariance


@dataclass(frozen=True)
class Eigendecomposition:
    """Eigenpairs of a batch, in descending order; the smallest may be held as one number.

    Attributes:
        values: [B, r], loading included; r = N of a dense covariance.
        vectors: [B, N, r], orthonormal where `values` exceed `floor`, zero in the null space of F.
        floor: [B], the smallest eigenvalue, and each of the N - r that are not in `values`.
        finite: [B], False where the covariance was not; the rest is then that of a zero matrix.
    """

    values: Tensor
    vectors: Tensor
    floor: Tensor
    finite: Tensor

    @property
    def all_values(self) -> Tensor:
        """All N eigenvalues, [B, N]."""
        missing = self.vectors.shape[-2] - self.values.shape[-1]
        return torch.cat([self.values, self.floor.unsqueeze(-1).expand(-1, missing)], dim=-1)


@torch.no_grad()
def eigendecompose(covariance: Tensor | Covariance) -> Eigendecomposition:
    """Return the eigenpairs of a Hermitian [B, N, N] matrix or of a `Covariance`."""
    if isinstance(covariance, Tensor):
        return _of_matrix(covariance)
    factor = covariance.factor
    if factor is None or factor.shape[-1] >= factor.shape[-2]:
        return _of_matrix(covariance.dense())
    return _of_factor(factor, covariance.shift)


def _of_matrix(matrix: Tensor) -> Eigendecomposition:
    finite = _all_finite(matrix)
    # for one matrix that is not finite, LAPACK refuses the whole batch
    values, vectors = torch.linalg.eigh(matrix.where(finite[:, None, None], 0))
    return Eigendecomposition(values.flip(-1), vectors.flip(-1), values[:, 0], finite)


def _of_factor(factor: Tensor, shift: Tensor) -> Eigendecomposition:
    finite = _all_finite(factor) & torch.isfinite(shift)
    wide = factor.where(finite[:, None, None], 0).to(torch.complex128)
    shift = shift.where(finite, torch.zeros_like(shift))
    values, vectors = torch.linalg.eigh(wide.mH @ wide)
    values, vectors = values.flip(-1).clamp(min=0), vectors.flip(-1)
    # eigenvalues within roundoff of the entries of F have no direction of their own
    least = (torch.finfo(factor.dtype).eps ** 2 * values[:, :1]).clamp(min=1e-300)
    scale = torch.where(values > least, values, torch.inf).rsqrt()
    vectors = ((wide @ vectors) * scale.unsqueeze(-2)).to(factor.dtype)
    return Eigendecomposition(values.to(shift.dtype) + shift.unsqueeze(-1), vectors, shift, finite)


def _all_finite(matrix: Tensor) -> Tensor:
    # one infinite or NaN entry makes the sum infinite or NaN, too
    return torch.isfinite(torch.view_as_real(matrix.resolve_conj()).sum((1, 2, 3)))
