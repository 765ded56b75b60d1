"""Weighted draws from the posterior of places in milliseconds a scene, the SNR not known.

The draws of `sampler` are single places, or pairs drawn as pairs. Here points are drawn for single
sources, and for K = 2 *all pairs* of them are weighed: 256 points give 33,000 pairs, whose
likelihoods cost as much as 1,000 pairs drawn one by one (`pairs`).

    1. cells    points of the region's cells by their likelihood to the power `TEMPER`; for K = 2
                mixed with that of a source beside others, which are held at a few likely cells
    2. rounds   of the points, by their weights^β summed over partners, `CENTRES` are chosen as
                centres of kernels, β the largest power up to 1 at which the points are worth
                `LEAST`. New points come from kernels and cells. Scenes with β < 1 repeat it
    3. last     the same with more points, twice: some choose the places, others, drawn apart from
                them, say what these are worth. Those that chose are biased: places are chosen
                where points happen to be dense. Scenes whose first points are worth a share
                `FLAT` of their number have points from cells alone: their kernels are as wide as
                the region, and half of what these draw falls outside

Pairs weigh likelihood x prior / product of their points' densities. Points and rounds go by the
ratio ρ of source power to noise that is likeliest; `DRAWS` of the pairs (for K = 1 all points) are
then weighed by the mean likelihood over ratios, in the lattice of `BLIND_SNR_DB`. That is *blind*
of `sampler`, except that ρ has the flat law that SNR has there.

The random numbers are the same for all scenes: what a scene gives depends on no other.
"""

import copy
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.scenes import Scenes, search_grid

from .cells import Cells
from .likelihood import Echoes, ScaleFreeLikelihood, paired_forms, quarter_turn
from .pairs import pair_table, scale_echoes
from .places import law_of_places
from .point_proposal import SEED, PointProposal
from .sampler import BLIND_SNR_DB, Kernels
from .weights import index_at

CELL_DENSITY = 4.0, 2.0
"""Density of the cells (`Cells.of_density`)."""
TEMPER = 0.6
ANCHORS = 12
"""Likely cells of one source beside which another is looked for."""
UNIFORM = 0.05
"""Share of the points of cells that ignores the likelihood."""
FIRST_POINTS = {1: 256, 2: 128}
"""Points of a round, by K."""
POINTS = {1: 512, 2: 256}
"""Points that are kept, by K."""
CENTRES = 64
FLAT = 1 / 3
"""Share of its points that a scene's first round is worth at which no kernels are used."""
LEAST = 24.0
"""Effective number of points that the centres are chosen from."""
ROUNDS = 7
BISECTIONS = 9
LEAST_POWER = 1e-3
"""Least β."""
DRAWS = 640
"""Pairs that are kept."""
FIRST_DRAWS = 64
"""Pairs of a round, to find the likeliest ratio."""
NEAR_RATIOS = 4
"""Ratios on both sides of the likeliest that the likelihood is averaged over."""


@dataclass(frozen=True)
class PointPosterior:
    """Weighted draws from the posterior of places of every scene.

    Attributes:
        places: [B, S, K, 3]: azimuth [rad], elevation [rad], 1/range [1/m].
        log_weights: [B, S], normalised.
        fresh_places, fresh_log_weights: the same of other points; for what is said of estimates
            that `places` chose.
        log_evidence: [B], log of the mean likelihood over the prior of places and SNRs, up to a
            constant of the scene that is the same for every K.
        worth: effective number of points, the lesser of both, [B].
        snr_db: the likeliest total SNR in the lattice, [B].
    """

    places: Tensor
    log_weights: Tensor
    fresh_places: Tensor
    fresh_log_weights: Tensor
    log_evidence: Tensor
    worth: Tensor
    snr_db: Tensor

    def take(self, scenes: Tensor) -> "PointPosterior":
        """Return the draws of some of the scenes, by number."""
        return PointPosterior(**{name: x[scenes] for name, x in vars(self).items()})

    def put(self, scenes: Tensor, others: "PointPosterior") -> "PointPosterior":
        """Return the same with the scenes of these numbers replaced by others."""
        pairs = {name: (x, getattr(others, name)) for name, x in vars(self).items()}
        return PointPosterior(**{n: x.index_copy(0, scenes, y) for n, (x, y) in pairs.items()})


class Weighed(NamedTuple):
    """Points with log weights at one ratio of themselves [B, S], or of all pairs [B, S, S].

    Attributes:
        log_weights: less their largest, `top` [B].
        weights: their exponential.
    """

    points: Tensor
    echoes: Echoes
    log_weights: Tensor
    weights: Tensor
    top: Tensor

    @property
    def of_points(self) -> Tensor:
        """Weights of the points, those of pairs summed over partners: [B, S]."""
        return _of_points(self.weights)


class PointSampler:
    """The sampler for a batch of scenes and any K; what all K share is computed once."""

    def __init__(self, scenes: Scenes, scene: SceneConfig) -> None:
        device = str(scenes.snapshots.device)
        self.law = law_of_places(scene, device)
        self.cells = _cells_of(scene, device)
        self.search = search_grid(scene, torch.float32, device)
        self.lattice = torch.tensor(BLIND_SNR_DB, device=device, dtype=torch.float32)
        self.likelihood = ScaleFreeLikelihood(scenes)
        middles = self.cells.middles.expand(scenes.batch_size, -1, -1)
        self.echoes = self.likelihood.echoes(middles)
        self.energy, self.forms = self.echoes.energy.mean(-1), self.echoes.single_forms()
        self.scenes = torch.arange(scenes.batch_size, device=device)

    def take(self, scenes: Tensor) -> "PointSampler":
        """Return the sampler of some of the scenes, by number, in ascending order."""
        if len(scenes) == len(self.scenes):
            return self
        part = copy.copy(self)
        part.likelihood, part.energy = self.likelihood.take(scenes), self.energy[scenes]
        part.scenes = self.scenes[scenes]  # cells are many: theirs are copied where they are used
        return part

    def nothing(self) -> Tensor:
        """Return the log evidence of no source at all, [B]."""
        return -self.likelihood.dimensions * self.likelihood.total.log()

    @torch.no_grad()
    def sample(self, num_sources: int, *, times: int = 1) -> PointPosterior:
        """Return draws of one or two places in every scene.

        Args:
            times: as many points; as many draws are kept.
        """
        wide, node = self._propose(num_sources)
        size, device = len(node), node.device
        centres = torch.zeros(size, CENTRES, 3, device=device)
        root = torch.eye(3, device=device).repeat(size, CENTRES, 1, 1)
        flat = torch.zeros(size, dtype=torch.bool, device=device)
        rows, proposal, part = torch.arange(size, device=device), wide, self
        for number in range(ROUNDS):
            points = proposal.draw(times * FIRST_POINTS[num_sources], number)
            weighed = part._weigh(proposal, points, num_sources, node[rows])
            if not number:
                flat = _effective(weighed.of_points) >= FLAT * points.shape[1]
            node[rows] = part._average(weighed, node[rows], FIRST_DRAWS, number)[2]
            power, near = part._adapt(weighed, part._ratio(node[rows], num_sources), number)
            centres[rows], root[rows] = near.centres, near.root
            again = (power < 1).nonzero().flatten()
            if not len(again):
                break
            rows, part = rows[again], part.take(again)
            near = Kernels(centres[rows], root[rows])
            proposal = PointProposal(self.cells, wide.log_mass[rows], near)
        groups, found = [flat.nonzero().flatten(), (~flat).nonzero().flatten()], []
        for rows, kernels in zip(groups, (None, Kernels(centres, root)), strict=True):
            if kernels is not None:
                kernels = Kernels(kernels.centres[rows], kernels.root[rows])
            proposal = PointProposal(self.cells, wide.log_mass[rows], kernels)
            found.append(self.take(rows)._keep(proposal, num_sources, node[rows], times))
        order = torch.cat(groups).argsort()
        return PointPosterior(
            **{name: torch.cat([vars(x)[name] for x in found])[order] for name in vars(found[0])}
        )

    def _keep(
        self, proposal: PointProposal, num_sources: int, node: Tensor, times: int
    ) -> PointPosterior:
        """Return draws of the last points, and of fresh ones."""
        kept, evidence, worth = [], [], []
        for number in (ROUNDS, ROUNDS + 1):
            points = proposal.draw(times * POINTS[num_sources], number)
            weighed = self._weigh(proposal, points, num_sources, node)
            places, log_weights, best = self._average(weighed, node, DRAWS, number)
            total = log_weights.logsumexp(-1)
            log_weights = log_weights - total.unsqueeze(-1)
            if times > 1 and num_sources == 1:  # as many draws as ever
                index = index_at(log_weights.exp(), _levels(POINTS[1], number, total.device))
                places = places.gather(1, index[:, :, None, None].expand(-1, -1, 1, 3))
                log_weights = torch.full_like(places[:, :, 0, 0], -math.log(POINTS[1]))
            kept.append((places, log_weights))
            count = points.shape[1]
            evidence.append(total - math.log(math.prod(count - k for k in range(num_sources))))
            worth.append(_effective(weighed.of_points))
        joint = torch.logaddexp(*evidence) - math.log(2)
        least = torch.minimum(*worth)
        return PointPosterior(*kept[0], *kept[1], joint, least, self.lattice[best])

    def _propose(self, num_sources: int) -> tuple[PointProposal, Tensor]:
        """Return the proposal by cells, and the number of the likeliest ratio in the lattice."""
        forms = self.forms.take(self.scenes)
        prior = self.law.log_density(self.cells.middles[:, None])
        nodes = torch.arange(1, len(self.lattice), 2, device=self.energy.device)
        alone = torch.stack(
            [self.likelihood.at_ratio(forms, self._ratio(node, 1).unsqueeze(-1)) for node in nodes]
        )
        best = (alone + prior).logsumexp(-1).argmax(0)
        alone = alone[best, torch.arange(len(best), device=best.device)]
        node = nodes[best]
        if num_sources == 1:
            log_mass = (TEMPER * alone + prior).log_softmax(-1)
        else:
            node = (node + 1).clamp(max=len(self.lattice) - 1)
            log_mass = self._beside_others((TEMPER * alone + prior).log_softmax(-1), node)
        flat = torch.full_like(log_mass, math.log(UNIFORM / log_mass.shape[-1]))
        log_mass = torch.logaddexp(log_mass + math.log1p(-UNIFORM), flat)
        return PointProposal(self.cells, log_mass), node

    def _beside_others(self, alone: Tensor, node: Tensor) -> Tensor:
        """Return the log mass of cells as one of two sources, [B, G], begun with that of one."""
        echoes = Echoes(*(x[self.scenes] for x in self.echoes))
        scaled = scale_echoes(echoes, self._ratio(node, 2))
        found, log_mass = [alone], alone
        for number in range(2):
            generator = torch.Generator(alone.device).manual_seed(SEED - 1 - number)
            uniform = torch.rand(alone.shape[1], generator=generator, device=alone.device)
            # the largest after Gumbel noise: draws without replacement (Vieira 2014)
            noise = uniform.clamp(min=1e-9).log().neg().log()
            anchors = (log_mass - noise).topk(min(ANCHORS, alone.shape[1])).indices
            value = pair_table(self.likelihood, scaled.take(anchors), scaled)
            pair_prior = _pair_prior(self.law.scene, str(value.device))
            joint = value.mul_(TEMPER).add_(pair_prior[anchors]).logsumexp(1)
            log_mass = joint.log_softmax(-1)
            found.append(log_mass)
        return torch.stack(found).logsumexp(0) - math.log(len(found))

    def _ratio(self, node: Tensor, num_sources: int) -> Tensor:
        """Return ρ = p / σ² of numbers in the lattice of SNRs, at the mean energy of places."""
        unit = self.likelihood.dimensions / (num_sources * self.energy)
        return unit * 10 ** (self.lattice[node] / 10)

    def _weigh(
        self, proposal: PointProposal, points: Tensor, num_sources: int, node: Tensor
    ) -> Weighed:
        """Return likelihood x prior / density of points, or of all pairs, at one ratio."""
        density = proposal.log_density(points)
        inside = points.clamp(self.law.lower, self.law.upper)  # others have no prior
        echoes, ratio = self.likelihood.echoes(inside), self._ratio(node, num_sources)
        if num_sources == 1:
            value = self.likelihood.at_ratio(echoes.single_forms(), ratio.unsqueeze(-1))
            value = value + self.law.log_density(points[:, :, None]) - density
        else:
            scaled = scale_echoes(echoes, ratio)
            value = pair_table(self.likelihood, scaled, scaled)
            value.add_(self.law.pair_log_density(points))
            value.sub_(density.unsqueeze(2)).sub_(density.unsqueeze(1))
        top = value.flatten(1).amax(-1)
        value.sub_(_column(top, value))
        return Weighed(points, echoes, value, value.exp(), top)

    def _average(
        self, weighed: Weighed, node: Tensor, count: int, number: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Average the likelihood over ratios, for all points or for so many of the pairs.

        Returns:
            places [B, S, K, 3], their log weights [B, S], whose sum is that of all points or
            pairs, and the number of the likeliest ratio.
        """
        size, log_weights = weighed.points.shape[1], weighed.log_weights
        num_sources = log_weights.dim() - 1
        if num_sources == 1:
            places, forms = weighed.points.unsqueeze(2), weighed.echoes.single_forms()
        else:
            flat = weighed.weights.flatten(1)
            pair = index_at(flat, _levels(count, number, flat.device))
            index = torch.stack([pair // size, pair % size], dim=-1)
            one, two = (weighed.echoes.take(each) for each in index.unbind(-1))
            forms = paired_forms(one, two)
            rows = torch.arange(len(index), device=index.device)[:, None, None]
            places = weighed.points[rows, index]
            log_weights = flat.sum(-1, keepdim=True).log() - math.log(count)
        first = (node - NEAR_RATIOS).clamp(0, len(self.lattice) - 2 * NEAR_RATIOS - 1)
        near = [first + i for i in range(2 * NEAR_RATIOS + 1)]
        values = [
            self.likelihood.at_ratio(forms, self._ratio(each, num_sources).unsqueeze(-1))
            for each in near
        ]
        own = self._ratio(node, num_sources).unsqueeze(-1)
        base = log_weights + weighed.top.unsqueeze(-1) - self.likelihood.at_ratio(forms, own)
        joint = torch.stack(values).add_(base)
        best = joint.logsumexp(-1).argmax(0)
        return places, joint.logsumexp(0) - math.log(len(self.lattice)), first + best

    def _adapt(self, weighed: Weighed, ratio: Tensor, number: int) -> tuple[Tensor, Kernels]:
        """Return the power β [B] and kernels around points drawn by weights^β."""
        power, weights = _anneal(weighed)
        index = index_at(weights, _levels(CENTRES, number, power.device))
        centres = weighed.points.gather(1, index.unsqueeze(-1).expand(-1, -1, 3))
        centres = centres.clamp(self.law.lower, self.law.upper)
        information = self._information(centres, ratio).double() * power[:, None, None, None]
        width = (self.law.upper - self.law.lower).double()
        precision = information + torch.diag(12 / width**2)
        return power, Kernels(centres, torch.linalg.cholesky(precision).to(centres.dtype))

    def _information(self, points: Tensor, ratio: Tensor) -> Tensor:
        """Return the Fisher information of each point as a lone source, [B, S, 3, 3]."""
        slopes = self.search.slopes(points)
        vectors = torch.cat([self.search.response(points).unsqueeze(2), slopes], dim=2)
        columns = self.likelihood.columns(vectors.flatten(1, 2)).unflatten(1, vectors.shape[1:3])
        echo, slopes = columns[:, :, :1], columns[:, :, 1:]
        gain = ratio[:, None, None] * echo.square().sum((2, -1))  # ρ g, [B, S, L]
        # with b the echo, D its slopes, a = bᴴ D and h = 1 / (1 + ρ g), F / 2 ρ is
        #   sum_l ρ g h Re DᴴD + ρ h² ((1 - ρ g) Re a Re aᵀ - (1 + ρ g) Im a Im aᵀ)
        share = (gain / (1 + gain)).sqrt().unsqueeze(2).unsqueeze(-1)
        among = (share * slopes).flatten(3)
        real, imaginary = (echo * slopes).sum(-1), (quarter_turn(echo) * slopes).sum(-1)
        scale = ratio.sqrt()[:, None, None] / (1 + gain)
        real = real * (scale * (1 - gain).abs().sqrt()).unsqueeze(2)
        imaginary = imaginary * (scale * (1 + gain).sqrt()).unsqueeze(2)
        signed = real * (1 - gain).sign().unsqueeze(2)
        form = among @ among.mT + signed @ real.mT - imaginary @ imaginary.mT
        return 2 * ratio[:, None, None, None] * form


@lru_cache(maxsize=4)
def _cells_of(scene: SceneConfig, device: str) -> Cells:
    """Return the cells of a region."""
    return Cells.of_density(law_of_places(scene, device), *CELL_DENSITY)


@lru_cache(maxsize=4)
def _pair_prior(scene: SceneConfig, device: str) -> Tensor:
    """Return the log prior of pairs of cells [G, G], gigabytes for a large panel."""
    return _cells_of(scene, device).pair_prior()


def _of_points(weights: Tensor) -> Tensor:
    """Return weights [B, S]; those of pairs summed over partners."""
    return weights if weights.dim() == 2 else weights.sum(-1)


def _column(each: Tensor, like: Tensor) -> Tensor:
    """Return one value of each scene [B] with the axes of a tensor [B, ...]."""
    return each.view(-1, *[1] * (like.dim() - 1))


def _effective(weights: Tensor) -> Tensor:
    """Return the effective number of weights [B, S]: [B]."""
    return weights.sum(-1).square() / weights.square().sum(-1)


def _anneal(weighed: Weighed) -> tuple[Tensor, Tensor]:
    """Return the largest β <= 1 at which points are worth `LEAST` [B], and weights^β [B, S]."""
    weights = weighed.of_points
    power = torch.ones_like(weights[:, 0])
    rows = (_effective(weights) < LEAST).nonzero().flatten()
    if not len(rows):
        return power, weights
    log_weights = weighed.log_weights[rows]

    def raised(power: Tensor) -> Tensor:
        return _of_points((_column(power, log_weights) * log_weights).exp_())

    high = power[rows]
    low = LEAST_POWER * high
    for _ in range(BISECTIONS):
        middle = (low * high).sqrt()
        good = _effective(raised(middle)) >= LEAST
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return power.index_copy(0, rows, low), weights.index_copy(0, rows, raised(low))


def _levels(count: int, number: int, device: torch.device) -> Tensor:
    """Return levels spread evenly, with an offset that differs between rounds, [count]."""
    offset = (0.5 + number * 0.6180339887) % 1
    return (torch.arange(count, device=device, dtype=torch.float64) + offset) / count
