"""Codes whose states differ in gain: estimates are as good as the bound, with the right gains."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.resimulated import resimulated, two_state_codes
from trainer.config import SceneConfig
from trainer.estimation.estimates import Estimates
from trainer.estimation.fisher_scoring import refine_by_fisher_scoring
from trainer.estimation.registry import build_localiser
from trainer.evaluation.crb import stochastic_crb
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(max_sources=1)
COUNT = 300


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    drawn = EvalScenes(SCENE, 5).batch(range(COUNT), snr_db=20.0, dtype=torch.complex128)
    return resimulated(drawn, codes=two_state_codes(drawn), snr_db=20.0)


def at_the_maximum(scenes: Scenes) -> Tensor:
    """Return squared angle errors of the likelihood's maximum next to the truth, [B]."""
    truth = scenes.sources
    start = Estimates(truth.azimuth, truth.elevation, truth.range_m, truth.active, truth.active)
    found = refine_by_fisher_scoring(scenes, start, search_grid(SCENE, torch.float64), steps=8)
    azimuth, elevation = found.azimuth - truth.azimuth, found.elevation - truth.elevation
    return (azimuth.square() + elevation.square())[:, 0]


def test_ml_is_efficient_with_gains_and_errs_twice_as_much_without_them(scenes: Scenes) -> None:
    """Mean of squared error over bound: L/(L-1) = 1.07, with a standard error of 1.3/sqrt(300)."""
    error, bound = at_the_maximum(scenes), stochastic_crb(scenes).angle[:, 0]
    assert 0.85 < (error / bound).mean() < 1.3
    forced = at_the_maximum(replace(scenes, codes=scenes.codes.sgn()))
    assert forced.mean() > 4 * error.mean()  # squares


@pytest.mark.parametrize("method", ["sml", "lmmse_music", "sparse_mvdr+scoring"])
def test_a_gain_of_all_codes_may_stand_in_the_channel(scenes: Scenes, method: str) -> None:
    few = scenes.take(slice(0, 4)).to(dtype=torch.complex64)
    moved = replace(few, codes=few.codes / 8, channel=few.channel * 8)
    count, locate = few.sources.num_sources, build_localiser(method, SCENE)
    here, there = (locate(each, count).positions for each in (few, moved))
    torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)  # single precision


@pytest.mark.parametrize("method", ["sml", "lmmse_music+scoring", "pinv_beamformer+scoring"])
def test_methods_find_a_source_through_two_states(scenes: Scenes, method: str) -> None:
    few = scenes.take(slice(0, 12)).to(dtype=torch.complex64)
    found = build_localiser(method, SCENE)(few, few.sources.num_sources)
    error = (found.azimuth - few.sources.azimuth).abs().rad2deg()
    assert error.median() < 0.5
