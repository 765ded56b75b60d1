"""One source more than was told, anywhere in front of the panel: what the residual has of it.

With the responses B_l of the K places taken out of the snapshots, whatever their amplitudes, the
residual r_l of a scene of the law is white noise in D dimensions. The gain in log likelihood of a
source there, power and σ² at their best (`estimation.profile_likelihood`), grows if one was not
told, if one lies outside the region, and where a source moves while the snapshots are taken: then
one place explains some of them and another the rest. No place of a grid of G gains more than t in
noise but with the probability exp(-t (D - 1) / D) or less, so that G exp(-t (D - 1) / D) bounds
the p value (Bonferroni); the places fitted take 3 K real dimensions away.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from trainer.config import ConfigError, SceneConfig
from trainer.covariance import Whitened, whiten
from trainer.estimation import GridLikelihood, profile_likelihood
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, search_grid

from .goodness_of_fit import ROUNDING, fit_amplitudes

LEAST_OWN = 0.05
"""Share of a response's energy outside the span of those taken out, for a source of its own."""
WIDEST_DEG = 85.0
"""Largest angles of places in front of a panel; nearer its plane they hardly differ."""
PART = 2**22
"""Largest number of grid responses at once."""


def in_front(scene: SceneConfig, device: torch.device) -> SearchGrid:
    """Return the grid of all directions in front of the panel that it can tell apart."""
    waves = scene.wavelength_m / scene.spacing_m
    told = math.degrees(math.asin(min(max(waves - 1, 0), 1)))
    lines = {"azimuth_max_deg": scene.num_horizontal, "elevation_max_deg": scene.num_vertical}
    limits = {name: WIDEST_DEG if count == 1 else told for name, count in lines.items()}
    wide = {x: max(getattr(scene, x), min(WIDEST_DEG, limits[x])) for x in limits}
    try:
        return search_grid(replace(scene, **wide), torch.float32, device)
    except ConfigError:  # too many places, or placed elements to which some of them look alike
        return search_grid(scene, torch.float32, device)


@torch.no_grad()
def further_source(
    scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the p value of no other source than those at positions [B, K, 3], [B]; and where one
    more is likeliest, [B, 3].

    Args:
        active: [B, K].
        search: the places asked.
    """
    data = whiten(scenes).to(torch.complex128)
    steering = search.response(positions.double()) * active.unsqueeze(-1)
    residual = fit_amplitudes(data, steering)
    step = max(1, PART // (data.snapshots[0].numel() * len(search.points)))
    found = []
    for first in range(0, scenes.batch_size, step):
        part = slice(first, first + step)
        left = Whitened(residual.vector[part], data.channel[part], data.codes[part])
        found.append(_gain(left, residual.basis[part], residual.dimensions[part], search))
    gain, places = (torch.cat(x) for x in zip(*found, strict=True))
    freedom = residual.dimensions - 1.5 * active.sum(-1) - 1
    rate = freedom.clamp(min=0) / residual.dimensions.clamp(min=1)
    p_value = (math.log(len(search.points)) - gain * rate).exp().clamp(max=1)
    total, rest = squared_norm(data.snapshots), squared_norm(residual.vector)
    return p_value.where(rest > ROUNDING * total, 1), places


def _gain(
    left: Whitened, basis: Tensor, dimensions: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the log likelihood gained by the best source, [B], and its place [B, 3].

    Args:
        left: the residual in place of the snapshots.
        basis: of the responses taken out, [B, L, M, K].
        dimensions: D, [B].
    """
    grid = GridLikelihood(left, search)
    inside = squared_magnitude(grid.correlate(basis.to(grid.energy.dtype.to_complex()))).sum(2)
    energy = (grid.energy - inside).clamp(min=0)
    own = energy.sum(1) > LEAST_OWN * grid.energy.sum(1)
    count = dimensions.clamp(min=1).to(energy).unsqueeze(-1)
    total = squared_norm(left.snapshots).to(energy)
    value, *_ = profile_likelihood(energy, squared_magnitude(grid.matched), total, count)
    tiny = torch.finfo(energy.dtype).tiny
    least, best = value.where(own, torch.inf).min(-1)
    gain = (count.squeeze(-1) * total.clamp(min=tiny).log() - least).clamp(min=0)
    return gain.double(), search.points[best].double()
