"""Back-projections against textbook formulas, one dense G_l at a time; their invariances."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize
import torch

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


def dense_operators(batch):
    """Return G_l = H diag(c_l), [B, L, M, N]."""
    return batch.channel.unsqueeze(1) * batch.codes.unsqueeze(2)


def apply(operators, snapshots):
    return (operators @ snapshots.unsqueeze(-1)).squeeze(-1)


def test_pinv_is_the_least_norm_solution_of_every_snapshot():
    batch = scenes()
    expected = apply(torch.linalg.pinv(dense_operators(batch)), batch.snapshots)
    torch.testing.assert_close(pinv(batch), expected, rtol=1e-10, atol=1e-10)


def test_pinv_of_more_antennas_than_elements_is_least_squares():
    batch = scenes(replace(SCENE, num_antennas=20))
    expected = apply(torch.linalg.pinv(dense_operators(batch)), batch.snapshots)
    torch.testing.assert_close(pinv(batch), expected, rtol=1e-9, atol=1e-9)


def test_lmmse_is_the_textbook_formula():
    batch = scenes()
    loading = torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    operators = dense_operators(batch)
    eye = torch.eye(5, dtype=torch.complex128)
    inverse = torch.linalg.inv(operators @ operators.mH + loading[:, None, None, None] * eye)
    expected = apply(operators.mH @ inverse, batch.snapshots)
    torch.testing.assert_close(lmmse(batch, loading), expected, rtol=1e-10, atol=1e-10)


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


@pytest.mark.parametrize("project", [pinv, lmmse])
def test_the_phase_of_a_code_and_the_scale_of_all_snapshots_do_not_matter(project):
    batch = scenes()
    turn = torch.exp(2j * torch.pi * torch.rand(4, 6, 1, dtype=torch.float64))
    # the same measurement: y follows the code's phase
    turned = replace(batch, codes=batch.codes * turn, snapshots=7e3 * batch.snapshots * turn)
    torch.testing.assert_close(
        sample_covariance(project(turned)).dense(),
        sample_covariance(project(batch)).dense(),
        rtol=1e-9,
        atol=1e-9,
    )


def test_fitted_powers_are_those_of_the_model():
    many = replace(SCENE, num_snapshots=4000, max_sources=1, rician_db=0.0)
    batch = scenes(many, count=3, snr_db=0.0)
    signal, loading = fit_loading(channel_eigenmodes(batch))
    # one source of power 1 gives every element power 1
    assert signal.tolist() == pytest.approx([1, 1, 1], rel=0.1)
    # 4000 snapshots: about 5 %, and the grid's step is 26 %
    assert (signal * loading).tolist() == pytest.approx(batch.noise_variance.tolist(), rel=0.2)


def test_the_fitted_loading_maximises_the_likelihood():
    batch = scenes()
    modes = channel_eigenmodes(batch)
    _, loading = fit_loading(modes)
    for scene in range(4):
        gain = modes.gain[scene].numpy()
        power = modes.coordinates[scene].abs().square().mean(0).numpy()

        def cost(parameters, gain=gain, power=power):
            variance = 10 ** parameters[0] * (gain + 10 ** parameters[1])
            return (np.log(variance) + power / variance).sum()

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
