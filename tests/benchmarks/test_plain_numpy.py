"""The plain NumPy scene of the benchmarks and the trainer's, written independently, agree."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import torch

from trainer.config import SceneConfig
from trainer.scenes.geometry import Panel, steering_vector
from trainer.scenes.measurement import Scenes, Sources, expected_snr_db
from trainer.scenes.simulation import simulate

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import plain_numpy

CONFIG = SceneConfig(num_horizontal=5, num_vertical=4, num_antennas=6, num_snapshots=8)


def as_batch(scene: plain_numpy.PlainScene) -> Scenes:
    places = [torch.from_numpy(x)[None] for x in (scene.azimuth, scene.elevation, scene.range_m)]
    sources = Sources(*places, torch.ones_like(places[0]), torch.ones_like(places[0]) > 0)
    signals = [torch.from_numpy(x)[None] for x in (scene.snapshots, scene.channel, scene.codes)]
    level = torch.tensor([scene.noise_variance], dtype=torch.float64)
    return Scenes(Panel.from_config(CONFIG), *signals, sources, torch.zeros_like(level), level)


def test_steering_matrices_agree() -> None:
    generator = np.random.default_rng(0)
    azimuth, elevation = generator.uniform(-0.5, 0.5, (2, 50))
    range_m = generator.uniform(0.5, 10, 50)
    plain = plain_numpy.steering_matrix(CONFIG, azimuth, elevation, range_m)
    places = [torch.from_numpy(x) for x in (azimuth, elevation, range_m)]
    ours = steering_vector(Panel.from_config(CONFIG), *places).mT
    np.testing.assert_allclose(ours.numpy(), plain, rtol=0, atol=1e-12)


@pytest.mark.parametrize("snr_db", [-10.0, 5.0])
def test_noise_levels_mean_the_same_snr(snr_db: float) -> None:
    generator = np.random.default_rng(1)
    for _ in range(5):
        scenes = as_batch(plain_numpy.draw_scene(CONFIG, generator, snr_db))
        assert expected_snr_db(scenes).item() == pytest.approx(snr_db, abs=1e-10)


def test_both_draw_by_the_same_law() -> None:
    generator = np.random.default_rng(2)
    plain = [plain_numpy.draw_scene(CONFIG, generator, 0.0) for _ in range(2000)]
    drawn = simulate(
        CONFIG, 2000, snr_db=0.0, generator=torch.Generator().manual_seed(3), device="cpu"
    )
    channel, codes = (np.stack([getattr(s, n) for s in plain]) for n in ("channel", "codes"))
    noise = np.array([s.noise_variance for s in plain])
    power = np.array([np.mean(np.abs(s.snapshots) ** 2) for s in plain])
    for ours, theirs in (
        (drawn.sources.azimuth[:, 0], np.array([s.azimuth[0] for s in plain])),
        (drawn.sources.range_m[:, 0], np.array([s.range_m[0] for s in plain])),
        (drawn.channel[:, 2, 3].abs(), np.abs(channel[:, 2, 3])),
        (torch.linalg.svdvals(drawn.channel)[:, 0], np.linalg.norm(channel, 2, axis=(1, 2))),
        (drawn.codes[:, 1, 1].angle(), np.angle(codes[:, 1, 1])),
        (drawn.noise_variance, noise),
        (drawn.snapshots.abs().square().mean((1, 2)) / drawn.noise_variance, power / noise),
    ):
        assert scipy.stats.ks_2samp(ours.numpy(), theirs).pvalue > 1e-4
    counts = np.bincount([len(s.azimuth) for s in plain])[1:]
    assert abs(counts[0] - counts[1]) < 5 * math.sqrt(2000)
