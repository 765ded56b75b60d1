"""Confidence is a calibrated probability."""

import math
from dataclasses import replace

import torch

from trainer.config import NetworkConfig, SceneConfig, TrainConfig
from trainer.covariance.covariance import Covariance, normalise, true_factor
from trainer.estimation.estimates import Estimates
from trainer.evaluation.confidence import (
    Calibration,
    calibrate,
    calibration_error,
    confidence_features,
    fit_logistic,
    near_a_source,
)
from trainer.networks.registry import build_network
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate

SCENE = SceneConfig(num_horizontal=4, num_vertical=4, num_antennas=6, num_snapshots=8)


def scenes_of(batch: int, snr_db: float = 0.0) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    return simulate(SCENE, batch, snr_db=snr_db, generator=generator, device="cpu")


def truth_as_estimates(scenes: Scenes) -> Estimates:
    truth = scenes.sources
    return Estimates(truth.azimuth, truth.elevation, truth.range_m, truth.active, truth.active)


def test_the_fit_recovers_the_coefficients_of_the_outcomes():
    """Logistic outcomes of known coefficients: within five standard errors, 20,000 draws."""
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(20_000, 3, generator=generator)
    true = torch.tensor([-0.5, 1.0, -2.0, 0.3], dtype=torch.float64)
    chance = (true[0] + numbers.double() @ true[1:]).sigmoid()
    right = torch.rand(20_000, generator=generator) < chance
    found = torch.tensor(fit_logistic(numbers, right))
    rows = torch.cat([torch.ones(20_000, 1), numbers], dim=-1).double()
    information = (rows * (chance * (1 - chance)).unsqueeze(-1)).mT @ rows
    errors = torch.linalg.inv(information).diagonal().sqrt()
    assert ((found - true).abs() < 5 * errors).all()
    said = Calibration(tuple(found.tolist()), 0.0, 1).confidence(numbers)
    assert calibration_error(said, right) < 0.02  # ten bins of 2,000: .011 each at most


def test_the_calibration_error_is_the_distance_from_the_share_right():
    right = torch.arange(1000) % 4 == 0
    assert calibration_error(torch.full((1000,), 0.25), right) < 1e-6
    assert abs(calibration_error(torch.full((1000,), 0.65), right) - 0.4) < 1e-6


def test_no_estimates_have_no_calibration_error():
    assert math.isnan(calibration_error(torch.empty(0), torch.empty(0, dtype=torch.bool)))


def test_outcomes_that_one_feature_separates_have_finite_coefficients():
    numbers = torch.linspace(-1, 1, 100).unsqueeze(-1).expand(-1, 3)
    found = fit_logistic(numbers, numbers[:, 0] > 0)
    assert all(abs(coefficient) < 1e3 for coefficient in found)


def test_features_of_the_true_covariance_and_of_a_flat_one():
    """The true R has gap and purity 1 at K = 1, and all of a source's power at it; a flat one
    has gap 0 and purity 1/N."""
    scenes = scenes_of(16)
    count = scenes.sources.num_sources
    estimates = truth_as_estimates(scenes)
    exact = normalise(factor=true_factor(scenes), eps_psd=1e-4)
    dense = replace(exact, matrix=exact.factor @ exact.factor.mH, factor=None)
    lone = count == 1
    for held in (exact, dense):
        numbers = confidence_features(held, estimates, count, SCENE)
        assert numbers[lone, 0, 0].min() > 9  # the logit is cut at 1 - 1e-4
        torch.testing.assert_close(numbers[lone, 0, 1:], torch.ones(int(lone.sum()), 2))
        assert not numbers[~scenes.sources.active].any()
    size = SCENE.num_elements
    flat = torch.eye(size, dtype=torch.complex64).expand(16, -1, -1) / size
    numbers = confidence_features(Covariance(flat, None, torch.zeros(16)), estimates, count, SCENE)
    torch.testing.assert_close(numbers[lone, 0, 1], torch.zeros(int(lone.sum())))
    torch.testing.assert_close(numbers[lone, 0, 2], torch.full((int(lone.sum()),), 1 / size))


def test_an_estimate_is_right_within_five_degrees_of_any_source():
    scenes = scenes_of(64)
    estimates = truth_as_estimates(scenes)
    active = scenes.sources.active
    for off_deg, expected in ((4.9, True), (5.1, False)):
        moved = replace(estimates, azimuth=estimates.azimuth + off_deg * torch.pi / 180)
        near = near_a_source(moved, scenes)
        assert (near[:, 0][scenes.sources.num_sources == 1] == expected).all()
        assert not near[~active].any()
    swapped = replace(
        estimates, azimuth=estimates.azimuth.flip(-1), elevation=estimates.elevation.flip(-1)
    )
    two = scenes.sources.num_sources == 2
    assert near_a_source(swapped, scenes)[two].all()


def test_a_networks_confidence_is_calibrated_on_scenes_it_was_not_fitted_to():
    """Even an untrained network's, K told and asked: .06 is what ten bins of some 150 would show
    by chance alone, .032 on average, and two standard deviations."""
    config = TrainConfig(
        scene=SCENE, network=NetworkConfig(kind="unrolled", width=4, stages=1), snr_min_db=-5.0
    )
    torch.manual_seed(0)
    made = calibrate(build_network(config).eval(), config)
    assert made.count == 1024
    assert made.error < 0.06
    assert made.coefficients[1] > -0.5
    assert made.asked_error < 0.06


def test_an_asked_number_has_coefficients_of_its_own_and_old_models_those_of_a_told_one():
    numbers = torch.zeros(1, 1, 3)
    made = Calibration((0.0, 0.0, 0.0, 0.0), 0.0, 1, (-1.0, 0.0, 0.0, 0.0), 0.0)
    assert made.confidence(numbers) == 0.5
    asked = made.confidence(numbers, asked=True)
    torch.testing.assert_close(asked, torch.full((1, 1), -1.0).sigmoid().expand(1, 1))
    old = replace(made, asked_coefficients=None, asked_error=None)
    assert old.confidence(numbers, asked=True) == 0.5
