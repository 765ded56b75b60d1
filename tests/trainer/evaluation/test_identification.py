"""Localisation says what the snapshots tell of a place, and vouches for nothing they do not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.config import SceneConfig
from trainer.estimation import build_localiser
from trainer.evaluation import identify
from trainer.scenes import EvalScenes, Panel, steering_vector

PANEL = SceneConfig(num_antennas=8, num_snapshots=12, max_sources=1)
ROW = replace(PANEL, num_horizontal=12, num_vertical=1)
METHOD = "lmmse_music+scoring"


def told_at(scene, azimuth_deg, elevation_deg, range_m, searched=None, method=METHOD, size=4):
    """Return what is told of single sources at one place, at 20 dB, in the region `searched`."""
    scenes = EvalScenes(scene, 5).batch(range(size), snr_db=20.0, num_sources=1)
    values = math.radians(azimuth_deg), math.radians(elevation_deg), range_m
    place = [torch.full((size, 1), value, dtype=torch.float64) for value in values]
    generator = torch.Generator().manual_seed(7)
    shape = size, scene.num_snapshots, 1, 2
    amplitudes = torch.view_as_complex(torch.randn(shape, generator=generator).double())
    steering = steering_vector(scenes.panel, *place)  # [B, 1, N]
    double = scenes.to(dtype=torch.complex128)
    signal = (double.codes * steering * amplitudes) @ double.channel.mT
    power = signal.abs().square().mean()
    shape = *signal.shape, 2
    noise = torch.view_as_complex(torch.randn(shape, generator=generator).double())
    snapshots = signal + noise * (power / 2 / 100).sqrt()
    moved = replace(double, snapshots=snapshots, truth=None).to(dtype=torch.complex64)
    region = searched or scene
    found = build_localiser(method, region)(moved, torch.ones(size, dtype=torch.long))
    return identify(moved, found, region)


def reasons(told):
    return {reason for reason, estimates in told.withheld if bool(estimates.any())}


@pytest.mark.parametrize("method", ["sml", METHOD])
def test_a_row_tells_the_angle_of_its_cone_and_not_the_elevation(method):
    told = told_at(ROW, -40.0, 0.0, 1.0, method=method)
    assert bool(told.elevation.isnan().all())
    assert bool(told.elevation_std.isnan().all())
    assert reasons(told) == {"elevation is not identifiable"}
    assert (told.azimuth.rad2deg() + 40).abs().max() < 1
    # on the cone sin φ cos θ = sin(-40°), azimuth depends on an elevation that may be anywhere
    elevation = np.radians(np.linspace(-30, 30, 2001))
    along = np.degrees(np.arcsin(np.sin(np.radians(40)) / np.cos(elevation)))
    expected = np.sqrt(np.mean((along - 40) ** 2))
    np.testing.assert_allclose(told.azimuth_std.rad2deg().numpy(), expected, rtol=0.15)
    assert (told.range_m - 1).abs().max() < 0.1


def test_with_little_elevation_to_search_a_row_tells_azimuth_well():
    flat = replace(ROW, elevation_max_deg=1.0)
    told = told_at(flat, -40.0, 0.5, 1.0, searched=flat)
    assert told.azimuth_std.rad2deg().max() < 0.3
    assert ((told.azimuth.rad2deg() + 40) / told.azimuth_std.rad2deg()).abs().max() < 4


def test_a_column_tells_elevation_and_not_azimuth():
    told = told_at(replace(ROW, num_horizontal=1, num_vertical=12), 35.0, 10.0, 1.0)
    assert bool(told.azimuth.isnan().all())
    assert reasons(told) == {"azimuth is not identifiable"}
    assert (told.elevation.rad2deg() - 10).abs().max() < 1
    assert told.elevation_std.rad2deg().max() < 0.5


def test_elements_on_a_slanted_line_tell_no_direction_but_at_great_uncertainty():
    slant = tuple((0.07 * i, 0.07 * i) for i in range(-5, 6))
    panel = Panel.of_positions(slant, PANEL.wavelength_m)
    scene = replace(
        PANEL,
        num_horizontal=len(slant),
        num_vertical=1,
        spacing_m=panel.spacing_m,
        positions_m=panel.positions_m,
    )
    told = told_at(scene, 20.0, 10.0, 1.0)
    assert bool(told.elevation.isnan().all())
    assert bool((told.azimuth.isnan() | (told.azimuth_std.rad2deg() > 8)).all())


def test_a_range_without_curvature_is_far_and_its_angles_hold():
    searched = replace(PANEL, range_max_m=2000.0)
    told = told_at(PANEL, 25.0, -12.0, 1000.0, searched=searched)
    assert bool(told.far.all())
    assert bool(told.range_m.isnan().all() & told.range_std_m.isnan().all())
    assert reasons(told) == set()
    assert (told.azimuth.rad2deg() - 25).abs().max() < 1
    near = told_at(PANEL, 25.0, -12.0, 0.7, searched=searched)
    assert not bool(near.far.any())
    assert ((near.range_m - 0.7) / near.range_std_m).abs().max() < 4


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ((75.0, 0.0, 1.0), "azimuth at the edge of the region"),
        ((10.0, 45.0, 1.0), "elevation at the edge of the region"),
        ((40.0, 20.0, 0.3), "the angles depend on a range outside the region"),
    ],
)
def test_sources_outside_the_region_are_not_vouched_for(place, says):
    told = told_at(PANEL, *place)
    stopped = torch.stack([estimates for _, estimates in told.withheld]).any(0)
    assert bool(stopped.all())
    assert says in reasons(told)


def test_beyond_the_farthest_range_the_range_is_not_told():
    told = told_at(PANEL, 25.0, -12.0, 8.0)
    assert bool(told.far.all() & told.range_m.isnan().all())
    assert (told.azimuth.rad2deg() - 25).abs().max() < 3


def test_standard_deviations_are_those_of_the_errors_above_the_threshold():
    size = 96
    scenes = EvalScenes(PANEL, 9).batch(range(size), snr_db=12.0, num_sources=1)
    found = build_localiser(METHOD, PANEL)(scenes, scenes.sources.num_sources)
    told, truth = identify(scenes, found, PANEL), scenes.sources
    for name, std in (
        ("azimuth", told.azimuth_std),
        ("elevation", told.elevation_std),
        ("range_m", told.range_std_m),
    ):
        score = (getattr(told, name) - getattr(truth, name)) / std
        score = score[~score.isnan()]
        assert len(score) > 0.7 * size
        # the mean square of n normal numbers is 1 ± sqrt(2/n): four of these, and the quadratic
        # approximation of the likelihood, which range strains most
        assert 0.4 < score.square().mean() < 2.0, name


def test_one_antenna_tells_no_more_than_the_region():
    """One amplitude explains what it receives at any place, so that σ² is not told either."""
    scene = replace(PANEL, num_antennas=1)
    scenes = EvalScenes(scene, 5).batch(range(8), snr_db=20.0, num_sources=1)
    found = build_localiser("sml", scene)(scenes, scenes.sources.num_sources)
    told = identify(scenes, found, scene)
    for std, largest_deg in (
        (told.azimuth_std, scene.azimuth_max_deg),
        (told.elevation_std, scene.elevation_max_deg),
    ):
        std = std[~std.isnan()]
        assert len(std)
        uniform = math.radians(2 * largest_deg) / 12**0.5
        np.testing.assert_allclose(std.numpy(), uniform, rtol=1e-5)
    for each in (told.range_m, told.range_std_m, told.range_low_m, told.range_high_m):
        assert bool(each.isnan().all())


def test_the_interval_of_a_range_is_that_of_its_inverse():
    size = 16
    scenes = EvalScenes(PANEL, 9).batch(range(size), snr_db=0.0, num_sources=1)
    found = build_localiser(METHOD, PANEL)(scenes, scenes.sources.num_sources)
    told = identify(scenes, found, PANEL)
    low, high = told.range_low_m, told.range_high_m
    known = ~told.range_m.isnan() & found.active
    assert known.any()
    assert not known.all()
    assert bool((low.isnan() == ~known).all() & (high.isnan() == ~known).all())
    assert bool((low[known] > 0).all() & (low < told.range_m)[known].all())
    assert bool((told.range_m < high)[known].all())
    # ± 1.96 deviations of 1/range, which the range's own are to first order
    half = 1.96 * told.range_std_m / told.range_m.square()
    # deviations are limited by the region's
    small = known & (told.range_std_m < 0.2)
    assert small.any()
    for end, side in ((low, 1), (high, -1)):
        expected = told.range_m.reciprocal() + side * half
        torch.testing.assert_close(end.reciprocal()[small], expected[small], rtol=1e-4, atol=1e-4)


def test_the_interval_of_a_range_is_infinite_where_its_inverse_reaches_zero():
    """An estimate that scoring moves a lot has a variance that its information does not have."""
    scenes = EvalScenes(PANEL, 9).batch(range(4), snr_db=20.0, num_sources=1)
    found = build_localiser("sml", PANEL)(scenes, scenes.sources.num_sources)
    wide = replace(PANEL, range_max_m=1000.0)
    off = replace(found, range_m=torch.full_like(found.range_m, 30.0))
    told = identify(scenes, off, wide)
    known = ~told.range_m.isnan()
    assert known.any()
    assert bool(told.range_high_m[known].isinf().all())
