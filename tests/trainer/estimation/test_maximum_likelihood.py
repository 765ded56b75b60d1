"""Stochastic ML: against dense algebra, brute force on the grid, and the CRB."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance.backprojection import whiten
from trainer.estimation.levenberg_marquardt import LocalModel, minimise
from trainer.estimation.likelihood import Likelihood
from trainer.estimation.maximum_likelihood import (
    GridLikelihood,
    noise_only_start,
    profile_likelihood,
    sml,
)
from trainer.evaluation.crb import stochastic_crb
from trainer.evaluation.metrics import match
from trainer.scenes.geometry import steering_vector
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(max_sources=3)
SEARCH = search_grid(SCENE, torch.float64)
SMALL = {"num_horizontal": 4, "num_vertical": 4, "num_antennas": 8, "num_snapshots": 8}


def make(count: int, snr_db: float = 0.0, num_sources: int | None = None, **changes) -> Scenes:
    config = replace(SCENE, **changes)
    return EvalScenes(config, 23).batch(
        range(count), snr_db=snr_db, num_sources=num_sources, dtype=torch.complex128
    )


def unknowns_of(scenes: Scenes) -> Tensor:
    """Return the true unknowns; inactive sources at the centre, with power 1."""
    s = scenes.sources
    positions = torch.stack([s.azimuth, s.elevation, 1 / s.range_m], dim=-1)
    power = s.power.where(s.active, torch.ones_like(s.power)).log()
    return torch.cat([positions.flatten(1), power, scenes.noise_variance.log().unsqueeze(-1)], -1)


def model_at(scenes: Scenes, unknowns: Tensor) -> LocalModel:
    return Likelihood(whiten(scenes), SEARCH, scenes.sources.active).local_model(unknowns)


def dense_value(scenes: Scenes, unknowns: Tensor) -> Tensor:
    """Return -log likelihood from M x M matrices, snapshot by snapshot; differentiable."""
    count = scenes.sources.active.shape[-1]
    azimuth, elevation, inverse = unknowns[:, : 3 * count].unflatten(-1, (count, 3)).unbind(-1)
    power = unknowns[:, 3 * count : -1].exp() * scenes.sources.active
    steering = steering_vector(scenes.panel, azimuth, elevation, 1 / inverse).mT
    total = torch.zeros(len(unknowns), dtype=torch.float64)
    for snapshot in range(scenes.num_snapshots):
        received = (scenes.channel * scenes.codes[:, snapshot].unsqueeze(1)) @ steering
        covariance = (received * power.unsqueeze(1)) @ received.mH
        noise = unknowns[:, -1].exp()[:, None, None] * torch.eye(scenes.num_antennas)
        covariance = covariance + noise
        y = scenes.snapshots[:, snapshot].unsqueeze(-1)
        fit = (y.mH @ torch.linalg.solve(covariance, y)).real.flatten()
        total = total + torch.linalg.slogdet(covariance).logabsdet + fit
    return total


@pytest.mark.parametrize("snr_db", [-10.0, 30.0])
def test_likelihood_and_its_gradient_are_those_of_dense_matrices(snr_db):
    scenes = make(5, snr_db)  # with 1 to 3 sources
    unknowns = unknowns_of(scenes) + 0.01
    unknowns.requires_grad_()
    expected = dense_value(scenes, unknowns)
    (gradient,) = torch.autograd.grad(expected.sum(), unknowns)
    model = Likelihood(whiten(scenes), SEARCH, scenes.sources.active).local_model(
        unknowns.detach()
    )
    torch.testing.assert_close(model.value, expected.detach(), rtol=1e-10, atol=1e-8)
    torch.testing.assert_close(model.gradient, gradient, rtol=1e-7, atol=1e-6)


def test_fisher_information_is_that_of_the_bound():
    scenes = make(8, 5.0)
    model = Likelihood(whiten(scenes), SEARCH, scenes.sources.active).local_model(
        unknowns_of(scenes)
    )
    bound = stochastic_crb(scenes)
    for i, count in enumerate(scenes.sources.num_sources.tolist()):
        index = [*range(3 * count), *range(9, 9 + count), 12]
        information = model.curvature[i][index][:, index]
        variance = torch.linalg.inv(information).diagonal()
        for k in range(count):
            expected = bound.azimuth[i, k], bound.elevation[i, k], bound.inverse_range[i, k]
            assert variance[3 * k : 3 * k + 3].tolist() == pytest.approx(
                [x.item() for x in expected], rel=1e-6
            )


def test_the_gradient_vanishes_on_average_at_the_truth():
    """E gradient = 0 and E gradient gradientᴴ = F: the score of a likelihood that is right."""
    scenes = make(300, 0.0, num_sources=1)
    model = Likelihood(whiten(scenes), SEARCH, scenes.sources.active).local_model(
        unknowns_of(scenes)
    )
    index = [0, 1, 2, 9, 12]
    scale = model.curvature.diagonal(dim1=-2, dim2=-1).sqrt()[:, index]
    score = model.gradient[:, index] / scale
    # 300 scores of variance 1: five standard errors of mean and mean square
    assert score.mean(0).abs().max() < 5 / math.sqrt(300)
    assert (score.square().mean(0) - 1).abs().max() < 5 * math.sqrt(3 / 300)


def test_the_best_candidate_has_the_highest_likelihood_of_the_grid():
    """With one source known, against dense matrices at the fitted power."""
    scenes = make(2, 5.0, num_sources=1)
    data = whiten(scenes)
    coarse = search_grid(SCENE, torch.float64, "cpu", 1.0, 6.0)
    grid = GridLikelihood(data, coarse)
    unknowns = unknowns_of(scenes)
    others = Likelihood(data, coarse, scenes.sources.active)
    positions, ratio, noise = grid.candidates(others, unknowns)
    extended = scenes.sources.active.clone()
    extended[:, 1] = True
    both = replace(scenes, truth=replace(scenes.sources, active=extended))

    def value_at(point: Tensor, power: Tensor, variance: Tensor) -> Tensor:
        trial = unknowns.clone()
        trial[:, 3:6] = point
        trial[:, 9] += variance.log() - trial[:, -1]  # the other's power stays relative to σ²
        trial[:, 10], trial[:, -1] = power.log(), variance.log()
        return dense_value(both, trial)

    best = value_at(positions[:, 0], (ratio * noise)[:, 0], noise[:, 0])
    for point in coarse.points[::7]:
        for power in (0.03, 0.3, 3.0):
            there = value_at(point, torch.full((2,), power).double(), noise[:, 0])
            assert (there >= best - 0.5).all()  # the power has had three scoring steps, not all


def test_profiled_powers_are_close_to_the_best():
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return generator.standard_normal((*shape, 2)).view(complex)[..., 0] / math.sqrt(2)

    column = 3 * normal(40, 16, 12)  # b_l of 40 grid points, of sources 20 dB below to above noise
    power = np.geomspace(1e-3, 10, 40)[:, None, None]
    snapshots = np.sqrt(power) * normal(40, 16, 1) * column + normal(40, 16, 12)
    energy = (np.abs(column) ** 2).sum(-1)
    matched = np.abs((column.conj() * snapshots).sum(-1)) ** 2
    total = (np.abs(snapshots) ** 2).sum((1, 2))
    for g in range(40):

        def cost(ratio, g=g):
            weighted = 1 + ratio * energy[g]
            rest = total[g] - ratio * (matched[g] / weighted).sum()
            return np.log(weighted).sum() + 16 * 12 * np.log(rest)

        one = energy[g, None, :, None], matched[g, None, :, None], total[g, None]
        value, ratio, noise = (
            x.item() for x in profile_likelihood(*map(torch.from_numpy, one), 16 * 12)
        )
        weighted = 1 + ratio * energy[g]
        assert value == pytest.approx(cost(ratio))
        assert noise == pytest.approx((total[g] - ratio * (matched[g] / weighted).sum()) / 16 / 12)
        best = scipy.optimize.minimize_scalar(
            lambda x: cost(math.exp(x)), bounds=(-12, 5), method="bounded"
        ).fun
        # three scoring steps find all but a twentieth of what there is to gain
        assert cost(0) - value >= 0.95 * (cost(0) - best) - 0.05


def ratio_to_bound(scenes: Scenes, search) -> tuple[float, float]:
    """Return the mean of squared angular error over CRB for K = 1, and its standard error."""
    estimates = sml(scenes, scenes.sources.num_sources, search, slots=SCENE.max_sources)
    error = match(estimates, scenes.sources).angle_deg[:, 0].deg2rad().double()
    ratio = error.square() / stochastic_crb(scenes).angle[:, 0]
    return ratio.mean().item(), ratio.std().item() / math.sqrt(len(ratio))


@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_sml_is_efficient(snr_db):
    """Stochastic ML has L/(L-1) = 1.07 times the bound; here with a few scenes."""
    mean, error = ratio_to_bound(make(80, snr_db, num_sources=1), search_grid(SCENE))
    assert mean - 1.96 * error <= 1.15
    assert mean + 1.96 * error >= 1.0


@pytest.mark.slow
@pytest.mark.parametrize("snr_db", [10.0, 30.0])
def test_sml_is_efficient_over_thousands_of_scenes(snr_db):
    scenes = EvalScenes(SCENE, 5).batch(range(1500), snr_db=snr_db, num_sources=1)
    mean, error = ratio_to_bound(scenes, search_grid(SCENE))
    assert mean - 1.96 * error <= 1.15
    assert mean + 1.96 * error >= 1.0
    assert error < 0.04


@pytest.mark.parametrize("num_sources", [1, 2])
def test_sml_rarely_misses_the_optimum_found_from_the_truth(num_sources):
    scenes = make(24, 5.0, num_sources=num_sources)
    data, active = whiten(scenes), scenes.sources.active
    cost = Likelihood(data, SEARCH, active)
    _, lower, upper = noise_only_start(data, SEARCH, 3)
    truth = minimise(cost.local_model, unknowns_of(scenes), lower, upper, steps=15)
    estimates = sml(scenes, scenes.sources.num_sources, search_grid(SCENE), slots=3)
    start = unknowns_of(scenes)
    start[:, :9] = estimates.positions.flatten(1)
    ours = minimise(cost.local_model, start, lower, upper, steps=15)
    assert (ours.value > truth.value + 0.05).double().mean() <= 0.05


def test_scenes_of_different_source_numbers_share_a_batch():
    scenes = make(6, 5.0)
    together = sml(scenes, scenes.sources.num_sources, SEARCH, slots=3)
    for count in (1, 2, 3):
        mine = scenes.sources.num_sources == count
        some = Scenes(
            scenes.panel,
            scenes.snapshots[mine],
            scenes.channel[mine],
            scenes.codes[mine],
            None,
            scenes.snr_db[mine],
            scenes.noise_variance[mine],
        )
        alone = sml(some, torch.full((int(mine.sum()),), count), SEARCH, slots=3)
        assert alone.resolved.equal(together.resolved[mine])
        torch.testing.assert_close(alone.azimuth, together.azimuth[mine], rtol=0, atol=1e-6)


def test_coloured_noise_is_whitened():
    scenes = make(30, 15.0, num_sources=1, noise_correlation=0.9)
    estimates = sml(scenes, scenes.sources.num_sources, search_grid(SCENE), slots=3)
    error = match(estimates, scenes.sources).angle_deg[:, 0].deg2rad().double()
    ratio = error.square() / stochastic_crb(scenes).angle[:, 0]
    # 30 ratios with standard deviation near 1.2: five standard errors
    assert ratio.mean() < 1.07 + 5 * 1.2 / math.sqrt(30)


@pytest.mark.parametrize("changes", [{"num_snapshots": 1}, {"num_antennas": 1}])
def test_minimal_data_and_pure_noise_give_finite_estimates(changes):
    changes = SMALL | changes
    search, two = search_grid(replace(SCENE, **changes), torch.float64), torch.full((4,), 2)
    for count in (0, 1, 3):
        scenes = make(4, 0.0, num_sources=count, **changes)
        estimates = sml(scenes, two, search, slots=3)
        for value in (estimates.azimuth, estimates.elevation, estimates.range_m):
            assert torch.isfinite(value).all()
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    assert torch.isfinite(sml(silent, two, search).azimuth).all()
