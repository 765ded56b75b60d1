"""Simulated scenes: the law they are drawn from, and the reproducibility of the fixed ones.

Monte Carlo tests draw from fixed seeds; their bounds are five standard errors.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from tests.gpu import needs_gpu
from tests.matrices import true_covariance
from trainer.config import SceneConfig
from trainer.scenes.geometry import steering_vector
from trainer.scenes.measurement import Scenes, expected_snr_db, has_unit_modulus, respond
from trainer.scenes.simulation import EvalScenes, simulate

SMALL = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=6, num_snapshots=10)
COLOURED = replace(
    SMALL, noise_correlation=0.6, source_correlation=0.5, power_spread_db=8.0, max_sources=3
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(config: SceneConfig, count: int, seed: int = 0, **options: object) -> Scenes:
    options = {"snr_db": 0.0, "dtype": torch.complex128} | options
    return simulate(config, count, generator=generator(seed), device="cpu", **options)


def steering_matrix(scenes: Scenes) -> Tensor:
    s = scenes.sources
    return steering_vector(scenes.panel, s.azimuth, s.elevation, s.range_m)


def recovered_amplitudes(scenes: Scenes) -> Tensor:
    """Least-squares s_l of the snapshots, [B, L, K]: exact as the noise goes to zero."""
    mixing = respond(scenes.channel, scenes.codes, steering_matrix(scenes))
    return torch.linalg.lstsq(mixing, scenes.snapshots.unsqueeze(-1)).solution.squeeze(-1)


def test_shapes_and_types() -> None:
    scenes = simulate(SMALL, 5, snr_db=(-10, 4), generator=generator(), device="cpu")
    assert scenes.snapshots.shape == (5, 10, 6)
    assert scenes.channel.shape == (5, 6, 12)
    assert scenes.codes.shape == (5, 10, 12)
    assert scenes.sources.azimuth.shape == scenes.sources.power.shape == (5, 2)
    assert scenes.snr_db.shape == scenes.noise_variance.shape == (5,)
    assert {scenes.snapshots.dtype, scenes.channel.dtype, scenes.codes.dtype} == {torch.complex64}
    assert scenes.sources.azimuth.dtype == scenes.noise_variance.dtype == torch.float32
    assert scenes.noise_covariance is None
    assert (scenes.batch_size, scenes.num_snapshots, scenes.num_antennas) == (5, 10, 6)


def test_single_snapshots_follow_the_signal_model_written_out() -> None:
    """y_l = H diag(c_l) A s_l + n_l with a matrix per snapshot: at 300 dB without a noise."""
    scenes = draw(SMALL, 4, snr_db=300.0, num_sources=2)
    amplitudes = recovered_amplitudes(scenes)
    for number in range(4):
        for snapshot in range(10):
            through = scenes.channel[number] @ torch.diag(scenes.codes[number, snapshot])
            wave = steering_matrix(scenes)[number].mT @ amplitudes[number, snapshot]
            torch.testing.assert_close(
                scenes.snapshots[number, snapshot], through @ wave, rtol=1e-9, atol=1e-9
            )


@pytest.mark.parametrize("config", [SMALL, COLOURED], ids=["plain", "coloured"])
@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 10.0])
def test_empirical_snr_is_the_one_asked_for(config: SceneConfig, snr_db: float) -> None:
    """mean |y|² / σ² - 1 estimates the SNR, whose definition fixes σ² scene by scene."""
    scenes = draw(config, 4000, snr_db=snr_db)
    power = scenes.snapshots.abs().square().mean((1, 2)) / scenes.noise_variance - 1
    error = power.mean() - 10 ** (snr_db / 10)
    assert error.abs() < 5 * power.std() / math.sqrt(4000)
    torch.testing.assert_close(expected_snr_db(scenes), scenes.snr_db, rtol=0, atol=1e-10)


def test_snr_may_be_a_number_a_pair_or_one_per_scene() -> None:
    each = torch.linspace(-5, 5, 7)
    assert torch.equal(draw(SMALL, 7, snr_db=each).snr_db, each.double())
    assert (draw(SMALL, 7, snr_db=3.0).snr_db == 3).all()
    drawn = draw(SMALL, 4000, snr_db=(-10.0, 4.0)).snr_db
    uniform = scipy.stats.kstest(drawn.numpy(), "uniform", (-10, 14))
    assert uniform.pvalue > 1e-4


def test_sources_are_drawn_anew_for_every_snapshot() -> None:
    """CN(0, 1), uncorrelated over snapshots; the public code repeats s and gets a rank of one."""
    scenes = draw(SMALL, 3000, snr_db=300.0, num_sources=1)
    amplitude = recovered_amplitudes(scenes)[..., 0]
    products = amplitude[:, 1:] * amplitude[:, :-1].conj()
    # independent CN(0, 1): real and imaginary part of s s'* have variance 1/2
    bound = 5 * math.sqrt(0.5 / products.numel())
    assert products.real.mean().abs() < bound
    assert products.imag.mean().abs() < bound
    assert (amplitude**2).mean().abs() < 10 * math.sqrt(1 / amplitude.numel())  # circular
    squares = amplitude.abs().square().flatten()  # exponential, mean 1
    assert scipy.stats.kstest(squares.numpy(), "expon").pvalue > 1e-4
    # a snapshot matrix of one source would have rank 1 if s did not change with the codes
    assert torch.linalg.matrix_rank(scenes.snapshots[0]) == SMALL.num_antennas


def test_powers_and_correlation_of_sources_are_those_reported() -> None:
    scenes = draw(COLOURED, 4000, snr_db=300.0, num_sources=3)
    power = scenes.sources.power
    amplitude = recovered_amplitudes(scenes) / power.sqrt().unsqueeze(1)
    empirical = (
        torch.einsum("bli,blj->ij", amplitude, amplitude.conj()) / amplitude[..., 0].numel()
    )
    expected = 0.5 + 0.5 * torch.eye(3, dtype=torch.float64)
    assert (empirical - expected).abs().max() < 5 * math.sqrt(2 / 40000)
    spread = 10 * power.log10()
    assert scipy.stats.kstest(spread.flatten().numpy(), "uniform", (-4, 8)).pvalue > 1e-4
    root = power.sqrt()
    torch.testing.assert_close(
        scenes.sources.covariance, root.unsqueeze(-1) * expected * root.unsqueeze(-2)
    )


def test_noise_has_the_reported_covariance() -> None:
    scenes = draw(COLOURED, 4000, num_sources=0)
    noise = scenes.snapshots / scenes.noise_variance.sqrt()[:, None, None]
    empirical = torch.einsum("blm,bln->mn", noise, noise.conj()) / (4000 * 10)
    antenna = np.arange(6)
    expected = 0.6 ** np.abs(np.subtract.outer(antenna, antenna))
    assert scenes.noise_covariance is not None
    torch.testing.assert_close(scenes.noise_covariance[7].real, torch.from_numpy(expected))
    assert (empirical - scenes.noise_covariance[0]).abs().max() < 5 * math.sqrt(2 / 40000)


def test_noise_alone_and_one_snapshot_are_scenes_too() -> None:
    single = replace(SMALL, num_snapshots=1)
    scenes = draw(single, 3, num_sources=0, snr_db=10.0)
    assert scenes.sources.num_sources.tolist() == [0, 0, 0]
    assert scenes.snapshots.isfinite().all()
    # the noise that a source of unit power at E|H|² = 1 would meet: N / SNR
    torch.testing.assert_close(
        scenes.noise_variance, torch.full((3,), 12 / 10, dtype=torch.float64)
    )
    assert (true_covariance(scenes) == 0).all()


def test_missing_sources_are_finite_and_silent() -> None:
    scenes = draw(replace(SMALL, max_sources=3), 500)
    sources = scenes.sources
    for tensor in (sources.azimuth, sources.elevation, sources.range_m):
        assert tensor.isfinite().all()
    assert (sources.power[~sources.active] == 0).all()
    assert (sources.power[sources.active] == 1).all()
    count = sources.num_sources
    assert torch.equal(sources.active, torch.arange(3) < count.unsqueeze(-1))  # active first
    # uniform in 1 ... 3
    assert scipy.stats.chisquare(count.bincount()[1:].numpy()).pvalue > 1e-4


def test_number_of_sources_may_be_forced_per_batch_or_scene() -> None:
    assert (draw(SMALL, 9, num_sources=2).sources.num_sources == 2).all()
    asked = torch.tensor([0, 2, 1])
    assert torch.equal(draw(SMALL, 3, num_sources=asked).sources.num_sources, asked)
    with pytest.raises(ValueError, match="num_sources <= max_sources"):
        draw(SMALL, 3, num_sources=3)


def test_ranges_are_uniform_in_the_region() -> None:
    scenes = draw(SMALL, 3000, num_sources=2)
    drawn = scenes.sources.range_m.flatten().numpy()
    assert scipy.stats.kstest(drawn, "uniform", (0.5, 2.5)).pvalue > 1e-4


def test_channel_has_unit_power_and_the_asked_line_of_sight() -> None:
    for rician_db in (-10.0, 0.0, 6.0):
        channel = draw(replace(SMALL, rician_db=rician_db), 3000).channel
        power = channel.abs().square()
        assert (power.mean() - 1).abs() < 5 * power.std() / math.sqrt(power.numel())
        # |line of sight|² = κ/(κ+1): fourth moments of Rice differ from Rayleigh's by its square
        share = 10 ** (rician_db / 10) / (10 ** (rician_db / 10) + 1)
        fourth = power.square()
        expected = 2 - share**2
        assert (fourth.mean() - expected).abs() < 5 * fourth.std() / math.sqrt(fourth.numel())
    direct = draw(replace(SMALL, rician_db=200.0), 10).channel
    torch.testing.assert_close(direct.abs(), torch.ones_like(direct.abs()))
    assert (torch.linalg.matrix_rank(direct, rtol=1e-6) == 1).all()


def test_equal_generators_give_equal_scenes() -> None:
    first, again, other = draw(SMALL, 4, 1), draw(SMALL, 4, 1), draw(SMALL, 4, 2)
    assert torch.equal(first.snapshots, again.snapshots)
    assert not torch.equal(first.snapshots, other.snapshots)


def test_true_covariance_is_the_limit_of_many_snapshots() -> None:
    scenes = draw(COLOURED, 3)
    truth = true_covariance(scenes)
    torch.testing.assert_close(
        truth.diagonal(dim1=-2, dim2=-1).sum(-1), torch.ones(3, dtype=torch.complex128)
    )
    assert (torch.linalg.matrix_rank(truth, rtol=1e-9) == scenes.sources.num_sources).all()
    amplitude = torch.randn(3, 3, 200_000, dtype=torch.complex128, generator=generator(4))
    root = scenes.sources.covariance_root.to(torch.complex128)
    waves = steering_matrix(scenes).mT @ root @ amplitude
    empirical = waves @ waves.mH
    empirical = empirical / empirical.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    # entries of a trace-1 sample covariance: standard error below sqrt(2/n)
    assert (empirical - truth).abs().max() < 5 * math.sqrt(2 / 200_000)


def test_true_covariance_of_equal_sources_is_their_mean_outer_product() -> None:
    scenes = draw(SMALL, 5, num_sources=2)
    columns = steering_matrix(scenes).mT
    torch.testing.assert_close(
        true_covariance(scenes), columns @ columns.mH / (2 * SMALL.num_elements)
    )


# --- fixed scenes -----------------------------------------------------------------------------


def differences(first: Scenes, second: Scenes) -> float:
    """Largest difference of anything but the noise level."""
    pairs = [(getattr(first, n), getattr(second, n)) for n in ("snapshots", "channel", "codes")]
    pairs += [
        (getattr(first.sources, n), getattr(second.sources, n))
        for n in ("azimuth", "elevation", "range_m", "power")
    ]
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("config", [SMALL, COLOURED], ids=["plain", "coloured"])
def test_fixed_scene_depends_on_seed_number_and_snr_alone(config: SceneConfig) -> None:
    fixed = EvalScenes(config, 11)
    together = fixed.batch(range(40), snr_db=3.0)
    torch.rand(5)  # the global generator plays no part
    shuffled = fixed.batch([17, 3, 39], snr_db=torch.tensor([3.0, 3.0, 3.0]))
    rounding = 1e-5  # of some 100 terms added in another order: 100 · 2^-24
    for row, number in enumerate((17, 3, 39)):
        alone = EvalScenes(config, 11).batch([number], snr_db=3.0)
        picked = fixed.batch([number, 1, 2], snr_db=3.0)
        assert torch.equal(alone.sources.azimuth[0], together.sources.azimuth[number])
        assert torch.equal(alone.channel[0], together.channel[number])
        for other, at in ((together, number), (shuffled, row), (picked, 0)):
            error = (alone.snapshots[0] - other.snapshots[at]).abs().max()
            assert error < rounding * alone.snapshots.abs().max()
    assert differences(together, EvalScenes(config, 12).batch(range(40), snr_db=3.0)) > 0.1
    fine = fixed.batch(range(40), snr_db=3.0, dtype=torch.complex128)
    # phases of up to k · 0.6 m = 12 rad in single precision: 12 · 2^-24 · |y| <= 30 · a few
    assert differences(together, fine.to(dtype=torch.complex64)) < 6e-5
    assert fine.snapshots.dtype == torch.complex128


def test_fixed_scenes_share_everything_but_the_noise_level_across_snr() -> None:
    fixed = EvalScenes(COLOURED, 11)
    batches = [
        fixed.batch(range(6), snr_db=snr_db, dtype=torch.complex128) for snr_db in (-5.0, 0.0, 9.0)
    ]
    low, middle, high = batches
    assert torch.equal(low.sources.azimuth, high.sources.azimuth)
    assert torch.equal(low.codes, high.codes)
    assert torch.equal(low.channel, high.channel)
    levels = [b.noise_variance.sqrt()[:, None, None] for b in batches]
    noise = (low.snapshots - middle.snapshots) / (levels[0] - levels[1])
    torch.testing.assert_close(
        noise, (low.snapshots - high.snapshots) / (levels[0] - levels[2]), rtol=1e-9, atol=1e-12
    )
    # nine decibels up: the same noise, scaled
    torch.testing.assert_close(
        middle.noise_variance / high.noise_variance, torch.full((6,), 10**0.9).double()
    )


def test_fixed_scenes_keep_their_sources_when_their_number_is_forced() -> None:
    fixed = EvalScenes(COLOURED, 11)
    one, three, own = (fixed.batch(range(30), snr_db=0.0, num_sources=k) for k in (1, 3, None))
    assert torch.equal(one.sources.azimuth[:, 0], three.sources.azimuth[:, 0])
    assert torch.equal(one.sources.power[:, 0], three.sources.power[:, 0])
    assert torch.equal(one.channel, three.channel)
    active = own.sources.active
    assert torch.equal(own.sources.range_m[active], three.sources.range_m[active])
    assert set(own.sources.num_sources.tolist()) == {1, 2, 3}


def test_fixed_scenes_follow_the_same_law_as_simulated_ones() -> None:
    fixed = EvalScenes(COLOURED, 11).batch(range(3000), snr_db=0.0)
    drawn = simulate(COLOURED, 3000, snr_db=0.0, generator=generator(), device="cpu")
    for first, second in (
        (fixed.sources.azimuth[:, 0], drawn.sources.azimuth[:, 0]),
        (fixed.sources.range_m[:, 0], drawn.sources.range_m[:, 0]),
        (fixed.channel[:, 0, 0].real, drawn.channel[:, 0, 0].real),
        (fixed.codes[:, 0, 0].imag, drawn.codes[:, 0, 0].imag),
        (fixed.snapshots[:, 0, 0].abs(), drawn.snapshots[:, 0, 0].abs()),
    ):
        assert scipy.stats.ks_2samp(first.numpy(), second.numpy()).pvalue > 1e-4
    # neighbouring numbers are independent streams
    angles = fixed.sources.azimuth[:, 0].numpy()
    assert abs(np.corrcoef(angles[1:], angles[:-1])[0, 1]) < 5 / math.sqrt(3000)


def test_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="0 <= seed"):
        EvalScenes(SMALL, -1)


@needs_gpu
def test_scenes_are_the_same_on_a_gpu() -> None:
    fixed = EvalScenes(COLOURED, 11)
    here = fixed.batch(range(50), snr_db=3.0)
    there = fixed.batch(range(50), snr_db=3.0, device="cuda").to(device="cpu")
    # single precision, as for complex64 against complex128 above
    assert differences(here, there) < 6e-5
    on_gpu = torch.Generator("cuda").manual_seed(0)
    scenes = simulate(COLOURED, 2000, snr_db=0.0, generator=on_gpu, device="cuda")
    assert scenes.snapshots.device.type == "cuda"
    power = scenes.snapshots.abs().square().mean((1, 2)) / scenes.noise_variance - 1
    assert float((power.mean() - 1).abs()) < 5 * float(power.std()) / math.sqrt(2000)


def test_the_modulus_is_known_of_simulated_codes_and_read_of_what_is_made_of_them() -> None:
    codes = draw(SMALL, 2).codes
    assert has_unit_modulus(codes)
    assert has_unit_modulus(codes[:1])
    dead = codes.clone()
    dead[0, 0, 0] = 0
    assert not has_unit_modulus(dead)
    assert not has_unit_modulus(2 * codes)
