"""The covariance type that networks hand to losses and estimators: R, trace 1, diagonally loaded.

R is held either dense, N x N, or as a factor F, N x r with R = F Fᴴ, which losses never multiply
out. Every covariance is made by `normalise`, which hermitises, trace-normalises and loads, in this
order. The trace comes first, so that the eigengap ignores overall power; the loading is relative
(eps · tr R / N), because an absolute 1e-8 vanishes in complex64. The loading is kept as a `shift`
of all eigenvalues: it changes neither eigenvectors nor the gap, and the fit to the true covariance
is measured without it.

The measured covariance may be blended in, R = (1-b) R_network + b R_measured. Both have trace 1
before blending; otherwise a network could widen any gap of the sum by growing its own part.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.linalg import hermitian_part, squared_norm
from trainer.scenes import Scenes, steering_vector

TRACE_FLOOR = 1e-12
"""Smallest divisor of a trace normalisation: R = 0 stays 0, with a finite gradient."""
BLEND_FLOOR = 1e-12
"""Smallest blend under a square root, whose derivative is infinite at 0."""


@dataclass(frozen=True)
class Covariance:
    """Trace-1 Hermitian R = `matrix` or `factor` @ `factor`ᴴ, plus `shift` on its diagonal.

    Attributes:
        matrix: [B, N, N], or None in factor form.
        factor: [B, N, r], or None in dense form.
        shift: [B], diagonal loading, not yet added.
    """

    matrix: Tensor | None
    factor: Tensor | None
    shift: Tensor

    @property
    def held(self) -> Tensor:
        """The matrix [B, N, N] or the factor [B, N, r]."""
        held = self.matrix if self.matrix is not None else self.factor
        assert held is not None, "a covariance holds a matrix or a factor"
        return held

    @property
    def num_elements(self) -> int:
        """N."""
        return self.held.shape[-2]

    def dense(self) -> Tensor:
        """Return the loaded R, [B, N, N]."""
        matrix = self.held if self.factor is None else self.factor @ self.factor.mH
        loading = torch.diag_embed(self.shift.unsqueeze(-1).expand(-1, self.num_elements))
        return matrix + loading

    def take(self, scenes: Tensor) -> "Covariance":
        """Return those of some of the scenes, by their numbers."""
        matrix, factor = (x if x is None else x[scenes] for x in (self.matrix, self.factor))
        return Covariance(matrix, factor, self.shift[scenes])

    def nmse(self, scenes: Scenes) -> Tensor:
        """Return ‖R - R_true‖²_F / ‖R_true‖²_F of the unloaded R: [B]; ‖R‖²_F without sources.

        A factor is compared through r x r, r x K and K x K Grams. They cancel as R approaches the
        truth: the absolute error is a few ulps of 1, far below any NMSE reached at low SNR.
        """
        truth = true_factor(scenes)
        power = squared_norm(truth.mH @ truth)
        if self.matrix is not None:
            error = squared_norm(self.matrix - truth @ truth.mH)
        else:
            own, cross = self.held.mH @ self.held, self.held.mH @ truth
            error = squared_norm(own) - 2 * squared_norm(cross) + power
        return error / power.where(power > 0, torch.ones_like(power))

    def spectral_input(self, held: Tensor | None = None) -> dict[str, Any]:
        """Return the arguments of `trainer.spectral.spectrum`, with `held` in place of its own."""
        held = self.held if held is None else held
        name = "covariance" if self.factor is None else "factor"
        return {name: held, "shift": self.shift}


def normalise(
    *, matrix: Tensor | None = None, factor: Tensor | None = None, eps_psd: float
) -> Covariance:
    """Hermitise, trace-normalise and load a [B, N, N] matrix or a [B, N, r] factor.

    A zero R keeps trace 0; its loading is that of a trace-1 R, so its spectrum is flat, not zero.

    Args:
        matrix, factor: exactly one of them.
        eps_psd: diagonal loading relative to tr(R) / N.

    Raises:
        ValueError: if both or none are given.
    """
    if factor is not None and matrix is None:
        held = factor = unit_trace_factor(factor)
    elif matrix is not None and factor is None:
        held = matrix = unit_trace(hermitian_part(matrix))
    else:
        raise ValueError(
            "exactly one of `matrix` and `factor` must be given, but got "
            f"{'both' if matrix is not None else 'none'}. Hand over the form the network makes."
        )
    shift = held.real.new_full(held.shape[:1], eps_psd / held.shape[-2])
    return Covariance(matrix, factor, shift)


def unit_trace(matrix: Tensor) -> Tensor:
    """Return R / tr R: [*batch, N, N]; traces below `TRACE_FLOOR` count as that."""
    trace = matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return matrix / trace.clamp(min=TRACE_FLOOR)[..., None, None]


def unit_trace_factor(factor: Tensor) -> Tensor:
    """Return F / ‖F‖_F, for which tr(F Fᴴ) = 1: [B, N, r]; a zero factor stays zero."""
    return factor / squared_norm(factor).clamp(min=TRACE_FLOOR).sqrt()[:, None, None]


def blend_factors(learned: Tensor, measured: Tensor, blend: Tensor) -> Tensor:
    """Return [sqrt(1-b) A, sqrt(b) Y] of factors scaled to unit trace: [B, N, rank + L]."""
    share = blend.clamp(min=BLEND_FLOOR)
    learned = (1 - share).sqrt() * unit_trace_factor(learned)
    return torch.cat([learned, share.sqrt() * unit_trace_factor(measured)], dim=-1)


def steering_matrix(scenes: Scenes) -> Tensor:
    """Return the true steering vectors as columns, inactive ones zero: [B, N, K_max]."""
    sources = scenes.sources
    columns = steering_vector(scenes.panel, sources.azimuth, sources.elevation, sources.range_m)
    return (columns * sources.active.unsqueeze(-1)).mT


def true_factor(scenes: Scenes) -> Tensor:
    """Return B with B Bᴴ = R_true = A P Aᴴ, trace 1: [B, N, K_max]; zero without sources."""
    columns = steering_matrix(scenes)
    return unit_trace_factor(columns @ scenes.sources.covariance_root.to(columns.dtype))


def signal_basis(scenes: Scenes) -> Tensor:
    """Return an orthonormal basis of the true signal subspace: [B, N, K_max], columns >= K 0."""
    basis = torch.linalg.qr(steering_matrix(scenes)).Q
    return basis * scenes.sources.active.unsqueeze(-2)
