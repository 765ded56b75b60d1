"""Deflation, peak picking and joint refinement for spectra of the form ‖Bᴴ a‖².

Steering vectors have constant norm, so MUSIC, MVDR and the beamformer all maximise ‖Bᴴ a‖² for a
B of their own (see `estimators`), and share what follows.

`deflate`  finds one source at a time: each new a maximises ‖Bᴴ P⊥ a‖² / ‖P⊥ a‖², P⊥ projecting out
           the steering vectors found so far (Mosher & Leahy 1999, "Source localization using RAP
           MUSIC", eq. 20). The projected subspace is not re-orthonormalised: what an inexact
           estimate leaves over keeps its small weight, where whitening would make it a source
           (the defect that TRAP-MUSIC, Mäkelä et al. 2018, truncates).
`pick`     takes the highest separate peaks of the plain spectrum, as textbooks do.
`refine`   moves sources together to the maximum of ‖P_A B‖²_F, P_A the projector on their steering
           vectors: signal subspace fitting (Viberg & Ottersten 1991, eq. 18), whose derivative and
           Gauss-Newton curvature are eqs. 42-44 there.
"""

import torch
from torch import Tensor

from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import SearchGrid

from .levenberg_marquardt import Minimum, Model, descend

DEFLATION_STEPS = 6
"""Descent steps for one source; deflation needs it right to a small part of a beam."""
JOINT_STEPS, DOUBLE_STEPS = 7, 3
"""Descent steps for all sources together, then in double precision."""
LEAST_RESIDUAL = 0.05
"""Grid points with less than this share of their norm left by P⊥ belong to a source found."""
SAME_PLACE = 0.95
"""Places whose steering vectors correlate by more than this are one source."""
JITTER = 1e-6
"""Relative ridge on the Gram of steering vectors: two sources that merge stay solvable."""


def deflate(beams: Tensor, num_sources: Tensor, search: SearchGrid, slots: int) -> Tensor:
    """Places of K sources, one after the other: B [B, N, r], K [B] -> [B, slots, 3]."""
    batch, elements, _ = beams.shape
    spectrum_part = search.correlate(beams)
    remaining = torch.full_like(spectrum_part[:, 0].real, float(elements))
    found = beams.new_zeros(batch, elements, 0)
    places = []
    for slot in range(slots):
        least = LEAST_RESIDUAL * elements
        share = squared_magnitude(spectrum_part).sum(1) / remaining.clamp(min=least)
        share = share.where(remaining > least, torch.zeros_like(share))
        start = search.points[share.argmax(-1)].unsqueeze(1)
        place = fit(beams, start, num_sources > slot, search, found, steps=DEFLATION_STEPS).place
        places.append(place.unsqueeze(1))
        if slot + 1 == slots:
            break
        vector = _project_out(search.response(place).unsqueeze(-1), found)
        vector = vector / squared_norm(vector).sqrt()[:, None, None]
        seen = search.correlate(vector)
        spectrum_part = spectrum_part - (beams.mH @ vector) @ seen
        remaining = remaining - squared_magnitude(seen).sum(1)
        found = torch.cat([found, vector], dim=-1)
    return torch.cat(places, dim=1)


def pick(beams: Tensor, search: SearchGrid, slots: int) -> tuple[Tensor, Tensor]:
    """Highest local maxima over direction, the best range plane for each, refined one by one.

    Returns:
        Places [B, slots, 3], and whether each is a peak at all, [B, slots]; where there are too
        few peaks the highest is repeated.
    """
    height = squared_magnitude(search.correlate(beams)).sum(1).unflatten(-1, search.shape)
    ridge, plane = height.max(1)
    around = torch.nn.functional.max_pool2d(ridge, 3, stride=1, padding=1)
    peaks = torch.where(ridge >= around, ridge, 0.0).flatten(1)
    plane = plane.flatten(1)
    starts, heights = [], []
    for _ in range(slots):
        tall, index = peaks.max(-1, keepdim=True)
        point = plane.gather(-1, index) * peaks.shape[-1] + index
        heights.append(tall)
        starts.append(search.points[point])
        # a plateau, or a direction the panel cannot tell, has many peaks that are one
        likeness = squared_magnitude(search.correlate(search.steering[point].mT)).sum(1).sqrt()
        likeness = likeness.unflatten(-1, (search.shape[0], -1)).gather(1, plane.unsqueeze(1))
        same = likeness.squeeze(1) > SAME_PLACE * beams.shape[-2]
        peaks = peaks.where(~same, 0.0)
    is_peak = torch.cat(heights, dim=-1) > 0
    start = torch.cat(starts, dim=1).where(is_peak.unsqueeze(-1), starts[0])
    single = start.flatten(0, 1).unsqueeze(1)
    own = beams.repeat_interleave(slots, dim=0)
    nothing = own.new_zeros(*own.shape[:2], 0)
    active = torch.ones_like(is_peak).flatten()
    refined = fit(own, single, active, search, nothing, steps=DEFLATION_STEPS)
    return refined.place.unflatten(0, (-1, slots)), is_peak


def refine(beams: Tensor, places: Tensor, active: Tensor, search: SearchGrid) -> Tensor:
    """Move all sources of a scene together: [B, K, 3], active [B, K] -> [B, K, 3].

    The last steps run in double precision. A cost is flat at its minimum: in float32, places
    that differ by the square root of its roundoff, about 0.01 degrees, have equal cost.
    """
    nothing = beams.new_zeros(*beams.shape[:2], 0)
    near = fit(beams, places, active, search, nothing, steps=JOINT_STEPS).place.view_as(places)
    beams, nothing = beams.to(torch.complex128), nothing.to(torch.complex128)
    moved = fit(beams, near.double(), active, search, nothing, steps=DOUBLE_STEPS).place
    return moved.view_as(places).to(places.dtype)


def fit(
    beams: Tensor,
    start: Tensor,
    active: Tensor,
    search: SearchGrid,
    found: Tensor,
    *,
    steps: int,
) -> Minimum:
    """Minimises -‖P B‖²_F, P the projector on the active steering vectors less those found.

    Args:
        start: [B, K, 3].
        active: [B, K], or [B] for one source; the others do not move and count nothing.
        found: [B, N, k], orthonormal.
    """
    active = active.view(start.shape[:2]).to(beams.real.dtype)
    count = start.shape[1]
    eye = torch.eye(count, dtype=beams.dtype, device=beams.device)

    def model(flat: Tensor) -> Model:
        place = flat.unflatten(-1, (count, 3))
        steering = _project_out(search.response(place).mT, found) * active.unsqueeze(1)
        slopes = search.slopes(place) * active[..., None, None]
        slopes = _project_out(slopes.flatten(1, 2).mT, found)
        gram = steering.mH @ steering
        ridge = JITTER * steering.shape[-2] + (1 - active)
        factor = torch.linalg.cholesky(gram + eye * ridge.unsqueeze(-2))
        amplitude = torch.cholesky_solve(steering.mH @ beams, factor)
        fitted = steering @ amplitude
        left = slopes - steering @ torch.cholesky_solve(steering.mH @ slopes, factor)
        # d‖P B‖² = 2 Re tr(A⁺ B Bᴴ P⊥ dA)
        gradient = (amplitude.repeat_interleave(3, 1) * (left.mH @ beams).conj()).sum(-1).real
        weight = (amplitude @ amplitude.mH).mT
        weight = weight.repeat_interleave(3, 1).repeat_interleave(3, 2)
        curvature = ((left.mH @ left) * weight).real
        value = -(beams.conj() * fitted).real.sum((-2, -1))
        return Model(value, -2 * gradient, 2 * curvature)

    lower, upper = search.lower.repeat(count), search.upper.repeat(count)
    return descend(model, start.flatten(1), lower, upper, steps=steps)


def _project_out(x: Tensor, found: Tensor) -> Tensor:
    """P⊥ X, X [B, N, k], for orthonormal `found` [B, N, j]."""
    return x - found @ (found.mH @ x) if found.shape[-1] else x
