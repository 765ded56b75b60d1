"""The panel and its steering vector, with derivatives and far-field limit.

A source at azimuth φ, elevation θ and range r from the panel's centre reaches element n, at (h, v)
in the panel's plane, over the distance d_n = |r u - (h, v, 0)|. The panel's response is

    a_n = exp(-jk (d_n - r)),  k = 2π / wavelength,  |a_n| = 1           exact spherical wave
    d_n - r = (q - 2 r w) / (d_n + r),  w = h sin φ cos θ + v sin θ,  q = h² + v²

The quotient keeps float32 accurate at any range, where d_n - r would cancel. Expanding in 1/r
gives d_n - r = -w + (q - w²) / 2r + ...: the first term is the planar (far-field) steering vector,
the first two are the Fresnel approximation (Friedlander 2019, "Localization of signals in the
near-field of an antenna array").

Convention: phase *falls* with distance (time dependence exp(+jωt)); a lattice is centred,
h = (column - (N_H - 1)/2) · spacing, and ordered row by row, n = row · N_H + column. Elements may
have positions of their own instead; places refer to the origin of these.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from trainer.config import SceneConfig, least_distance


@dataclass(frozen=True)
class Panel:
    """A uniform rectangular panel, centred at the origin, or elements at positions of their own.

    Attributes:
        num_horizontal, num_vertical: elements per row and per column; N and 1 with positions_m.
        spacing_m: distance between neighbours, the same along both axes; the least one [m].
        wavelength_m: of the carrier [m].
        positions_m: (h, v) of every element [m]; None for the lattice.
    """

    num_horizontal: int
    num_vertical: int
    spacing_m: float
    wavelength_m: float
    positions_m: tuple[tuple[float, float], ...] | None = None

    @classmethod
    def from_config(cls, scene: SceneConfig) -> Self:
        """Return the panel of a scene configuration."""
        lattice = scene.num_horizontal, scene.num_vertical, scene.spacing_m, scene.wavelength_m
        return cls(*lattice, scene.positions_m)

    @classmethod
    def of_positions(cls, positions: Sequence[Sequence[float]], wavelength_m: float) -> Self:
        """Return the panel of elements at (h, v), relative to the point that places refer to."""
        placed = tuple((float(h), float(v)) for h, v in positions)
        # the spacing of a single element only has to be positive
        spacing = least_distance(placed) if len(placed) > 1 else wavelength_m / 2
        return cls(len(placed), 1, spacing, wavelength_m, placed)

    def take(self, kept: Tensor) -> "Panel":
        """Return the panel of some elements, [N] booleans, with the same origin."""
        if bool(kept.all()):
            return self
        coordinates = torch.stack(self.element_positions(torch.float64, torch.device("cpu")), -1)
        return Panel.of_positions(coordinates[kept.cpu()].tolist(), self.wavelength_m)

    @property
    def num_elements(self) -> int:
        """N."""
        return self.num_horizontal * self.num_vertical

    @property
    def wavenumber(self) -> float:
        """k = 2π / wavelength [rad/m]."""
        return 2 * math.pi / self.wavelength_m

    def element_positions(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return horizontal and vertical coordinates of the elements [m], [N] each."""
        if self.positions_m is not None:
            return _placed(self.positions_m, dtype, device)
        columns = torch.arange(self.num_horizontal, dtype=dtype, device=device)
        rows = torch.arange(self.num_vertical, dtype=dtype, device=device)
        horizontal = (columns - (self.num_horizontal - 1) / 2) * self.spacing_m
        vertical = (rows - (self.num_vertical - 1) / 2) * self.spacing_m
        return horizontal.repeat(self.num_vertical), vertical.repeat_interleave(
            self.num_horizontal
        )


@functools.lru_cache(maxsize=16)  # estimators ask at every step
def _placed(
    positions: tuple[tuple[float, float], ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    horizontal, vertical = torch.tensor(positions, dtype=dtype, device=device).unbind(-1)
    return horizontal, vertical


def steering_vector(panel: Panel, azimuth: Tensor, elevation: Tensor, range_m: Tensor) -> Tensor:
    """Return the exact spherical-wave response a of the panel [*batch, N].

    Angles [rad] and finite ranges [m] are [*batch]; device and dtype follow them.
    """
    return _delayed(panel, _path(panel, azimuth, elevation, range_m).excess)


def steering_derivatives(
    panel: Panel, azimuth: Tensor, elevation: Tensor, range_m: Tensor
) -> Tensor:
    """Return ∂a/∂(azimuth, elevation, range) [*batch, 3, N], per radian and per metre.

    With δ = d - r: ∂δ/∂w = -r/d, and ∂δ/∂r = (r - w)/d - 1 = -(q + w δ) / (d (d + r)), a form in
    which nothing cancels at long range.
    """
    path = _path(panel, azimuth, elevation, range_m)
    horizontal, vertical = panel.element_positions(azimuth.dtype, azimuth.device)
    azimuth, elevation, range_m = (x.unsqueeze(-1) for x in (azimuth, elevation, range_m))
    along_azimuth = horizontal * azimuth.cos() * elevation.cos()
    along_elevation = vertical * elevation.cos() - horizontal * azimuth.sin() * elevation.sin()
    by_projection = -range_m / path.distance
    by_range = -(path.offset_squared + path.projection * path.excess) / (
        path.distance * (path.distance + range_m)
    )
    slopes = [by_projection * along_azimuth, by_projection * along_elevation, by_range]
    phase_slope = -panel.wavenumber * torch.stack(slopes, dim=-2)
    response = _delayed(panel, path.excess).unsqueeze(-2)
    return torch.complex(-response.imag * phase_slope, response.real * phase_slope)


def steering_scale_derivative(
    panel: Panel, azimuth: Tensor, elevation: Tensor, range_m: Tensor
) -> Tensor:
    """Return ∂a/∂s at s = 1 [*batch, N], of elements at s (h, v): ∂δ/∂s = (q - r w) / d."""
    path = _path(panel, azimuth, elevation, range_m)
    slope = (path.offset_squared - range_m.unsqueeze(-1) * path.projection) / path.distance
    response, phase_slope = _delayed(panel, path.excess), -panel.wavenumber * slope
    return torch.complex(-response.imag * phase_slope, response.real * phase_slope)


def planar_steering_vector(panel: Panel, azimuth: Tensor, elevation: Tensor) -> Tensor:
    """Return the limit of `steering_vector` for a growing range [*batch, N]."""
    projection, _ = _projection(panel, azimuth, elevation)
    return _delayed(panel, -projection)


def phasor(phase: Tensor) -> Tensor:
    """Return exp(j phase), complex."""
    return torch.complex(phase.cos(), phase.sin())


class _Path(NamedTuple):
    """w, q, d and δ = d - r of the module docstring, per element, [*batch, N]."""

    projection: Tensor
    offset_squared: Tensor
    distance: Tensor
    excess: Tensor


def _projection(panel: Panel, azimuth: Tensor, elevation: Tensor) -> tuple[Tensor, Tensor]:
    """Return w and q."""
    horizontal, vertical = panel.element_positions(azimuth.dtype, azimuth.device)
    cosine_h = (azimuth.sin() * elevation.cos()).unsqueeze(-1)
    cosine_v = elevation.sin().unsqueeze(-1)
    projection = horizontal * cosine_h + vertical * cosine_v
    return projection, horizontal**2 + vertical**2


def _path(panel: Panel, azimuth: Tensor, elevation: Tensor, range_m: Tensor) -> _Path:
    projection, offset_squared = _projection(panel, azimuth, elevation)
    range_m = range_m.unsqueeze(-1)
    # d² = |r u - p|² > 0: sources lie in front of the panel, never on an element
    surplus = offset_squared - 2 * range_m * projection
    distance = (range_m**2 + surplus).sqrt()
    return _Path(projection, offset_squared, distance, surplus / (distance + range_m))


def _delayed(panel: Panel, excess: Tensor) -> Tensor:
    """Return exp(-jk δ)."""
    return phasor(-panel.wavenumber * excess)
