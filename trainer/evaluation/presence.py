"""Is there any source, and does another place explain it nearly as well?

Presence is a test of noise alone, K = 0, against one source anywhere in the region.

The statistic is the log likelihood gained by the best source of the grid, power and σ² at their
best (`estimation.sml`). In noise alone it is a maximum over many places, about Gumbel
distributed (Leadbetter, Lindgren and Rootzén 1983, Extremes and Related Properties of Random
Sequences and Processes). Its location and scale depend on panel, channel and codes: they are those
of drawn noise in the channel and codes of the scene, by moments.

A place has a probability by Laplace's approximation: each peak j of the likelihood has the mass
exp(-V_j) / sqrt(det J_j) (`estimation.laplace_evidence`) and is Gaussian, so that

    P = (share of the nearest peak among `RIVALS` others) x (its share within 5° of the estimate)

is about the posterior probability that the source lies within 5° of the estimate, the other
sources' numbers and powers at their best: few snapshots or antennas leave many peaks, and noise a
wide one.

Places that stay are tested by fitting each half of the snapshots with places of its own, and with
those of the whole scene, powers and noise free in both. Twice the log likelihood that the former
gain is about χ² with 3 K degrees of freedom if nothing moves (Wilks 1938): 6 K places, not 3 K.
"""

import math

import torch
from scipy.special import chdtrc
from torch import Tensor

from trainer.covariance import Whitened, whiten
from trainer.estimation import (
    Estimates,
    GridLikelihood,
    Likelihood,
    laplace_evidence,
    profile_likelihood,
    region_limited,
    score,
)
from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, SearchGrid

from .metrics import TOLERANCE_DEG

EULER = 0.5772156649
"""Mean of the standard Gumbel law."""
DRAWS = 128
"""Draws of noise for every doubtful scene: the scale of its Gumbel law is then known to 9 %."""
MARGIN = 0.25
"""Added to the location, in scales: moments of few draws, and maxima of few snapshots, have a
heavier tail than the Gumbel law of known moments (1.3 to 1.6 % in place of 1 %)."""
PEAKS = 16
"""Grid points, those best for weak sources, at which the power is fitted."""
CERTAIN = 10.0
"""A gain above log(grid points) by so much is a source without drawing: the union bound."""
FEW = 32
"""Fewest measurements L M for which that bound holds: tails of fewer are heavier."""
PART = 2**24
"""Largest number of grid responses at once."""
RIVALS = 6
"""Other peaks of the likelihood that an estimate's is compared with."""
STEPS = 6
"""Of scoring, to the top of each."""
HALF_STEPS = 8
"""Of scoring, from the places of the whole scene to those of a half."""
LEAST_DIMENSIONS = 64
"""Fewest complex dimensions of the residual of a half: the law of fewer is not χ²."""


@torch.no_grad()
def noise_p_value(scenes: Scenes, search: SearchGrid) -> Tensor:
    """Return the p value of noise alone, [B]; 1 where the snapshots are silent."""
    data = whiten(scenes)
    gains = source_gain(scenes, search)
    points, count = len(search.points), data.snapshots[0].numel()
    p_value = (math.log(points) - gains).exp().clamp(max=1)
    doubtful = gains < math.log(points) + CERTAIN if count >= FEW else gains >= 0
    rows = doubtful.nonzero().flatten()
    if not len(rows):
        return p_value
    generator = torch.Generator().manual_seed(0)  # of the CPU, so that every device tests alike
    noise = torch.randn(DRAWS, *data.snapshots.shape[1:], generator=generator, dtype=torch.cfloat)
    # the same draws for every scene: what is said of one does not depend on the others
    noise = noise.to(data.snapshots).expand(len(rows), -1, -1, -1)
    of_noise = _gains(Whitened(*(x[rows] for x in data)), noise, search)
    scale = of_noise.std(-1) * math.sqrt(6) / math.pi
    location = of_noise.mean(-1) + (MARGIN - EULER) * scale
    score = ((gains[rows] - location) / scale.clamp(min=1e-12)).clamp(min=-5)
    return p_value.index_copy(0, rows, -torch.expm1(-(-score).exp()))


@torch.no_grad()
def source_gain(scenes: Scenes, search: SearchGrid) -> Tensor:
    """Return the log likelihood gained by the best source of the grid over noise alone, [B]."""
    data = whiten(scenes)
    return _gains(data, data.snapshots.unsqueeze(1), search).squeeze(1)


@torch.no_grad()
def place_probability(scenes: Scenes, found: Estimates, search: SearchGrid) -> Tensor:
    """Return P of the module docstring, [B, K_max]; 1 in inactive slots."""
    probability = torch.ones_like(found.azimuth, dtype=torch.float64)
    slots = max(int(found.active.sum(-1).max()), 1)
    data = whiten(scenes)
    active, places = found.active[:, :slots], found.positions[:, :slots].double()
    step = max(1, PART // (data.snapshots[0].numel() * len(search.points)))
    for first in range(0, scenes.batch_size, step):
        part = slice(first, first + step)
        some = Whitened(*(x[part] for x in data))
        probability[part, :slots] = _probability(some, places[part], active[part], search)
    return probability.masked_fill(~found.active, 1)


@torch.no_grad()
def constancy_p_value(
    scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid
) -> Tensor:
    """Return p of sources at positions [B, K, 3] that stay there, [B]; 1 if there is no test.

    Args:
        active: [B, K].
    """
    data = whiten(scenes).to(torch.complex128)
    half, count = scenes.num_snapshots // 2, active.sum(-1)
    ratio = torch.zeros_like(positions[:, 0, 0], dtype=torch.float64)
    for part in (slice(0, half), slice(half, None)):
        some = Whitened(data.snapshots[:, part], data.channel, data.codes[:, part])
        if not some.snapshots.numel():
            return torch.ones_like(ratio)
        free, _ = score(some, positions, active, search, steps=HALF_STEPS)
        held, _ = score(some, positions, active, search, steps=HALF_STEPS, held=True)
        ratio = ratio + 2 * (held.value - free.value)
    p_value = chdtrc((3 * count.clamp(min=1)).cpu().numpy(), ratio.clamp(min=0).cpu().numpy())
    tested = (half * (scenes.num_antennas - count) >= LEAST_DIMENSIONS) & (count > 0)
    return torch.from_numpy(p_value).to(ratio).where(tested, 1)


def _probability(data: Whitened, places: Tensor, active: Tensor, search: SearchGrid) -> Tensor:
    """Return P of places [B, K, 3], [B, K].

    A rival begins at another place for one source and moves all; if it has a source near the
    estimate in the end, it says the same.
    """
    grid, data = GridLikelihood(data, search), data.to(torch.complex128)
    many = Whitened(*(x.repeat_interleave(RIVALS, 0) for x in data))
    fitted, _ = score(data, places, active, search, steps=STEPS)
    slots = places.shape[1]
    variance = region_limited(fitted.curvature, search, slots).variance[..., :2]
    peak = fitted.point[:, : 3 * slots].view(places.shape)
    low, high = (
        (side * math.radians(TOLERANCE_DEG) + (places - peak)[..., :2]) / variance.sqrt()
        for side in (-1, 1)
    )
    inside = (torch.special.ndtr(high) - torch.special.ndtr(low)).prod(-1)
    own_evidence = laplace_evidence(fitted, slots, search).unsqueeze(-1)
    present = active.repeat_interleave(RIVALS, 0)
    shares = []
    for slot in range(slots):
        own = places[:, slot : slot + 1]
        taken = _near(search.points, own) | grid.beside(search.response(own.to(search.points)))
        others = active & (torch.arange(slots, device=active.device) != slot)
        likelihood = Likelihood(data, search, others)
        starts, *_ = grid.candidates(likelihood, fitted.point, RIVALS, without=taken)
        trial = places.unsqueeze(1).repeat(1, RIVALS, 1, 1)
        trial[:, :, slot] = starts
        rival, _ = score(many, trial.flatten(0, 1), present, search, steps=STEPS)
        evidence = laplace_evidence(rival, slots, search).view(-1, RIVALS)
        ends = rival.point[:, : 3 * slots].reshape(len(places), RIVALS * slots, 3)
        same = _near(ends, own).view(-1, RIVALS, slots) & active.unsqueeze(1)
        odds = (evidence - own_evidence).exp().masked_fill(same.any(-1), 0)
        shares.append(1 / (1 + odds.sum(-1)))
    return torch.stack(shares, dim=-1) * inside


def _near(places: Tensor, one: Tensor) -> Tensor:
    """Return which places [*B, P, 3] lie within the tolerance of `one` [B, 1, 3]: [B, P]."""
    apart = (places[..., :2] - one[..., :2]).abs().amax(-1)
    return apart <= math.radians(TOLERANCE_DEG)


def _gains(data: Whitened, snapshots: Tensor, search: SearchGrid) -> Tensor:
    """Return the log likelihood gained by the best source, of R snapshots [B, R, L, M]: [B, R]."""
    size, repeats, length, antennas = snapshots.shape
    step = max(1, PART // (repeats * length * len(search.points)))
    gains = []
    for first in range(0, size, step):
        part = slice(first, first + step)
        grid = GridLikelihood(Whitened(*(x[part] for x in data)), search)
        given = snapshots[part].to(search.steering.dtype)
        matched = squared_magnitude(grid.correlate(given.permute(0, 2, 3, 1)))  # [B, L, R, G]
        total = squared_magnitude(given).sum((2, 3)).clamp(min=torch.finfo(grid.energy.dtype).tiny)
        noise = total.unsqueeze(-1) / (length * antennas)
        score = matched.sum(1) / noise - grid.energy.sum(1, keepdim=True)
        score = score / grid.energy.square().sum(1, keepdim=True).clamp(min=1e-30).sqrt()
        peaks = score.topk(min(PEAKS, score.shape[-1])).indices  # [B, R, P]
        at = peaks.unsqueeze(1).expand(-1, length, -1, -1)
        energy = grid.energy.unsqueeze(2).expand(-1, -1, repeats, -1).gather(-1, at)
        energy, matched = (
            x.transpose(1, 2).flatten(0, 1) for x in (energy, matched.gather(-1, at))
        )
        value, *_ = profile_likelihood(energy, matched, total.flatten(), length * antennas)
        alone = length * antennas * total.flatten().log()
        gains.append((alone - value.amin(-1)).clamp(min=0).view(-1, repeats).double())
    return torch.cat(gains)
