"""The uncertainty of an estimate: variances from the information and the region.

F is the Fisher information of all unknowns of a scene (`likelihood`); its inverse is the bound of
an estimate that knows no region. But the region tells something, too: a coordinate that is uniform
over a width w has the variance w²/12. As in a Bayesian bound with such a prior (Van Trees 1968,
Detection, Estimation, and Modulation Theory I, section 2.4.3),

    J = F + D,   D = diag(12 / w²) over coordinates, 0 over powers and noise

so that no variance in J⁻¹ exceeds that of the region, and none changes where F is large. What the
data tell about coordinate q, with the region's word on the others only, has the variance of
J - D_qq e_q e_qᵀ, by the Sherman-Morrison formula v / (1 - D_qq v) with v = [J⁻¹]_qq.

An angle is *identifiable* if F bounds it, at w²/12 or less: the data tell as much as the region.

F is what such snapshots tell on average. What those at hand tell is the observed information H,
the Hessian of the negative log likelihood (Efron and Hinkley 1978, Biometrika 65): few snapshots
of two sources correlate by chance, and errors grow with it. Where H + D is positive definite, as
at a maximum, it takes the place of J. Whether an angle is identifiable is a matter of F.

An estimate in a false basin has these variances, too: they hold above the threshold of the SNR.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.scenes import SearchGrid

SINGULAR = 1e-11
"""Least eigenvalue of an information matrix whose entries are scaled to magnitude 1 and carry
rounding errors near 1e-14: below it, fewer than three digits would be left."""
NULL_SHARE = 1e-3
"""A coordinate is unidentifiable if singular directions would add more than this to its bound."""
LARGEST_SNR = 1e6
"""60 dB: no array is calibrated better, and what information gains beyond may be rounding."""


@dataclass(frozen=True)
class Uncertainty:
    """Variances of (azimuth [rad], elevation [rad], 1/range [1/m]), double, [B, K, 3].

    Attributes:
        variance: limited by the region.
        measured: of what the data tell; infinite where that is nothing.
        region: of the uniform law over the region.
        identifiable: estimates of which the data tell both angles, [B, K].
    """

    variance: Tensor
    measured: Tensor
    region: Tensor
    identifiable: Tensor


def invert_information(information: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Invert information matrices as far as they are regular.

    Args:
        information: [B, Q, Q], positive semidefinite up to rounding.
        scale: [B, Q], size of the terms that the diagonal was summed from: rounding errors of
            entry pq are a few ulps of sqrt(scale_p scale_q).

    Returns:
        The inverse's diagonal, infinite where unidentifiable; and where it is finite, [B, Q] each.
    """
    root = scale.sqrt()
    unit = torch.where(root > 0, 1 / root.where(root > 0, torch.ones_like(root)), 0)
    scaled = information * unit.unsqueeze(-1) * unit.unsqueeze(-2)
    # an overflow leaves nothing to invert either: singular
    finite = torch.isfinite(scaled).all(-1).all(-1)
    scaled = scaled.where(finite[:, None, None], 0)
    values, vectors = torch.linalg.eigh((scaled + scaled.mT) / 2)
    share = vectors.square()
    regular = values > SINGULAR
    inverse = torch.where(regular, 1 / values.where(regular, torch.ones_like(values)), 0)
    variance = (share @ inverse.unsqueeze(-1)).squeeze(-1)
    null = (share * ~regular.unsqueeze(-2)).sum(-1)
    identifiable = null / SINGULAR < NULL_SHARE * variance
    return torch.where(identifiable, variance * unit**2, torch.inf), identifiable


def region_limited(
    information: Tensor, search: SearchGrid, slots: int, observed: Tensor | None = None
) -> Uncertainty:
    """Return the variances of K = `slots` positions, the first 3K of the unknowns.

    Args:
        information: F, [B, Q, Q].
        observed: H, [B, Q, Q]: takes the place of F in the variances where H + D is positive
            definite.
    """
    width = (search.upper - search.lower).double()
    region = (width.square() / 12).expand(len(information), slots, 3)
    prior = torch.zeros_like(information[..., 0])
    prior[:, : 3 * slots] = 1 / region.flatten(1)
    limited = information + torch.diag_embed(prior)
    scale = limited.diagonal(dim1=-2, dim2=-1)
    if observed is not None:
        limited = _definite(observed + torch.diag_embed(prior), limited)
    scales = scale, limited.diagonal(dim1=-2, dim2=-1)
    pairs = zip((information, limited), scales, strict=True)
    variances = (invert_information(*each)[0] for each in pairs)
    bound, variance = (x[:, : 3 * slots].view_as(region) for x in variances)
    variance = variance.minimum(region)
    measured = variance / (1 - variance / region)
    return Uncertainty(variance, measured, region, (bound <= region)[..., :2].all(-1))


def _definite(matrices: Tensor, others: Tensor) -> Tensor:
    """Return matrices [B, Q, Q] where they are positive definite, else the others.

    Rows that are zero in the others, of slots without a source, do not count.
    """
    scale = others.diagonal(dim1=-2, dim2=-1)
    root = scale.where(scale > 0, torch.ones_like(scale)).rsqrt()
    unit = matrices.nan_to_num(0) * root.unsqueeze(-1) * root.unsqueeze(-2)
    _, failed = torch.linalg.cholesky_ex(unit + torch.diag_embed((scale <= 0).to(unit)))
    return torch.where((failed == 0)[:, None, None], matrices, others)


def panel_tells(positions: Tensor, search: SearchGrid) -> Tensor:
    """Return where the whole panel tells both angles of a source, alone at `LARGEST_SNR`: [B, K].

    F = 2 SNR Re[Dᴴ (I - a aᴴ / N) D], of one snapshot at every element (Stoica and Nehorai 1989).
    """
    places = positions.double().flatten(0, -2)
    slopes = search.slopes(places)  # Dᵀ, [B K, 3, N]
    steering = search.response(places).unsqueeze(-2)
    slopes = slopes - slopes @ steering.mH / steering.shape[-1] @ steering
    information = 2 * LARGEST_SNR * (slopes.conj() @ slopes.mT).real
    return region_limited(information, search, 1).identifiable.view(positions.shape[:-1])
