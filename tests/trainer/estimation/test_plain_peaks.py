"""Peaks of plain spectra (no deflation) are those that other means find (`tests.plain_peaks`)."""

import numpy as np
import pytest
import torch

from tests.plain_peaks import (
    SCENES,
    covariance,
    differences,
    draw_places,
    form,
    peaks,
    peaks_of_line,
    root_music,
    steering,
)
from trainer.estimation.pseudospectra import ESTIMATORS, music
from trainer.scenes.grid import search_grid

LINE = SCENES["line"]
BEAM = 2 / LINE.num_horizontal
"""Peak to first null of a line at half a wavelength, in the sine of azimuth."""


def line(sines: np.ndarray) -> np.ndarray:
    """Return steering vectors in the far field as columns, [N, G]."""
    azimuth = np.arcsin(sines)
    far = np.full_like(azimuth, 1 / LINE.range_max_m)
    return steering(LINE, np.stack([azimuth, 0 * azimuth, far], -1))


def sources_apart(beams: float, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return sines of sources at that distance."""
    extent = beams * BEAM * (count - 1)
    return generator.uniform(-0.85, 0.85 - extent) + beams * BEAM * np.arange(count)


def degrees(sines: np.ndarray) -> np.ndarray:
    return np.sort(np.rad2deg(np.arcsin(sines)))


# at .6 beams R in single precision moves the peaks themselves by up to half a degree
@pytest.mark.parametrize(
    ("beams", "dtype"), [(1.0, torch.float32), (1.0, torch.float64), (0.6, torch.float64)]
)
def test_music_agrees_with_root_music_at_a_beam_and_less(beams, dtype):
    generator = np.random.default_rng(0)
    truths = [sources_apart(beams, 3, generator) for _ in range(20)]
    matrices = [
        covariance(line(sines), generator.uniform(0.5, 2, 3), None, generator) for sines in truths
    ]
    given = torch.from_numpy(np.array(matrices)).to(dtype.to_complex())
    three = torch.full((20,), 3)
    found = music(given, three, search_grid(LINE, dtype), deflation=False)
    for azimuth, matrix, truth in zip(found.azimuth.numpy(), matrices, truths, strict=True):
        assert np.sort(np.rad2deg(azimuth)) == pytest.approx(degrees(truth), abs=1e-3)
        roots = degrees(root_music(matrix, 3))
        assert np.sort(np.rad2deg(azimuth)) == pytest.approx(roots, abs=1e-3)


def test_three_sources_of_unequal_power_are_found_at_their_places():
    truth = np.array([-20.0, 10.0, 35.0])
    matrix = covariance(
        line(np.sin(np.deg2rad(truth))), np.array([1, 2, 0.5]), None, np.random.default_rng()
    )
    given, three = torch.from_numpy(matrix)[None], torch.tensor([3])
    found = music(given, three, search_grid(LINE, torch.float64), deflation=False)
    assert np.sort(np.rad2deg(found.azimuth[0].numpy())) == pytest.approx(truth, abs=1e-6)
    assert found.separate.all()


@pytest.mark.parametrize("snapshots", [None, 50])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_peaks_of_a_line_are_the_stationary_points_of_its_polynomial(name, snapshots):
    # the beamformer's peaks merge at a beam
    generator, beams = np.random.default_rng(1), 1.5 if name == "beamformer" else 1.0
    counts = [2, 3] * 10
    matrices = [
        covariance(
            line(sources_apart(beams, count, generator)),
            generator.uniform(0.5, 2, count),
            snapshots,
            generator,
        )
        for count in counts
    ]
    found = ESTIMATORS[name](
        torch.from_numpy(np.array(matrices)),
        torch.tensor(counts),
        search_grid(LINE, torch.float64),
        deflation=False,
    )
    for azimuth, matrix, count in zip(found.azimuth.numpy(), matrices, counts, strict=True):
        expected = degrees(peaks_of_line(LINE, form(name, matrix, count), count))
        assert len(expected) == count
        assert np.sort(np.rad2deg(azimuth[:count])) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("label", ["plane", "near line", "near plane"])
def test_music_of_an_exact_covariance_peaks_at_the_places(label, count):
    config, generator = SCENES[label], np.random.default_rng(count)
    truths = [draw_places(config, count, 1.0, generator) for _ in range(20)]
    matrices = [
        covariance(steering(config, places), generator.uniform(0.5, 2, count), None, generator)
        for places in truths
    ]
    found = music(
        torch.from_numpy(np.array(matrices)),
        torch.full((20,), count),
        search_grid(config, torch.float64),
        deflation=False,
    )
    assert found.separate.all()
    told = [True, "plane" in label, "near" in label]
    for ours, places in zip(found.positions.numpy(), truths, strict=True):
        off = differences(ours, places)[:, told]
        assert off == pytest.approx(np.zeros_like(off), abs=np.deg2rad(1e-3))


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("label", ["plane", "near plane"])
def test_peaks_of_two_and_three_sources_are_those_of_a_dense_grid(label, name):
    config, generator = SCENES[label], np.random.default_rng(4)
    beams = 1.6 if name == "beamformer" else 1.0
    counts = [2, 3]
    matrices = [
        covariance(
            steering(config, draw_places(config, count, beams, generator)),
            generator.uniform(0.5, 2, count),
            50,
            generator,
        )
        for count in counts
    ]
    found = ESTIMATORS[name](
        torch.from_numpy(np.array(matrices)),
        torch.tensor(counts),
        search_grid(config, torch.float64),
        deflation=False,
    )
    assert (found.separate == found.active).all()
    for places, matrix, count in zip(found.positions.numpy(), matrices, counts, strict=True):
        expected = peaks(config, form(name, matrix, count), count)
        assert len(expected) == count
        off = differences(places[:count], expected)[:, : 3 if label == "near plane" else 2]
        assert off == pytest.approx(np.zeros_like(off), abs=np.deg2rad(1e-3))


def test_peaks_are_found_under_inference_mode():
    matrix = torch.from_numpy(
        covariance(line(np.array([0.1])), np.ones(1), None, np.random.default_rng())
    )
    one, search = torch.tensor([1]), search_grid(LINE, torch.float64)
    with torch.inference_mode():
        found = music(matrix[None] * 1, one, search, deflation=False)
    assert found.azimuth.sin().item() == pytest.approx(0.1, abs=1e-8)


@pytest.mark.parametrize("label", ["line", pytest.param("near line", marks=pytest.mark.slow)])
def test_low_peaks_beside_high_ones_are_found(label):
    """Sources .6 to .8 beams apart: a low peak of MVDR may have no maximum on a grid."""
    config, generator = SCENES[label], np.random.default_rng(3)  # one has no maximum on the grid
    count, size = 3, 40 if label == "line" else 12
    matrices = [
        covariance(
            steering(config, draw_places(config, count, 0.6, generator, 0.78)),
            generator.uniform(0.5, 2, count),
            50,
            generator,
        )
        for _ in range(size)
    ]
    found = ESTIMATORS["mvdr"](
        torch.from_numpy(np.array(matrices)),
        torch.full((size,), count),
        search_grid(config, torch.float64),
        deflation=False,
    )
    compared = 0
    for places, matrix in zip(found.positions.numpy(), matrices, strict=True):
        q = form("mvdr", matrix, count)
        if label == "line":
            expected = degrees(peaks_of_line(config, q, count))
        else:
            expected = np.sort(np.rad2deg(peaks(config, q, count)[:, 0]))
        # at an edge of the region the spectrum may be higher than at a peak; there is no slope 0
        at_edge = np.isclose(np.abs(places[:, 0]), np.deg2rad(config.azimuth_max_deg)).any()
        if len(expected) == count and not (at_edge and label == "line"):
            compared += 1
            assert np.sort(np.rad2deg(places[:, 0])) == pytest.approx(expected, abs=1e-3)
    assert compared > 0.7 * size
