"""Stochastic maximum likelihood: the strong reference that knows neither powers nor noise.

    1. grid       the next source goes where the likelihood gains most, its power and σ² set to
                  their best at every grid point, sources found so far held (their powers relative
                  to σ² too)
    2. scoring    all sources found so far move together by Fisher scoring
    3. sweeps     every source in turn is taken out and searched anew, given the others; kept if
                  the likelihood grew: alternating projection (Ziskind & Wax 1988, section IV)

With one source more, Σ = I + B (P/σ²) Bᴴ of the others, g = bᴴ Σ⁻¹ b, f = |bᴴ Σ⁻¹ y|² and
E = sum_l yᴴ Σ⁻¹ y, the likelihood of a new source of power ρσ² is, with σ² at its best,

    V(ρ) = sum_l log(1 + ρ g_l) + L M log(E - sum_l ρ f_l / (1 + ρ g_l)) + const.

Efficient above its threshold; below it, it is not Bayes-optimal, and a learned estimator can win.
"""

import torch
from torch import Tensor

from trainer.covariance import whiten
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, respond

from .estimates import LEAST_RATIO, Estimates
from .levenberg_marquardt import Minimum, descend
from .likelihood import InversionLemma, Likelihood, Whitened
from .pseudospectra import as_estimates, interior, repeated

POWER_STEPS = 3
"""Scoring steps for the power of a new source at every grid point."""
CANDIDATES = 3
"""Separate grid points a new source is tried at: the best may lie beside a lesser peak."""
NEAR = 0.7
"""Grid points whose steering vectors correlate by more than this lead to the same peak."""
FIRST_STEPS = 4
"""Fisher scoring steps for every candidate."""
SCORING_STEPS = 4
"""Further ones for the best of them, together with the other sources."""
LAST_STEPS = 12
"""Fisher scoring steps at the end."""
GAIN_STEPS = 4
"""Scoring steps of what is left when a source is taken out of a fit."""
SWEEPS = 1
"""How often every source is searched anew."""
SPAN = 12.0
"""Natural log of how far powers and noise may lie from their scale in the data: 52 dB."""
PART = {"cpu": 2**23, "cuda": 2**28}
"""Largest number of grid responses held at once: what a cache holds, what keeps a GPU busy."""


@torch.no_grad()
def sml(
    scenes: Scenes, num_sources: Tensor, search: SearchGrid, *, slots: int | None = None
) -> Estimates:
    """Stochastic ML estimates of K uncorrelated sources, K [B]; all in double precision but the
    grid, which has the precision of `search`.

    Args:
        slots: columns of the estimates, at least the largest K (the default).
    """
    most = max(int(num_sources.max()), 1)
    snapshots, channel = whiten(scenes)
    responses = snapshots.shape[1] * snapshots.shape[2] * len(search.points)
    size = max(1, PART[snapshots.device.type] // responses)
    parts = [
        _estimate(Whitened(*part), count, search, most)
        for *part, count in zip(
            *(x.split(size) for x in (snapshots, channel, scenes.codes, num_sources)), strict=True
        )
    ]
    places, separate, gained = (torch.cat(x) for x in zip(*parts, strict=True))
    active = torch.arange(most, device=places.device) < num_sources.unsqueeze(-1)
    separate = separate & ~repeated(search.response(places), active)
    resolved = separate & interior(places, search) & (gained > LEAST_RATIO)
    return as_estimates(places, active, separate, resolved, {}, search, slots or most)


def _estimate(
    data: Whitened, num_sources: Tensor, search: SearchGrid, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Places [B, slots, 3], whether their powers are more than nothing, and twice the log
    likelihood that each adds to that of the others, [B, slots]."""
    scan = Scan(data, search)
    wide = Whitened(*(x.to(torch.complex128) for x in data))
    several = Whitened(*(x.repeat_interleave(CANDIDATES, dim=0) for x in wide))
    wanted = torch.arange(slots, device=num_sources.device) < num_sources.unsqueeze(-1)
    unknowns, lower, upper = all_noise(wide, search, slots)

    def scored(held: Whitened, values: Tensor, active: Tensor, steps: int) -> Minimum:
        repeats = len(values) // len(lower)
        box = (x.repeat_interleave(repeats, dim=0) for x in (lower, upper))
        return descend(Likelihood(held, search, active).model, values, *box, steps=steps)

    def searched(values: Tensor, others: Tensor, slot: int) -> Minimum:
        """The best of several starts of source `slot`, refined with the others."""
        places, ratio, noise = scan.best(Likelihood(wide, search, others), values)
        trial = values.unsqueeze(1).repeat(1, CANDIDATES, 1)
        trial[..., 3 * slot : 3 * slot + 3] = places
        trial[..., 3 * slots :] += (noise.log() - trial[..., -1]).unsqueeze(-1)
        trial[..., 3 * slots + slot] = ratio.log() + noise.log()
        wants = wanted[:, slot, None, None]
        trial = torch.where(wants, trial, values.unsqueeze(1)).flatten(0, 1)
        active = others | (wanted & (torch.arange(slots, device=others.device) == slot))
        found = scored(several, trial, active.repeat_interleave(CANDIDATES, 0), FIRST_STEPS)
        best = found.value.view(-1, CANDIDATES).argmin(-1)
        best = best + CANDIDATES * torch.arange(len(values), device=best.device)
        return scored(wide, found.place[best], active, SCORING_STEPS)

    active = torch.zeros_like(wanted)
    for slot in range(slots):
        unknowns, value = searched(unknowns, active, slot)
        active = active.clone()
        active[:, slot] = wanted[:, slot]
    for slot in list(range(slots)) * (SWEEPS if slots > 1 else 0):
        others = active.clone()
        others[:, slot] = False
        trial, cost = searched(unknowns, others, slot)
        better = cost < value
        unknowns = torch.where(better.unsqueeze(-1), trial, unknowns)
        value = torch.where(better, cost, value)
    unknowns, value = scored(wide, unknowns, active, LAST_STEPS)
    gained = gains(wide, search, Minimum(unknowns, value), active, (lower, upper), GAIN_STEPS)
    places = unknowns[:, : 3 * slots].unflatten(-1, (slots, 3))
    powers = unknowns[:, 3 * slots : 4 * slots]
    least = lower[:, 3 * slots : 4 * slots]
    return places.to(search.points.dtype), wanted & (powers > least), gained


def gains(
    data: Whitened,
    search: SearchGrid,
    fitted: Minimum,
    active: Tensor,
    box: tuple[Tensor, Tensor],
    steps: int,
) -> Tensor:
    """Twice the log likelihood that each source adds to a fit without it: [B, K].

    Too large where `steps` are too few for the others to take over what they can.
    """
    slots = active.shape[-1]
    gain = squared_norm(data.channel) / data.channel.shape[1]
    added = []
    for slot in range(slots):
        others = active & (torch.arange(slots, device=active.device) != slot)
        # what the source explained is noise to the others
        power = fitted.place[:, 3 * slots + slot].exp() * gain
        start = fitted.place.clone()
        start[:, -1] = (start[:, -1].exp() + power).log()
        without = descend(Likelihood(data, search, others).model, start, *box, steps=steps)
        added.append(2 * (without.value - fitted.value))
    return torch.stack(added, dim=-1)


def all_noise(data: Whitened, search: SearchGrid, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """All noise and no sources, and the box of the unknowns: [B, 4 slots + 1] each."""
    power = squared_norm(data.snapshots) / data.snapshots[0].numel()
    tiny = torch.finfo(power.dtype).tiny
    noise = power.clamp(min=tiny).log().unsqueeze(-1)
    gain = squared_norm(data.channel) / data.channel.shape[1]
    source = (noise - gain.clamp(min=tiny).log().unsqueeze(-1)).expand(-1, slots)
    low, high = (
        x.double().repeat(slots).expand(len(power), -1) for x in (search.lower, search.upper)
    )
    lower = torch.cat([low, source - SPAN, noise - SPAN], dim=-1)
    upper = torch.cat([high, source + SPAN, noise + 1], dim=-1)
    return torch.cat([(low + high) / 2, source - SPAN, noise], dim=-1), lower, upper


class Scan:
    """What the likelihood needs at every grid point, in the grid's precision.

    Attributes:
        energy: |b_lg|², [B, L, G].
        data: y_lᴴ b_lg, [B, L, G].
    """

    def __init__(self, data: Whitened, search: SearchGrid) -> None:
        kind = search.steering.dtype
        self.measured = Whitened(*(x.to(kind) for x in data))
        self.search = search
        _, channel, codes = self.measured
        echoes = (channel.unsqueeze(1) * codes.unsqueeze(2)) @ search.steering.mT
        self.energy = squared_magnitude(echoes).sum(2)
        self.data = self._against(self.measured.snapshots.unsqueeze(-1)).squeeze(2)

    def best(self, others: Likelihood, unknowns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Places [B, C, 3] of the highest likelihoods, apart; p/σ² and σ² there, [B, C]."""
        places, powers, noise = others.split(unknowns)
        kind = self.energy.dtype
        steering = self.search.response(places.to(kind))
        echoes = respond(self.measured.channel, self.measured.codes, steering)
        ratio = (powers / noise.unsqueeze(-1)).to(kind).unsqueeze(1)
        lemma = InversionLemma.of(echoes.mH @ echoes, ratio)
        onto_data = echoes.mH @ self.measured.snapshots.unsqueeze(-1)  # [B, L, K, 1]
        onto_grid = self._against(echoes)  # [B, L, K, G]
        through = lemma.inner @ onto_grid
        energy = self.energy - (onto_grid.conj() * through).real.sum(2)
        pull = self.data - (onto_data.conj() * through).sum(2)
        explained = (onto_data.conj() * (lemma.inner @ onto_data)).real.sum((1, 2, 3))
        total = squared_norm(self.measured.snapshots) - explained
        power = squared_magnitude(pull)
        found = profile(energy.clamp(min=0), power, total, echoes.shape[2])
        tiny = torch.finfo(kind).tiny
        points = self._lowest(found[0])
        ratio, noise = (x.gather(-1, points).clamp(min=tiny).double() for x in found[1:])
        return self.search.points[points].double(), ratio, noise

    def _lowest(self, value: Tensor) -> Tensor:
        """Grid points of the least values [B, G], not near each other: [B, C]."""
        points = []
        for _ in range(CANDIDATES):
            point = value.argmin(-1, keepdim=True)
            points.append(point)
            steering = self.search.steering[point]
            near = (
                squared_magnitude(self.search.correlate(steering.mT)).sum(1)
                > (NEAR * steering.shape[-1]) ** 2
            )
            value = value.where(~near, torch.inf)
        return torch.cat(points, dim=-1)

    def _against(self, received: Tensor) -> Tensor:
        """uᴴ b_lg of columns u [B, L, M, K] at the antennas: [B, L, K, G]."""
        back = self.measured.channel.mH.unsqueeze(1) @ received
        back = self.measured.codes.conj().unsqueeze(-1) * back  # G_lᴴ u, [B, L, N, K]
        return self.search.correlate(back)


def profile(
    energy: Tensor, pull: Tensor, total: Tensor, antennas: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Least V(ρ) of the module docstring: g, f [B, L, G], E [B] -> V, ρ, σ² [B, G].

    Starts from the ρ that is best for weak sources and takes scoring steps. Any ρ gives the
    likelihood of some power, so a step too few understates a peak and does nothing worse.
    """
    count = energy.shape[1] * antennas
    tiny = torch.finfo(energy.dtype).tiny
    total = total.clamp(min=tiny).unsqueeze(-1)
    squared = energy.square().sum(1).clamp(min=tiny)
    noise = total / count
    ratio = ((pull.sum(1) / noise - energy.sum(1)) / squared).clamp(min=0)
    for _ in range(POWER_STEPS):
        weight = 1 / (1 + ratio.unsqueeze(1) * energy)
        noise = (total - ratio * (pull * weight).sum(1)).clamp(min=tiny) / count
        score = (pull * weight.square()).sum(1) / noise - (energy * weight).sum(1)
        information = (energy * weight).square().sum(1).clamp(min=tiny)
        ratio = (ratio + score / information).maximum(ratio / 8)
    weight = 1 / (1 + ratio.unsqueeze(1) * energy)
    rest = (total - ratio * (pull * weight).sum(1)).clamp(min=tiny)
    return count * rest.log() - weight.log().sum(1), ratio, rest / count
