"""The plain estimators of the benchmarks and the trainer's, written independently, agree."""

import sys
from pathlib import Path

import numpy as np
import torch

from trainer.config import SceneConfig
from trainer.covariance.backprojection import lmmse, sample_covariance
from trainer.estimation.maximum_likelihood import sml
from trainer.estimation.pseudospectra import music
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
import plain_estimators
import plain_numpy

CONFIG = SceneConfig(num_horizontal=5, num_vertical=5, num_antennas=8, max_sources=2)


def make(num_sources: int) -> tuple[Scenes, list[plain_numpy.PlainScene]]:
    batch = EvalScenes(CONFIG, 1).batch(
        range(8), snr_db=15.0, num_sources=num_sources, dtype=torch.complex128
    )
    s = batch.sources
    plain = [
        plain_numpy.PlainScene(
            *(x[i].numpy() for x in (batch.snapshots, batch.channel, batch.codes)),
            *(x[i, :num_sources].numpy() for x in (s.azimuth, s.elevation, s.range_m)),
            batch.noise_variance[i].item(),
        )
        for i in range(8)
    ]
    return batch, plain


def test_covariances_agree() -> None:
    batch, plain = make(2)
    ours = sample_covariance(lmmse(batch, batch.noise_variance / 2)).dense().numpy()
    for i, scene in enumerate(plain):
        theirs = plain_estimators.lmmse_covariance(scene)
        np.testing.assert_allclose(ours[i], theirs / np.trace(theirs).real, rtol=0, atol=1e-12)


def test_peaks_of_music_agree_to_the_plain_grid() -> None:
    batch, plain = make(2)
    covariance = sample_covariance(lmmse(batch, batch.noise_variance / 2))
    search = search_grid(CONFIG, torch.float64)
    estimates = music(covariance, batch.sources.num_sources, search, deflation=False)
    grid = plain_estimators.make_grid(CONFIG, 20.0, 16)
    ours = torch.stack([estimates.azimuth, estimates.elevation], -1).numpy()
    gaps = []
    for i, scene in enumerate(plain):
        theirs = plain_estimators.music(plain_estimators.lmmse_covariance(scene), 2, grid)
        gap = np.abs(ours[i][:, None] - theirs[None, :, :2])
        gaps.append(gap.max(-1).min(0))
    # cells are .02 wide in the sine, wider in angle and along the ridge that couples it with range
    assert np.quantile(gaps, 0.9) < 0.05


def test_likelihoods_agree() -> None:
    batch, plain = make(1)
    estimates = sml(batch, batch.sources.num_sources, search_grid(CONFIG, torch.float64))
    grid = plain_estimators.make_grid(CONFIG, 2.5, 6)
    gaps = []
    for i, scene in enumerate(plain):
        theirs = plain_estimators.single_source_likelihood(CONFIG, scene, grid)
        ours = np.array([[estimates.azimuth[i, 0], estimates.elevation[i, 0]]])
        gaps.append(np.abs(ours - theirs[:, :2]).max())
    # a quasi-Newton method with numerical derivatives stops short of the optimum now and then
    assert np.quantile(gaps, 0.75) < 2e-3
