"""Matching of estimates to sources, and the errors that follow from it.

    angle error   sqrt((azimuth error)² + (elevation error)²)  [deg]
    capped error  mean over sources of min(angle error, 10 deg) / 10 deg; a miss counts as 1
    success       azimuth and elevation within 5 deg; in 3-D range within 1 m too
    RMSPE         root mean square angle error; never the objective: below the threshold a constant
                  guess at the centre beats every estimator
    GOSPA         for unequal numbers: matched pairs at their capped error, half the cap for every
                  miss and every false alarm (Rahmathullah, Garcia-Fernandez, Svensson 2017,
                  eq. 1, p = 1, α = 2)

Matching is Hungarian on the capped angle error, so a wild estimate cannot drag a good one to the
wrong source. Ties (all pairs beyond the cap) go to the smaller uncapped error.
"""

import itertools
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from trainer.estimation import Estimates
from trainer.scenes import Sources

CAP_DEG = 10.0
"""Angle errors beyond this are all the same failure."""
TOLERANCE_DEG = 5.0
"""Largest azimuth and elevation errors of a success."""
TOLERANCE_M = 1.0
"""Largest range error of a success in three dimensions."""
TIE_BREAK = 1e-6
"""Weight of the uncapped error in the matching cost: below 1e-4 deg of capped error."""
MAX_PERMUTED = 5
"""Most slots for which all permutations are tried, batched; beyond, SciPy goes scene by scene."""


@dataclass(frozen=True)
class Errors:
    """Errors of every source's matched estimate: [B, K_max] each, true sources' order.

    Attributes:
        azimuth_deg, elevation_deg, range_m: estimate minus truth; 0 where there is no estimate.
        found: matched to an estimate of its own (`Estimates.separate`), resolved or not.
        guessed: matched to any estimate, a repeated one too.
        active: sources that exist; the other slots hold nothing.
        false_alarms: estimates of their own that no source was matched to, [B].
    """

    azimuth_deg: Tensor
    elevation_deg: Tensor
    range_m: Tensor
    found: Tensor
    guessed: Tensor
    active: Tensor
    false_alarms: Tensor

    @classmethod
    def concatenate(cls, parts: "list[Self]") -> Self:
        """Join the errors of several batches into one batch."""
        return cls(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(cls)))

    @property
    def angle_deg(self) -> Tensor:
        """Angle error, or the cap for a source without any estimate."""
        error = torch.hypot(self.azimuth_deg, self.elevation_deg)
        return error.where(self.guessed, torch.full_like(error, CAP_DEG))


def match(estimates: Estimates, sources: Sources) -> Errors:
    """Assign estimates to sources, [B, K_max] each, with the least total capped error."""
    degrees = 180 / torch.pi
    azimuth = (estimates.azimuth.unsqueeze(-2) - sources.azimuth.unsqueeze(-1)) * degrees
    elevation = (estimates.elevation.unsqueeze(-2) - sources.elevation.unsqueeze(-1)) * degrees
    distance = estimates.range_m.unsqueeze(-2) - sources.range_m.unsqueeze(-1)
    angle = torch.hypot(azimuth, elevation)
    scored = estimates.scored.unsqueeze(-2)
    cost = angle.clamp(max=CAP_DEG).where(scored, torch.full_like(angle, CAP_DEG))
    cost = cost + TIE_BREAK * angle
    # an empty slot is the last resort; absent sources match leftover slots at no cost
    cost = cost.where(estimates.active.unsqueeze(-2), torch.full_like(cost, 2 * CAP_DEG))
    slots = max(cost.shape[-2:])
    padded = cost.new_full((*cost.shape[:-2], slots, slots), 2 * CAP_DEG)
    padded[..., : cost.shape[-2], : cost.shape[-1]] = cost
    padded[..., cost.shape[-2] :, :] = 0
    padded[..., : cost.shape[-2], :] *= sources.active.unsqueeze(-1)
    chosen = assign(padded)[..., : cost.shape[-2]]
    inside = chosen < cost.shape[-1]
    index = chosen.clamp(max=cost.shape[-1] - 1).unsqueeze(-1)

    def matched(pairs: Tensor) -> Tensor:
        return pairs.expand_as(angle).gather(-1, index).squeeze(-1)

    guessed = matched(estimates.active.unsqueeze(-2)) & inside & sources.active
    found = matched(scored) & guessed
    claimed = found.sum(-1)
    return Errors(
        azimuth_deg=matched(azimuth) * guessed,
        elevation_deg=matched(elevation) * guessed,
        range_m=matched(distance) * guessed,
        found=found,
        guessed=guessed,
        active=sources.active,
        false_alarms=scored.squeeze(-2).sum(-1) - claimed,
    )


def assign(cost: Tensor) -> Tensor:
    """Return the column of every row in the cheapest assignment: [B, n, n] -> [B, n]."""
    slots = cost.shape[-1]
    if slots > MAX_PERMUTED:
        from scipy.optimize import linear_sum_assignment  # hardly ever, and slow to import

        solved = [linear_sum_assignment(c)[1] for c in cost.detach().cpu().numpy()]
        columns = np.stack(solved).astype(np.int64)  # SciPy has no batched form
        return torch.from_numpy(columns).to(cost.device)
    orders = torch.tensor(list(itertools.permutations(range(slots))), device=cost.device)
    totals = cost[:, torch.arange(slots, device=cost.device), orders].sum(-1)
    return orders[totals.argmin(-1)]


def capped_error(errors: Errors) -> Tensor:
    """Return the mean over a scene's sources of the capped angle error, in [0, 1]: [B]."""
    angle = errors.angle_deg.clamp(max=CAP_DEG) / CAP_DEG
    return mean_over_sources(angle.where(errors.found, torch.ones_like(angle)), errors.active)


def success(errors: Errors) -> Tensor:
    """Return the share of a scene's sources found in azimuth and elevation: [B]."""
    return mean_over_sources(_within(errors), errors.active)


def success_3d(errors: Errors) -> Tensor:
    """Return the share of a scene's sources found in azimuth, elevation and range: [B]."""
    return mean_over_sources(
        _within(errors) & (errors.range_m.abs() <= TOLERANCE_M), errors.active
    )


def gospa(errors: Errors) -> Tensor:
    """Return GOSPA in units of the cap, [B], not averaged; a miss or false alarm costs a half."""
    angle = errors.angle_deg.clamp(max=CAP_DEG) / CAP_DEG
    pairs = angle.where(errors.found, torch.full_like(angle, 0.5)) * errors.active
    return pairs.sum(-1) + 0.5 * errors.false_alarms


def rmspe_deg(errors: Errors) -> float:
    """Return the root mean square angle error over all sources of all scenes, uncapped [deg].

    Sources not found enter with the estimator's best guess, or the cap where there is none.
    """
    return float(errors.angle_deg[errors.active].double().square().mean().sqrt())


def median_error_deg(errors: Errors) -> float:
    """Return the median angle error over all sources of all scenes [deg]."""
    return float(errors.angle_deg[errors.active].double().quantile(0.5))


def mean_over_sources(values: Tensor, active: Tensor) -> Tensor:
    """Average over the sources that exist: [B, K_max] -> [B]; 0 in a scene of noise alone."""
    return (values * active).sum(-1) / active.sum(-1).clamp(min=1)


def _within(errors: Errors) -> Tensor:
    near = torch.maximum(errors.azimuth_deg.abs(), errors.elevation_deg.abs()) <= TOLERANCE_DEG
    return errors.found & near
