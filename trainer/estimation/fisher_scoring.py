"""One-step estimation: Fisher scoring from estimates that lie near already.

MUSIC reads places off a covariance, which has forgotten how sharply each snapshot saw them.
Scoring on the snapshots' likelihood from a start in its basin leads to the efficient estimate, the
first steps most of the way (Lehmann and Casella 1998, Theory of Point Estimation, section 6.4), at
a tenth of the cost of the search for it. Which basin is the right one the start has decided: where
the likelihood's highest peak misleads, below threshold, nothing is lost to it. For the same reason
the steps are few: a network's start is better there than the maximum.

Powers and noise start from least squares at the places given: where those are off, what they leave
unexplained counts as noise, and steps are careful.
"""

from dataclasses import replace

import torch
from torch import Tensor

from trainer.covariance import whiten
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, respond

from .estimates import LEAST_RATIO, Estimates
from .levenberg_marquardt import descend
from .likelihood import Likelihood, Whitened
from .maximum_likelihood import all_noise
from .pseudospectra import interior, repeated

STEPS = 2
"""Of 0, 1, 2 and 4 steps, two have the least capped error at -5 and 0 dB: see docs/log.md."""
RIDGE = 1e-9
"""Relative, added to Gram matrices: two estimates at one place have no amplitudes of their own."""
LEAST_SHARE = 0.1
"""Of a source's apparent power that is taken for its own at least, whatever the noise."""


@torch.no_grad()
def refine_by_fisher_scoring(
    scenes: Scenes, estimates: Estimates, search: SearchGrid, *, steps: int = STEPS
) -> Estimates:
    """The estimates, moved by scoring; in double precision."""
    active = estimates.active
    slots = max(int(active.sum(-1).max()), 1)
    active = active[:, :slots]
    snapshots, channel = whiten(scenes)
    wide = Whitened(*(x.to(torch.complex128) for x in (snapshots, channel, scenes.codes)))
    _, lower, upper = all_noise(wide, search, slots)
    places = torch.stack([estimates.azimuth, estimates.elevation, 1 / estimates.range_m], dim=-1)
    powers, noise, energy = explained(wide, places[:, :slots].double(), active, search)
    start = torch.cat([places[:, :slots].flatten(1).double(), powers, noise], dim=-1)
    model = Likelihood(wide, search, active).model
    fitted = descend(model, start, lower, upper, steps=steps)
    # what a source adds to the likelihood if the others leave it alone, in closed form: a fit
    # without it, as in `sml`, would cost more than all of the above
    powers, noise = fitted.place[:, 3 * slots : 4 * slots], fitted.place[:, -1:]
    ratio = (powers - noise).exp() * energy
    gained = 2 * scenes.num_snapshots * (ratio - ratio.log1p()) * active
    resolved = _padded(gained.unsqueeze(-1), places).squeeze(-1) > LEAST_RATIO
    found = fitted.place[:, : 3 * slots]
    moved = _padded(found.unflatten(-1, (slots, 3)).to(places), places)
    # where the snapshots say nothing, an estimate stays where it was, and nobody vouches for it
    heard, reached = (each.abs().amax((1, 2)) > 0 for each in (wide.snapshots, wide.channel))
    known = (heard & reached).unsqueeze(-1)
    moves = estimates.active & known & torch.isfinite(moved).all(-1)
    places = torch.where(moves.unsqueeze(-1), moved, places)
    azimuth, elevation, inverse_range = places.unbind(-1)
    again = repeated(search.response(places), estimates.active)
    return replace(
        estimates,
        azimuth=azimuth,
        elevation=elevation,
        range_m=1 / inverse_range,
        resolved=estimates.scored & known & resolved & interior(places, search) & ~again,
        separate=estimates.scored,
    )


def explained(
    data: Whitened, places: Tensor, active: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor, Tensor]:
    """Log powers [B, K] and log σ² [B, 1] that least squares at the places leaves, and the energy
    of each place's echo in a snapshot, mean over snapshots [B, K].

    σ² is what no source explains, per dimension left; a power is that of the source's amplitudes,
    less what of it is noise.
    """
    steering = search.response(places) * active.unsqueeze(-1)
    echoes = respond(data.channel, data.codes, steering)  # [B, L, M, K]
    gram = echoes.mH @ echoes
    energy = gram.diagonal(dim1=-2, dim2=-1).real.mean(1)
    size = energy.mean(-1, keepdim=True)
    # a slot without a source has no echo, a dead channel returns none: no amplitude there
    heard = active & (size > torch.finfo(size.dtype).tiny / RIDGE)
    loading = torch.where(heard, RIDGE * size, torch.ones_like(size)).unsqueeze(1)
    inverse = torch.linalg.inv(gram + torch.diag_embed(loading).to(gram.dtype))
    pull = echoes.mH @ data.snapshots.unsqueeze(-1)
    amplitudes = inverse @ pull
    total = squared_norm(data.snapshots)
    left = total - (pull.conj() * amplitudes).real.sum((1, 2, 3))
    dimensions = data.snapshots[0].numel() - data.snapshots.shape[1] * active.sum(-1)
    tiny = torch.finfo(torch.float32).tiny
    noise = (left / dimensions.clamp(min=1)).clamp(min=tiny)
    own = inverse.diagonal(dim1=-2, dim2=-1).real.mean(1)
    raw = squared_magnitude(amplitudes.squeeze(-1)).mean(1)
    powers = (raw - noise.unsqueeze(-1) * own).maximum(LEAST_SHARE * raw).clamp(min=tiny)
    return powers.log(), noise.log().unsqueeze(-1), energy


def _padded(places: Tensor, like: Tensor) -> Tensor:
    """[B, K, 3] with as many slots as `like`."""
    return torch.nn.functional.pad(places, (0, 0, 0, like.shape[1] - places.shape[1]))
