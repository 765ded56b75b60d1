"""The Bayes estimate: closed forms, and a search over every direction."""

import itertools
import math

import pytest
import torch

from trainer.posterior import expected_error, least_expected_error

CAP = math.radians(10)
LOWER, UPPER = torch.tensor([-1.0, -0.5]), torch.tensor([1.0, 0.5])


def estimate(draws: torch.Tensor, weights: torch.Tensor):
    return least_expected_error(draws[None], weights.log()[None], LOWER, UPPER, cap=CAP)


def clusters(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return draws [S, K, 2] around a few places, with random weights."""
    generator = torch.Generator().manual_seed(seed)
    centres = LOWER + (UPPER - LOWER) * torch.rand(4, count, 2, generator=generator)
    draws = centres.repeat(60, 1, 1) + 0.05 * torch.randn(240, count, 2, generator=generator)
    weights = torch.rand(240, generator=generator)
    return draws, weights / weights.sum()


@pytest.mark.parametrize("count", [1, 2])
def test_a_certain_posterior_has_no_risk(count):
    place = torch.tensor([[0.3, -0.2], [-0.5, 0.1]])[:count]
    found = estimate(place.expand(50, -1, -1), torch.full((50,), 0.02))
    assert float(found.risk) == pytest.approx(0, abs=1e-4)
    order = found.directions[0, :, 0].argsort(descending=True)
    torch.testing.assert_close(found.directions[0, order], place, rtol=0, atol=1e-4)


def test_two_places_out_of_reach_cost_the_smaller_probability():
    draws = torch.tensor([[[0.8, 0.0]], [[-0.8, 0.0]]]).repeat(50, 1, 1)
    weights = torch.tensor([0.7, 0.3]).repeat(50) / 50
    assert float(estimate(draws, weights).risk) == pytest.approx(0.3, abs=1e-4)


def test_a_source_between_two_near_places_goes_to_the_likelier():
    """The mean of capped errors is least at a weighted median."""
    draws = torch.tensor([[[0.0, 0.0]], [[0.1, 0.0]]]).repeat(50, 1, 1)
    weights = torch.tensor([0.6, 0.4]).repeat(50) / 50
    found = estimate(draws, weights)
    torch.testing.assert_close(found.directions[0, 0], torch.zeros(2), rtol=0, atol=2e-3)
    assert float(found.risk) == pytest.approx(0.4 * 0.1 / CAP, abs=2e-3)


@pytest.mark.parametrize("seed", range(3))
def test_one_source_is_as_good_as_the_best_of_a_fine_lattice(seed):
    draws, weights = clusters(1, seed)
    lattice = torch.cartesian_prod(torch.linspace(-1.1, 1.1, 221), torch.linspace(-0.6, 0.6, 121))
    risks = expected_error(lattice[None, :, None], draws[None], weights[None], cap=CAP)
    assert float(estimate(draws, weights).risk) <= float(risks.min()) + 1e-4


@pytest.mark.parametrize("seed", range(3))
def test_two_sources_are_as_good_as_the_best_pair_of_a_lattice(seed):
    draws, weights = clusters(2, seed)
    lattice = torch.cartesian_prod(torch.linspace(-1.0, 1.0, 29), torch.linspace(-0.5, 0.5, 15))
    pairs = torch.tensor(list(itertools.combinations(range(len(lattice)), 2)))
    # the best single directions suffice: a pair serves what one of its members serves
    alone = torch.cdist(lattice, draws.flatten(0, 1)).div(CAP).clamp(max=1)
    alone = (1 - alone.view(len(lattice), -1, 2)).amax(-1) @ weights
    likely = alone.topk(60).indices
    pairs = pairs[torch.isin(pairs, likely).all(-1)]
    risks = expected_error(lattice[pairs][None], draws[None], weights[None], cap=CAP)
    assert float(estimate(draws, weights).risk) <= float(risks.min()) + 1e-4


def test_the_order_of_sources_in_a_draw_does_not_matter():
    draws, weights = clusters(2, 5)
    turned = torch.where(torch.arange(len(draws))[:, None, None] % 2 == 0, draws, draws.flip(1))
    risks = [float(estimate(x, weights).risk) for x in (draws, turned)]
    assert risks[0] == pytest.approx(risks[1], abs=5e-3)


def test_the_expected_error_is_the_capped_error_that_estimators_are_scored_by():
    from trainer.estimation import Estimates
    from trainer.evaluation import capped_error, match
    from trainer.scenes import Sources

    draws, _ = clusters(2, 6)
    guess = draws.roll(7, dims=0) * 0.9
    active = torch.ones(len(draws), 2, dtype=torch.bool)
    ones = torch.ones(len(draws), 2)
    sources = Sources(draws[..., 0], draws[..., 1], ones, ones, active)
    estimates = Estimates(guess[..., 0], guess[..., 1], ones, active, active)
    scored = capped_error(match(estimates, sources))
    found = expected_error(guess[:, None], draws[:, None], torch.ones(len(draws), 1), cap=CAP)
    torch.testing.assert_close(found[:, 0], scored, rtol=1e-4, atol=1e-5)
