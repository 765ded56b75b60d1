"""The worth of an estimate: confidence, and the reason where it is withheld.

Confidence is a probability *given that the scene is of the law*. Where a test says that it is not,
or that this estimate is not the answer, confidence is withheld: NaN, with a reason. The first of
the reasons that apply is given; `vouch` lists them in that order.

An estimate is *vouched for* if its scene fits, it is resolved, and its confidence is at least
`LEAST_PROBABILITY` or withheld only because nothing calibrated gives it (`vouched`).
"""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr
from torch import Tensor

from trainer.config import SceneConfig
from trainer.estimation import ORIGINS, Estimates, have_own_source
from trainer.evaluation import (
    TOLERANCE_DEG,
    constancy_p_value,
    identify,
    noise_p_value,
    place_probability,
)
from trainer.scenes import Scenes, search_grid

from .best_places import LEVEL, Explanation, beaten, explain, fit_badly, too_many
from .conventions import better_reading, sample
from .goodness_of_fit import further_source, in_front
from .localisation import Localisation

UNSEEN = "no source is seen"
UNTESTED = "the fit cannot be tested"
MISFIT = "the scene does not fit"
OTHER_PLACE = "a better place explains the scene"
AMBIGUOUS = "other places explain the scene nearly as well"
FEWER = "fewer sources explain the scene"
BEYOND = "a source outside the region explains more of the scene"
FURTHER = "a further source explains more of the scene"
MOVED = "places change from the first half of the snapshots to the second"
DOUBTFUL = "the fit is doubtful"
REVERSED = "the recording fits with the phase sign reversed"
RESCALED = "the recording fits with other distances of the elements in wavelengths"
MISREAD = "too many other scenes of the recording do not fit"
REREAD = "the scene fits better with"
"""Followed by the name of a reading (`conventions`)."""
UNCALIBRATED = "no network calibrated for such data made the estimate"


CONSTANCY_LEVEL = 0.001
"""p value of constancy below which sources are taken to move."""
LEAST_PROBABILITY = 0.9
"""Of lying within the tolerance, from which an estimate is resolved: most have far more, so that
over the law more than 90 % of them are right (`benchmarks/outside.py`). Of the estimates of a
network that have as much confidence, too, those of less are wrong several times as often."""
DOUBT = 0.025
"""p value of the residual below which a scene that fits is not vouched for: as many of the law's
scenes lose their confidence, at most. A weak cause, such as a source more than was told, hardly
shows in the residual of one scene, and moves the estimates all the same."""
LEAST_SCENES = 5
"""Least number of scenes whose hints of a reversed sign are taken together."""


class Withheld(NamedTuple):
    """A reason to withhold confidence, and the estimates [B, K] that it applies to."""

    reason: str
    estimates: Tensor


def vouch(
    scenes: Scenes,
    found: Estimates,
    num_sources: Tensor,
    scene: SceneConfig,
    confidence: Tensor | None = None,
) -> Localisation:
    """Return the estimates of any method with what they are worth.

    Args:
        num_sources: K, [B].
        scene: the panel and region that were searched.
        confidence: [B, K_max]; None where nothing calibrated gives it.
    """
    best = explain(scenes, found, scene)
    told = identify(scenes, found, scene)
    untested = best.p_value.isnan()
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    unseen = (noise_p_value(scenes, search) >= LEVEL) & ~untested
    # what is not seen at all has a reason, and what cannot be tested has no likelihood to ask
    supported = have_own_source(scenes, found, search) | (unseen | untested).unsqueeze(-1)
    elsewhere = _all(beaten(scenes, found, best, scene), found) & ~_near(found, best)
    more, beyond = seen_besides(scenes, best, found, scene)
    slots = best.positions.shape[1]
    constancy = constancy_p_value(scenes, best.positions, found.active[:, :slots], search)
    moved = (constancy < CONSTANCY_LEVEL) & ~untested
    withheld = [
        Withheld(UNSEEN, _all(unseen, found)),
        Withheld(UNTESTED, _all(untested, found)),
        Withheld(MISFIT, _all(best.p_value < LEVEL, found)),
        *(Withheld(*each) for each in told.withheld),
        Withheld(OTHER_PLACE, elsewhere),
        Withheld(FEWER, found.active & ~supported),
        Withheld(BEYOND, _all(beyond, found)),
        Withheld(FURTHER, _all(more, found)),
        Withheld(MOVED, _all(moved, found)),
        Withheld(DOUBTFUL, _all(best.residual_p < DOUBT, found)),
    ]
    resolved = found.resolved & supported & ~(untested | more | moved).unsqueeze(-1) & ~elsewhere
    ambiguous = resolved & (place_probability(scenes, found, search) < LEAST_PROBABILITY)
    resolved = resolved & ~ambiguous
    if confidence is None:  # else, it says how probable the estimate is
        confidence = torch.full_like(found.azimuth, torch.nan)
        withheld.append(Withheld(AMBIGUOUS, ambiguous))
        withheld.append(Withheld(UNCALIBRATED, found.active))
    reason = first_reason(withheld)
    confidence = confidence.masked_fill(
        torch.from_numpy(reason != "").to(confidence.device), torch.nan
    )
    values = {
        **{name: value for name, value in told._asdict().items() if name != "withheld"},
        "confidence": confidence,
        "active": found.active,
        "resolved": resolved,
        "num_sources": num_sources,
        "explained": best.explained.float(),
        "p_value": best.p_value.float(),
        "fits": best.p_value >= LEVEL,
        "reversed_gain": best.reversed_gain.float(),
        "sign_evidence": best.sign_evidence.float(),
        "scale": best.scale.float(),
        "scale_std": best.scale_std.float(),
    }
    arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in values.items()}
    origin = np.full(len(reason), "", dtype=f"<U{max(map(len, ORIGINS))}")
    if found.origin is not None:
        origin = np.array(ORIGINS)[found.origin.cpu().numpy()]
    unread = np.full(len(reason), "")
    return Localisation(**arrays, reason=reason, origin=origin, better_reading=unread)


def vouched(found: Localisation) -> NDArray[np.bool_]:
    """Return the estimates that are vouched for, as the module docstring says: [S, K]."""
    sure = (found.reason == "") & (found.confidence >= LEAST_PROBABILITY)
    sure = sure | (found.reason == UNCALIBRATED)
    return found.active & found.resolved & found.fits[:, None] & sure


def seen_besides(
    scenes: Scenes, best: Explanation, found: Estimates, scene: SceneConfig
) -> tuple[Tensor, Tensor]:
    """Return the scenes in which a further source is seen, and those where it is likeliest outside
    the region: [B] each."""
    slots = best.positions.shape[1]
    search = in_front(scene, scenes.snapshots.device)
    p_value, place = further_source(scenes, best.positions, found.active[:, :slots], search)
    more = p_value < LEVEL
    largest = torch.tensor([scene.azimuth_max_deg, scene.elevation_max_deg]).to(place).deg2rad()
    return more, more & (place[:, :2].abs() > largest).any(-1)


def judge_recording(found: Localisation) -> Localisation:
    """Return the estimates of all scenes of a recording, with what these say together."""
    return withhold_misread(withhold_rescaled(withhold_reversed(found)))


def is_reversed(found: Localisation) -> bool:
    """Return whether the scenes of a recording together say that its phase sign is reversed.

    The sign is the same in all scenes, so that many weak hints are one strong one: Student's t of
    `reversed_gain` over scenes. Where the sign is right its mean is negative; in noise alone zero.
    """
    gain = found.reversed_gain[np.isfinite(found.p_value)].astype(np.float64)
    if len(gain) < LEAST_SCENES or gain.mean() <= 0:
        return False
    score = gain.mean() / max(gain.std(ddof=1) / len(gain) ** 0.5, 1e-300)
    return bool(stdtr(len(gain) - 1, -score) < LEVEL)


def withhold_reversed(found: Localisation) -> Localisation:
    """Return a recording's estimates without confidence, if its phase sign is reversed."""
    if not is_reversed(found):
        return found
    others = found.active & ~np.isin(found.reason, (UNSEEN, UNTESTED, MISFIT))
    return replace(_withhold(found, others, REVERSED), fits=np.zeros_like(found.fits))


class Scale(NamedTuple):
    """The factor of all distances of the elements in wavelengths that fits a recording best.

    Attributes:
        factor, std: with its standard deviation.
        wrong: whether it differs from 1, at `LEVEL`.
    """

    factor: float
    std: float
    wrong: bool


def recording_scale(found: Localisation) -> Scale | None:
    """Return the mean of the scenes' factors, weighted by their information; None if none tells.

    Each is normal with its known standard deviation, so that one scene has a test, too. Where they
    scatter more than that, the standard deviation of the mean grows as much.
    """
    told = np.isfinite(found.p_value) & np.isfinite(found.scale_std)
    factor, std = (x[told].astype(np.float64) for x in (found.scale, found.scale_std))
    if not len(factor):
        return None
    weight = 1 / std**2
    mean = float((weight * factor).sum() / weight.sum())
    scatter = (weight * (factor - mean) ** 2).sum() / max(len(factor) - 1, 1)
    spread = float((max(scatter, 1.0) / weight.sum()) ** 0.5)
    score = -abs(mean - 1) / spread
    return Scale(mean, spread, bool(2 * ndtr(score) < LEVEL))


def moved_by_scale(found: Localisation, factor: float) -> NDArray[np.float64]:
    """Return by how much angles are off if all distances are `factor` times those given.

    The larger of both angles, [S, K] [rad]: a planar wave's direction cosines are divided by the
    factor. NaN in inactive slots and for angles that are not told.
    """
    azimuth, elevation = (x.astype(np.float64) for x in (found.azimuth, found.elevation))
    up = (np.sin(elevation) / factor).clip(-1, 1)
    across = np.sin(azimuth) * np.cos(elevation) / factor
    turned = np.arcsin((across / np.sqrt(1 - up**2).clip(1e-9)).clip(-1, 1))
    moved = np.maximum(np.abs(turned - azimuth), np.abs(np.arcsin(up) - elevation))
    return np.where(found.active, moved, np.nan)


def is_rescaled(found: Localisation) -> bool:
    """Return whether the scale that the scenes tell moves an angle by more than half of the
    tolerance of confidence."""
    scale = recording_scale(found)
    return scale is not None and scale.wrong and bool(_rescaled(found, scale).any())


def _rescaled(found: Localisation, scale: Scale) -> NDArray[np.bool_]:
    return moved_by_scale(found, scale.factor) > np.radians(TOLERANCE_DEG / 2)


def withhold_rescaled(found: Localisation) -> Localisation:
    """Return a recording's estimates, without confidence where the scale that its scenes taken
    together tell moves an angle by more than half of the tolerance of confidence."""
    scale = recording_scale(found)
    if scale is None or not scale.wrong:
        return found
    moved = _rescaled(found, scale)
    return replace(
        found,
        confidence=np.where(moved, np.float32(np.nan), found.confidence),
        reason=np.where(moved & _unwithheld(found), RESCALED, found.reason),
    )


def withhold_misread(found: Localisation) -> Localisation:
    """Return a recording's estimates without confidence, if more scenes than chance explains do
    not fit, or many fit badly: what is read wrongly in some scenes is wrong in all."""
    return _withhold(found, _unwithheld(found), MISREAD) if is_misread(found) else found


def is_misread(found: Localisation) -> bool:
    """Return whether more scenes do not fit, or all fit worse together, than chance explains."""
    tested = np.isfinite(found.p_value)
    many = too_many(int((tested & ~found.fits).sum()), int(tested.sum()))
    return many or fit_badly(found.p_value[tested])


def is_reread(found: Localisation) -> NDArray[np.bool_]:
    """Return the scenes that fit by their own tests, in a recording that another reading explains
    better, [S]."""
    return (found.better_reading != "") & (found.p_value >= LEVEL)


def withhold_reread(found: Localisation, scenes: Scenes, scene: SceneConfig) -> Localisation:
    """Return a recording's estimates, without confidence if another reading explains a sample of
    its scenes better; then none of them fits.

    Asked where there is anything left to withhold. Scenes in which no source is seen tell nothing.
    """
    tested = np.isfinite(found.p_value) & (found.active & (found.reason != UNSEEN)).any(-1)
    if not (tested[:, None] & found.fits[:, None] & _unwithheld(found)).any():
        return found
    numbers = torch.from_numpy(tested.nonzero()[0]).to(scenes.snapshots.device)
    count = torch.from_numpy(found.num_sources).to(numbers.device)
    name = better_reading(*sample(scenes.take(numbers), count[numbers]), scene)
    if not name:
        return found
    judged = _withhold(found, _unwithheld(found), f"{REREAD} {name}")
    named = np.full(len(found.fits), name)
    return replace(judged, fits=np.zeros_like(found.fits), better_reading=named)


def _unwithheld(found: Localisation) -> NDArray[np.bool_]:
    """Return the active estimates without a reason that a wrong reading cannot be behind."""
    weaker = ("", FURTHER, MOVED, DOUBTFUL, AMBIGUOUS, UNCALIBRATED)
    return found.active & np.isin(found.reason, weaker)


def _withhold(found: Localisation, others: NDArray[np.bool_], reason: str) -> Localisation:
    """Return the same without any confidence, and this reason for the `others`, [S, K]."""
    return replace(
        found,
        confidence=np.where(found.active, np.float32(np.nan), found.confidence),
        reason=np.where(others, reason, found.reason),
    )


def first_reason(withheld: list[Withheld]) -> NDArray[np.str_]:
    """Return the first reason that applies to every estimate, [B, K]; "" where none does."""
    shape = withheld[0].estimates.shape
    reason = np.full(shape, "", dtype=f"<U{max(len(each.reason) for each in withheld)}")
    for each in reversed(withheld):
        reason[each.estimates.cpu().numpy()] = each.reason
    return reason


def _all(scenes: Tensor, found: Estimates) -> Tensor:
    """Return the active estimates of the scenes [B] for which something holds."""
    return scenes.unsqueeze(-1) & found.active


def _near(found: Estimates, best: Explanation) -> Tensor:
    """Return the estimates within `TOLERANCE_DEG` of a best place in both angles, [B, K_max]."""
    slots = best.positions.shape[1]
    places = best.positions[..., :2].to(found.azimuth)
    angles = torch.stack([found.azimuth, found.elevation], dim=-1)
    apart = (angles.unsqueeze(2) - places.unsqueeze(1)).abs().amax(-1).rad2deg()
    return ((apart <= TOLERANCE_DEG) & found.active[:, None, :slots]).any(-1)
