"""Levenberg-Marquardt minimisation in a box, for a batch of small problems at once.

Every problem has its own damping and accepts or refuses its own steps, so a batch gives the same
results as its members alone. A coordinate at a bound whose gradient points outwards is held there.

References: Levenberg 1944; Marquardt 1963; Nocedal and Wright 2006, Numerical Optimization,
algorithm 4.1 (gain ratio), sections 10.3 (damping) and 16.7 (bounds).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

FIRST_DAMPING = 1e-3
"""Relative to the diagonal of the curvature."""
SHRINK, GROW = 0.1, 5.0
"""Factors of the damping after a good and after a bad step."""
GOOD, BAD = 0.75, 0.25
"""Gain ratios, actual over predicted decrease, above which a step is good and below which bad.
A step that lowers the cost but is bad is taken, with more damping for the next: it overshot."""
LEAST_DAMPING = 1e-9
LEAST_CURVATURE = 1e-12
"""Relative to the largest of the diagonal: a flat coordinate gets no infinite step."""


class LocalModel(NamedTuple):
    """A cost [B] with its gradient [B, P] and a curvature [B, P, P], positive semidefinite.

    The Hessian [B, P, P], where known, may be indefinite. It replaces the curvature
    where, damped, it is positive definite over the coordinates that are not held.
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor
    hessian: Tensor | None = None


class Minimum(NamedTuple):
    """The end of a minimisation: point [B, P], value [B] and the curvature there, [B, P, P]."""

    point: Tensor
    value: Tensor
    curvature: Tensor

    def where(self, chosen: Tensor, other: "Minimum") -> "Minimum":
        """Return this minimum where `chosen` [B] is True, else the other."""
        return Minimum(
            torch.where(chosen.unsqueeze(-1), self.point, other.point),
            torch.where(chosen, self.value, other.value),
            torch.where(chosen[:, None, None], self.curvature, other.curvature),
        )


def minimise(
    model: Callable[[Tensor], LocalModel],
    start: Tensor,
    lower: Tensor,
    upper: Tensor,
    *,
    steps: int,
) -> Minimum:
    """Minimise a batch of costs from `start` [B, P] inside [lower, upper], [P] or [B, P].

    The returned value never exceeds that at the start.
    """
    point = torch.minimum(torch.maximum(start, lower), upper)
    here = model(point)
    damping = torch.full_like(here.value, FIRST_DAMPING)
    for _ in range(steps):
        held = ((point <= lower) & (here.gradient > 0)) | ((point >= upper) & (here.gradient < 0))
        step, curvature = _damped_step(here, damping, held)
        trial = torch.minimum(torch.maximum(point + step, lower), upper)
        there = model(trial)
        taken = trial - point
        bend = (taken.unsqueeze(-2) @ curvature @ taken.unsqueeze(-1)).flatten()
        predicted = -((taken * here.gradient).sum(-1) + 0.5 * bend)
        gained = here.value - there.value
        better = there.value < here.value
        change = torch.where(gained > GOOD * predicted, SHRINK, 1.0)
        change = torch.where(gained < BAD * predicted, GROW, change)
        damping = (damping * torch.where(better, change, GROW)).clamp(min=LEAST_DAMPING)
        point = torch.where(better.unsqueeze(-1), trial, point)
        hessian = there.hessian
        if hessian is not None and here.hessian is not None:
            hessian = torch.where(better[:, None, None], hessian, here.hessian)
        here = LocalModel(
            torch.where(better, there.value, here.value),
            torch.where(better.unsqueeze(-1), there.gradient, here.gradient),
            torch.where(better[:, None, None], there.curvature, here.curvature),
            hessian,
        )
    return Minimum(point, here.value, here.curvature)


def _damped_step(model: LocalModel, damping: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step -(H + damping diag C)⁻¹ g and the H that it was taken with.

    H is the Hessian, or else the curvature C. Coordinates that are held get a step of 0.
    """
    free = (~held).to(model.gradient.dtype)
    diagonal = model.curvature.diagonal(dim1=-2, dim2=-1)
    floor = LEAST_CURVATURE * diagonal.amax(-1, keepdim=True)
    floor = floor.clamp(min=torch.finfo(diagonal.dtype).tiny)
    # unit diagonal first: angles, inverse ranges and powers differ by orders of magnitude
    scale = diagonal.clamp(min=0).maximum(floor).sqrt()
    ridge = torch.diag_embed(damping.unsqueeze(-1).expand_as(free) + (1 - free))

    def factor(curvature: Tensor) -> tuple[Tensor, Tensor]:
        scaled = curvature / (scale.unsqueeze(-1) * scale.unsqueeze(-2))
        scaled = scaled * (free.unsqueeze(-1) * free.unsqueeze(-2))
        return torch.linalg.cholesky_ex(scaled + ridge)

    curvature, (lower, _) = model.curvature, factor(model.curvature)
    if model.hessian is not None:
        exact, failed = factor(model.hessian)
        definite = (failed == 0)[:, None, None]
        lower = torch.where(definite, exact, lower)
        curvature = torch.where(definite, model.hessian, curvature)
    gradient = model.gradient / scale * free
    step = torch.cholesky_solve(gradient.unsqueeze(-1), lower).squeeze(-1) / scale
    return -torch.nan_to_num(step), curvature
