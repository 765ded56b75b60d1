"""The test of noise alone: its level, and what it takes for a source."""

from dataclasses import replace

import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.evaluation import noise_p_value
from trainer.scenes import search_grid

SEARCH = search_grid(SCENE, torch.float32)


def p_values(snr_db: float, count: int, size: int) -> torch.Tensor:
    return noise_p_value(scenes_of(count=count, snr_db=snr_db, size=size), SEARCH)


def test_noise_alone_is_taken_for_a_source_at_the_level_that_is_said():
    """Of 192 scenes at 1 %: five standard errors are 7 scenes."""
    found = p_values(0.0, 0, 192)
    assert (found < 0.01).sum() <= 2 + 7
    assert float((found < 0.5).double().mean()) == pytest.approx(0.5, abs=0.18)


@pytest.mark.parametrize("count", [1, 2])
def test_a_source_is_seen_where_an_estimate_has_a_chance(count):
    """-5 dB is the threshold of this panel; at -15 dB no estimator is right in a tenth."""
    seen = [(p_values(snr, count, 32) < 0.01).double().mean() for snr in (-15.0, -5.0, 0.0)]
    assert seen[0] < 0.25
    assert seen[1] > 0.6
    assert seen[2] > 0.95


def test_the_unit_of_the_snapshots_does_not_matter():
    scenes = scenes_of(snr_db=-10.0, size=16)
    loud = replace(scenes, snapshots=1e3 * scenes.snapshots)
    torch.testing.assert_close(
        noise_p_value(loud, SEARCH), noise_p_value(scenes, SEARCH), rtol=1e-2, atol=1e-3
    )  # single precision on the grid


def test_silence_is_no_source():
    scenes = scenes_of(size=3)
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    assert (noise_p_value(silent, SEARCH) > 0.5).all()
