"""Peaks of plain spectra by other means, in NumPy and SciPy, one scene at a time.

On a line in the far field the spectrum is a polynomial in z = exp(jω): its roots (root-MUSIC) and
those of its derivative are exact. Elsewhere a dense grid is polished by SciPy. Places are azimuth
[rad], elevation [rad] and 1/range [1/m], as for `SearchGrid`.
"""

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from scipy.ndimage import minimum_filter
from scipy.optimize import linear_sum_assignment, minimize

from trainer.config import SceneConfig

FAR = {"range_min_m": 5e6, "range_max_m": 1e7}
LINE = {"num_vertical": 1, "elevation_max_deg": 1e-3, "azimuth_max_deg": 75.0}
PLANE = {"num_vertical": 4, "elevation_max_deg": 45.0, "azimuth_max_deg": 50.0}
HALF_WAVELENGTHS = {"wavelength_m": 1.0, "spacing_m": 0.5}
SCENES = {
    "line": SceneConfig(num_horizontal=8, **HALF_WAVELENGTHS, **LINE, **FAR),
    "plane": SceneConfig(num_horizontal=5, **HALF_WAVELENGTHS, **PLANE, **FAR),
    "near line": SceneConfig(
        num_horizontal=16, **HALF_WAVELENGTHS, **LINE, range_min_m=8.0, range_max_m=60.0
    ),
    "near plane": SceneConfig(
        num_horizontal=8, **HALF_WAVELENGTHS, **PLANE, range_min_m=4.0, range_max_m=20.0
    ),
}
"""Lines and planes with half a wavelength between elements, wavelength 1 m. The near ones end at
half of 2 D² / wavelength."""
DENSITY, PLANES = 10, 2.5
"""Grid points per beam, peak to first null, and per rad of wavefront phase at the corner."""
TRIED = 2
"""Minima of the grid that are polished, for one peak that is asked for."""


def steering(config: SceneConfig, places: np.ndarray) -> np.ndarray:
    """Return exp(-jk (|r u - p_n| - r)) of places [G, 3] as columns, [N, G]."""
    azimuth, elevation, inverse = places.T
    column, row = np.meshgrid(np.arange(config.num_horizontal), np.arange(config.num_vertical))
    across = (column.ravel() - (config.num_horizontal - 1) / 2)[:, None] * config.spacing_m
    up = (row.ravel() - (config.num_vertical - 1) / 2)[:, None] * config.spacing_m
    along = across * np.sin(azimuth) * np.cos(elevation) + up * np.sin(elevation)
    # |r u - p| - r = (p² - 2 r u·p) / (|r u - p| + r), over r
    bend = inverse * (across**2 + up**2) - 2 * along
    excess = bend / (np.sqrt(1 + inverse * bend) + 1)
    return np.exp(-2j * np.pi / config.wavelength_m * excess)


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
    """Return aᴴ Q a of columns a [N, G]."""
    return (a.conj() * (q @ a)).sum(0).real


def beams_apart(config: SceneConfig, places: np.ndarray) -> np.ndarray:
    """Return the distances in beams, peak to first null, of places [K, 3] from each other."""
    azimuth, elevation, _ = places.T
    directions = np.stack([np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], -1)
    sizes = np.array([config.num_horizontal, config.num_vertical]) * config.spacing_m
    directions = directions * (sizes / config.wavelength_m)
    return np.linalg.norm(directions[:, None] - directions, axis=-1)


def draw_places(
    config: SceneConfig,
    count: int,
    beams: float,
    generator: np.random.Generator,
    most: float = np.inf,
) -> np.ndarray:
    """Return places [K, 3] off the region's edges, the nearest two `beams` to `most` apart."""
    lower, upper = box(config)
    margin = 0.05 * (upper - lower)
    while True:
        places = generator.uniform(lower + margin, upper - margin, (count, 3))
        apart = beams_apart(config, places)[~np.eye(count, dtype=bool)]
        if beams <= apart.min() <= most:
            return places


def box(config: SceneConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the least and the largest coordinates, [3] each."""
    angles = np.deg2rad([config.azimuth_max_deg, config.elevation_max_deg])
    return (
        np.array([*-angles, 1 / config.range_max_m]),
        np.array([*angles, 1 / config.range_min_m]),
    )


class Grid(NamedTuple):
    """Points of the region by 1/range, elevation and azimuth, with their steering vectors."""

    shape: tuple[int, ...]
    points: np.ndarray  # [G, 3]
    steps: np.ndarray  # [3]
    steering: np.ndarray  # [N, G]


@lru_cache
def dense_grid(config: SceneConfig) -> Grid:
    """Return a grid of `DENSITY` and `PLANES`, uniform in all coordinates."""
    lower, upper = box(config)
    sizes = np.array([config.num_horizontal, config.num_vertical]) * config.spacing_m
    half = np.linalg.norm(sizes) / 2
    bend = np.pi * half**2 * (upper - lower)[2] / config.wavelength_m  # [rad]
    per_axis = [*(DENSITY * sizes / config.wavelength_m * (upper - lower)[:2]), PLANES * bend]
    counts = [1 + ceil(x) if x > 0.1 else 1 for x in per_axis]
    axes = [
        np.linspace(low, high, count) if count > 1 else np.array([(low + high) / 2])
        for low, high, count in zip(lower, upper, counts, strict=True)
    ]
    points = np.stack([x.ravel() for x in np.meshgrid(*axes[::-1], indexing="ij")][::-1], -1)
    steps = (upper - lower) / np.maximum(np.array(counts) - 1, 1)
    return Grid(tuple(counts[::-1]), points, steps, steering(config, points))


def peaks(config: SceneConfig, q: np.ndarray, count: int) -> np.ndarray:
    """Return the highest peaks over direction, at their best range, highest first: [<= K, 3]."""
    grid, (lower, upper) = dense_grid(config), box(config)
    cost = quadratic(q, grid.steering).reshape(grid.shape)
    least, plane = cost.min(0), cost.argmin(0)
    is_least = (least == minimum_filter(least, 3, mode="constant", cval=np.inf)).ravel()
    starts = np.flatnonzero(is_least)[np.argsort(least.ravel()[is_least])]
    moved = np.array(grid.shape[::-1]) > 1
    polished: list[np.ndarray] = []
    for direction in starts[: TRIED * count]:
        place = grid.points[plane.ravel()[direction] * least.size + direction]
        for _ in range(2):  # the simplex may have collapsed too early: it starts again
            place = _descend(config, q, place, grid.steps, moved, lower, upper)
        if all(abs(place - x)[:2].max() > 1e-4 for x in polished):
            polished.append(place)
    polished.sort(key=lambda place: quadratic(q, steering(config, place[None]))[0])
    return np.array(polished[:count])


def _descend(
    config: SceneConfig,
    q: np.ndarray,
    place: np.ndarray,
    steps: np.ndarray,
    moved: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
) -> np.ndarray:
    """Return the minimum near a place by SciPy's simplex in the region."""

    free = np.flatnonzero(moved)

    def at(x: np.ndarray) -> np.ndarray:
        full = place.copy()
        full[free] += x * steps[free]
        return full

    bounds = np.stack([lower - place, upper - place], -1) / steps[:, None]
    found = minimize(
        lambda x: quadratic(q, steering(config, at(x)[None]))[0],
        np.zeros(len(free)),
        method="Nelder-Mead",
        bounds=bounds[free],
        options={"xatol": 1e-6, "fatol": 1e-15},
    )
    return at(found.x)


def root_music(matrix: np.ndarray, count: int) -> np.ndarray:
    """Return sines by the roots nearest to the unit circle (Barabell 1983); half wavelengths."""
    roots = np.roots(_polynomial(form("music", matrix, count)))
    # an exact covariance has double roots on the circle, which rounding parts
    nearest = roots[np.argsort(np.abs(np.abs(roots) - 1))[: 2 * count]]
    sines = np.sort(np.angle(nearest) / np.pi)
    return sines.reshape(count, 2).mean(-1)


def peaks_of_line(config: SceneConfig, q: np.ndarray, count: int) -> np.ndarray:
    """Return sines of the highest peaks in the far field, highest first.

    aᴴ Q a = sum_k c_k z^k on the unit circle; where it is stationary sum_k k c_k z^k = 0.
    """
    orders = np.arange(len(q) - 1, -len(q), -1)
    roots = np.roots(_polynomial(q) * orders)
    sines = np.angle(roots[np.abs(np.abs(roots) - 1) < 1e-6]) / np.pi
    sines = sines[np.abs(sines) < np.sin(box(config)[1][0])]
    line = lambda x: quadratic(q, np.exp(1j * np.pi * np.outer(np.arange(len(q)), x)))  # noqa: E731
    around = line(sines - 1e-4), line(sines), line(sines + 1e-4)
    lowest = sines[(around[1] < around[0]) & (around[1] < around[2])]
    return lowest[np.argsort(line(lowest))][:count]


def _polynomial(q: np.ndarray) -> np.ndarray:
    """Return c_k for k = N-1 .. 1-N, the sums along the diagonals of Q."""
    return np.array([np.trace(q, offset) for offset in range(len(q) - 1, -len(q), -1)])


def differences(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Return found - expected of places [K, 3] paired by least distance in direction.

    Coordinates that are not to be compared are NaN in `expected`, and in the result.
    """
    distance = np.nansum((found[:, None, :2] - expected[:, :2]) ** 2, axis=-1)
    rows, columns = linear_sum_assignment(distance)
    return found[rows] - expected[columns]
