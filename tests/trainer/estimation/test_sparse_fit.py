"""Sparse covariance fitting: monotonicity, dense algebra, and the sources it finds."""

from dataclasses import replace

import pytest
import torch

from trainer.config import SceneConfig
from trainer.covariance.backprojection import whiten
from trainer.covariance.covariance_fit import Observations
from trainer.estimation.pseudospectra import music
from trainer.estimation.sparse_fit import mixture, sparse_covariance, update_powers
from trainer.evaluation.metrics import match
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(num_horizontal=4, num_vertical=4, num_antennas=6, num_snapshots=8)
SEARCH = search_grid(SCENE, torch.float64)


def make(count: int, snr_db: float = 5.0, **changes) -> Scenes:
    return EvalScenes(replace(SCENE, **changes), 31).batch(
        range(count), snr_db=snr_db, dtype=torch.complex128
    )


def start(scenes: Scenes) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    operators = scenes.channel.unsqueeze(1) * scenes.codes.unsqueeze(2)
    generator = torch.Generator().manual_seed(0)
    shape = scenes.batch_size, len(SEARCH.points)
    powers = torch.rand(*shape, dtype=torch.float64, generator=generator) / shape[1]
    return operators, powers, scenes.noise_variance.clone()


def cost(scenes: Scenes, operators, powers, noise) -> torch.Tensor:
    eye = torch.eye(scenes.num_antennas, dtype=torch.complex128)
    covariance = operators @ mixture(powers, SEARCH).unsqueeze(1) @ operators.mH
    covariance = covariance + noise[:, None, None, None] * eye
    y = scenes.snapshots.unsqueeze(-1)
    fit = (y.mH @ torch.linalg.solve(covariance, y)).real.sum((1, 2, 3))
    return torch.linalg.slogdet(covariance).logabsdet.sum(1) + fit


def test_no_step_lowers_the_likelihood():
    scenes = make(6)
    operators, powers, noise = start(scenes)
    observations = Observations(scenes.snapshots, operators)
    before = cost(scenes, operators, powers, noise)
    for _ in range(25):
        powers, noise = update_powers(observations, powers, noise, SEARCH)
        after = cost(scenes, operators, powers, noise)
        assert (after <= before + 1e-9).all()
        before = after


def test_a_step_follows_the_published_formula():
    """Every f_gl formed, every C_l inverted."""
    scenes = make(2)
    operators, powers, noise = start(scenes)
    observations = Observations(scenes.snapshots, operators)
    found, variance = update_powers(observations, powers, noise, SEARCH)
    eye = torch.eye(scenes.num_antennas, dtype=torch.complex128)
    echoes = operators @ SEARCH.steering.mT  # f_gl as columns
    covariance = (echoes * powers[:, None, None, :]) @ echoes.mH + noise[:, None, None, None] * eye
    inverse = torch.linalg.inv(covariance)
    explained = inverse @ scenes.snapshots.unsqueeze(-1)
    numerator = (echoes.mH @ explained).abs().square().sum((1, 3))
    denominator = (echoes.conj() * (inverse @ echoes)).sum((1, 2)).real
    torch.testing.assert_close(found, powers * (numerator / denominator).sqrt(), rtol=1e-9, atol=0)
    traces = inverse.diagonal(dim1=-2, dim2=-1).real.sum((1, 2))
    expected = noise * (explained.abs().square().sum((1, 2, 3)) / traces).sqrt()
    torch.testing.assert_close(variance, expected, rtol=1e-9, atol=0)


def test_true_powers_are_a_fixed_point():
    """With y yᴴ = C on average the ratio is one: many snapshots at the true powers hardly move."""
    many = make(1, num_snapshots=4000, num_antennas=6)
    operators, powers, _ = start(many)
    noise = torch.full((1,), 0.1, dtype=torch.float64)
    eye = torch.eye(6, dtype=torch.complex128)
    covariance = operators @ mixture(powers, SEARCH).unsqueeze(1) @ operators.mH + 0.1 * eye
    generator = torch.Generator().manual_seed(1)
    white = torch.randn(1, 4000, 6, 1, dtype=torch.complex128, generator=generator)
    snapshots = (torch.linalg.cholesky(covariance) @ white).squeeze(-1)
    found, variance = update_powers(Observations(snapshots, operators), powers, noise, SEARCH)
    # each ratio averages thousands of exponentials: a few per cent
    assert (found / powers - 1).abs().max() < 0.1
    assert variance.item() == pytest.approx(0.1, rel=0.05)


def test_sources_are_found_through_the_fit():
    scenes = EvalScenes(SceneConfig(max_sources=1), 3).batch(range(16), snr_db=10.0)
    search = search_grid(SceneConfig(max_sources=1))
    covariance = sparse_covariance(scenes, search)
    trace = covariance.diagonal(dim1=-2, dim2=-1).real.sum(-1)
    torch.testing.assert_close(trace, torch.ones(16), rtol=1e-4, atol=1e-4)  # float32, N terms
    errors = match(music(covariance, scenes.sources.num_sources, search), scenes.sources)
    assert errors.angle_deg[errors.active].quantile(0.9) < 3  # half a grid cell


def test_scale_and_code_phases_do_not_matter_and_noise_is_whitened():
    scenes = make(4, noise_correlation=0.8)
    reference = sparse_covariance(scenes, SEARCH, steps=5)
    turn = torch.exp(2j * torch.pi * torch.rand(4, 8, 1, dtype=torch.float64))
    turned = replace(scenes, codes=scenes.codes * turn, snapshots=50 * scenes.snapshots * turn)
    torch.testing.assert_close(
        sparse_covariance(turned, SEARCH, steps=5), reference, rtol=1e-8, atol=1e-8
    )
    snapshots, channel, _ = whiten(scenes)
    white = replace(scenes, snapshots=snapshots, channel=channel, noise_covariance=None)
    torch.testing.assert_close(
        sparse_covariance(white, SEARCH, steps=5), reference, rtol=1e-10, atol=1e-10
    )


def test_silence_and_a_single_snapshot_stay_finite():
    scenes = make(3, num_snapshots=1)
    assert torch.isfinite(sparse_covariance(scenes, SEARCH).abs()).all()
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    assert torch.isfinite(sparse_covariance(silent, SEARCH).abs()).all()


@pytest.mark.parametrize("factor", [2.0**-50, 2.0**50])
def test_the_fit_does_not_depend_on_the_unit_of_snapshots_or_channel(factor):
    config = SceneConfig()
    scenes = EvalScenes(config, 3).batch(range(4), snr_db=5.0, num_sources=2)
    other = replace(scenes, snapshots=scenes.snapshots * factor, channel=scenes.channel / factor)
    one, two = (sparse_covariance(s, search_grid(config)) for s in (scenes, other))
    assert one.equal(two)
