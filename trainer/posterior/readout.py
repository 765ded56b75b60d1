"""The readout `posterior`: places, confidence, regions and K from draws of the exact posterior.

Places are those of least expected capped error. Confidence is the posterior probability that a
source lies within a tolerance of the estimate; the credible radius holds the source that an
estimate is assigned with probability `CREDIBLE`; K, where it is asked, has the evidence of every
K <= `MOST_SOURCES`, all equally likely before. All of it is of the law of scenes that is given:
equal powers, uncorrelated, uniform over the region, any SNR.

Resolved are estimates that more likely than not have a source of their own: one that lies within
the tolerance and is no other estimate's. Where all K of a scene would be, a K that is told is
doubted, too: smaller ones, 0 included, share the probability by their evidence. So one source
does not vouch for two estimates.

Scenes whose points are worth fewer than `LEAST_WORTH` are sampled again with `MORE` times as many;
those still worth fewer are `poor`. Where K is asked, a K less probable than `OPEN` is ruled out by
its first points, and not sampled again.
"""

import math
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from trainer.config import SceneConfig, require
from trainer.estimation import Estimates, make_estimates
from trainer.scenes import Scenes, grid_shape, search_grid

from .likelihood import MOST_SOURCES
from .places import has_law
from .point_sampler import CELL_DENSITY, PointPosterior, PointSampler
from .risk import QUICK, least_expected_error, serve

CREDIBLE = 0.95
CHUNK = {"cpu": 16, "cuda": 128}
"""Scenes sampled at once: those whose tables fit a CPU's cache, or fill a GPU."""
LEAST_WORTH = 20.0
"""Effective number of points below which a scene is sampled again, or poorly sampled."""
MORE = 3
MOST_CELLS = 4096
"""Cells of the region up to which `log_evidence` is quick: a table of their pairs takes 64 MB."""
OPEN = 1e-3
"""Probability of K below which it is ruled out."""
RESOLVED = 0.5
"""Probability of a source of its own above which an estimate is resolved."""


@dataclass(frozen=True)
class PosteriorReadout:
    """Places, confidence, regions and P(K) of B scenes, in up to S slots each.

    Attributes:
        positions: [B, S, 3]: azimuth [rad], elevation [rad], 1/range [1/m]; the region's centre in
            inactive slots.
        active: [B, S].
        confidence: [B, S], probability that a source lies within the tolerance in both angles.
        own_source: [B, S], probability that one does that is no other estimate's (above).
        credible_radius: [B, S], angle [rad] around the estimate that holds its source; NaN in
            inactive slots.
        expected_error: [B], expected capped error of the estimates if K is right; 0 for K = 0.
        probabilities: of K = 0 ... S, [B, S + 1]; 1 for a K that is told.
        worth: effective number of points of the K that is reported, [B]; NaN for K = 0.
        resampled: scenes sampled again for any K, [B].
        snr_db: likeliest total SNR, [B]; NaN for K = 0.
    """

    positions: Tensor
    active: Tensor
    confidence: Tensor
    own_source: Tensor
    credible_radius: Tensor
    expected_error: Tensor
    probabilities: Tensor
    worth: Tensor
    resampled: Tensor
    snr_db: Tensor

    @property
    def num_sources(self) -> Tensor:
        """K as told, or the likeliest, [B]."""
        return self.active.sum(-1)

    @property
    def poor(self) -> Tensor:
        """Scenes that are sampled too poorly, [B]."""
        return self.worth < LEAST_WORTH

    def estimates(self, scene: SceneConfig) -> Estimates:
        """Return the places as estimates, resolved by `own_source`."""
        search = search_grid(scene, torch.float32, self.positions.device)
        resolved = self.active & (self.own_source > RESOLVED) & ~self.poor.unsqueeze(-1)
        slots = self.active.shape[1]
        return make_estimates(self.positions, self.active, self.active, resolved, search, slots)

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join the scenes of several parts, in this order."""
        names = [field.name for field in fields(cls)]
        return cls(**{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


@torch.no_grad()
def read_posterior(
    scenes: Scenes,
    scene: SceneConfig,
    num_sources: Tensor | None,
    *,
    cap: float,
    tolerance: float,
) -> PosteriorReadout:
    """Return what the posterior says of the sources of scenes.

    Args:
        scene: the law: the region, and `max_sources`, the number of slots and the largest K that
            is asked.
        num_sources: K of every scene [B], or None to ask it.
        cap: angle error beyond which all are the same [rad].
        tolerance: of confidence, in azimuth and elevation [rad].

    Raises:
        ConfigError: for more sources than have a closed form, or a law without equal powers.
    """
    most = scene.max_sources if num_sources is None else max(int(num_sources.max()), 0)
    require(
        most <= MOST_SOURCES,
        f"num_sources <= {MOST_SOURCES} for the posterior",
        f"{most}",
        "Say --num-sources 1 or 2, or use another readout.",
    )
    slots = max(scene.max_sources, most, 1)
    size = CHUNK[scenes.snapshots.device.type]
    parts = []
    for first in range(0, scenes.batch_size, size):
        rows = slice(first, first + size)
        told = None if num_sources is None else num_sources[rows]
        reading = _Reading(scenes.take(rows), scene, cap, tolerance, slots)
        parts.append(reading.asked() if told is None else reading.told(told))
    return PosteriorReadout.concatenate(parts)


class _Reading:
    """The readout of one chunk of scenes."""

    def __init__(
        self, scenes: Scenes, scene: SceneConfig, cap: float, tolerance: float, slots: int
    ) -> None:
        self.sampler = PointSampler(scenes, scene)
        self.most, self.cap, self.tolerance, self.slots = scene.max_sources, cap, tolerance, slots

    def told(self, count: Tensor) -> PosteriorReadout:
        """Return the readout at K of every scene, [B]."""
        found = self._nothing()
        for k in count.unique().tolist():
            rows = (count == k).nonzero().flatten()
            found.probabilities[rows, k] = 1
            if k:
                sampler = self.sampler.take(rows)
                draws, found.resampled[rows] = sample_again(sampler, k, sampler.sample(k))
                self._put(found, rows, draws, {k: draws})
                self._doubt(found, rows, k, draws)
        return found

    def asked(self) -> PosteriorReadout:
        """Return the readout at the likeliest K of every scene."""
        found = self._nothing()
        drawn = {k: self.sampler.sample(k) for k in range(1, self.most + 1)}
        first = _probabilities(self.sampler, drawn)
        for k, draws in drawn.items():
            drawn[k], again = sample_again(self.sampler, k, draws, first[:, k] >= OPEN)
            found.resampled.logical_or_(again)
        found.probabilities[:, : self.most + 1] = _probabilities(self.sampler, drawn)
        count = found.probabilities.argmax(-1)
        for k, draws in drawn.items():
            rows = (count == k).nonzero().flatten()
            if len(rows):
                others = {n: each.take(rows) for n, each in drawn.items()}
                self._put(found, rows, draws.take(rows), others)
        return found

    def _nothing(self) -> PosteriorReadout:
        """Return a readout that finds no source in any scene."""
        size, law = len(self.sampler.energy), self.sampler.law
        zero = law.lower.new_zeros(size, self.slots)
        nan = torch.full_like(zero, torch.nan)
        no = torch.zeros_like(zero, dtype=torch.bool)
        return PosteriorReadout(
            positions=((law.lower + law.upper) / 2).repeat(size, self.slots, 1),
            active=no,
            confidence=zero,
            own_source=zero.clone(),
            credible_radius=nan,
            expected_error=zero[:, 0].clone(),
            probabilities=law.lower.new_zeros(size, self.slots + 1),
            worth=nan[:, 0].clone(),
            resampled=no[:, 0].clone(),
            snr_db=nan[:, 0].clone(),
        )

    def _put(
        self,
        found: PosteriorReadout,
        rows: Tensor,
        draws: PointPosterior,
        every: dict[int, PointPosterior],
    ) -> None:
        """Fill in the scenes of these numbers, of K sources.

        Args:
            every: draws of these scenes by K, all that P(K) is shared among.
        """
        law = self.sampler.law
        best = least_expected_error(
            draws.places, draws.log_weights, law.lower, law.upper, cap=self.cap, effort=QUICK
        )
        count = best.directions.shape[1]
        places, weights = draws.fresh_places, draws.fresh_log_weights.exp()
        served, distance = serve(best.directions, places, cap=self.cap)
        served_error = (distance / self.cap).clamp(max=1).mean(-1)
        inverse = (served[..., 2] * weights.unsqueeze(-1)).sum(1)
        found.positions[rows, :count] = torch.cat([best.directions, inverse.unsqueeze(-1)], -1)
        found.active[rows, :count] = True
        found.credible_radius[rows, :count] = _quantile(distance, weights, CREDIBLE)
        found.expected_error[rows] = (served_error * weights).sum(-1)
        found.worth[rows], found.snr_db[rows] = draws.worth, draws.snr_db
        shares = found.probabilities[rows]
        near = {
            k: _near(best.directions, each.fresh_places, self.tolerance)
            for k, each in every.items()
        }
        found.confidence[rows, :count] = _expected(near, every, shares).clamp(max=1)
        found.own_source[rows, :count] = self._own_source(best.directions, every, shares)

    def _doubt(
        self, found: PosteriorReadout, rows: Tensor, count: int, draws: PointPosterior
    ) -> None:
        """Doubt the K that is told of these scenes where all estimates would be resolved."""
        chosen = (found.own_source[rows, :count] > RESOLVED).all(-1).nonzero().flatten()
        if not len(chosen):
            return
        rows = rows[chosen]
        sampler = self.sampler.take(rows)
        every = {k: sampler.sample(k) for k in range(1, count)} | {count: draws.take(chosen)}
        directions = found.positions[rows, :count, :2]
        own = self._own_source(directions, every, _probabilities(sampler, every))
        found.own_source[rows, :count] = own

    def _own_source(
        self, directions: Tensor, every: dict[int, PointPosterior], shares: Tensor
    ) -> Tensor:
        """Return the probability that each of K directions has a source of its own, [R, K].

        Args:
            shares: probabilities of K, [R, >= len(every) + 1].
        """
        own = {k: self._near_its_own(directions, each.fresh_places) for k, each in every.items()}
        return _expected(own, every, shares)

    def _near_its_own(self, estimates: Tensor, draws: Tensor) -> Tensor:
        """Return which estimates [B, K, 2] have a source near that is no other's: [B, S, K].

        Sources of draws [B, S, J, 3] and estimates are assigned at the least capped error.
        """
        near = _near(estimates, draws, self.tolerance)
        count = estimates.shape[1]
        if count == 1:
            return near
        if draws.shape[2] == count:
            served, _ = serve(estimates, draws, cap=self.cap)
            apart = (served[..., :2] - estimates.unsqueeze(1)).abs().amax(-1)
            return apart <= self.tolerance
        distance = (draws[..., :2] - estimates.unsqueeze(1)).square().sum(-1)
        return near & (distance <= distance.amin(-1, keepdim=True))


def has_evidence(scene: SceneConfig) -> bool:
    """Return whether the law of these scenes is known, and their region small enough to weigh."""
    return has_law(scene) and math.prod(grid_shape(scene, *CELL_DENSITY)) <= MOST_CELLS


@torch.no_grad()
def log_evidence(scenes: Scenes, scene: SceneConfig, num_sources: int) -> tuple[Tensor, Tensor]:
    """Return the log evidence of `num_sources` sources and their likeliest total SNR [dB], [B].

    Evidence is the mean likelihood over places and SNRs, up to a factor that readings of the same
    snapshots share; its log is NaN where it is sampled too poorly.

    Raises:
        ConfigError: if the law of the places is not known (`has_evidence`).
    """
    size = CHUNK[scenes.snapshots.device.type]
    found = []
    for first in range(0, scenes.batch_size, size):
        sampler = PointSampler(scenes.take(slice(first, first + size)), scene)
        draws, _ = sample_again(sampler, num_sources, sampler.sample(num_sources))
        poor = draws.worth < LEAST_WORTH
        found.append((draws.log_evidence.masked_fill(poor, torch.nan), draws.snr_db))
    evidence, snr_db = (torch.cat(x) for x in zip(*found, strict=True))
    return evidence, snr_db


def sample_again(
    sampler: PointSampler, num_sources: int, draws: PointPosterior, wanted: Tensor | None = None
) -> tuple[PointPosterior, Tensor]:
    """Sample scenes whose draws are worth little again with more points.

    Args:
        wanted: scenes whose draws matter, [B]; all by default.

    Returns:
        The draws, and which scenes were sampled again, [B].
    """
    again = draws.worth < LEAST_WORTH
    if wanted is not None:
        again &= wanted
    rows = again.nonzero().flatten()
    if len(rows):
        draws = draws.put(rows, sampler.take(rows).sample(num_sources, times=MORE))
    return draws, again


def _probabilities(sampler: PointSampler, every: dict[int, PointPosterior]) -> Tensor:
    """Return the probabilities of K = 0 and of the K drawn, all equally likely before."""
    evidence = [sampler.nothing(), *(draws.log_evidence for draws in every.values())]
    return torch.stack(evidence, dim=-1).softmax(-1)


def _expected(told: dict[int, Tensor], every: dict[int, PointPosterior], shares: Tensor) -> Tensor:
    """Return the probability of what draws of every K tell [R, S, E], at shares of K: [R, E]."""
    parts = [
        (told[k] * each.fresh_log_weights.exp().unsqueeze(-1)).sum(1) * shares[:, k].unsqueeze(-1)
        for k, each in every.items()
    ]
    return torch.stack(parts).sum(0)


def _near(estimates: Tensor, draws: Tensor, tolerance: float) -> Tensor:
    """Return which estimates [B, K, 2] have a source of each draw [B, S, J, 3] near: [B, S, K]."""
    apart = (draws[:, :, None, :, :2] - estimates[:, None, :, None]).abs().amax(-1)
    return (apart <= tolerance).any(-1)


def _quantile(values: Tensor, weights: Tensor, level: float) -> Tensor:
    """Return the quantile of values [B, S, K] by weights [B, S]: [B, K]."""
    ordered, index = values.sort(dim=1)
    cumulated = weights.unsqueeze(-1).expand_as(values).gather(1, index).cumsum(1)
    reached = (cumulated >= level * cumulated[:, -1:]).to(torch.uint8).argmax(1, keepdim=True)
    return ordered.gather(1, reached).squeeze(1)
