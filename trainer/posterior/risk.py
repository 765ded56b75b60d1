"""The places of least expected capped error under weighted draws: the Bayes estimate.

The capped error of estimates e of places x is mean_k min(|e_k - x_k|, cap) / cap under the best
assignment, with |.| the angle error (`trainer.evaluation`). Its expectation over the draws is

    R(e) = sum_i w_i min over assignments of mean_k min(|e_k - x_ik|, cap) / cap

    1. candidates  the directions of some draws, by weight, and of a lattice over the region
    2. starts      candidates that are good alone, and not near each other; of two sources the best
                   partner of each, and each again given the other
    3. descent     given which source of which draw an estimate serves, R is majorised by a
                   weighted square, least at sum w x / |e - x| over sum w / |e - x| (Hunter and
                   Lange 2004, "A tutorial on MM algorithms"): R never grows

The least R is kept. A local minimum would overstate the least risk.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .weights import index_at


class Effort(NamedTuple):
    """Numbers of things that are tried.

    Attributes:
        candidates: directions from draws that are tried as estimates.
        judges: draws, spread evenly by weight, that choose the starts; 0 for all draws.
        starts: of candidates good alone, or their pairs.
        alternations: times that each of two estimates is chosen again given the other.
        steps: of descent.
    """

    candidates: int = 128
    judges: int = 0
    starts: int = 4
    alternations: int = 2
    steps: int = 20


THOROUGH = Effort()
QUICK = Effort(candidates=96, judges=256, starts=2, alternations=1, steps=12)
"""A sixth of the time; its estimates have the same risk within 1e-3."""
LATTICE = (5, 9)
"""Elevations and azimuths of further candidates."""
APART = 0.5
"""Least distance between starts, in caps."""
FINALISTS = 2
"""Starts that descend."""
LEAST_DISTANCE = 1e-3
"""Distances below this share of the cap count as this in the weights of the descent."""


class BayesEstimate(NamedTuple):
    """Directions [B, K, 2] (azimuth, elevation [rad]) and their expected capped error [B]."""

    directions: Tensor
    risk: Tensor


@torch.no_grad()
def least_expected_error(
    places: Tensor,
    log_weights: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    cap: float,
    effort: Effort = THOROUGH,
) -> BayesEstimate:
    """Return the estimates of least expected capped error for one or two sources.

    Args:
        places: draws [B, S, K, >= 2], azimuth and elevation first [rad].
        log_weights: [B, S], normalised.
        lower, upper: [>= 2], the region of directions.
        cap: angle error beyond which all are the same [rad].
    """
    draws, weights = places[..., :2], log_weights.exp()
    candidates = _candidates(draws, weights, lower, upper, effort.candidates)
    judges, votes = draws, weights
    if effort.judges:
        judges = _spread(draws, weights, effort.judges)
        votes = weights.new_full(judges.shape[:2], 1 / effort.judges)
    # capped, of every candidate to the sources of every judge, [B, C, K, S]
    distance = _angles(candidates.unsqueeze(2), judges, cap).squeeze(2).clamp_(max=1)
    alone = (distance.amin(2) @ votes.unsqueeze(-1)).squeeze(-1)
    starts = []
    for first in _best_apart(alone, candidates, cap, effort.starts):
        pair = [first]
        if draws.shape[2] == 2:
            pair.append(_partner(distance, votes, first))
            for _ in range(effort.alternations):
                pair = [_partner(distance, votes, pair[1]), pair[1]]
                pair = [pair[0], _partner(distance, votes, pair[0])]
        index = torch.stack(pair, dim=-1).unsqueeze(-1).expand(-1, -1, 2)
        starts.append(candidates.gather(1, index))
    estimates = torch.stack(starts, dim=1)
    estimates, _ = _least(estimates, draws, weights, cap, FINALISTS)
    for _ in range(effort.steps):
        estimates = _descend(estimates, draws, weights, cap)
    estimates, risk = _least(estimates, draws, weights, cap, 1)
    return BayesEstimate(estimates.squeeze(1), risk.squeeze(1))


def serve(estimates: Tensor, draws: Tensor, *, cap: float) -> tuple[Tensor, Tensor]:
    """Return the source of every draw that each of K estimates is assigned, and its distance.

    Args:
        estimates: [B, K, 2].
        draws: [B, S, K, >= 2].

    Returns:
        [B, S, K, >= 2] and angles [B, S, K].
    """
    plain = _served(estimates.unsqueeze(1), draws[..., :2], cap).squeeze(1)
    distance = _distance(plain, estimates.unsqueeze(1), 1.0)
    if draws.shape[2] == 1:
        return draws, distance
    turned = (plain != draws[..., :2]).any(-1, keepdim=True).any(-2, keepdim=True)
    return torch.where(turned, draws.flip(2), draws), distance


def expected_error(estimates: Tensor, draws: Tensor, weights: Tensor, *, cap: float) -> Tensor:
    """Return R of estimates [B, E, K, 2] under draws [B, S, K, 2], weights [B, S]: [B, E]."""
    angles = _angles(estimates, draws, cap).clamp_(max=1)
    error = angles[:, :, 0, 0]
    if draws.shape[2] == 2:
        straight, turned = error + angles[:, :, 1, 1], angles[:, :, 0, 1] + angles[:, :, 1, 0]
        error = torch.minimum(straight, turned) / 2
    return (error @ weights.unsqueeze(-1)).squeeze(-1)


def _least(
    estimates: Tensor, draws: Tensor, weights: Tensor, cap: float, count: int
) -> tuple[Tensor, Tensor]:
    """Return the `count` estimates of least R, [B, count, K, 2], and their R."""
    risk, best = expected_error(estimates, draws, weights, cap=cap).topk(count, largest=False)
    index = best[:, :, None, None].expand(-1, -1, *estimates.shape[2:])
    return estimates.gather(1, index), risk


def _descend(estimates: Tensor, draws: Tensor, weights: Tensor, cap: float) -> Tensor:
    """Return estimates [B, E, K, 2] of no larger R; one that serves no draw stays."""
    angles = _angles(estimates, draws, cap)
    pull = (weights[:, None, None, None] / angles.clamp(min=LEAST_DISTANCE)).mul_(angles < 1)
    if draws.shape[2] == 2:
        cost = angles.clamp_(max=1)
        turned = cost[:, :, 0, 1] + cost[:, :, 1, 0] < cost[:, :, 0, 0] + cost[:, :, 1, 1]
        straight = torch.eye(2, dtype=torch.bool, device=cost.device).unsqueeze(-1)
        pull.mul_(straight != turned[:, :, None, None])
    total = pull.sum((-2, -1)).unsqueeze(-1)
    mean = pull.flatten(3) @ draws.transpose(1, 2).flatten(1, 2).unsqueeze(1)
    mean = mean / total.clamp(min=torch.finfo(total.dtype).tiny)
    return torch.where(total > 0, mean, estimates)


def _angles(estimates: Tensor, draws: Tensor, cap: float) -> Tensor:
    """Return the angles between each of E x K estimates and each source, in caps.

    Args:
        estimates: [B, E, K, 2].
        draws: [B, S, J, 2].

    Returns:
        [B, E, K, J, S]: draws last, as sums over few entries are slow.
    """
    across, up = (
        estimates[..., axis, None, None] - draws[:, None, None, ..., axis].mT.contiguous()
        for axis in (0, 1)
    )
    return across.square_().addcmul_(up, up).sqrt_().div_(cap)


def _served(estimates: Tensor, draws: Tensor, cap: float) -> Tensor:
    """Return the source of every draw that each estimate is assigned, [B, E, S, K, 2]."""
    straight = draws.unsqueeze(1)
    if draws.shape[2] == 1:
        return straight.expand(-1, estimates.shape[1], -1, -1, -1)
    turned, own = straight.flip(3), estimates.unsqueeze(2)
    cost, other = (_distance(x, own, cap).clamp(max=1).sum(-1) for x in (straight, turned))
    return torch.where((other < cost)[..., None, None], turned, straight)


def _distance(one: Tensor, two: Tensor, cap: float) -> Tensor:
    """Return the angle between directions [..., 2] in caps: [...]."""
    # as complex numbers: a sum over two entries is slow
    return torch.view_as_complex(one - two).abs() / cap


def _spread(draws: Tensor, weights: Tensor, count: int) -> Tensor:
    """Return draws spread evenly by weight, [B, count, K, 2]."""
    level = (torch.arange(count, device=draws.device, dtype=torch.float64) + 0.5) / count
    index = index_at(weights, level)[:, :, None, None]
    return draws.gather(1, index.expand(-1, -1, *draws.shape[2:]))


def _candidates(
    draws: Tensor, weights: Tensor, lower: Tensor, upper: Tensor, count: int
) -> Tensor:
    """Return directions to try, [B, C, 2], `count` of them from draws."""
    likely = _spread(draws, weights, count // draws.shape[2]).flatten(1, 2)
    axes = [
        torch.linspace(float(lower[axis]), float(upper[axis]), points, device=draws.device)
        for axis, points in ((1, LATTICE[0]), (0, LATTICE[1]))
    ]
    elevation, azimuth = torch.meshgrid(*axes, indexing="ij")
    lattice = torch.stack([azimuth.flatten(), elevation.flatten()], dim=-1)
    return torch.cat([likely, lattice.expand(len(draws), -1, -1)], dim=1)


def _best_apart(alone: Tensor, candidates: Tensor, cap: float, count: int) -> list[Tensor]:
    """Return the numbers of so many candidates of least `alone`, apart from each other, [B]."""
    rows = torch.arange(len(alone), device=alone.device)
    chosen = []
    for _ in range(count):
        chosen.append(alone.argmin(-1))
        near = _distance(candidates, candidates[rows, chosen[-1]].unsqueeze(1), cap) < APART
        alone = alone.where(~near, torch.full_like(alone, torch.inf))
    return chosen


def _partner(distance: Tensor, weights: Tensor, fixed: Tensor) -> Tensor:
    """Return the candidate that is best beside a fixed one [B], given `distance` [B, C, 2, S]."""
    rows = torch.arange(len(fixed), device=fixed.device)
    held = distance[rows, fixed].unsqueeze(1)
    error = torch.minimum(distance[:, :, 0] + held[:, :, 1], distance[:, :, 1] + held[:, :, 0])
    return (error @ weights.unsqueeze(-1)).squeeze(-1).argmin(-1)
