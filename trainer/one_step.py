"""One-step estimation: Fisher scoring from estimates that lie near already.

MUSIC reads places off a covariance, which has forgotten how sharply each snapshot saw them. A
step or two of scoring on the snapshots' likelihood, from a start within its basin, is as efficient
as the maximum itself (Lehmann and Casella 1998, Theory of Point Estimation, section 6.4), and
costs a tenth of the search for it. Which basin is the right one the start has decided: where the
likelihood's highest peak misleads, below threshold, nothing is lost to it.

Powers and noise start from what the snapshots suggest, all sources alike.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .backprojection import channel_modes, fit_loading, whiten
from .estimates import Estimates
from .levenberg import descend
from .likelihood import Likelihood, Whitened
from .measurement import Scenes
from .search_grid import SearchGrid
from .sml import all_noise

STEPS = 2
"""Scoring steps: 6 instead of 2 move below-threshold estimates after the noise."""


@torch.no_grad()
def one_step(
    scenes: Scenes, estimates: Estimates, search: SearchGrid, *, steps: int = STEPS
) -> Estimates:
    """The estimates, moved by scoring; in double precision. Never less likely than they were."""
    active = estimates.active
    slots = max(int(active.sum(-1).max()), 1)
    active = active[:, :slots]
    snapshots, channel = whiten(scenes)
    wide = Whitened(*(x.to(torch.complex128) for x in (snapshots, channel, scenes.codes)))
    _, lower, upper = all_noise(wide, search, slots)
    power, loading = (x.double() for x in fit_loading(channel_modes(scenes)))
    power = power.clamp(min=torch.finfo(torch.float32).tiny)
    places = torch.stack([estimates.azimuth, estimates.elevation, 1 / estimates.range_m], dim=-1)
    shared = (power / active.sum(-1).clamp(min=1)).log()
    start = torch.cat(
        [
            places[:, :slots].flatten(1).double(),
            shared.unsqueeze(-1).expand(-1, slots),
            (power * loading).log().unsqueeze(-1),
        ],
        dim=-1,
    )
    model = Likelihood(wide, search, active).model
    found = descend(model, start, lower, upper, steps=steps).place[:, : 3 * slots]
    moved = torch.where(active.unsqueeze(-1), found.unflatten(-1, (slots, 3)).to(places), 0)
    places = torch.where(estimates.active.unsqueeze(-1), _padded(moved, places), places)
    azimuth, elevation, inverse_range = places.unbind(-1)
    return replace(estimates, azimuth=azimuth, elevation=elevation, range_m=1 / inverse_range)


def _padded(places: Tensor, like: Tensor) -> Tensor:
    """[B, K, 3] with as many slots as `like`."""
    return torch.nn.functional.pad(places, (0, 0, 0, like.shape[1] - places.shape[1]))
