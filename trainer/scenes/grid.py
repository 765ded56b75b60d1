"""The search grid of an estimator: starting points, and the box that bounds their refinement.

The grid is uniform in sin(azimuth), sin(elevation) and 1/range, in which the width of a beam and
the effect of wavefront curvature are constant. Estimates are refined off the grid, in azimuth,
elevation and 1/range, so that its spacing need only resolve the basins of peaks.
"""

import functools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.config import SceneConfig, require

from .ambiguity import require_unambiguous
from .geometry import (
    Panel,
    steering_derivatives,
    steering_scale_derivative,
    steering_vector,
)

POINTS_PER_BEAM = 2.5
"""Grid points per wavelength / aperture, the distance from a beam's peak to its first null."""
DENSER = 3
"""Points of `SearchGrid.denser` for one of the grid, along each axis."""
MOST_POINTS, MOST_ENTRIES = 300_000, 300_000_000
"""Grid points, and entries of their steering vectors, beyond which a search fills the memory."""
PLANE_PHASE = 2.0
"""Difference of wavefront phase at the panel's corner between neighbouring range planes [rad]."""


@dataclass(frozen=True)
class SearchGrid:
    """Starting points and bounds for one panel and region; G = range planes x directions.

    Attributes:
        shape: (range planes, elevations, azimuths), azimuth fastest.
        points: [G, 3], azimuth [rad], elevation [rad], 1/range [1/m].
        steering: [G, N], the steering vector of every point.
        lower, upper: [3], the box in the same coordinates.
    """

    panel: Panel
    shape: tuple[int, int, int]
    points: Tensor
    steering: Tensor
    lower: Tensor
    upper: Tensor

    @functools.cached_property
    def denser(self) -> "SearchGrid":
        """The same grid with more points, on which peaks half a beam apart are separate."""
        inner = self.points.double().unflatten(0, self.shape)

        def axis(values: Tensor) -> Tensor:
            low, high, count = float(values[0]), float(values[-1]), DENSER * (len(values) - 1) + 1
            return torch.linspace(low, high, count, dtype=values.dtype, device=values.device)

        axes = torch.meshgrid(
            axis(inner[:, 0, 0, 2]),
            axis(inner[0, :, 0, 1].sin()).asin(),
            axis(inner[0, 0, :, 0].sin()).asin(),
            indexing="ij",
        )
        points = torch.stack([x.flatten() for x in reversed(axes)], dim=-1)
        steering = self.response(points).to(self.steering.dtype)
        points = points.to(self.points.dtype)
        planes, elevations, azimuths = axes[0].shape
        shape = (planes, elevations, azimuths)
        return replace(self, shape=shape, points=points, steering=steering)

    def correlate(self, vectors: Tensor) -> Tensor:
        """Return vᴴ a_g of columns v [*batch, N, r] for every grid point: [*batch, r, G]."""
        rows = vectors.mH
        # one large product is three times as fast as a batch of small ones
        return (rows.reshape(-1, rows.shape[-1]) @ self.steering.mT).view(*rows.shape[:-1], -1)

    def response(self, place: Tensor) -> Tensor:
        """Return steering vectors [*batch, N] at coordinates [*batch, 3]."""
        azimuth, elevation, inverse_range = place.unbind(-1)
        return steering_vector(self.panel, azimuth, elevation, 1 / inverse_range)

    def slopes(self, place: Tensor) -> Tensor:
        """Return ∂a/∂(azimuth, elevation, 1/range) [*batch, 3, N] at coordinates [*batch, 3]."""
        azimuth, elevation, inverse_range = place.unbind(-1)
        slopes = steering_derivatives(self.panel, azimuth, elevation, 1 / inverse_range)
        chain = torch.ones_like(place)
        chain[..., 2] = -(inverse_range**-2)
        return slopes * chain.unsqueeze(-1)

    def scale_slope(self, place: Tensor) -> Tensor:
        """Return ∂a/∂s [*batch, N] at coordinates [*batch, 3], s a factor of all distances."""
        azimuth, elevation, inverse_range = place.unbind(-1)
        return steering_scale_derivative(self.panel, azimuth, elevation, 1 / inverse_range)


def grid_shape(
    scene: SceneConfig,
    points_per_beam: float = POINTS_PER_BEAM,
    plane_phase: float = PLANE_PHASE,
) -> tuple[int, int, int]:
    """Return the shape (range planes, elevations, azimuths) of a grid of that density."""

    def points(half_width_deg: float, aperture_m: float) -> int:
        beam = scene.wavelength_m / aperture_m
        return 1 + math.ceil(points_per_beam * 2 * math.sin(math.radians(half_width_deg)) / beam)

    width, height = scene.aperture_m
    # Fresnel: the path to an element at distance ρ from the centre is ρ²/2r longer
    delay = scene.reach_squared / 2 * (1 / scene.range_min_m - 1 / scene.range_max_m)
    return (
        1 + math.ceil(2 * math.pi / scene.wavelength_m * delay / plane_phase),
        points(scene.elevation_max_deg, height),
        points(scene.azimuth_max_deg, width),
    )


def _require_searchable(scene: SceneConfig, points_per_beam: float, plane_phase: float) -> None:
    """Raise ConfigError for a grid too large to search; the message has a region that is not."""
    most = min(MOST_POINTS, MOST_ENTRIES // scene.num_elements)

    def points(scene: SceneConfig) -> int:
        return math.prod(grid_shape(scene, points_per_beam, plane_phase))

    smaller = scene
    while points(smaller) > most and 4 * smaller.range_min_m < scene.range_max_m:
        # rounded, so that the remedy holds as printed
        smaller = replace(smaller, range_min_m=float(f"{2 * smaller.range_min_m:.2g}"))
    near, far = smaller.range_min_m, scene.range_max_m
    remedy = f"Give range_min_m={near:g} (localise: --range-m {near:g} {far:g})"
    if points(smaller) > most:
        near = float(f"{scene.fraunhofer_m:.2g}")
        farther = replace(scene, range_min_m=near, range_max_m=max(scene.range_max_m, 10 * near))
        remedy = "Give fewer elements or smaller angles"
        if points(farther) <= most:
            far = farther.range_max_m
            remedy = f"Give ranges beyond the panel (localise: --range-m {near:g} {far:g})"
    require(
        points(scene) <= most,
        f"the search grid has at most {most} points",
        f"{points(scene):.3g} for range_min_m={scene.range_min_m:g} and {scene.layout} elements",
        f"{remedy}: the nearer a source, the more wavefronts are to be told apart.",
    )


@functools.lru_cache(maxsize=4)
def search_grid(
    scene: SceneConfig,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    points_per_beam: float = POINTS_PER_BEAM,
    plane_phase: float = PLANE_PHASE,
) -> SearchGrid:
    """Return the grid of a scene's panel and region; cached, so never to be changed.

    Raises:
        ConfigError: if directions of the region look alike to elements with given positions, or
            the grid would have more than `MOST_POINTS`.
    """
    if scene.positions_m is not None:
        require_unambiguous(scene)
    _require_searchable(scene, points_per_beam, plane_phase)
    panel = Panel.from_config(scene)
    shape = grid_shape(scene, points_per_beam, plane_phase)
    azimuth, elevation = math.radians(scene.azimuth_max_deg), math.radians(scene.elevation_max_deg)
    near, far = 1 / scene.range_min_m, 1 / scene.range_max_m

    def axis(low: float, high: float, count: int) -> Tensor:
        # a single point lies in the middle, not at an end
        low, high = (low, high) if count > 1 else ((low + high) / 2,) * 2
        return torch.linspace(low, high, count, dtype=torch.float64)

    axes = torch.meshgrid(
        axis(far, near, shape[0]),
        axis(-math.sin(elevation), math.sin(elevation), shape[1]).asin(),
        axis(-math.sin(azimuth), math.sin(azimuth), shape[2]).asin(),
        indexing="ij",
    )
    points = torch.stack([x.flatten() for x in reversed(axes)], dim=-1)
    steering = steering_vector(panel, points[:, 0], points[:, 1], 1 / points[:, 2])

    def place(*values: float) -> Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    return SearchGrid(
        panel=panel,
        shape=shape,
        points=points.to(device, dtype),
        steering=steering.to(device, dtype.to_complex()),
        lower=place(-azimuth, -elevation, far),
        upper=place(azimuth, elevation, near),
    )
