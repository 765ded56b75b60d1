"""Damped Gauss-Newton descent in a box, for a batch of small problems at once.

Every problem has its own damping and accepts or refuses its own steps, so a batch gives what its
members would give alone. A coordinate at a bound that wants out is held there, the others move.

Reference: Levenberg 1944; Marquardt 1963; Nocedal & Wright 2006, Numerical Optimization, algorithm
4.1 (gain ratio), ch. 10.3 (damping) and 16.7 (bounds).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FIRST_DAMPING = 1e-3
"""Relative to the diagonal of the curvature."""
SHRINK, GROW = 0.1, 5.0
"""What a good and a bad step make of the damping."""
GOOD, BAD = 0.75, 0.25
"""Shares of the gain that the local model promised: a step between is taken and changes nothing.
A step that barely gains has overshot; without this, damping falls and the next ones fail."""
LEAST_DAMPING = 1e-9
LEAST_CURVATURE = 1e-12
"""Relative to the largest of the diagonal: a flat coordinate gets no infinite step."""


class Model(NamedTuple):
    """A cost and its local shape: value [B], gradient [B, P], curvature [B, P, P] >= 0."""

    value: Tensor
    gradient: Tensor
    curvature: Tensor


class Minimum(NamedTuple):
    """Where a descent ended: place [B, P] and value [B]."""

    place: Tensor
    value: Tensor


def descend(
    model: Callable[[Tensor], Model], start: Tensor, lower: Tensor, upper: Tensor, *, steps: int
) -> Minimum:
    """Minimises a batch of costs from `start` [B, P] inside [lower, upper], [P] or [B, P].

    Never ends above where it began.
    """
    place = torch.minimum(torch.maximum(start, lower), upper)
    here = model(place)
    damping = torch.full_like(here.value, FIRST_DAMPING)
    for _ in range(steps):
        held = ((place <= lower) & (here.gradient > 0)) | ((place >= upper) & (here.gradient < 0))
        step = _solve(here, damping, held)
        trial = torch.minimum(torch.maximum(place + step, lower), upper)
        there = model(trial)
        better = there.value < here.value
        taken = trial - place
        bend = (taken.unsqueeze(-2) @ here.curvature @ taken.unsqueeze(-1)).flatten()
        promised = -((taken * here.gradient).sum(-1) + 0.5 * bend)
        gained = here.value - there.value
        place = torch.where(better.unsqueeze(-1), trial, place)
        here = Model(
            torch.where(better, there.value, here.value),
            torch.where(better.unsqueeze(-1), there.gradient, here.gradient),
            torch.where(better[:, None, None], there.curvature, here.curvature),
        )
        change = torch.where(gained > GOOD * promised, SHRINK, 1.0)
        change = torch.where(gained < BAD * promised, GROW, change)
        change = torch.where(better, change, GROW)
        damping = (damping * change).clamp(min=LEAST_DAMPING)
    return Minimum(place, here.value)


def _solve(model: Model, damping: Tensor, held: Tensor) -> Tensor:
    """-(C + damping diag C)⁻¹ g over the coordinates that are not held; 0 for those."""
    free = (~held).to(model.gradient.dtype)
    diagonal = model.curvature.diagonal(dim1=-2, dim2=-1)
    floor = (LEAST_CURVATURE * diagonal.amax(-1, keepdim=True)).clamp(
        min=torch.finfo(diagonal.dtype).tiny
    )
    scale = diagonal.clamp(min=0).maximum(floor).sqrt()
    # unit diagonal first: angles, inverse ranges and powers differ by orders of magnitude
    curvature = model.curvature / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
    curvature = curvature * (free.unsqueeze(-1) * free.unsqueeze(-2))
    ridge = torch.diag_embed(damping.unsqueeze(-1).expand_as(free) + (1 - free))
    gradient = model.gradient / scale * free
    factor, _ = torch.linalg.cholesky_ex(curvature + ridge)
    step = torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1) / scale
    return -torch.nan_to_num(step)
