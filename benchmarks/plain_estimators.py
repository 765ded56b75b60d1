"""MUSIC and maximum likelihood one scene at a time in NumPy and SciPy, as a textbook reads.

Independent of the trainer on purpose, like `plain_numpy`. MUSIC scans a grid fine enough to need
no refinement, held as one table; maximum likelihood scans a coarse grid and hands the best point
to a quasi-Newton method. LMMSE is told the noise that the trainer has to estimate.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.optimize
from plain_numpy import PlainScene, steering_matrix

from trainer.config import SceneConfig


class PlainGrid(NamedTuple):
    """Grid points, planes x elevations x azimuths, and their steering vectors."""

    shape: tuple[int, int, int]
    azimuth: np.ndarray  # [G]
    elevation: np.ndarray  # [G]
    range_m: np.ndarray  # [G]
    steering: np.ndarray  # [N, G], complex64


def make_grid(config: SceneConfig, points_per_beam: float, planes: int) -> PlainGrid:
    """Return a grid that is uniform in sin(azimuth), sin(elevation) and 1/range."""

    def directions(limit_deg: float, elements: int) -> np.ndarray:
        reach = math.sin(math.radians(limit_deg))
        beam = config.wavelength_m / (elements * config.spacing_m)
        return np.arcsin(
            np.linspace(-reach, reach, 1 + math.ceil(points_per_beam * 2 * reach / beam))
        )

    inverse = np.linspace(1 / config.range_max_m, 1 / config.range_min_m, planes)
    axes = np.meshgrid(
        inverse,
        directions(config.elevation_max_deg, config.num_vertical),
        directions(config.azimuth_max_deg, config.num_horizontal),
        indexing="ij",
    )
    shape = axes[0].shape
    range_m, elevation, azimuth = 1 / axes[0].ravel(), axes[1].ravel(), axes[2].ravel()
    parts = [
        steering_matrix(config, *(x[i : i + 4096] for x in (azimuth, elevation, range_m))).astype(
            np.complex64
        )
        for i in range(0, len(azimuth), 4096)
    ]
    return PlainGrid(shape, azimuth, elevation, range_m, np.concatenate(parts, axis=1))


def lmmse_covariance(scene: PlainScene) -> np.ndarray:
    """Return the sample covariance [N, N] of LMMSE back-projections, noise and power known."""
    total = np.zeros((scene.channel.shape[1],) * 2, dtype=complex)
    loading = scene.noise_variance / len(scene.azimuth) * np.eye(len(scene.channel))
    weights = scene.channel.conj().T @ np.linalg.inv(
        scene.channel @ scene.channel.conj().T + loading
    )
    for y, code in zip(scene.snapshots, scene.codes, strict=True):
        x = code.conj() * (weights @ y)
        total += np.outer(x, x.conj())
    return total


def music(covariance: np.ndarray, num_sources: int, grid: PlainGrid) -> np.ndarray:
    """Return (azimuth, elevation, range) of the highest peaks of the pseudospectrum, [K, 3]."""
    _, vectors = np.linalg.eigh(covariance)
    signal = vectors[:, -num_sources:].conj().T.astype(np.complex64)
    response = signal @ grid.steering
    spectrum = (response.real**2 + response.imag**2).sum(0).reshape(grid.shape)
    height, plane = spectrum.max(0), spectrum.argmax(0)
    peaks = np.where(scipy.ndimage.maximum_filter(height, 3) == height, height, 0).ravel()
    best = np.argsort(peaks)[-num_sources:]
    points = plane.ravel()[best] * height.size + best
    return np.stack([grid.azimuth[points], grid.elevation[points], grid.range_m[points]], axis=1)


def single_source_likelihood(
    config: SceneConfig, scene: PlainScene, grid: PlainGrid
) -> np.ndarray:
    """Return (azimuth, elevation, range) [1, 3] of one source by stochastic ML."""
    operators = scene.channel[None] * scene.codes[:, None, :]  # [L, M, N]
    snapshots, antennas, _ = operators.shape
    energy = np.empty((snapshots, grid.steering.shape[1]), dtype=np.float32)
    pull = np.empty_like(energy)
    for i, operator in enumerate(operators):
        echo = operator.astype(np.complex64) @ grid.steering
        energy[i] = (echo.real**2 + echo.imag**2).sum(0)
        inner = scene.snapshots[i].conj().astype(np.complex64) @ echo
        pull[i] = inner.real**2 + inner.imag**2
    total = (np.abs(scene.snapshots) ** 2).sum()

    def profiled(ratio: float) -> np.ndarray:
        weighted = 1 + ratio * energy
        rest = total - ratio * (pull / weighted).sum(0)
        return np.log(weighted).sum(0) + snapshots * antennas * np.log(rest)

    ratios = 10 ** np.linspace(-2.5, 2, 10) / energy.mean()
    values = np.stack([profiled(ratio) for ratio in ratios])
    which, point = np.unravel_index(values.argmin(), values.shape)

    def cost(unknowns: np.ndarray) -> float:
        place = (x[None] for x in (unknowns[0], unknowns[1], 1 / unknowns[2]))
        echo = (operators @ steering_matrix(config, *place))[..., 0]
        strength = (np.abs(echo) ** 2).sum(-1)
        matched = np.abs((echo.conj() * scene.snapshots).sum(-1)) ** 2
        ratio = math.exp(unknowns[3])
        rest = total - (ratio * matched / (1 + ratio * strength)).sum()
        return float(np.log(1 + ratio * strength).sum() + snapshots * antennas * math.log(rest))

    start = [
        grid.azimuth[point],
        grid.elevation[point],
        1 / grid.range_m[point],
        math.log(ratios[which]),
    ]
    limits = np.radians([config.azimuth_max_deg, config.elevation_max_deg])
    bounds = [
        (-limits[0], limits[0]),
        (-limits[1], limits[1]),
        (1 / config.range_max_m, 1 / config.range_min_m),
        (start[3] - 5, start[3] + 5),
    ]
    found = scipy.optimize.minimize(cost, start, method="L-BFGS-B", bounds=bounds).x
    return np.array([[found[0], found[1], 1 / found[2]]])
