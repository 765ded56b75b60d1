"""The likelihood without the scale: equal to dense matrices, and blind to what it must not see."""

import dataclasses

import pytest
import torch

from trainer.config import SceneConfig
from trainer.posterior.likelihood import ScaleFreeLikelihood, sum_of_logs
from trainer.scenes import EvalScenes, Scenes, steering_vector

SCENE = SceneConfig(num_horizontal=3, num_vertical=2, num_antennas=4, num_snapshots=5)
COLOURED = dataclasses.replace(SCENE, noise_correlation=0.4)
PLACES = torch.tensor(
    [[[0.3, -0.1, 1.2], [-0.6, 0.2, 0.5]], [[-0.2, 0.4, 0.4], [0.8, 0.0, 1.9]]],
    dtype=torch.float64,
)


def scenes_of(config: SceneConfig, count: int, snr_db: float = 3.0) -> Scenes:
    return EvalScenes(config, 7).batch(
        range(2), snr_db=snr_db, num_sources=count, dtype=torch.complex128
    )


def log_likelihood(scenes: Scenes, places: torch.Tensor) -> torch.Tensor:
    likelihood = ScaleFreeLikelihood(scenes)
    return likelihood.log_likelihood(likelihood.forms(places), scenes.snr_db)


def by_dense_matrices(scenes: Scenes, scene: int, places: torch.Tensor) -> float:
    """Return -sum log det C - L M log sum yᴴ C⁻¹ y + a constant, with C of unit noise variance."""
    steering = steering_vector(scenes.panel, places[:, 0], places[:, 1], 1 / places[:, 2])
    echoes = scenes.channel[scene] * scenes.codes[scene].unsqueeze(1) @ steering.mT  # [L, M, K]
    power = echoes.abs().square().sum() / echoes[..., 0].numel()
    noise = torch.eye(scenes.num_antennas, dtype=echoes.dtype)
    if scenes.noise_covariance is not None:
        noise = scenes.noise_covariance[scene]
    ratio = 10 ** (float(scenes.snr_db[scene]) / 10) / power
    covariance = noise + ratio * echoes @ echoes.mH
    snapshots = scenes.snapshots[scene].unsqueeze(-1)
    energy = (snapshots.mH @ torch.linalg.solve(covariance, snapshots)).real.sum()
    logdet = torch.linalg.slogdet(covariance).logabsdet.sum()
    return float(-logdet - scenes.snapshots[scene].numel() * energy.log())


@pytest.mark.parametrize("config", [SCENE, COLOURED], ids=["white", "coloured"])
@pytest.mark.parametrize("count", [1, 2])
def test_it_equals_dense_matrices_up_to_a_constant_of_the_scene(config, count):
    scenes = scenes_of(config, count)
    places = PLACES[None, :, :count].expand(2, -1, -1, -1)
    found = log_likelihood(scenes, places)
    for scene in range(2):
        dense = [by_dense_matrices(scenes, scene, place) for place in places[scene]]
        difference = float(found[scene, 0] - found[scene, 1])
        assert difference == pytest.approx(dense[0] - dense[1], rel=1e-9)


def test_scale_and_phase_of_the_snapshots_say_nothing_of_places():
    scenes = scenes_of(SCENE, 2)
    louder = dataclasses.replace(scenes, snapshots=scenes.snapshots * (3 - 4j))
    places = PLACES[None].expand(2, -1, -1, -1)
    before, after = log_likelihood(scenes, places), log_likelihood(louder, places)
    torch.testing.assert_close(before.diff(dim=-1), after.diff(dim=-1), rtol=1e-10, atol=1e-10)


def test_sources_have_no_order():
    scenes = scenes_of(SCENE, 2)
    places = PLACES[None].expand(2, -1, -1, -1)
    torch.testing.assert_close(
        log_likelihood(scenes, places), log_likelihood(scenes, places.flip(2))
    )


@pytest.mark.parametrize("config", [SCENE, COLOURED], ids=["white", "coloured"])
def test_at_the_true_places_the_snr_gives_the_noise_that_scenes_are_drawn_with(config):
    scenes = scenes_of(config, 2)
    sources = scenes.sources
    truth = torch.stack([sources.azimuth, sources.elevation, 1 / sources.range_m], dim=-1)
    likelihood = ScaleFreeLikelihood(scenes)
    energy = likelihood.forms(truth.unsqueeze(1)).energy.squeeze(1)
    variance = energy / (likelihood.dimensions * 10 ** (scenes.snr_db / 10))
    torch.testing.assert_close(variance, scenes.noise_variance)


def test_single_precision_is_enough_at_the_highest_snr():
    exact, places = scenes_of(SCENE, 2, snr_db=20.0), PLACES[None].expand(2, -1, -1, -1)
    rough = log_likelihood(exact.to(dtype=torch.complex64), places.float())
    fine = log_likelihood(exact, places)
    # a log weight is used to a few hundredths
    torch.testing.assert_close(rough.diff(dim=-1).double(), fine.diff(dim=-1), rtol=0, atol=0.02)


@pytest.mark.parametrize("count", [1, 5, 16])
@pytest.mark.parametrize("factors", [1, 2, 4])
def test_a_product_has_the_sum_of_logarithms(count, factors):
    values = torch.rand(3, count, 2, dtype=torch.float64) + 0.1
    torch.testing.assert_close(sum_of_logs(values.clone(), 1, factors), values.log().sum(1))


def test_three_sources_are_refused():
    scenes = scenes_of(SCENE, 2)
    with pytest.raises(ValueError, match="num_sources <= 2"):
        ScaleFreeLikelihood(scenes).forms(torch.zeros(2, 1, 3, 3, dtype=torch.float64))
