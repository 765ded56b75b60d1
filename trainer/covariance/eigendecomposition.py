"""Eigenvalues and leading eigenvectors of a covariance, by the cheapest way its form allows.

A factor F, R = F Fᴴ + shift I with r < N columns, has the eigenpairs of its r x r Gram matrix
G = Fᴴ F = W diag(γ) Wᴴ: values γ + shift, vectors F W diag(γ)^-1/2, and N - r times the shift.
For 16 snapshots of 144 elements that is a hundred times cheaper than the 144 x 144 problem, even
in double precision, which a Gram matrix needs: it squares the condition of its factor.

For estimators, which need no gradient; losses have `spectral`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .covariance import Covariance


@dataclass(frozen=True)
class Eigendecomposition:
    """Eigenpairs of a batch, descending, of which the smallest may be held as one number.

    Attributes:
        values: [B, r], loading included; r = N of a dense covariance.
        vectors: [B, N, r], orthonormal where `values` exceed `floor`, zero where they cannot.
        floor: the N - r eigenvalues not listed, and the smallest of all, [B].
        finite: whether the covariance was, [B]; where not, all else is that of a zero matrix.
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
    """Eigenpairs of a dense [B, N, N] matrix or of a `Covariance` in either form."""
    if isinstance(covariance, Tensor):
        return _of_matrix(covariance)
    factor = covariance.factor
    if factor is None or factor.shape[-1] >= factor.shape[-2]:
        return _of_matrix(covariance.dense())
    return _of_factor(factor, covariance.shift)


def _of_matrix(matrix: Tensor) -> Eigendecomposition:
    finite = _all_finite(matrix)
    # LAPACK would refuse the whole batch for one bad member
    values, vectors = torch.linalg.eigh(matrix.where(finite[:, None, None], 0))
    return Eigendecomposition(values.flip(-1), vectors.flip(-1), values[:, 0], finite)


def _of_factor(factor: Tensor, shift: Tensor) -> Eigendecomposition:
    finite = _all_finite(factor) & torch.isfinite(shift)
    wide = factor.where(finite[:, None, None], 0).to(torch.complex128)
    shift = shift.where(finite, torch.zeros_like(shift))
    values, vectors = torch.linalg.eigh(wide.mH @ wide)
    values, vectors = values.flip(-1).clamp(min=0), vectors.flip(-1)
    # what roundoff in the entries of F alone could have made is no direction
    least = (torch.finfo(factor.dtype).eps ** 2 * values[:, :1]).clamp(min=1e-300)
    scale = torch.where(values > least, values, torch.inf).rsqrt()
    vectors = ((wide @ vectors) * scale.unsqueeze(-2)).to(factor.dtype)
    return Eigendecomposition(values.to(shift.dtype) + shift.unsqueeze(-1), vectors, shift, finite)


def _all_finite(matrix: Tensor) -> Tensor:
    """Whether a sum that no entry can leave finite alone is finite, per sample."""
    return torch.isfinite(torch.view_as_real(matrix.resolve_conj()).sum((1, 2, 3)))
