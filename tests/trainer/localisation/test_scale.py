"""The scale of a panel: told by curvature over a recording, and by nothing of planar waves."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.config import SceneConfig
from trainer.localisation.diagnosis import describe_misfits, describe_scale, find_fault
from trainer.localisation.goodness_of_fit import goodness_of_fit
from trainer.localisation.localise_scenes import localise
from trainer.localisation.vouching import (
    MISFIT,
    RESCALED,
    UNCALIBRATED,
    moved_by_scale,
    recording_scale,
)
from trainer.scenes import Panel, search_grid
from trainer.scenes.geometry import (
    planar_steering_vector,
    steering_scale_derivative,
    steering_vector,
)
from trainer.scenes.measurement import Scenes

SEARCH = search_grid(SCENE, torch.float32)


def rescaled(scenes: Scenes, factor: float) -> Scenes:
    """Return scenes whose wavelength is given too large: all distances are `factor` as many."""
    panel = replace(scenes.panel, wavelength_m=scenes.panel.wavelength_m * factor)
    return replace(scenes, panel=panel)


def test_the_derivative_by_scale_is_that_of_scaled_positions():
    place = (torch.tensor(x, dtype=torch.float64) for x in (0.4, -0.3, 1.2))
    azimuth, elevation, range_m = place
    step = 1e-6
    wide, narrow = (Panel(4, 3, 0.15 * (1 + s), 0.3) for s in (step, -step))
    ends = (steering_vector(p, azimuth, elevation, range_m) for p in (wide, narrow))
    difference = (next(ends) - next(ends)) / (2 * step)
    found = steering_scale_derivative(Panel(4, 3, 0.15, 0.3), azimuth, elevation, range_m)
    torch.testing.assert_close(found, difference, rtol=1e-7, atol=1e-7)


def test_a_planar_wave_under_another_scale_is_another_planar_wave():
    """Its sines of both angles are divided by the factor: what `moved_by_scale` says."""
    panel, factor = Panel(5, 4, 0.15, 0.3), 1.1
    angles = torch.tensor([[0.5], [-0.2]], dtype=torch.float64)
    found = localise(method="sml", scenes=scenes_of(size=1))
    told = replace(found, azimuth=angles[0:1].numpy(), elevation=angles[1:2].numpy())
    up = (angles[1].sin() / factor).asin()
    across = (angles[0].sin() * angles[1].cos() / factor / up.cos()).asin()
    wide = replace(panel, spacing_m=0.15 * factor)
    torch.testing.assert_close(
        planar_steering_vector(wide, across, up), planar_steering_vector(panel, *angles)
    )
    moved = torch.maximum((across - angles[0]).abs(), (up - angles[1]).abs())
    assert moved_by_scale(told, factor)[0, 0] == pytest.approx(float(moved))


def test_students_t_of_the_scale_is_normal_on_the_law():
    scenes = scenes_of(count=1, snr_db=5.0, size=200)
    truth = scenes.sources
    places = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)
    fit = goodness_of_fit(scenes, places, truth.active, SEARCH)
    score = (fit.scale - 1) / fit.scale_std
    assert float(score.std()) == pytest.approx(1, abs=0.2)  # 4 standard errors of 200
    assert abs(float(score.mean())) < 0.3


@pytest.mark.parametrize("factor", [0.9, pytest.param(1.12, marks=pytest.mark.slow)])
def test_a_recording_with_a_wrong_carrier_is_not_vouched_for_and_told_its_scale(factor):
    """Alone its scenes say little: at 5 dB a scene tells the scale to a fifth."""
    law = scenes_of(snr_db=15.0, size=24)
    wrong = rescaled(law, factor)
    found = localise(method="sml", scenes=wrong, azimuth_deg=45.0)
    scale = recording_scale(found)
    assert scale is not None
    assert scale.wrong
    assert scale.factor == pytest.approx(factor, abs=0.04)
    off = moved_by_scale(found, scale.factor) > np.radians(2.5)
    assert off.any()
    # others, such as an edge or a misfit of its own, come before
    assert (found.reason == RESCALED).any()
    assert not np.isin(found.reason[off], ("", UNCALIBRATED)).any()
    said = describe_misfits(found, wrong, replace(SCENE, azimuth_max_deg=45.0))
    assert "elements' distances in wavelengths" in said
    assert "times as large" in said


@pytest.mark.parametrize("factor", [0.75, pytest.param(1.3, marks=pytest.mark.slow)])
def test_the_factor_advised_is_right_far_from_one_too(factor):
    """Linearised once it would be too small."""
    near = replace(SCENE, azimuth_max_deg=20.0, elevation_max_deg=12.0, range_max_m=1.5)
    wrong = rescaled(scenes_of(near, count=1, snr_db=20.0, size=24), factor)
    wrong = replace(wrong, truth=None)
    region = {"azimuth_deg": 28.0, "elevation_deg": 28.0, "range_m": (0.3, 4.0)}
    found = localise(method="sml", scenes=wrong, num_sources=1, **region)
    searched = replace(
        near,
        wavelength_m=wrong.panel.wavelength_m,
        **{"azimuth_max_deg": 28.0, "elevation_max_deg": 28.0},
        **{"range_min_m": 0.3, "range_max_m": 4.0},
    )
    fault = find_fault(found, wrong, searched)
    assert fault is not None
    told, vague = re.search(r"([\d.]+) ± ([\d.]+) times", fault.reading).groups()
    # by three standard deviations, of which 1.96 are printed with one digit
    assert abs(float(told) - factor) < 3 / 1.96 * 1.5 * float(vague)
    assert float(vague) <= 0.2
    assert f"by {told}" in fault.remedy
    once = recording_scale(found)
    assert once is not None
    assert once.factor < float(told)
    assert abs(float(told) - factor) < 0.6 * abs(once.factor - factor)


@pytest.mark.parametrize("named", [0.9, 1.46])
def test_a_factor_is_a_remedy_only_if_most_scenes_fit_with_it(named):
    wrong = rescaled(scenes_of(snr_db=15.0, size=5), 0.9)
    found = localise(method="sml", scenes=wrong, azimuth_deg=25.0)
    told = replace(
        found,
        p_value=np.ones_like(found.p_value),
        fits=np.ones_like(found.fits),
        scale=np.full_like(found.scale, named),
        scale_std=np.full_like(found.scale_std, 0.01),
    )
    fault = find_fault(told, wrong, replace(SCENE, azimuth_max_deg=25.0))
    assert (fault is not None) == (named == 0.9)


@pytest.mark.parametrize("factor", [1.46, 1.0])
def test_words_do_not_promise_small_errors_where_no_angle_is_vouched_for(factor):
    found = localise(method="sml", scenes=scenes_of(snr_db=15.0, size=5))
    found = replace(
        found,
        reason=np.full_like(found.reason, MISFIT, dtype="<U99"),
        scale=np.full_like(found.scale, factor),
        scale_std=np.full_like(found.scale_std, 0.05),
    )
    words, _ = describe_scale(found)
    assert "0.0°" not in words
    assert "until then" not in words
    assert ("would move" in words) == (factor == 1.0)


def test_even_a_lone_scene_has_a_test_of_its_scale():
    """1.96 standard deviations keep an angle that is far off, 3 do not."""
    found = localise(method="sml", scenes=scenes_of(snr_db=15.0, size=1))
    for score, wrong in ((1.96, False), (3.0, True)):
        std = np.full_like(found.scale_std, 0.1)
        told = recording_scale(replace(found, scale=1 + score * std, scale_std=std))
        assert told is not None
        assert told.wrong == wrong


def test_the_scale_of_the_law_is_one():
    scale = recording_scale(localise(method="sml", scenes=scenes_of(snr_db=15.0, size=24)))
    assert scale is not None
    assert not scale.wrong
    assert abs(scale.factor - 1) < 3 * scale.std


def test_far_sources_do_not_tell_the_scale_and_the_words_say_so():
    far = SceneConfig(
        num_horizontal=5, num_vertical=4, num_antennas=8, range_min_m=30.0, range_max_m=60.0
    )
    found = localise(method="sml", scenes=scenes_of(far, snr_db=15.0, size=8))
    words, clear = describe_scale(found)
    assert not clear
    assert "to no better than half" in words
    assert "would move angles by up to" in words
