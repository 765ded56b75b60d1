"""The estimator `sml`: stochastic maximum likelihood, with unknown source powers and noise.

    1. grid       the next source starts where the likelihood gains most, its power and σ² at their
                  best at every grid point; for the sources found so far, positions and powers
                  relative to σ² are held
    2. scoring    all sources found so far move together by Fisher scoring (Kay 1993, section 7.7)
    3. sweeps     every source in turn is removed and searched again, given the others; the result
                  is kept if the likelihood grew: alternating projection (Ziskind and Wax 1988,
                  section IV)

With Σ = I + B (P/σ²) Bᴴ of the other sources, g = bᴴ Σ⁻¹ b, f = |bᴴ Σ⁻¹ y|² and
E = sum_l yᴴ Σ⁻¹ y, the likelihood of a new source of power ρσ², with σ² at its best, is

    V(ρ) = sum_l log(1 + ρ g_l) + L M log(E - sum_l ρ f_l / (1 + ρ g_l)) + const.

The estimator is efficient above its threshold; below, a Bayesian estimator can have less error.
"""

import copy

import torch
from torch import Tensor

from trainer.covariance import Whitened, whiten
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, respond

from .estimates import LEAST_RATIO, Estimates, is_interior, is_repetition, make_estimates
from .levenberg_marquardt import Minimum, minimise
from .likelihood import InversionLemma, Likelihood
from .uncertainty import region_limited

POWER_STEPS = 3
"""Scoring steps for the power of a new source at every grid point."""
CANDIDATES = 3
"""Separate grid points at which a new source is tried: the best may lie beside a lesser peak."""
NEAR = 0.7
"""Grid points whose steering vectors correlate by more than this lead to the same peak."""
CANDIDATE_STEPS = 4
"""Fisher scoring steps for every candidate."""
JOINT_STEPS = 4
"""Further steps for the best candidate, together with the other sources."""
LAST_STEPS = 12
"""Steps at the end."""
RATIO_STEPS = 4
"""Steps of the remaining sources after one is removed, for its likelihood ratio."""
SWEEPS = 1
"""Sweeps of the estimator `sml`."""
LEAST_GAIN, LEAST_LONE_GAIN = 1.5, 5.0
"""Log likelihood that one more source must add for a fit of several sources, and of one, to be
searched again. A right fit leaves 1.8 in the median, 5 in one of 20 scenes; a wrong one of two
sources hardly more at 0 dB, a wrong one of a lone source far more."""
SPAN = 12.0
"""Natural log of the largest ratio of powers and noise to their scale in the data: 52 dB."""
POINTS = 1024
"""Grid points of one product with the responses."""
PART = {"cpu": 2**23, "cuda": 2**28}
"""Largest number of grid responses of one part: as many as fit a CPU's cache, or fill a GPU."""


@torch.no_grad()
def sml(
    scenes: Scenes,
    num_sources: Tensor,
    search: SearchGrid,
    *,
    slots: int | None = None,
    sweeps: int = SWEEPS,
) -> Estimates:
    """Return stochastic ML estimates of K uncorrelated sources, K [B].

    Computed in double precision, except for the grid, which has the precision of `search`.

    Args:
        slots: columns of the estimates, at least the largest K (the default).
        sweeps: number of times that every source is searched again.
    """
    most = max(int(num_sources.max()), 1)
    data = whiten(scenes)
    size = _part_size(data, search)
    parts = zip(*(x.split(size) for x in (*data, num_sources)), strict=True)
    found = []
    for *x, count in parts:
        grid = GridLikelihood(Whitened(*x), search)
        found.append(SourceSearch(Whitened(*x), count, grid, most).run(sweeps))
    positions, separate, ratios, known = (torch.cat(x) for x in zip(*found, strict=True))
    active = torch.arange(most, device=positions.device) < num_sources.unsqueeze(-1)
    separate = separate & ~is_repetition(search.response(positions), active)
    resolved = separate & known & is_interior(positions, search) & (ratios > LEAST_RATIO)
    return make_estimates(positions, active, separate, resolved, search, slots or most)


@torch.no_grad()
def search_again(
    data: Whitened, fitted: Minimum, active: Tensor, tried: Tensor, search: SearchGrid
) -> tuple[Minimum, Tensor]:
    """Search every source of a fit again, given the others, where something is left to find.

    That is where one more source would add more than `LEAST_GAIN` (K > 1) or `LEAST_LONE_GAIN`
    to the log likelihood.

    Args:
        data: in double precision.
        fitted: unknowns of `Likelihood`, with value and curvature there.
        active: [B, K], the first so many slots of every scene.
        tried: scenes that may be searched at all, [B].

    Returns:
        The fit, never of less likelihood, and which scenes were searched, [B].
    """
    if not len(active):
        return fitted, tried
    size = _part_size(data, search)
    parts = zip(*(x.split(size) for x in (*data, active, tried, *fitted)), strict=True)
    found = [
        _search_part(Whitened(*x), slots, some, Minimum(*fit), search)
        for *x, slots, some, fit in ((*p[:5], p[5:]) for p in parts)
    ]
    fits, searched = zip(*found, strict=True)
    return Minimum(*(torch.cat(x) for x in zip(*fits, strict=True))), torch.cat(searched)


def _search_part(
    data: Whitened, active: Tensor, tried: Tensor, fitted: Minimum, search: SearchGrid
) -> tuple[Minimum, Tensor]:
    least = torch.where(active.sum(-1) > 1, LEAST_GAIN, LEAST_LONE_GAIN)
    gain = torch.zeros_like(fitted.value)
    chosen = tried.nonzero().squeeze(-1)
    if len(chosen):
        some = Whitened(*(x[chosen] for x in data))
        likelihood = Likelihood(some, search, active[chosen])
        grid = GridLikelihood(some, search)
        gain[chosen] = grid.gain(likelihood, fitted.point[chosen]).to(gain)
    searched = gain > least
    if searched.any():
        grid = grid.take(searched[chosen])
        chosen = searched.nonzero().squeeze(-1)
        some, slots = Whitened(*(x[chosen] for x in data)), active[chosen]
        again = SourceSearch(some, slots.sum(-1), grid, active.shape[1]).sweep(
            Minimum(*(x[chosen] for x in fitted)), slots
        )
        fitted = Minimum(*(x.index_copy(0, chosen, y) for x, y in zip(fitted, again, strict=True)))
    return fitted, searched


class SourceSearch:
    """The search for up to `slots` sources in one part of a batch."""

    def __init__(
        self, data: Whitened, num_sources: Tensor, grid: "GridLikelihood", slots: int
    ) -> None:
        self.grid = grid
        self.search = grid.search
        self.data = data.to(torch.complex128)
        self.slot = torch.arange(slots, device=num_sources.device)
        self.wanted = self.slot < num_sources.unsqueeze(-1)
        self.start, self.lower, self.upper = noise_only_start(self.data, grid.search, slots)

    def run(self, sweeps: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return positions, and of each: power above its bound, likelihood ratio, identifiable.

        Shapes [B, K, 3], and [B, K] each.
        """
        slots = len(self.slot)
        size, unknowns = self.start.shape
        nothing = (self.start.new_zeros(size, *shape) for shape in ((), (unknowns, unknowns)))
        fitted = Minimum(self.start, *nothing)
        active = torch.zeros_like(self.wanted)
        for slot in range(slots):
            fitted = self._search_source(fitted.point, active, slot)
            active = self.wanted & (self.slot <= slot)
        for _ in range(sweeps if slots > 1 else 0):
            fitted = self.sweep(fitted, active)
        fitted = self._score(fitted.point, active, LAST_STEPS)
        positions = fitted.point[:, : 3 * slots].unflatten(-1, (slots, 3))
        power = slice(3 * slots, 4 * slots)
        present = self.wanted & (fitted.point[:, power] > self.lower[:, power])
        every = self.slot.expand(len(active), -1).unbind(-1)
        ratios = [
            likelihood_ratio(self.data, fitted, active, slot, self.search, steps=RATIO_STEPS)
            for slot in every
        ]
        known = region_limited(fitted.curvature, self.search, slots).identifiable
        return positions.to(self.search.points.dtype), present, torch.stack(ratios, dim=-1), known

    def sweep(self, fitted: Minimum, active: Tensor) -> Minimum:
        """Search every source again, given the others; keep what raises the likelihood."""
        for slot in range(len(self.slot)):
            trial = self._search_source(fitted.point, active & (self.slot != slot), slot)
            fitted = trial.where(trial.value < fitted.value, fitted)
        return fitted

    def _score(self, start: Tensor, active: Tensor, steps: int) -> Minimum:
        """Run Fisher scoring from [B * repeats, 4K + 1], the starts of a scene side by side."""
        repeats = len(start) // len(self.lower)
        *data, lower, upper = (
            x.repeat_interleave(repeats, dim=0) if repeats > 1 else x
            for x in (*self.data, self.lower, self.upper)
        )
        likelihood = Likelihood(Whitened(*data), self.search, active)
        return minimise(likelihood.local_model, start, lower, upper, steps=steps)

    def _search_source(self, unknowns: Tensor, others: Tensor, slot: int) -> Minimum:
        """Return the best of several starts of source `slot`, refined with the others."""
        slots = len(self.slot)
        likelihood = Likelihood(self.data, self.search, others)
        positions, ratio, noise = self.grid.candidates(likelihood, unknowns)
        trial = unknowns.unsqueeze(1).repeat(1, CANDIDATES, 1)
        trial[..., 3 * slot : 3 * slot + 3] = positions
        trial[..., 3 * slots :] += (noise.log() - trial[..., -1]).unsqueeze(-1)
        trial[..., 3 * slots + slot] = ratio.log() + noise.log()
        wanted = self.wanted[:, slot, None, None]
        trial = torch.where(wanted, trial, unknowns.unsqueeze(1)).flatten(0, 1)
        active = others | (self.wanted & (self.slot == slot))
        found = self._score(trial, active.repeat_interleave(CANDIDATES, 0), CANDIDATE_STEPS)
        best = found.value.view(-1, CANDIDATES).argmin(-1)
        best = best + CANDIDATES * torch.arange(len(unknowns), device=best.device)
        return self._score(found.point[best], active, JOINT_STEPS)


def likelihood_ratio(
    data: Whitened,
    fitted: Minimum,
    active: Tensor,
    removed: Tensor,
    search: SearchGrid,
    *,
    steps: int,
) -> Tensor:
    """Return twice the log likelihood that a source adds to a fit of the others alone, [B].

    Too large where the steps are too few for the others to take its place.

    Args:
        data: in double precision.
        fitted: unknowns of `Likelihood` at a maximum, with the value there.
        active: [B, K].
        removed: slot of the source in every scene, [B].
    """
    slots = active.shape[1]
    _, lower, upper = noise_only_start(data, search, slots)
    gain = squared_norm(data.mean_channel) / data.channel.shape[1]
    # the power of the removed source is noise to the others
    power = fitted.point.gather(1, 3 * slots + removed.unsqueeze(1)).squeeze(1).exp() * gain
    start = fitted.point.clone()
    start[:, -1] = (start[:, -1].exp() + power).log()
    others = active & (torch.arange(slots, device=active.device) != removed.unsqueeze(1))
    model = Likelihood(data, search, others).local_model
    return 2 * (minimise(model, start, lower, upper, steps=steps).value - fitted.value)


def _part_size(data: Whitened, search: SearchGrid) -> int:
    responses = data.snapshots[0].numel() * len(search.points)
    return max(1, PART[data.snapshots.device.type] // responses)


def noise_only_start(
    data: Whitened, search: SearchGrid, slots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return unknowns without any source, and their lower and upper bounds: [B, 4K + 1] each."""
    power = squared_norm(data.snapshots) / data.snapshots[0].numel()
    tiny = torch.finfo(power.dtype).tiny
    noise = power.clamp(min=tiny).log().unsqueeze(-1)
    gain = squared_norm(data.mean_channel) / data.channel.shape[1]
    source = (noise - gain.clamp(min=tiny).log().unsqueeze(-1)).expand(-1, slots)
    low, high = (
        x.double().repeat(slots).expand(len(power), -1) for x in (search.lower, search.upper)
    )
    lower = torch.cat([low, source - SPAN, noise - SPAN], dim=-1)
    upper = torch.cat([high, source + SPAN, noise + 1], dim=-1)
    return torch.cat([(low + high) / 2, source - SPAN, noise], dim=-1), lower, upper


class GridLikelihood:
    """The likelihood of a new source at every grid point, in the grid's precision.

    Attributes:
        energy: |b_lg|², [B, L, G].
        matched: y_lᴴ b_lg, [B, L, G].
    """

    def __init__(self, data: Whitened, search: SearchGrid) -> None:
        self.data = data.to(search.steering.dtype)
        self.search = search
        rows = self.data.responses.flatten(0, 2).mT
        # products that fit a cache take a third of the time of a whole one
        parts = [squared_magnitude(part @ rows) for part in search.steering.split(POINTS)]
        shape = self.data.snapshots.shape
        self.energy = torch.cat([x.unflatten(-1, shape).sum(-1).movedim(0, -1) for x in parts], -1)
        self.matched = self.correlate(self.data.snapshots.unsqueeze(-1)).squeeze(2)

    def take(self, chosen: Tensor) -> "GridLikelihood":
        """Return the likelihood of some scenes of the batch, a mask [B]."""
        taken = copy.copy(self)
        taken.data = Whitened(*(x[chosen] for x in self.data))
        taken.energy, taken.matched = self.energy[chosen], self.matched[chosen]
        return taken

    def candidates(
        self,
        others: Likelihood,
        unknowns: Tensor,
        number: int = CANDIDATES,
        without: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return positions [B, C, 3] of the highest separate peaks; p/σ² and σ² there, [B, C].

        Args:
            without: grid points that are left out, [B, G].
        """
        (value, *best), _ = self._profile(others, unknowns)
        points = self._lowest(
            value if without is None else value.where(~without, torch.inf), number
        )
        tiny = torch.finfo(value.dtype).tiny
        ratio, noise = (x.gather(-1, points).clamp(min=tiny).double() for x in best)
        return self.search.points[points].double(), ratio, noise

    def gain(self, others: Likelihood, unknowns: Tensor) -> Tensor:
        """Return the log likelihood that one more source would add at the best grid point: [B]."""
        (value, *_), without = self._profile(others, unknowns)
        return without - value.amin(-1)

    def _profile(
        self, others: Likelihood, unknowns: Tensor
    ) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
        """Return `profile_likelihood` at every grid point, and V without the new source, [B]."""
        positions, powers, noise = others.split(unknowns)
        dtype = self.energy.dtype
        steering = self.search.response(positions.to(dtype))
        snapshots = self.data.snapshots
        echoes = respond(self.data.channel, self.data.codes, steering)
        ratio = (powers / noise.unsqueeze(-1)).to(dtype).unsqueeze(1)
        lemma = InversionLemma.from_gram(echoes.mH @ echoes, ratio)
        onto_data = echoes.mH @ snapshots.unsqueeze(-1)  # [B, L, K, 1]
        onto_grid = self.correlate(echoes)  # [B, L, K, G]
        through = lemma.inner @ onto_grid
        energy = self.energy - (onto_grid.conj() * through).real.sum(2)
        matched = self.matched - (onto_data.conj() * through).sum(2)
        explained = (onto_data.conj() * (lemma.inner @ onto_data)).real.sum((1, 2, 3))
        total = squared_norm(snapshots) - explained
        count = snapshots[0].numel()
        profile = profile_likelihood(energy.clamp(min=0), squared_magnitude(matched), total, count)
        return profile, count * total.clamp(min=torch.finfo(dtype).tiny).log()

    def _lowest(self, value: Tensor, number: int) -> Tensor:
        """Return the grid points of the least values [B, G], apart from each other: [B, C]."""
        points = []
        for _ in range(number):
            point = value.argmin(-1, keepdim=True)
            points.append(point)
            value = value.where(~self.beside(self.search.steering[point]), torch.inf)
        return torch.cat(points, dim=-1)

    def beside(self, steering: Tensor) -> Tensor:
        """Return the grid points of the same peak as steering vectors [B, 1, N]: [B, G]."""
        correlation = squared_magnitude(self.search.correlate(steering.mT)).squeeze(1)
        return correlation > (NEAR * steering.shape[-1]) ** 2

    def correlate(self, received: Tensor) -> Tensor:
        """Return uᴴ b_lg of columns u [B, L, M, K] at the antennas: [B, L, K, G]."""
        back = self.data.channel.mH.unsqueeze(1) @ received
        back = self.data.codes.conj().unsqueeze(-1) * back  # G_lᴴ u, [B, L, N, K]
        return self.search.correlate(back)


def profile_likelihood(
    energy: Tensor, matched: Tensor, total: Tensor, dimensions: int | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the least V(ρ) of the module docstring, with its ρ and σ²: [B, G] each.

    Starts from the ρ that is best for weak sources and takes `POWER_STEPS` scoring steps. Any ρ
    gives the likelihood of some power, so too few steps understate a peak and do no other harm.

    Args:
        energy, matched: g and f, [B, L, G].
        total: E, [B].
        dimensions: L M, or of them those that E was measured in, [B, 1].
    """
    tiny = torch.finfo(energy.dtype).tiny
    total = total.clamp(min=tiny).unsqueeze(-1)
    squared = energy.square().sum(1).clamp(min=tiny)
    noise = total / dimensions
    ratio = ((matched.sum(1) / noise - energy.sum(1)) / squared).clamp(min=0)
    for _ in range(POWER_STEPS):
        weight = 1 / (1 + ratio.unsqueeze(1) * energy)
        noise = (total - ratio * (matched * weight).sum(1)).clamp(min=tiny) / dimensions
        score = (matched * weight.square()).sum(1) / noise - (energy * weight).sum(1)
        information = (energy * weight).square().sum(1).clamp(min=tiny)
        ratio = (ratio + score / information).maximum(ratio / 8)
    weight = 1 / (1 + ratio.unsqueeze(1) * energy)
    rest = (total - ratio * (matched * weight).sum(1)).clamp(min=tiny)
    return dimensions * rest.log() - weight.log().sum(1), ratio, rest / dimensions
