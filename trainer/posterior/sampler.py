"""Weighted draws from the posterior of places, by annealed population Monte Carlo.

    1. cells     draws of `cells.propose_cells`
    2. rounds    of the draws, by their weights^β, `CENTRES` are chosen as centres of kernels; β is
                 the largest power, up to 1, at which the weights are worth `LEAST` draws. New
                 draws come half from the kernels and half from the cells, until β is 1
    3. last      the same with more draws; they alone are kept, so that no draw has had a part in
                 choosing the centres

A draw's weight is likelihood x prior / density of the mixture it came from (balance heuristic,
Veach and Guibas 1995; population Monte Carlo, Cappé et al.
2004; tempered weights, Koblents and Míguez 2015). A kernel
is a Student t with covariance `SPREAD`² (β F + Λ)⁻¹: F is the Fisher information of the places at
its centre (Slepian-Bangs, `trainer.estimation`), Λ that of the box's width. Pairs have no order:
the mixture's density is averaged over both.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.covariance import Whitened
from trainer.estimation import Likelihood
from trainer.scenes import Scenes, search_grid

from .cells import CellProposal, propose_cells
from .likelihood import Forms, ScaleFreeLikelihood
from .places import LawOfPlaces
from .weights import effective_draws, index_at

DRAWS = 4096
"""Draws that are kept."""
ROUND_DRAWS = 1536
"""Draws of an earlier round."""
CENTRES = 128
LEAST = 64.0
"""Effective number of draws that the centres are chosen from."""
ROUNDS = 8
"""Most rounds; a scene whose β is still below 1 then shows it by few effective draws."""
SPREAD = 0.7
"""Width of a kernel in units of the local posterior's."""
FREEDOM = 8.0
"""Degrees of freedom of the kernels."""
BISECTIONS = 12
LEAST_POWER = 1e-3
"""Least β."""
BLIND_SNR_DB = tuple(range(-24, 29, 2))
"""SNRs [dB] that *blind* holds equally likely."""


@dataclass(frozen=True)
class Posterior:
    """Weighted draws from the posterior of places of every scene, for two observers.

    Attributes:
        places: [B, S, K, 3]: azimuth [rad], elevation [rad], 1/range [1/m].
        log_weights: by observer, [B, S] each, normalised; *shape* knows the SNR but not the scale
            of the snapshots, *blind* neither.
        log_evidence: by observer, [B]: log of the mean likelihood over the prior, up to a constant
            of the scene.
    """

    places: Tensor
    log_weights: dict[str, Tensor]
    log_evidence: dict[str, Tensor]

    def effective_draws(self, observer: str) -> Tensor:
        """Return the effective sample size 1 / sum w² of each scene, [B]."""
        return effective_draws(self.log_weights[observer])


@torch.no_grad()
def sample_posterior(
    scenes: Scenes, law: LawOfPlaces, num_sources: int, generator: torch.Generator
) -> Posterior:
    """Return draws from the posterior of `num_sources` places in every scene.

    Raises:
        ValueError: for more sources than the likelihood has a closed form for.
    """
    likelihood = ScaleFreeLikelihood(scenes)
    cells = propose_cells(likelihood, law, scenes.snr_db, num_sources)
    kernels = KernelFactory(scenes, law, num_sources)
    places = cells.draw(ROUND_DRAWS, generator)
    density = cells.log_density(places)
    for _ in range(ROUNDS):
        value = likelihood.log_likelihood(_forms(likelihood, law, places), scenes.snr_db)
        log_weights = value + law.log_density(places) - density
        power = _annealing_power(log_weights)
        centres = _resample(places, power.unsqueeze(-1) * log_weights, CENTRES, generator)
        mixture = Mixture(cells, kernels.at(centres, power))
        if bool((power == 1).all()):
            break
        places = mixture.draw(ROUND_DRAWS, generator)
        density = mixture.log_density(places)
    places = mixture.draw(DRAWS, generator)
    forms = _forms(likelihood, law, places)
    base = law.log_density(places) - mixture.log_density(places)
    at_nodes = [
        likelihood.log_likelihood(forms, torch.full_like(scenes.snr_db, node))
        for node in BLIND_SNR_DB
    ]
    values = {
        "shape": likelihood.log_likelihood(forms, scenes.snr_db),
        "blind": torch.stack(at_nodes).logsumexp(0) - math.log(len(at_nodes)),
    }
    joint = {name: value + base for name, value in values.items()}
    total = {name: value.logsumexp(-1) for name, value in joint.items()}
    return Posterior(
        places,
        {name: value - total[name].unsqueeze(-1) for name, value in joint.items()},
        {name: value - math.log(DRAWS) for name, value in total.items()},
    )


@dataclass(frozen=True)
class Kernels:
    """Student t kernels in all coordinates of a scene's K places at once, D = 3 K.

    Attributes:
        centres: [B, C, D].
        root: lower triangular T with T Tᵀ the inverse of a kernel's scale matrix, [B, C, D, D].
    """

    centres: Tensor
    root: Tensor

    def draw(self, count: int, generator: torch.Generator, *, alike: bool = False) -> Tensor:
        """Return draws that cycle through the kernels, [B, count, D].

        Args:
            alike: use the same random numbers for all scenes.
        """
        batch, kernels, size = self.centres.shape
        batch = 1 if alike else batch
        device = self.centres.device
        index = torch.arange(count, device=device) % kernels
        normal = torch.randn(batch, count, size, generator=generator, device=device)
        # chi-square with an even number of degrees of freedom
        uniform = torch.rand(batch, count, int(FREEDOM) // 2, generator=generator, device=device)
        chi_square = -2 * uniform.clamp(min=torch.finfo(uniform.dtype).tiny).log().sum(-1)
        step = normal * (FREEDOM / chi_square).sqrt().unsqueeze(-1)
        root = self.root[:, index].mT
        step = torch.linalg.solve_triangular(root, step.unsqueeze(-1), upper=True).squeeze(-1)
        return self.centres[:, index] + step

    def log_density(self, points: Tensor) -> Tensor:
        """Return the log density of the kernels' equal mixture at points [B, S, D]: [B, S]."""
        kernels, size = self.centres.shape[1:]
        columns = self.root.movedim(1, 2).flatten(2)  # [B, D, C D]
        shift = (self.centres.unsqueeze(-2) @ self.root).squeeze(-2).flatten(1)
        offset = (points @ columns - shift.unsqueeze(1)).unflatten(-1, (kernels, size))
        distance = offset.square().sum(-1) / FREEDOM
        constant = math.lgamma((FREEDOM + size) / 2) - math.lgamma(FREEDOM / 2)
        constant = constant - size / 2 * math.log(FREEDOM * math.pi) - math.log(kernels)
        logdet = self.root.diagonal(dim1=-2, dim2=-1).log().sum(-1).unsqueeze(1)
        return (logdet - (FREEDOM + size) / 2 * distance.log1p()).logsumexp(-1) + constant


@dataclass(frozen=True)
class Mixture:
    """Half cells, half kernels; symmetric in the order of two sources."""

    cells: CellProposal
    kernels: Kernels

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` draws per scene, [B, count, K, 3]."""
        near = self.kernels.draw(count - count // 2, generator)
        near = near.unflatten(-1, (self.cells.num_sources, 3))
        return torch.cat([self.cells.draw(count // 2, generator), near], dim=1)

    def log_density(self, places: Tensor) -> Tensor:
        """Return the log density of places [B, S, K, 3]; cells are symmetric already."""
        near = self.kernels.log_density(places.flatten(2))
        if self.cells.num_sources == 2:
            turned = self.kernels.log_density(places.flip(2).flatten(2))
            near = torch.logaddexp(near, turned) - math.log(2)
        return torch.logaddexp(self.cells.log_density(places), near) - math.log(2)


class KernelFactory:
    """Kernels of the local posterior's shape, for a batch of scenes."""

    def __init__(self, scenes: Scenes, law: LawOfPlaces, num_sources: int) -> None:
        self.data = ScaleFreeLikelihood(scenes)
        self.snr_db = scenes.snr_db
        self.law = law
        self.search = search_grid(law.scene, device=scenes.snapshots.device)
        self.num_sources = num_sources

    def at(self, centres: Tensor, power: Tensor) -> Kernels:
        """Return kernels at places [B, C, K, 3] for the likelihood to the powers β [B]."""
        batch, count = centres.shape[:2]
        energy = self.data.echoes(centres.flatten(1, 2)).energy
        energy = energy.unflatten(1, (count, self.num_sources)).sum(-1)
        noise = energy / (self.data.dimensions * 10 ** (self.snr_db / 10)).unsqueeze(-1)
        places = centres.flatten(0, 1).flatten(1)
        log_powers = torch.zeros(batch * count, self.num_sources, device=places.device)
        unknowns = torch.cat([places, log_powers, noise.log().reshape(-1, 1)], dim=-1)
        data = Whitened(*(x.repeat_interleave(count, dim=0) for x in self.data.data))
        active = torch.ones_like(log_powers, dtype=torch.bool)
        model = Likelihood(data.to(torch.complex128), self.search, active)
        size = 3 * self.num_sources
        fisher = model.local_model(unknowns.double()).curvature[:, :size, :size]
        width = (self.law.upper - self.law.lower).double().repeat(self.num_sources)
        fisher = fisher.unflatten(0, (batch, count)) * power.double()[:, None, None, None]
        precision = (fisher + torch.diag(12 / width**2)) / SPREAD**2
        root = torch.linalg.cholesky(precision).to(centres.dtype)
        return Kernels(centres.flatten(2), root)


def _forms(likelihood: ScaleFreeLikelihood, law: LawOfPlaces, places: Tensor) -> Forms:
    """Return the forms of draws; those outside of the box, of weight 0, count as at its edge."""
    return likelihood.forms(places.clamp(law.lower, law.upper))


def _annealing_power(log_weights: Tensor) -> Tensor:
    """Return the largest β <= 1 at which weights^β are worth `LEAST` draws: [B, S] -> [B]."""
    high = torch.ones_like(log_weights[:, 0])
    low = LEAST_POWER * high
    enough = effective_draws(log_weights) >= LEAST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fine = effective_draws(middle.unsqueeze(-1) * log_weights) >= LEAST
        low, high = torch.where(fine, middle, low), torch.where(fine, high, middle)
    return low.where(~enough, torch.ones_like(low))


def _resample(
    places: Tensor, log_weights: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return `count` of the places [B, S, K, 3], drawn systematically by weight."""
    weights = (log_weights - log_weights.amax(-1, keepdim=True)).double().exp()
    start = torch.rand(len(places), 1, generator=generator, device=places.device)
    level = (torch.arange(count, device=places.device) + start.double()) / count
    index = index_at(weights, level)
    return places.gather(1, index[:, :, None, None].expand(-1, -1, *places.shape[2:]))
