"""Back-projections against textbook formulas, one dense G_l at a time; their invariances."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch

from tests.resimulated import resimulated, two_state_codes
from trainer.config import SceneConfig
from trainer.covariance.backprojection import (
    channel_eigenmodes,
    fit_loading,
    lmmse,
    pinv,
    sample_covariance,
)
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(
    num_horizontal=4, num_vertical=3, num_antennas=5, num_snapshots=6, max_sources=2
)


def scenes(config: SceneConfig = SCENE, count: int = 4, snr_db: float = 3.0):
    return EvalScenes(config, 3).batch(range(count), snr_db=snr_db, dtype=torch.complex128)


def with_gains(batch):
    """Return a batch whose panel has states of unlike gain, a dead element and a dark snapshot."""
    codes = two_state_codes(batch)
    codes[..., 3] = 0
    codes[:, 2] = 0
    return resimulated(batch, codes=codes, snr_db=3.0)


CODES = {"unit": lambda batch: batch, "gains": with_gains}


def dense_operators(batch):
    """Return G_l = H diag(c_l), [B, L, M, N]."""
    return batch.channel.unsqueeze(1) * batch.codes.unsqueeze(2)


def apply(operators, snapshots):
    return (operators @ snapshots.unsqueeze(-1)).squeeze(-1)


@pytest.mark.parametrize("codes", CODES)
def test_pinv_is_the_least_norm_solution_of_every_snapshot(codes):
    batch = CODES[codes](scenes())
    expected = apply(torch.linalg.pinv(dense_operators(batch)), batch.snapshots)
    torch.testing.assert_close(pinv(batch), expected, rtol=1e-10, atol=1e-10)


def test_pinv_of_more_antennas_than_elements_is_least_squares():
    batch = scenes(replace(SCENE, num_antennas=20))
    expected = apply(torch.linalg.pinv(dense_operators(batch)), batch.snapshots)
    torch.testing.assert_close(pinv(batch), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("codes", CODES)
def test_lmmse_is_the_textbook_formula(codes):
    batch = CODES[codes](scenes())
    loading = torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    operators = dense_operators(batch)
    eye = torch.eye(5, dtype=torch.complex128)
    inverse = torch.linalg.inv(operators @ operators.mH + loading[:, None, None, None] * eye)
    expected = apply(operators.mH @ inverse, batch.snapshots)
    torch.testing.assert_close(lmmse(batch, loading), expected, rtol=1e-10, atol=1e-10)


def test_scenes_with_gains_and_without_share_a_batch():
    unit, gains = scenes(), with_gains(scenes())
    mixed = replace(
        unit,
        snapshots=torch.cat([unit.snapshots[:2], gains.snapshots[2:]]),
        codes=torch.cat([unit.codes[:2], gains.codes[2:]]),
    )
    expected = torch.cat([lmmse(unit)[:2], lmmse(gains)[2:]])
    torch.testing.assert_close(lmmse(mixed), expected, rtol=1e-9, atol=1e-9)


def test_lmmse_becomes_pinv_without_noise():
    batch = scenes()
    loading = torch.full((4,), 1e-12, dtype=torch.float64)
    torch.testing.assert_close(lmmse(batch, loading), pinv(batch), rtol=1e-8, atol=1e-8)


def test_lmmse_uses_the_covariance_of_coloured_noise():
    batch = scenes(replace(SCENE, noise_correlation=0.7))
    loading = torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    operators = dense_operators(batch)
    noise = loading[:, None, None, None] * batch.noise_covariance.unsqueeze(1)
    inverse = torch.linalg.inv(operators @ operators.mH + noise)
    expected = apply(operators.mH @ inverse, batch.snapshots)
    torch.testing.assert_close(lmmse(batch, loading), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("project", [pinv, lmmse])
def test_the_phase_of_a_code_and_the_scale_of_all_snapshots_do_not_matter(project, codes):
    batch = CODES[codes](scenes())
    turn = torch.exp(2j * torch.pi * torch.rand(4, 6, 1, dtype=torch.float64))
    # the same measurement: y follows the code's phase
    turned = replace(batch, codes=batch.codes * turn, snapshots=7e3 * batch.snapshots * turn)
    torch.testing.assert_close(
        sample_covariance(project(turned)).dense(),
        sample_covariance(project(batch)).dense(),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("gains", [None, (0.5, 1.0)])
def test_fitted_powers_are_those_of_the_model(gains):
    many = replace(SCENE, num_snapshots=4000, max_sources=1, rician_db=0.0)
    batch = scenes(many, count=3, snr_db=0.0)
    if gains:
        codes = batch.codes * two_state_codes(batch, gains).abs()
        batch = resimulated(batch, codes=codes, snr_db=0.0)
    signal, loading = fit_loading(channel_eigenmodes(batch))
    # one source of power 1 gives every element power 1
    assert signal.tolist() == pytest.approx([1, 1, 1], rel=0.1)
    # 4000 snapshots: about 5 %, and the grid's step is 26 %
    assert (signal * loading).tolist() == pytest.approx(batch.noise_variance.tolist(), rel=0.2)


@pytest.mark.parametrize("codes", CODES)
def test_the_fitted_loading_maximises_the_likelihood(codes):
    """With dense G_l and scipy, for scenes whose codes have gains and for others."""
    batch = CODES[codes](scenes())
    _, loading = fit_loading(channel_eigenmodes(batch))
    values, vectors = np.linalg.eigh((dense_operators(batch) @ dense_operators(batch).mH).numpy())
    snapshots = batch.snapshots.unsqueeze(-1).numpy()
    powers = np.abs((vectors.conj().swapaxes(-1, -2) @ snapshots)[..., 0]) ** 2
    for scene in range(4):
        gain, power = values[scene], powers[scene]

        def cost(parameters, gain=gain, power=power):
            variance = 10 ** parameters[0] * (gain + 10 ** parameters[1])
            return (np.log(variance) + power / variance).sum() / 6

        starts = [scipy.optimize.minimize(cost, (0, x), method="Nelder-Mead") for x in (-2, 1, 4)]
        best = min(start.fun for start in starts)
        signal = (power / (gain + loading[scene].item())).mean()
        ours = cost(torch.tensor([signal, loading[scene].item()]).log10().tolist())
        assert ours == pytest.approx(best, abs=2e-2)  # a tenth of a decade is flatter than this


@pytest.mark.parametrize("project", [pinv, lmmse])
def test_zero_snapshots_project_to_zero(project):
    silent = scenes()
    silent = replace(silent, snapshots=torch.zeros_like(silent.snapshots))
    assert sample_covariance(project(silent)).dense().abs().max() == 0
