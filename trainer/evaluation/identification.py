"""Identification: standard deviations of places, angles left open, ends of the region.

An estimate's method knows a region and a panel, and returns a place in any case. Three things are
found out afterwards, with the Fisher information (`estimation.uncertainty`) and the likelihood:

open      an angle whose bound at 60 dB exceeds the spread of the region is NaN. A line of elements
          tells a cone: along a row, sin φ cos θ. The other angle is then that of the same steering
          vector in the middle of the region (φ of θ = 0, as for textbook linear arrays), and its
          variance grows by what it varies over the region.
far       the range is not told, NaN, where the 95 % interval of 1/range reaches 0 (a plane wave
          explains the snapshots as well: about where 2 D² / wavelength would put it, but by what
          this channel, these codes and this noise tell), or where 1/range ends at its least.
edges     an angle on the boundary of the search is no maximum of the likelihood.
          At an end of the range the likelihood is searched on beyond it: angles that stay within
          half the tolerance of `confidence` are good; the range is not told.

Estimates need not be maxima of the likelihood: scoring leads from each to the nearest one, within
the region and beyond its ends of range. The variance of an estimate is that of the maximum plus
the square of its distance from there.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance import Whitened, whiten
from trainer.estimation import LARGEST_SNR, Estimates, edges, score, uncertainty
from trainer.intervals import NORMAL_QUANTILE
from trainer.scenes import Scenes, SearchGrid, search_grid

from .metrics import TOLERANCE_DEG

AXES = ("azimuth", "elevation")
OPEN = "{} is not identifiable"
AT_EDGE = "{} at the edge of the region"
RANGE_EDGE = "the angles depend on a range outside the region"
STEPS = 8
"""Of scoring, to the place of a steering vector at another angle or beyond an end of the range."""
NEARER = 10.0
"""How many times nearer than the region's nearest range the likelihood is searched on."""
NODES = 4
"""Gauss-Legendre nodes of the mean over an open angle."""


class IdentifiedPlaces(NamedTuple):
    """Coordinates that the snapshots tell, [B, K_max] each; NaN where they do not.

    Attributes:
        azimuth, elevation, range_m: [rad, rad, m].
        azimuth_std, elevation_std, range_std_m: standard deviations; NaN in inactive slots too.
        range_low_m, range_high_m: the 95 % interval of the range, that of 1/range inverted: errors
            of 1/range are about normal, those of the range are skewed. NaN where the range is and
            in inactive slots; the upper end is infinite where 1/range reaches 0.
        far: the range is too far to be told.
        withheld: reasons not to vouch for an estimate, with the estimates, in order of precedence.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    azimuth_std: Tensor
    elevation_std: Tensor
    range_std_m: Tensor
    range_low_m: Tensor
    range_high_m: Tensor
    far: Tensor
    withheld: list[tuple[str, Tensor]]


@torch.no_grad()
def identify(scenes: Scenes, found: Estimates, scene: SceneConfig) -> IdentifiedPlaces:
    """Return what the snapshots tell of every estimate; `scene` has the region searched."""
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    data, active = whiten(scenes).to(torch.complex128), found.active
    places = found.positions.double()
    known = uncertainty(data, places, active, search)
    open_angles = _open_angles(data, places, active & ~known.identifiable, search)
    variance, measured, region = known.variance.clone(), known.measured.clone(), known.region
    best, beyond = places.clone(), places.clone()
    for rows, axis in _groups(open_angles):
        part, on = _take(data, rows), active[rows]
        box = search
        if axis is not None:
            box = _held(search, axis, float(search.lower[axis] + search.upper[axis]) / 2)
            places[rows], spread = _along_the_cone(part, places[rows], on, search, axis)
            again = uncertainty(part, places[rows], on, search)
            variance[rows] = (again.variance + spread).minimum(region[rows])
            measured[rows] = again.measured
            open_angles[rows] |= (variance[rows] > region[rows] / 2)[..., :2] & on.unsqueeze(-1)
        best[rows], beyond[rows] = _climb(part, places[rows], on, box)
    sides = zip(edges(places, search), edges(best, search), strict=True)
    low, high = ((here | there) & active.unsqueeze(-1) for here, there in sides)
    ends = (low | high)[..., 2]
    rows = ends.any(-1).nonzero().flatten()
    if len(rows):
        there = uncertainty(_take(data, rows), beyond[rows], active[rows], search)
        measured[rows] = there.measured
    moved = beyond - places
    variance = (variance + moved.square()).minimum(region)
    inverse = beyond[..., 2]
    far = active & (low[..., 2] | (inverse <= NORMAL_QUANTILE * measured[..., 2].sqrt()))
    at_edge = (low | high)[..., :2] & ~open_angles
    withheld = [(OPEN.format(axis), open_angles[..., i]) for i, axis in enumerate(AXES)]
    withheld += [(AT_EDGE.format(axis), at_edge[..., i]) for i, axis in enumerate(AXES)]
    largest = math.radians(TOLERANCE_DEG / 2)
    withheld.append((RANGE_EDGE, ends & (moved[..., :2].abs().amax(-1) > largest)))

    range_m = 1 / places[..., 2]
    std = variance.sqrt()
    half = NORMAL_QUANTILE * std[..., 2]
    interval = 1 / torch.stack([places[..., 2] + half, (places[..., 2] - half).clamp(min=0)])
    std[..., 2] *= range_m.square()
    std[..., 2].clamp_(max=(scene.range_max_m - scene.range_min_m) / 12**0.5)
    told = torch.cat([places[..., :2], range_m.unsqueeze(-1)], dim=-1).to(found.azimuth)
    range_low_m, range_high_m = interval.to(told).masked_fill(far | ends | ~active, torch.nan)
    no_range = (far | ends).unsqueeze(-1)
    untold = torch.cat([open_angles, no_range], dim=-1)
    vague = torch.cat([open_angles | at_edge, no_range], dim=-1) | ~active.unsqueeze(-1)
    told = told.masked_fill(untold, torch.nan)
    std = std.to(told).masked_fill(vague, torch.nan)
    azimuth, elevation, range_m = told.unbind(-1)
    azimuth_std, elevation_std, range_std_m = std.unbind(-1)
    return IdentifiedPlaces(
        *(azimuth, elevation, range_m, azimuth_std, elevation_std, range_std_m),
        *(range_low_m, range_high_m, far, withheld),
    )


def _open_angles(data: Whitened, places: Tensor, doubtful: Tensor, search: SearchGrid) -> Tensor:
    """Return the angles of doubtful estimates that no snapshots tell better than the region does.

    Shape [B, K, 2].
    """
    untold = torch.zeros_like(places[..., :2], dtype=torch.bool)
    rows = doubtful.any(-1).nonzero().flatten()
    if len(rows):
        part, on = _take(data, rows), doubtful[rows]
        best = uncertainty(part, places[rows], on, search, snr=LARGEST_SNR)
        untold[rows] = (best.measured > best.region)[..., :2] & on.unsqueeze(-1)
    return untold


def _groups(open_angles: Tensor) -> Iterator[tuple[Tensor, int | None]]:
    """Yield the scenes in which no angle or both are open, azimuth is, and elevation is."""
    azimuth, elevation = open_angles.any(1).unbind(-1)
    groups = ((azimuth == elevation, None), (azimuth & ~elevation, 0), (elevation & ~azimuth, 1))
    for scenes, axis in groups:
        if scenes.any():
            yield scenes.nonzero().flatten(), axis


def _take(data: Whitened, rows: Tensor | slice) -> Whitened:
    return Whitened(*(x[rows] for x in data))


def _held(search: SearchGrid, axis: int, value: float) -> SearchGrid:
    """Return the region with one coordinate held."""
    lower, upper = search.lower.clone(), search.upper.clone()
    lower[axis] = upper[axis] = value
    return replace(search, lower=lower, upper=upper)


def _along_the_cone(
    data: Whitened, places: Tensor, active: Tensor, search: SearchGrid, axis: int
) -> tuple[Tensor, Tensor]:
    """Move places [B, K, 3] to the middle of an open angle, along equal steering vectors.

    Returns:
        The places, and the mean square over the region by which the other coordinates vary, each
        value of the open angle weighted with its likelihood: [B, K, 3] each.
    """
    steering = search.response(places)
    half = float(search.upper[axis] - search.lower[axis]) / 2
    centre = float(search.upper[axis]) - half

    def held(value: float) -> tuple[Tensor, Tensor]:
        points = search.points.double()
        points[:, axis] = value
        nearest = (steering.conj() @ search.response(points).mT).abs().argmax(-1)
        box = _held(search, axis, value)
        end, _ = score(data, points[nearest], active, box, steps=STEPS)
        return end.point[:, : places[0].numel()].view_as(places), end.value

    middle, value = held(centre)
    nodes = [
        (weight, *held(centre + half * node))
        for node, weight in zip(*np.polynomial.legendre.leggauss(NODES), strict=True)
    ]
    values = torch.stack([value, *(each[2] for each in nodes)])
    likelihood = (values.amin(0) - values).exp()
    weights = torch.stack(
        [weight * x for (weight, *_), x in zip(nodes, likelihood[1:], strict=True)]
    )
    weights = weights / weights.sum(0).clamp(min=torch.finfo(weights.dtype).tiny)
    shifts = torch.stack([each[1] - middle for each in nodes])
    spread = (weights[..., None, None] * shifts.square()).sum(0)
    spread[..., axis] = 0
    return middle, spread


def _climb(
    data: Whitened, places: Tensor, active: Tensor, box: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the likelihood's maximum near places [B, K, 3], and that beyond an end of the range.

    The same where the maximum in the region is not at an end of the range.
    """

    def climbed(rows: Tensor | slice, start: Tensor, box: SearchGrid) -> Tensor:
        end, _ = score(_take(data, rows), start[rows], active[rows], box, steps=STEPS)
        return end.point[:, : places[0].numel()].view_as(start[rows])

    best = climbed(slice(None), places, box)
    beyond = best.clone()
    low, high = edges(best, box)
    ends = ((low | high)[..., 2] & active).any(-1).nonzero().flatten()
    if len(ends):
        lower, upper = box.lower.clone(), box.upper.clone()
        lower[2], upper[2] = 1e-6 * lower[2], NEARER * upper[2]
        beyond[ends] = climbed(ends, best, replace(box, lower=lower, upper=upper))
    return best, beyond
