"""Known places: do the estimates agree with them, and if not, in which convention would they?

An estimate agrees with a known place if the difference in azimuth, elevation and 1/range is one
that its standard deviations and the accuracy of the survey explain: the sum of its squares, each
relative to its variance, is χ² with as many degrees of freedom as the snapshots tell coordinates.
Below threshold an estimate may lie in a false basin: a scene of which the known places explain the
snapshots as well agrees with them, too. The verdict is on the number of estimates that do not: as
many as chance gives, at 1 %.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import chdtrc
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance import whiten
from trainer.estimation import LEAST_RATIO, score, uncertainty
from trainer.scenes import Panel, Scenes, search_grid

from .best_places import LEVEL, climb, too_many
from .conventions import Convention
from .localisation import Localisation
from .vouching import vouched

ACCURACY_DEG = 0.5
"""Standard deviation of the angles of a known place."""
ACCURACY_RANGE = 0.02
"""Standard deviation of the range of a known place, relative to it."""

BOTH = (
    "negate azimuth and elevation, or, if the phase sign is at fault, conjugate snapshots, "
    "channel and codes: of far sources no snapshots tell which"
)


class Comparison(NamedTuple):
    """Estimates next to known places.

    Attributes:
        compared: number of estimates that are sure enough.
        agreeing: of these, those that agree with a known place.
        median_deg, median_range: median distance in angle [deg] and, relative, in range; NaN where
            none is told.
        well: no more disagree than chance explains.
        likely: the convention of known places in which they agree, if any.
    """

    compared: int
    agreeing: int
    median_deg: float
    median_range: float
    well: bool
    likely: Convention | None


class _Sure(NamedTuple):
    """The Q sure estimates: (azimuth, elevation, 1/range), variances, numbers of their scenes."""

    places: Tensor  # [Q, 3]
    variance: Tensor  # [Q, 3]; infinite where not told
    scene: Tensor  # [Q]


@torch.no_grad()
def compare_places(found: Localisation, scenes: Scenes, scene: SceneConfig) -> Comparison:
    """Compare estimates with the known places of their scenes."""
    picked = vouched(found)
    picked &= np.isfinite(found.azimuth) & np.isfinite(found.elevation)
    if not picked.any():
        return Comparison(0, 0, np.nan, np.nan, True, None)
    sure, value = _sure(found, picked, scenes, scene)
    truth = scenes.sources
    known = torch.stack([truth.azimuth, truth.elevation, truth.range_m], -1).double()
    explained = _explained(found, scenes, scene, value)[sure.scene]
    tried = []
    for (name, remedy), places in place_conventions(known, scenes.panel).items():
        agrees = (_p_values(sure, places, truth.active) >= LEVEL).any(-1)
        agrees = agrees | explained if not name else agrees
        tried.append(Convention(name, int(agrees.sum()), len(agrees), 0.0, remedy))
    given, *others = tried
    well = not too_many(given.of - given.fitting, given.of)
    best = max(others, key=lambda each: each.fitting)
    clear = best.fitting > given.fitting and not too_many(best.of - best.fitting, best.of)
    degrees, ranges = _medians(sure, known, truth.active)
    likely = None if well or not clear else best
    return Comparison(given.of, given.fitting, degrees, ranges, well, likely)


def place_conventions(known: Tensor, panel: Panel) -> dict[tuple[str, str], Tensor]:
    """Return readings of known places (azimuth, elevation, range) [B, K, 3], by name and remedy.

    First the places as given, of name "".
    """
    a, e, r = known.unbind(-1)
    horizontal, vertical = panel.element_positions(torch.float64, torch.device("cpu"))
    left, right = float(horizontal.min()), float(horizontal.max())
    low, high = float(vertical.min()), float(vertical.max())
    readings = {
        ("", ""): (a, e, r),
        ("azimuth of the other sign", "negate azimuth"): (-a, e, r),
        ("elevation of the other sign", "negate elevation"): (a, -e, r),
        ("both angles of the other sign", BOTH): (-a, -e, r),
        ("azimuth and elevation exchanged", "exchange azimuth and elevation"): (e, a, r),
        ("angles in degrees", "convert azimuth and elevation to radians"): (
            a.deg2rad(),
            e.deg2rad(),
            r,
        ),
        ("angles in radians that were converted as if in degrees", "drop degrees = true"): (
            a.rad2deg(),
            e.rad2deg(),
            r,
        ),
        ("elevation from the zenith", "replace elevation by pi / 2 - elevation"): (
            a,
            torch.pi / 2 - e,
            r,
        ),
        ("ranges in wavelengths", "multiply range_m by wavelength_m"): (
            a,
            e,
            r * panel.wavelength_m,
        ),
    }
    for unit, factor in (("centimetres", 100), ("millimetres", 1000)):
        readings[f"ranges in {unit}", f"divide range_m by {factor}"] = (a, e, r / factor)
    readings["ranges in kilometres", "multiply range_m by 1000"] = (a, e, r * 1000)
    corners = {
        "lower left": (left, low),
        "lower right": (right, low),
        "upper left": (left, high),
        "upper right": (right, high),
    }
    for name, (across, up) in corners.items():
        remedy = (
            "compute the places from the panel's centre (docs/data.md, Origin): add "
            f"({across:.6g}, {up:.6g}) m to (right, up)"
        )
        readings[f"places from the {name} element", remedy] = _shifted(a, e, r, across, up)
    return {key: torch.stack(value, -1) for key, value in readings.items()}


def _shifted(
    azimuth: Tensor, elevation: Tensor, range_m: Tensor, across: float, up: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return places after (across, up) [m] was added to their Cartesian coordinates."""
    x = range_m * azimuth.sin() * elevation.cos() + across
    y = range_m * elevation.sin() + up
    z = range_m * azimuth.cos() * elevation.cos()
    far = (x**2 + y**2 + z**2).sqrt()
    return torch.atan2(x, z), (y / far).asin(), far


def _sure(
    found: Localisation, picked: np.ndarray, scenes: Scenes, scene: SceneConfig
) -> tuple[_Sure, Tensor]:
    """Return the picked estimates at their maxima of the likelihood, and -log likelihood [B]."""
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    active = torch.from_numpy(found.active).to(scenes.snapshots.device)
    told = torch.from_numpy(np.stack([found.azimuth, found.elevation, 1 / found.range_m], -1))
    told = told.double().to(active.device)
    open_ = torch.stack([(search.lower + search.upper)[i] / 2 for i in range(2)]).double()
    start = torch.cat([open_, search.lower[2:].double()]).expand_as(told)
    best, value = climb(scenes, told.where(torch.isfinite(told), start), active, search)
    data = whiten(scenes).to(torch.complex128)
    variance = uncertainty(data, best, active, search).measured
    chosen = torch.from_numpy(picked).to(active.device)
    numbers = chosen.nonzero()[:, 0]
    return _Sure(best[chosen], variance[chosen], numbers), value


def _explained(found: Localisation, scenes: Scenes, scene: SceneConfig, value: Tensor) -> Tensor:
    """Return the scenes whose snapshots the known places explain as well as the best do: [B]."""
    truth = scenes.sources
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    places = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], -1)
    data = whiten(scenes).to(torch.complex128)
    at_known, _ = score(data, places, truth.active, search, steps=0)
    same = truth.num_sources == torch.from_numpy(found.num_sources).to(truth.active.device)
    return same & (2 * (at_known.value - value) <= LEAST_RATIO)


def _p_values(sure: _Sure, places: Tensor, active: Tensor) -> Tensor:
    """Return the p value of every sure estimate and known place of its scene: [Q, K]."""
    azimuth, elevation, range_m = places[sure.scene].unbind(-1)
    known = torch.stack([azimuth, elevation, 1 / range_m], -1)
    survey = torch.full_like(known, np.radians(ACCURACY_DEG))
    survey[..., 2] = ACCURACY_RANGE / range_m
    variance = sure.variance.unsqueeze(1) + survey.square()
    told = torch.isfinite(variance)
    square = ((sure.places.unsqueeze(1) - known).square() / variance).where(told, 0).sum(-1)
    p_value = torch.from_numpy(
        np.asarray(chdtrc(told.sum(-1).cpu().numpy(), square.cpu().numpy()))
    )
    return p_value.to(square) * active[sure.scene]


def _medians(sure: _Sure, known: Tensor, active: Tensor) -> tuple[float, float]:
    """Return the median distance to the nearest known place: in angle [deg], and in range."""
    places = known[sure.scene]
    apart = torch.hypot(*(sure.places.unsqueeze(1) - places)[..., :2].unbind(-1))
    nearest = apart.masked_fill(~active[sure.scene], torch.inf).min(-1)
    range_m = places[..., 2].gather(-1, nearest.indices.unsqueeze(-1)).squeeze(-1)
    # a range is told where the 95 % interval of 1/range does not reach 0
    told = sure.places[:, 2] > 1.96 * sure.variance[:, 2].sqrt()
    off = (1 / sure.places[:, 2] / range_m - 1).abs()[told]
    ranges = float(off.median()) if len(off) else float("nan")
    return float(nearest.values.median().rad2deg()), ranges
