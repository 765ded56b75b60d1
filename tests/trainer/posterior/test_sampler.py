"""Draws from the posterior: proper proposals, weights against draws from the prior and a grid."""

import math

import pytest
import torch

from trainer.config import SceneConfig
from trainer.posterior import (
    effective_draws,
    expected_error,
    law_of_places,
    least_expected_error,
    sample_posterior,
)
from trainer.posterior import sampler as parts
from trainer.posterior.cells import propose_cells
from trainer.posterior.likelihood import ScaleFreeLikelihood
from trainer.scenes import EvalScenes, Scenes, simulate

SCENE = SceneConfig()
LAW = law_of_places(SCENE)
CAP = math.radians(10)


def scenes_of(snr_db: float, count: int, ids: range = range(2)) -> Scenes:
    return EvalScenes(SCENE, 11).batch(ids, snr_db=snr_db, num_sources=count)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("count", [1, 2])
def test_densities_of_cells_and_of_the_mixture_integrate_to_one(count):
    """The mean over their draws of (uniform density / density) is the box's share, 1."""
    scenes = scenes_of(-10.0, count)
    cells = propose_cells(ScaleFreeLikelihood(scenes), LAW, scenes.snr_db, count)
    kernels = parts.KernelFactory(scenes, LAW, count)
    centres = cells.draw(parts.CENTRES, generator(1))
    mixture = parts.Mixture(cells, kernels.at(centres, torch.ones(2)))
    volume = float((LAW.upper - LAW.lower).prod()) ** count
    for proposal in (cells, mixture):
        places = proposal.draw(6000, generator(2))
        density = proposal.log_density(places)
        # pairs of cells too close for any scene are never drawn
        ratio = torch.where(torch.isfinite(LAW.log_density(places)), (-density).exp() / volume, 0)
        reference = LAW.lower + (LAW.upper - LAW.lower) * torch.rand(
            20_000, count, 3, generator=generator(3)
        )
        share = float(torch.isfinite(LAW.log_density(reference)).double().mean())
        error = float(ratio.std()) / ratio.numel() ** 0.5
        assert float(ratio.mean()) == pytest.approx(share, abs=4 * error + 0.01)
        assert error < 0.05


@pytest.mark.parametrize(
    ("snr_db", "count"), [(-5.0, 1), pytest.param(-10.0, 2, marks=pytest.mark.slow)]
)
def test_the_evidence_is_that_of_places_drawn_by_simulation(snr_db, count):
    """log mean likelihood over the prior, from the weights and from scenes' own places."""
    scenes = scenes_of(snr_db, count)
    posterior = sample_posterior(scenes, LAW, count, generator())
    small = SceneConfig(num_antennas=1, num_snapshots=1)
    sources = simulate(
        small, 20_000, snr_db=0.0, num_sources=count, generator=generator(5), device="cpu"
    ).sources
    prior = torch.stack([sources.azimuth, sources.elevation, 1 / sources.range_m], dim=-1)
    likelihood = ScaleFreeLikelihood(scenes)
    places = prior[:, :count].expand(2, -1, -1, -1)
    value = likelihood.log_likelihood(likelihood.forms(places), scenes.snr_db).double()
    top = value.amax(-1, keepdim=True)
    terms = (value - top).exp()
    evidence = terms.mean(-1).log() + top.squeeze(-1)
    error = terms.std(-1) / terms.mean(-1) / len(prior) ** 0.5
    own = 1 / posterior.effective_draws("shape").sqrt()
    assert bool(((posterior.log_evidence["shape"] - evidence).abs() < 4 * (error + own)).all())
    assert bool((error < 0.2).all())


@pytest.mark.parametrize(
    ("snr_db", "shapes"),
    [
        (-10.0, ((36, 18, 5), (48, 24, 6))),
        pytest.param(0.0, ((24, 24, 8), (32, 32, 10)), marks=pytest.mark.slow),
    ],
)
def test_one_source_agrees_with_grids_of_two_resolutions(snr_db, shapes):
    """The grids cover the region, or 5 standard deviations of the posterior where it is narrow."""
    scenes = scenes_of(snr_db, 1)
    posterior = sample_posterior(scenes, LAW, 1, generator())
    likelihood = ScaleFreeLikelihood(scenes)
    share = posterior.log_weights["shape"].softmax(-1)[..., None]
    places = posterior.places[:, :, 0]
    mean = (share * places).sum(1, keepdim=True)
    reach = 5 * (share * (places - mean).square()).sum(1, keepdim=True).sqrt()
    low, high = (mean - reach).maximum(LAW.lower), (mean + reach).minimum(LAW.upper)
    risks = []
    for shape in shapes:
        axes = [(torch.arange(n) + 0.5) / n for n in shape]
        unit = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
        grid = (low + (high - low) * unit).unsqueeze(2)
        value = likelihood.log_likelihood(likelihood.forms(grid), scenes.snr_db)
        weights = (value + LAW.log_density(grid)).log_softmax(-1)
        risks.append(least_expected_error(grid, weights, LAW.lower, LAW.upper, cap=CAP).risk)
    found = least_expected_error(
        posterior.places, posterior.log_weights["shape"], LAW.lower, LAW.upper, cap=CAP
    )
    torch.testing.assert_close(risks[0], risks[1], rtol=0, atol=0.02)
    torch.testing.assert_close(found.risk, risks[1], rtol=0, atol=0.03)


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_without_noise_the_draws_gather_at_the_truth(count):
    scenes = scenes_of(25.0, count)
    posterior = sample_posterior(scenes, LAW, count, generator())
    found = least_expected_error(
        posterior.places, posterior.log_weights["shape"], LAW.lower, LAW.upper, cap=CAP
    )
    sources = scenes.sources
    truth = torch.stack([sources.azimuth, sources.elevation], dim=-1)[:, None, :count]
    error = expected_error(found.directions[:, None], truth, torch.ones(2, 1), cap=CAP)
    assert float(error.max()) < 0.1
    assert float(posterior.effective_draws("shape").min()) > 50


def test_equal_generators_give_equal_draws():
    scenes = scenes_of(0.0, 1)
    one, two = (sample_posterior(scenes, LAW, 1, generator(9)) for _ in range(2))
    torch.testing.assert_close(one.places, two.places, rtol=0, atol=0)
    assert bool(torch.isfinite(one.places).all())


def test_equal_weights_are_worth_all_draws_and_one_is_worth_one():
    equal = torch.zeros(1, 100)
    single = torch.full((1, 100), -1e4)
    single[0, 3] = 0
    assert float(effective_draws(equal)) == pytest.approx(100, rel=1e-5)
    assert float(effective_draws(single)) == pytest.approx(1, rel=1e-5)
