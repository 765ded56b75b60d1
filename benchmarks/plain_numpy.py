"""One scene at a time in NumPy, as a textbook reads: the plain alternative to batches.

Independent of the trainer on purpose: benchmarks compare speed against it, and check that both say
the same about the same scenes. Every line is vectorised *within* a scene; only the loop over
scenes is Python's.
"""

import math
from typing import NamedTuple

import numpy as np

from trainer.config import SceneConfig


class PlainScene(NamedTuple):
    """One scene; shapes as in `trainer.scenes.simulation`, without the batch."""

    snapshots: np.ndarray  # [L, M]
    channel: np.ndarray  # [M, N]
    codes: np.ndarray  # [L, N]
    azimuth: np.ndarray  # [K]
    elevation: np.ndarray  # [K]
    range_m: np.ndarray  # [K]
    noise_variance: float


def element_positions(config: SceneConfig) -> np.ndarray:
    """Return element positions [N, 3], centred, row by row."""
    columns, rows = np.meshgrid(np.arange(config.num_horizontal), np.arange(config.num_vertical))
    across = (columns.ravel() - (config.num_horizontal - 1) / 2) * config.spacing_m
    up = (rows.ravel() - (config.num_vertical - 1) / 2) * config.spacing_m
    return np.stack([across, up, np.zeros_like(up)], axis=-1)


def steering_matrix(
    config: SceneConfig, azimuth: np.ndarray, elevation: np.ndarray, range_m: np.ndarray
) -> np.ndarray:
    """Return exp(-jk (|r u - p_n| - r)), [N, K], from distances in space."""
    direction = np.stack(
        [
            np.sin(azimuth) * np.cos(elevation),
            np.sin(elevation),
            np.cos(azimuth) * np.cos(elevation),
        ]
    )
    sources = range_m * direction
    distance = np.linalg.norm(sources.T[None] - element_positions(config)[:, None], axis=-1)
    return np.exp(-2j * np.pi / config.wavelength_m * (distance - range_m))


def draw_scene(config: SceneConfig, generator: np.random.Generator, snr_db: float) -> PlainScene:
    """Draw one scene of equal powers, random codes and white noise, by the law of
    `trainer.scenes`."""
    antennas, elements = config.num_antennas, config.num_elements
    count = int(generator.integers(1, config.max_sources + 1))
    limits = np.radians([config.azimuth_max_deg, config.elevation_max_deg])
    places: list[np.ndarray] = []
    while len(places) < count:
        angles = generator.uniform(-limits, limits)
        place = np.array([math.sin(angles[0]) * math.cos(angles[1]), math.sin(angles[1]), *angles])
        beams = [config.num_horizontal / 2, config.num_vertical / 2]
        if all(np.hypot(*((place[:2] - other[:2]) * beams)) >= 1 for other in places):
            places.append(place)
    azimuth, elevation = np.array(places).T[2:]
    range_m = generator.uniform(config.range_min_m, config.range_max_m, count)

    ratio = 10 ** (config.rician_db / 10)
    departure = generator.uniform(-limits, limits)
    arrival = generator.uniform(-math.pi / 3, math.pi / 3)
    leave = [
        math.sin(departure[0]) * math.cos(departure[1]),
        math.sin(departure[1]),
        math.cos(departure[0]) * math.cos(departure[1]),
    ]
    at_panel = np.exp(2j * np.pi / config.wavelength_m * element_positions(config) @ leave)
    direct = np.outer(np.exp(1j * np.pi * np.arange(antennas) * math.sin(arrival)), at_panel)
    channel = np.sqrt(ratio / (ratio + 1)) * direct
    channel += np.sqrt(1 / (ratio + 1)) * complex_normal(generator, antennas, elements)

    codes = np.exp(2j * np.pi * generator.random((config.num_snapshots, elements)))
    steering = steering_matrix(config, azimuth, elevation, range_m)
    echoes = channel @ (codes[:, :, None] * steering)  # [L, M, K]
    power = (np.abs(echoes) ** 2).sum(-1).mean()
    variance = float(power / 10 ** (snr_db / 10))
    amplitudes = complex_normal(generator, config.num_snapshots, count)
    noise = complex_normal(generator, config.num_snapshots, antennas)
    snapshots = (echoes @ amplitudes[:, :, None])[:, :, 0] + math.sqrt(variance) * noise
    return PlainScene(snapshots, channel, codes, azimuth, elevation, range_m, variance)


def complex_normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Draw CN(0, 1)."""
    parts = generator.standard_normal((2, *shape)) * math.sqrt(0.5)
    return parts[0] + 1j * parts[1]
