"""Peaks of plain spectra (no deflation): root-MUSIC, and a dense grid polished by SciPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar

from trainer.config import SceneConfig
from trainer.estimation.pseudospectra import ESTIMATORS, music
from trainer.scenes.grid import search_grid

ELEMENTS = 8
BEAM = 2 / ELEMENTS
"""Peak to first null of a row at half a wavelength, in the sine of azimuth."""
ROW = SceneConfig(
    num_horizontal=ELEMENTS,
    num_vertical=1,
    wavelength_m=1.0,
    spacing_m=0.5,
    azimuth_max_deg=75.0,
    elevation_max_deg=1e-3,
    range_min_m=5e6,
    range_max_m=1e7,
)
PLANE = SceneConfig(
    num_horizontal=5,
    num_vertical=4,
    wavelength_m=1.0,
    spacing_m=0.5,
    azimuth_max_deg=50.0,
    elevation_max_deg=45.0,
    range_min_m=5e6,
    range_max_m=1e7,
)
HORIZONTAL, VERTICAL = (
    x.ravel() for x in np.meshgrid(np.arange(5) / 2 - 1.0, np.arange(4) / 2 - 0.75)
)


def row(sines: np.ndarray) -> np.ndarray:
    """Return planar steering vectors as columns, [N, G]."""
    offsets = (np.arange(ELEMENTS) - (ELEMENTS - 1) / 2) / 2
    return np.exp(2j * np.pi * np.outer(offsets, sines))


def plane(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Return planar steering vectors as columns, [N, G]."""
    along = np.outer(HORIZONTAL, np.sin(azimuth) * np.cos(elevation))
    return np.exp(2j * np.pi * (along + np.outer(VERTICAL, np.sin(elevation))))


def covariance(
    columns: np.ndarray, powers: np.ndarray, snapshots: int | None, generator: np.random.Generator
) -> np.ndarray:
    """Return A P Aᴴ + .3 I, or a sample covariance of it."""
    exact = (columns * powers) @ columns.conj().T + 0.3 * np.eye(len(columns))
    if snapshots is None:
        return exact
    drawn = generator.normal(size=(2, len(columns), snapshots)) / 2**0.5
    drawn = np.linalg.cholesky(exact) @ (drawn[0] + 1j * drawn[1])
    return drawn @ drawn.conj().T / snapshots


def form(name: str, matrix: np.ndarray, num_sources: int) -> np.ndarray:
    """Return Q of aᴴ Q a, least where the textbook spectrum is highest."""
    values, vectors = np.linalg.eigh(matrix)
    noise = vectors[:, : len(matrix) - num_sources]
    return {
        "music": noise @ noise.conj().T,
        "mvdr": values[0] * np.linalg.inv(matrix),
        "beamformer": -matrix / values[-1],
    }[name]


def quadratic(q: np.ndarray, a: np.ndarray) -> np.ndarray:
    return (a.conj() * (q @ a)).sum(0).real


def peaks_of_row(q: np.ndarray, count: int) -> np.ndarray:
    """Return the sines of the highest peaks, highest first."""
    edge = np.sin(np.deg2rad(ROW.azimuth_max_deg))
    sines = np.linspace(-edge, edge, 1001)
    cost = quadratic(q, row(sines))
    least = np.flatnonzero((cost[1:-1] < cost[:-2]) & (cost[1:-1] < cost[2:])) + 1
    polished = [
        minimize_scalar(
            lambda s: quadratic(q, row(np.array([s])))[0],
            bounds=(sines[i - 1], sines[i + 1]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        for i in least
    ]
    polished.sort(key=lambda found: found.fun)
    return np.array([found.x for found in polished[:count]])


def peaks_of_plane(q: np.ndarray, count: int) -> np.ndarray:
    """Return azimuth and elevation of the highest peaks, highest first, [K, 2]."""
    axes = (np.deg2rad(np.linspace(-x, x, 91)) for x in (50, 45))
    azimuth, elevation = np.meshgrid(*axes, indexing="ij")
    cost = quadratic(q, plane(azimuth.ravel(), elevation.ravel())).reshape(azimuth.shape)
    middle = cost[1:-1, 1:-1]
    around = [
        cost[1 + i : 90 + i, 1 + j : 90 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    polished = [
        minimize(
            lambda x: quadratic(q, plane(x[:1], x[1:]))[0],
            (azimuth[i + 1, j + 1], elevation[i + 1, j + 1]),
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-14},
        )
        for i, j in np.argwhere((middle < np.array(around)).all(0))
    ]
    polished.sort(key=lambda found: found.fun)
    return np.array([found.x for found in polished[:count]])


def root_music(matrix: np.ndarray, count: int) -> np.ndarray:
    """Return sines by the roots nearest to the unit circle, inside it (Barabell 1983)."""
    q = form("music", matrix, count)
    coefficients = [np.trace(q, offset) for offset in range(ELEMENTS - 1, -ELEMENTS, -1)]
    roots = np.roots(coefficients)
    # an exact covariance has double roots on the circle, which rounding parts
    nearest = roots[np.argsort(np.abs(np.abs(roots) - 1))[: 2 * count]]
    sines = np.sort(np.angle(nearest) / np.pi)
    return sines.reshape(count, 2).mean(-1)


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
        covariance(row(sines), generator.uniform(0.5, 2, 3), None, generator) for sines in truths
    ]
    given = torch.from_numpy(np.array(matrices)).to(dtype.to_complex())
    three = torch.full((20,), 3)
    found = music(given, three, search_grid(ROW, dtype), deflation=False)
    for azimuth, matrix, truth in zip(found.azimuth.numpy(), matrices, truths, strict=True):
        assert np.sort(np.rad2deg(azimuth)) == pytest.approx(degrees(truth), abs=1e-3)
        roots = degrees(root_music(matrix, 3))
        assert np.sort(np.rad2deg(azimuth)) == pytest.approx(roots, abs=1e-3)


def test_three_sources_of_unequal_power_are_found_at_their_places():
    truth = np.array([-20.0, 10.0, 35.0])
    matrix = covariance(
        row(np.sin(np.deg2rad(truth))), np.array([1, 2, 0.5]), None, np.random.default_rng()
    )
    given, three = torch.from_numpy(matrix)[None], torch.tensor([3])
    found = music(given, three, search_grid(ROW, torch.float64), deflation=False)
    assert np.sort(np.rad2deg(found.azimuth[0].numpy())) == pytest.approx(truth, abs=1e-6)
    assert found.separate.all()


@pytest.mark.parametrize("snapshots", [None, 50])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_peaks_of_a_row_are_those_of_a_dense_grid(name, snapshots):
    # the beamformer's peaks merge at a beam
    generator, beams = np.random.default_rng(1), 1.5 if name == "beamformer" else 1.0
    counts = [2, 3] * 5
    matrices = [
        covariance(
            row(sources_apart(beams, count, generator)),
            generator.uniform(0.5, 2, count),
            snapshots,
            generator,
        )
        for count in counts
    ]
    found = ESTIMATORS[name](
        torch.from_numpy(np.array(matrices)),
        torch.tensor(counts),
        search_grid(ROW, torch.float64),
        deflation=False,
    )
    for azimuth, matrix, count in zip(found.azimuth.numpy(), matrices, counts, strict=True):
        expected = degrees(peaks_of_row(form(name, matrix, count), count))
        assert len(expected) == count
        assert np.sort(np.rad2deg(azimuth[:count])) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("snapshots", [None, 50])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_peaks_of_a_plane_are_those_of_a_dense_grid(name, snapshots):
    generator = np.random.default_rng(2)
    azimuths, elevations = np.deg2rad([[-33, -8], [4, 31]]), np.deg2rad([[-12, 14], [-21, -20]])
    matrices = [
        covariance(plane(*places), generator.uniform(0.5, 2, 2), snapshots, generator)
        for places in zip(azimuths, elevations, strict=True)
    ]
    found = ESTIMATORS[name](
        torch.from_numpy(np.array(matrices)),
        torch.tensor([2, 2]),
        search_grid(PLANE, torch.float64),
        deflation=False,
    )
    assert found.resolved.all()
    for i, matrix in enumerate(matrices):
        expected = peaks_of_plane(form(name, matrix, 2), 2)
        ours = torch.stack([found.azimuth[i], found.elevation[i]], dim=-1).numpy()
        if name == "music" and snapshots is None:  # all its peaks are of one height
            ours, expected = (x[np.argsort(x[:, 0])] for x in (ours, expected))
        assert np.rad2deg(ours) == pytest.approx(np.rad2deg(expected), abs=1e-3)


def test_peaks_are_found_under_inference_mode():
    matrix = torch.from_numpy(
        covariance(row(np.array([0.1])), np.ones(1), None, np.random.default_rng())
    )
    one, search = torch.tensor([1]), search_grid(ROW, torch.float64)
    with torch.inference_mode():
        found = music(matrix[None] * 1, one, search, deflation=False)
    assert found.azimuth.sin().item() == pytest.approx(0.1, abs=1e-8)
