"""The readout of the posterior: calibrated on scenes of the law, and efficient without noise."""

import math

import pytest
import torch

from trainer.config import ConfigError, SceneConfig
from trainer.posterior import read_posterior
from trainer.posterior.point_sampler import PointSampler
from trainer.posterior.risk import serve
from trainer.posterior.sampler import BLIND_SNR_DB
from trainer.scenes import EvalScenes, Scenes

SCENE = SceneConfig()
CAP, TOLERANCE = math.radians(10), math.radians(5)


def read(scenes: Scenes, count: torch.Tensor | None):
    return read_posterior(scenes, SCENE, count, cap=CAP, tolerance=TOLERANCE)


def drawn(size: int, seed: int = 41) -> tuple[Scenes, torch.Tensor]:
    """Return scenes of K = 0, 1, 2 in turn, at SNRs equally likely to the observer; and K."""
    uniform = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    snr_db = BLIND_SNR_DB[0] - 1 + 2 * len(BLIND_SNR_DB) * uniform
    count = torch.arange(size) % 3
    return EvalScenes(SCENE, seed).batch(range(size), snr_db=snr_db, num_sources=count), count


def truth_of(scenes: Scenes) -> torch.Tensor:
    return torch.stack([scenes.sources.azimuth, scenes.sources.elevation], dim=-1)


def hits(scenes: Scenes, found) -> torch.Tensor:
    """Return which estimates lie within the tolerance of a source, [B, K_max]."""
    apart = (truth_of(scenes)[:, None] - found.positions[:, :, None, :2]).abs().amax(-1)
    return ((apart <= TOLERANCE) & scenes.sources.active[:, None]).any(-1)


def assert_mean_is_zero(surplus: torch.Tensor) -> None:
    assert abs(float(surplus.mean())) < 4 * float(surplus.std()) / len(surplus) ** 0.5 + 5e-3


@pytest.mark.slow
def test_what_it_expects_is_what_comes_true():
    """Error, confidence, regions and P(K) of scenes drawn from the law."""
    scenes, count = drawn(120)
    told, asked = read(scenes, count), read(scenes, None)
    assert_mean_is_zero(asked.probabilities.amax(-1) - (asked.num_sources == count).float())
    assert_mean_is_zero(asked.probabilities[:, 0] - (count == 0).float())
    for found in (told, asked):
        surplus = found.confidence - hits(scenes, found).float()
        assert_mean_is_zero(surplus[found.active])
    held, error = [], []
    for k in (1, 2):
        rows = count == k
        places = truth_of(scenes)[rows][:, None, :k]
        _, distance = serve(told.positions[rows, :k, :2], places, cap=CAP)
        held.append((distance[:, 0] <= told.credible_radius[rows, :k]).flatten())
        error.append(distance[:, 0].div(CAP).clamp(max=1).mean(-1) - told.expected_error[rows])
    assert_mean_is_zero(torch.cat(error))
    assert_mean_is_zero(torch.cat(held).float() - 0.95)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_with_little_noise_the_mean_square_error_is_the_bound(count):
    from trainer.evaluation import stochastic_crb

    scenes = EvalScenes(SCENE, 8).batch(range(32), snr_db=25.0, num_sources=count)
    found = read(scenes, torch.full((32,), count))
    places = truth_of(scenes)[:, None, :count]
    _, distance = serve(found.positions[:, :count, :2], places, cap=CAP)
    ratio = distance[:, 0].square() / stochastic_crb(scenes).angle[:, :count]
    # sums of squares of two coordinates, 32 K of them: mean 1, deviation below 1.4 / sqrt(32 K)
    assert float(ratio.mean()) == pytest.approx(1, abs=4 * 1.4 / (32 * count) ** 0.5)


def test_noise_alone_and_one_source_are_told_apart():
    count = torch.tensor([0, 1])
    found = read(EvalScenes(SCENE, 3).batch(range(2), snr_db=5.0, num_sources=count), None)
    assert found.num_sources.tolist() == [0, 1]
    assert bool((found.probabilities.sum(-1) - 1).abs().max() < 1e-5)
    assert found.estimates(SCENE).active.sum(-1).tolist() == [0, 1]


def test_scenes_with_few_points_are_sampled_again_and_counted(monkeypatch):
    scenes = EvalScenes(SCENE, 8).batch(range(2), snr_db=0.0, num_sources=1)
    one = torch.ones(2, dtype=torch.long)
    assert not bool(read(scenes, one).resampled.any())
    monkeypatch.setattr("trainer.posterior.readout.LEAST_WORTH", 1e4)
    found = read(scenes, one)
    assert bool(found.resampled.all())
    assert bool(found.poor.all())
    assert not bool(found.estimates(SCENE).resolved.any())


def test_a_number_of_sources_that_is_ruled_out_is_not_sampled_again(monkeypatch):
    """A lone source at 20 dB: pairs are worth few points, and sampling more changes nothing."""
    scenes = EvalScenes(SCENE, 8).batch(range(4), snr_db=20.0, num_sources=1)
    found = read(scenes, None)
    monkeypatch.setattr("trainer.posterior.readout.OPEN", 0.0)
    again = read(scenes, None)
    assert not bool(found.resampled.any())
    assert bool(again.resampled.any())
    torch.testing.assert_close(found.probabilities, again.probabilities, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.positions, again.positions, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("scene", "count", "says"),
    [
        (SceneConfig(max_sources=3), 3, "num_sources <= 2 for the posterior"),
        (SceneConfig(power_spread_db=3.0), 1, "equal, uncorrelated"),
    ],
)
def test_other_laws_are_refused(scene, count, says):
    scenes = EvalScenes(SCENE, 8).batch(range(1), snr_db=0.0, num_sources=1)
    with pytest.raises(ConfigError, match=says):
        read_posterior(scenes, scene, torch.tensor([count]), cap=CAP, tolerance=TOLERANCE)


def pairs_of(size: int, snr_db: float, seed: int):
    """Return scenes of two sources, the readout, its distances to the sources, and hits."""
    scenes = EvalScenes(SCENE, seed).batch(range(size), snr_db=snr_db, num_sources=2)
    found = read(scenes, torch.full((size,), 2))
    _, distance = serve(found.positions[:, :2, :2], truth_of(scenes)[:, None, :2], cap=CAP)
    return scenes, found, distance[:, 0], hits(scenes, found)[:, :2].double()


def test_other_points_say_the_same_of_the_places_that_are_chosen(monkeypatch):
    """Places chosen by points that happen to be dense there look better to these than they are."""
    scenes, found, _, _ = pairs_of(32, -12.0, 5)
    monkeypatch.setattr("trainer.posterior.point_proposal.SEED", 11)
    draws = PointSampler(scenes, SCENE).sample(2)
    _, distance = serve(found.positions[:, :2, :2], draws.places, cap=CAP)
    weights = draws.log_weights.exp()
    error = (distance.div(CAP).clamp(max=1).mean(-1) * weights).sum(-1)
    surplus = found.expected_error - error
    assert abs(float(surplus.mean())) < 3 * float(surplus.std()) / len(surplus) ** 0.5


@pytest.mark.slow
def test_two_sources_below_0_db_are_told_as_often_right_as_they_are():
    """Confidence and expected error, 810 scenes: within three standard errors, and .02."""
    confidence, error = [], []
    for number, snr_db in enumerate((-15.0, -10.0, -5.0)):
        _, found, distance, right = pairs_of(270, snr_db, 61 + number)
        confidence.append((found.confidence[:, :2] - right).mean(-1))
        error.append(found.expected_error - distance.div(CAP).clamp(max=1).mean(-1))
    for surplus in (torch.cat(confidence), torch.cat(error)):
        bound = min(3 * float(surplus.std()) / len(surplus) ** 0.5, 0.02)
        assert abs(float(surplus.mean())) < bound
