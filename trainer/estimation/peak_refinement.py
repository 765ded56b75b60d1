"""Deflation, peak picking and joint refinement for pseudospectra of the form ‖Bᴴ a‖².

Steering vectors have constant norm, so MUSIC, MVDR and the beamformer all maximise ‖Bᴴ a‖² for
their own B (`pseudospectra`), and share what follows.

`deflate`       finds one source at a time: the next a maximises ‖Bᴴ P⊥ a‖² / ‖P⊥ a‖², where P⊥
                projects out the steering vectors found so far (Mosher and Leahy 1999, "Source
                localization using RAP MUSIC", eq. 20). The projected subspace is not
                re-orthonormalised: what an inexact estimate leaves over keeps its small weight,
                where whitening would turn it into a source (the defect that TRAP-MUSIC, Mäkelä et
                al. 2018, removes by truncation).
`pick_peaks`    takes the highest separate peaks of the pseudospectrum, each refined by Newton's
                method.
`refine_jointly` moves all sources to the maximum of ‖P_A B‖²_F, P_A the projector on their
                steering vectors: signal subspace fitting (Viberg and Ottersten 1991, eq. 18), with
                the derivative and the Gauss-Newton curvature of eqs. 42 to 44.
"""

import torch
from torch import Tensor

from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import SearchGrid

from .estimates import SAME_SOURCE, is_same_source
from .levenberg_marquardt import LocalModel, Minimum, minimise

SINGLE_STEPS = 6
"""Steps of one source; deflation needs it to a small part of a beam."""
JOINT_STEPS, DOUBLE_STEPS = 7, 3
"""Steps of all sources together, and further ones in double precision."""
NEWTON_STEPS, AGAIN = 15, 3
"""Steps of one peak of a pseudospectrum, in double precision (most need six), and how often as
many follow where it is not reached."""
CANDIDATES = 4
"""Starts on the grid that are refined, for one peak that is asked for."""
SLOPE, FLAT = 1e-5, 1e-9
"""Largest slope at a peak, relative to the steepest possible; and largest change over the region,
relative to the height, that is none."""
REACH = 1.0
"""Grid points from a vertex within which a point is a start for its peak."""
ROUNDOFFS = 8
"""Heights that differ by this many roundoffs are equal."""
BLOCK = 1024
"""Grid points whose spectrum is computed at once."""
LEAST_RESIDUAL = 0.05
"""Grid points with less than this share of their norm left by P⊥ belong to a source found."""
RIDGE = 1e-6
"""Relative ridge of the Gram matrix of steering vectors, for two sources that merge."""


def deflate(beams: Tensor, num_sources: Tensor, search: SearchGrid, slots: int) -> Tensor:
    """Return positions of K sources, found one by one: B [B, N, r], K [B] -> [B, slots, 3]."""
    elements = beams.shape[1]
    projected = search.correlate(beams)
    remaining = torch.full_like(projected[:, 0].real, float(elements))
    found: Tensor | None = None
    positions = []
    for slot in range(slots):
        spectrum = squared_magnitude(projected).sum(1)
        share = spectrum / remaining.clamp(min=LEAST_RESIDUAL * elements)
        share = share.where(remaining > LEAST_RESIDUAL * elements, torch.zeros_like(share))
        start = search.points[share.argmax(-1)].unsqueeze(1)
        active = num_sources > slot
        position = fit_subspace(beams, start, active, search, found, steps=SINGLE_STEPS).point
        positions.append(position.unsqueeze(1))
        if slot + 1 == slots:
            break
        vector = _project_out(search.response(position).unsqueeze(-1), found)
        vector = vector / squared_norm(vector).sqrt()[:, None, None]
        correlation = search.correlate(vector)
        projected = projected - (beams.mH @ vector) @ correlation
        remaining = remaining - squared_magnitude(correlation).sum(1)
        found = vector if found is None else torch.cat([found, vector], dim=-1)
    return torch.cat(positions, dim=1)


def pick_peaks(beams: Tensor, search: SearchGrid, slots: int) -> tuple[Tensor, Tensor]:
    """Return the highest local maxima over direction, at the best range, in falling order.

    More starts are refined than peaks are asked for: between grid points a peak looks low, and a
    start beside a higher peak may lead to that.

    Returns:
        Positions [B, slots, 3], and True for those that are peaks, [B, slots]; where there are too
        few peaks the highest is repeated.
    """
    start, on_grid = _grid_maxima(beams, search.denser, CANDIDATES * slots)
    repeated = beams.repeat_interleave(start.shape[1], dim=0)
    refined = climb(repeated, start.flatten(0, 1), search)
    point, value = refined.point, refined.value
    for _ in range(AGAIN):
        left = (~_is_stationary(repeated, point, search) & on_grid.flatten()).nonzero().flatten()
        if not len(left):
            break
        further = climb(repeated[left], point[left], search)
        point = point.index_copy(0, left, further.point)
        value = value.index_copy(0, left, further.value)
    stationary = _is_stationary(repeated, point, search).view_as(on_grid)
    points = point.view_as(start)
    heights = (-value).view_as(on_grid).where(on_grid & stationary, 0.0)
    same = is_same_source(search.response(points))
    chosen: list[Tensor] = []
    is_peak = []
    for _ in range(slots):
        height, index = heights.max(-1)
        is_peak.append(height > 0)
        chosen.append(index.where(height > 0, chosen[0] if chosen else index))
        heights = heights.where(~same[torch.arange(len(index)), index], 0.0)
    index = torch.stack(chosen, dim=-1).unsqueeze(-1).expand(-1, -1, 3)
    return points.gather(1, index).to(start.dtype), torch.stack(is_peak, dim=-1)


def _grid_maxima(beams: Tensor, search: SearchGrid, count: int) -> tuple[Tensor, Tensor]:
    """Return starts on the grid for the highest peaks [B, count, 3], and True where there is one.

    They are maxima of the grid and points near a vertex; only maxima take the place of others.
    """
    blocks = search.steering.split(BLOCK)
    spectrum = torch.cat([squared_magnitude(beams.mH @ x.mT).sum(1) for x in blocks], dim=-1)
    highest, plane = spectrum.unflatten(-1, search.shape).max(1)
    maximal = _near_a_vertex(highest, 0.5).flatten(1)
    peaks = highest.where(_near_a_vertex(highest, REACH), 0.0).flatten(1)
    plane = plane.flatten(1)
    starts, is_start = [], []
    for _ in range(count):
        height, index = peaks.max(-1, keepdim=True)
        point = plane.gather(-1, index) * peaks.shape[-1] + index
        is_start.append(height > 0)
        starts.append(search.points[point])
        # a plateau, or directions that the panel cannot tell apart, are one peak
        vector = search.steering[point].mT
        correlation = squared_magnitude(search.correlate(vector)).sum(1).sqrt()
        correlation = correlation.unflatten(-1, (search.shape[0], -1)).gather(1, plane[:, None])
        same = correlation.squeeze(1) > SAME_SOURCE * beams.shape[-2]
        same = same & (maximal.gather(-1, index) | ~maximal)
        peaks = peaks.masked_fill(same.scatter(-1, index, True), 0.0)
    return torch.cat(starts, dim=1), torch.cat(is_start, dim=-1)


def _is_stationary(beams: Tensor, point: Tensor, search: SearchGrid) -> Tensor:
    """Return whether ‖Bᴴ a‖² is stationary at points [B, 3], or rises beyond a bound: [B].

    A start that had no peak may still be on its way to a higher one.
    """
    beams = beams.to(torch.complex128)
    steering, slopes = search.response(point).unsqueeze(-1), search.slopes(point).mT
    echo = beams.mH @ steering
    slope = 2 * (echo.conj() * (beams.mH @ slopes)).real.sum(1)
    left = slopes - steering @ (steering.mH @ slopes) / beams.shape[1]
    # as steep as it could be: by Cauchy and Schwarz
    value = squared_norm(echo).unsqueeze(-1)
    steepest = 2 * (value * squared_magnitude(left).sum(1)).sqrt()
    lower, upper = search.lower.double(), search.upper.double()
    held = ((point <= lower) & (slope < 0)) | ((point >= upper) & (slope > 0))
    # a coordinate that changes nothing, as elevation on a row, is nowhere at rest
    flat = slope.abs() * (upper - lower) <= FLAT * value
    return (held | flat | (slope.abs() <= SLOPE * steepest)).all(-1)


def _near_a_vertex(heights: Tensor, reach: float) -> Tensor:
    """Return where parabolas along both axes have their vertices within `reach` points: [B, E, A].

    Within half a point is where a point exceeds its neighbours; a low peak beside a higher one may
    have no such point, but a vertex.
    """
    near = torch.ones_like(heights, dtype=torch.bool)
    slack = ROUNDOFFS * torch.finfo(heights.dtype).eps * heights  # flat: the panel tells nothing
    for axis in (1, 2):
        size = heights.shape[axis]
        first, last = heights.narrow(axis, 0, 1), heights.narrow(axis, size - 1, 1)
        before = torch.cat([first, heights.narrow(axis, 0, size - 1)], dim=axis)
        after = torch.cat([heights.narrow(axis, 1, size - 1), last], dim=axis)
        bend = 2 * heights - before - after
        near &= (after - before).abs() <= 2 * reach * bend + slack
    return near


def climb(beams: Tensor, start: Tensor, search: SearchGrid) -> Minimum:
    """Minimise -‖Bᴴ a‖² from `start` [B, 3] by Newton's method, in double precision.

    `fit_subspace` is for a B with no more in its span than the sources that it moves: it takes
    their projector for B Bᴴ. Beside another source in B that curvature is many times too large.
    """
    elements = beams.shape[1]
    # copies, because autograd refuses what was made under `torch.inference_mode`
    with torch.inference_mode(False), torch.enable_grad():
        beams = beams.detach().clone().to(torch.complex128)
        start, lower, upper = (x.clone().double() for x in (start, search.lower, search.upper))

        def model(at: Tensor) -> LocalModel:
            place = at.clone().requires_grad_()
            steering = search.response(place).unsqueeze(-1)
            value = -squared_norm(beams.mH @ steering)
            (gradient,) = torch.autograd.grad(value.sum(), place, create_graph=True)
            columns = [
                torch.autograd.grad(slope.sum(), place, retain_graph=True)[0]
                for slope in gradient.unbind(-1)
            ]
            value, gradient, steering = value.detach(), gradient.detach(), steering.detach()
            slopes = search.slopes(at).mT
            left = slopes - steering @ (steering.mH @ slopes) / elements
            curvature = (left.mH @ left).real * (-2 / elements * value)[:, None, None]
            return LocalModel(value, gradient, curvature, torch.stack(columns, dim=-1))

        return minimise(model, start, lower, upper, steps=NEWTON_STEPS)


def refine_jointly(beams: Tensor, positions: Tensor, active: Tensor, search: SearchGrid) -> Tensor:
    """Move all sources of a scene together: [B, K, 3], active [B, K] -> [B, K, 3].

    The last steps run in double precision. A cost is flat at its minimum: in float32, positions
    that differ by the square root of its roundoff, about 0.01 degrees, have equal cost.
    """
    near = fit_subspace(beams, positions, active, search, steps=JOINT_STEPS).point
    beams, near = beams.to(torch.complex128), near.view_as(positions).double()
    found = fit_subspace(beams, near, active, search, steps=DOUBLE_STEPS).point
    return found.view_as(positions).to(positions.dtype)


def fit_subspace(
    beams: Tensor,
    start: Tensor,
    active: Tensor,
    search: SearchGrid,
    found: Tensor | None = None,
    *,
    steps: int,
) -> Minimum:
    """Minimise -‖P B‖²_F, P the projector on the active steering vectors, less those of `found`.

    Args:
        beams: B, [B, N, r].
        start: [B, K, 3].
        active: [B, K], or [B] for one source; the others do not move and do not count.
        found: [B, N, k], orthonormal.
    """
    active = active.view(start.shape[:2]).to(beams.real.dtype)
    count = start.shape[1]
    eye = torch.eye(count, dtype=beams.dtype, device=beams.device)

    def model(flat: Tensor) -> LocalModel:
        positions = flat.unflatten(-1, (count, 3))
        steering = _project_out(search.response(positions).mT, found) * active.unsqueeze(1)
        slopes = search.slopes(positions) * active[..., None, None]
        slopes = _project_out(slopes.flatten(1, 2).mT, found)
        gram = steering.mH @ steering
        ridge = RIDGE * steering.shape[-2] + (1 - active)
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
        return LocalModel(value, -2 * gradient, 2 * curvature)

    lower, upper = search.lower.repeat(count), search.upper.repeat(count)
    return minimise(model, start.flatten(1), lower, upper, steps=steps)


def _project_out(x: Tensor, found: Tensor | None) -> Tensor:
    # P⊥ X, X [B, N, k], for orthonormal `found` [B, N, j]
    return x if found is None else x - found @ (found.mH @ x)
