"""Loss terms, each per sample; the loop names them, weights them and averages them.

The eigengap family asks the predicted covariance (trace 1) for a clear border between K signal
and N - K noise eigenvalues. The first four definitions use eigenvalues only and cannot give a
non-finite gradient on any backend; `subspace` goes through the projector P_K, where the backends
differ (docs/eigengap.md). What happens to a sample whose term fails is `guard`'s affair.
"""

import torch
from torch import Tensor

from trainer.config import DEFINITIONS, did_you_mean
from trainer.linalg import real_part, squared_norm

from .decomposition import Spectrum
from .failure_policy import Guarded, guard

__all__ = ["Guarded", "covariance_nmse", "dominance_loss", "eigengap_loss", "guard"]


def covariance_nmse(estimate: Tensor, covariance: Tensor) -> Tensor:
    """‖R̂ - R‖²_F / ‖R‖²_F [*batch] of two dense [*batch, N, N]; R must not be 0."""
    return squared_norm(estimate - covariance) / squared_norm(covariance)


def eigengap_loss(
    spectrum: Spectrum,
    num_sources: int | Tensor,
    *,
    definition: str,
    margin: float,
    target: Tensor | None = None,
) -> Tensor:
    """Hinge [*batch] that is 0 once the signal subspace stands out by `margin`.

    | definition | loss | margin |
    |---|---|---|
    | gap | relu(margin / K - (l_K - l_{K+1})) | in units of 1/K, the eigenvalue of K equal ones |
    | ratio | relu(margin - (l_K - l_{K+1}) / (l_K + l_{K+1})) | in (0, 1); tanh(ln10 · dB / 20) |
    | energy | relu(margin - sum_{i<=K} l_i / tr R) | share of the trace, in (0, 1] |
    | leak | relu(log1p(leak) - margin) | tolerated log1p(leak), >= 0 |
    | subspace | relu(1 - ‖P_K U‖²_F / K - margin) | tolerated loss of the subspace, in [0, 1) |

    Args:
        spectrum: of a trace-1 covariance.
        num_sources: K, an int or one per sample.
        definition: one of `trainer.config.DEFINITIONS`.
        margin: of that definition.
        target: for `subspace` only: orthonormal basis U [*batch, N, K_max] of the true steering
            matrix; where K < K_max its last columns are zero.

    Raises:
        ValueError: for an unknown definition, a negative margin, a K outside 1 .. N-1, or a
            target that is missing or would not be used.
    """
    if definition not in DEFINITIONS:
        raise ValueError(
            f"`definition` must be one of {', '.join(DEFINITIONS)}, but got {definition!r}."
            + did_you_mean(definition, DEFINITIONS)
        )
    if not margin >= 0:
        raise ValueError(
            f"`margin >= 0` must hold, but got {margin=}. To switch the term off, use weight 0."
        )
    if (target is not None) != (definition == "subspace"):
        raise ValueError(
            "`target` is given exactly for definition `subspace`, but got "
            f"{'a' if target is not None else 'no'} target with {definition!r}. "
            "Hand over an orthonormal basis of the true steering matrix, or drop it."
        )
    if definition == "gap":
        gap = spectrum.gap(num_sources)
        shortfall = margin / torch.as_tensor(num_sources).to(gap) - gap
    elif definition == "ratio":
        shortfall = margin - spectrum.ratio(num_sources)
    elif definition == "energy":
        shortfall = margin - spectrum.energy(num_sources)
    elif definition == "leak":
        # below 0 (indefinite R only) the hinge is at rest anyway, and log1p may have a pole
        shortfall = torch.log1p(spectrum.leak(num_sources).relu()) - margin
    else:
        assert target is not None
        captured = spectrum.capture(num_sources, target)
        shortfall = 1 - captured / torch.as_tensor(num_sources).to(captured) - margin
    return shortfall.relu()


def dominance_loss(covariance: Tensor) -> Tensor:
    """Founding stand-in for an eigengap that fails: relu(-dominance) [*batch], dominance being the
    mean over rows of R_nn - sum_{m != n} |R_nm|, in units of tr R (dense R [*batch, N, N]).

    It is not a gap: it only looks at magnitudes, is least for a white R, which has no signal
    subspace, and greatest for a single source, which has the clearest (docs/eigengap.md).
    """
    diagonal = real_part(torch.diagonal(covariance, dim1=-2, dim2=-1)).sum(-1)
    dominance = (2 * diagonal - covariance.abs().sum((-2, -1))) / covariance.shape[-1]
    return (-dominance / diagonal).relu()
