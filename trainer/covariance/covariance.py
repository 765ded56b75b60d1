"""The one covariance type that networks hand to losses and estimators: R, trace 1, loaded.

R is held either dense, N x N, or as a factor F with R = F Fᴴ, N x r and never multiplied out on
the way to a loss. `normalise` makes it: hermitise, trace-normalise, load, in that order and
nowhere else. Trace first, so that the eigengap ignores overall power; loading last, and relative
(eps · tr R / N), because an absolute 1e-8 vanishes in complex64. The loading is carried as a
`shift` of all eigenvalues: it changes neither eigenvectors nor the gap, so the fit to the true
covariance is measured without it.

The measured covariance may be blended in, R = (1-b) R_network + b R_measured. Both have trace 1
before blending: with the measured part fixed, a growing network part would otherwise game any gap
of the sum.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.linalg import hermitian_part, squared_norm
from trainer.scenes import Scenes, steering_vector

TRACE_FLOOR = 1e-12
"""Traces below this are divided by this instead: R = 0 then stays 0, with a finite gradient."""
BLEND_FLOOR = 1e-12
"""Least blend under a square root, whose derivative is infinite at 0."""


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
        """The form that is held: [B, N, N] or [B, N, r]."""
        held = self.matrix if self.matrix is not None else self.factor
        assert held is not None, "a covariance holds a matrix or a factor"
        return held

    @property
    def num_elements(self) -> int:
        """N."""
        return self.held.shape[-2]

    def dense(self) -> Tensor:
        """Loaded R, [B, N, N]: for estimators, which need all of it."""
        matrix = self.matrix
        if matrix is None:
            assert self.factor is not None, "a covariance holds a matrix or a factor"
            matrix = self.factor @ self.factor.mH
        loading = torch.diag_embed(self.shift.unsqueeze(-1).expand(-1, self.num_elements))
        return matrix + loading

    def nmse(self, scenes: Scenes) -> Tensor:
        """‖R - R_true‖²_F / ‖R_true‖²_F of the unloaded R, per sample: [B].

        In factor form from r x r, r x K and K x K Grams. They cancel as R approaches the truth:
        the absolute error is a few ulps of 1, far below any NMSE reached at low SNR. For a scene
        without sources it is ‖R‖²_F.
        """
        truth = true_factor(scenes)
        power = squared_norm(truth.mH @ truth)
        if self.matrix is not None:
            error = squared_norm(self.matrix - truth @ truth.mH)
        else:
            assert self.factor is not None, "a covariance holds a matrix or a factor"
            own, cross = self.factor.mH @ self.factor, self.factor.mH @ truth
            error = squared_norm(own) - 2 * squared_norm(cross) + power
        return error / power.where(power > 0, torch.ones_like(power))

    def spectral_input(self, held: Tensor | None = None) -> dict[str, Any]:
        """What `spectral.spectrum` takes of it; `held` stands in for the form that is held."""
        held = self.held if held is None else held
        name = "covariance" if self.factor is None else "factor"
        return {name: held, "shift": self.shift}


def normalise(
    *, matrix: Tensor | None = None, factor: Tensor | None = None, eps_psd: float
) -> Covariance:
    """Hermitises, trace-normalises and loads a [B, N, N] matrix or an [B, N, r] factor.

    A zero R keeps trace 0; its loading is that of a trace-1 R, so its spectrum is flat, not zero.

    Args:
        matrix, factor: exactly one of them. A factor is Hermitian by construction.
        eps_psd: diagonal loading relative to tr(R) / N.
    """
    if (matrix is None) == (factor is None):
        raise ValueError(
            "exactly one of `matrix` and `factor` must be given, but got "
            f"{'both' if matrix is not None else 'none'}. Hand over the form the network makes."
        )
    if factor is not None:
        factor = unit_trace_factor(factor)
        held = factor
    else:
        assert matrix is not None
        matrix = unit_trace(hermitian_part(matrix))
        held = matrix
    shift = held.real.new_full(held.shape[:1], eps_psd / held.shape[-2])
    return Covariance(matrix, factor, shift)


def unit_trace(matrix: Tensor) -> Tensor:
    """R / tr R per sample: [*batch, N, N]; a matrix without trace stays as small as it is."""
    trace = matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    return matrix / trace.clamp(min=TRACE_FLOOR)[..., None, None]


def unit_trace_factor(factor: Tensor) -> Tensor:
    """F / ‖F‖_F per sample: [B, N, r], so that tr(F Fᴴ) = 1; a zero factor stays zero."""
    return factor / squared_norm(factor).clamp(min=TRACE_FLOOR).sqrt()[:, None, None]


def blend_factors(learned: Tensor, measured: Tensor, blend: Tensor) -> Tensor:
    """[sqrt(1-b) A, sqrt(b) Y], both scaled to unit trace first: [B, N, rank + L].

    Y Yᴴ scaled to unit trace equals Y Yᴴ / L scaled likewise, so L does not appear.
    """
    share = blend.clamp(min=BLEND_FLOOR)
    return torch.cat(
        [
            (1 - share).sqrt() * unit_trace_factor(learned),
            share.sqrt() * unit_trace_factor(measured),
        ],
        dim=-1,
    )


def steering_matrix(scenes: Scenes) -> Tensor:
    """True steering vectors as columns, those of inactive sources zero: [B, N, K_max]."""
    sources = scenes.sources
    columns = steering_vector(scenes.panel, sources.azimuth, sources.elevation, sources.range_m)
    return (columns * sources.active.unsqueeze(-1)).mT


def true_factor(scenes: Scenes) -> Tensor:
    """B with B Bᴴ = R_true = A P Aᴴ, trace 1: [B, N, K_max]; zero without sources."""
    columns = steering_matrix(scenes)
    return unit_trace_factor(columns @ scenes.sources.covariance_root.to(columns.dtype))


def signal_basis(scenes: Scenes) -> Tensor:
    """Orthonormal basis of the true steering matrix's range: [B, N, K_max], columns >= K zero."""
    basis = torch.linalg.qr(steering_matrix(scenes)).Q
    return basis * scenes.sources.active.unsqueeze(-2)
