"""The law of places, as scenes are drawn: `trainer.scenes.placement`.

A place is azimuth [rad], elevation [rad] and 1/range [1/m], the coordinates of `SearchGrid`. A
source is uniform in azimuth, elevation and range. Of two, the second is uniform where it is a beam
away from the first, so the density of the ordered pair is 1 / (area left by the first). Which of
two sources is called the first says nothing, so the density of places without order is

    p(θ₁, θ₂) ∝ [far apart] (1 / free(θ₁) + 1 / free(θ₂)),  free: share of the region left.

Scenes that could not place all `max_sources` were drawn anew. This is ignored, since it shifts
the law of the first two by less than the share of such scenes.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from trainer.config import SceneConfig, require
from trainer.scenes import far_apart

FREE_NODES = (13, 25)
"""Elevations and azimuths at which the free share is tabulated."""
FREE_CELLS = (60, 120)
"""Cells of the region, by elevation and azimuth, that it is counted over."""


@dataclass(frozen=True)
class LawOfPlaces:
    """The prior density of one or two places.

    Attributes:
        lower, upper: [3], the box of places.
        free: share of the region that a source leaves to another, [elevations, azimuths].
    """

    scene: SceneConfig
    lower: Tensor
    upper: Tensor
    free: Tensor

    def inside(self, places: Tensor) -> Tensor:
        """Return True for places [*batch, K, 3] that are all in the box: [*batch]."""
        return ((places >= self.lower) & (places <= self.upper)).all(-1).all(-1)

    def log_density(self, places: Tensor) -> Tensor:
        """Return the log prior density of places [*batch, K, 3], K <= 2, in their coordinates.

        It integrates to 1 over the boxes of all sources, so over ordered pairs; -inf elsewhere.
        """
        density = self._single_density(places).sum(-1)
        inside = self.inside(places)
        if places.shape[-2] == 2:
            free = self.free_share(places)
            density = density + ((1 / free).sum(-1) / 2).log()
            inside = inside & far_apart(self.scene, *cosines(places).unbind(-2))
        return density.where(inside, torch.full_like(density, -torch.inf))

    def pair_log_density(self, places: Tensor) -> Tensor:
        """Return `log_density` of all ordered pairs of places [B, S, 3]: [B, S, S]."""
        single = self._single_density(places) - math.log(2) / 2
        single = single.masked_fill(~self.inside(places.unsqueeze(2)), -torch.inf)
        free = 1 / self.free_share(places)
        density = (free.unsqueeze(2) + free.unsqueeze(1)).log_()
        density.add_(single.unsqueeze(2)).add_(single.unsqueeze(1))
        # squared distances by a product of matrices: `far_apart` takes several times as long
        beams = cosines(places) * (places.new_tensor(self.scene.beams) / 2)
        squares = beams.square().sum(-1)
        distance = torch.baddbmm(squares.unsqueeze(1), beams, beams.mT, alpha=-2)
        return density.masked_fill_(distance.add_(squares.unsqueeze(2)) < 1, -torch.inf)

    def _single_density(self, places: Tensor) -> Tensor:
        """Return the log density of single places [..., 3] of the box: [...]."""
        width = self.upper - self.lower
        span = 1 / self.lower[2] - 1 / self.upper[2]  # of range
        # dr = d(1/r) / (1/r)²
        return (
            -(width[0] * width[1] * span).log() - 2 * places[..., 2].clamp(min=self.lower[2]).log()
        )

    def free_share(self, places: Tensor) -> Tensor:
        """Return the share of the region at least a beam away from places [*batch, 3]."""
        edge = torch.stack([self.upper[0], self.upper[1]])
        position = (places[..., :2] / edge).reshape(1, -1, 1, 2)
        table = self.free.expand(1, 1, -1, -1)
        share = functional.grid_sample(table, position, align_corners=True, padding_mode="border")
        return share.reshape(places.shape[:-1])


def has_law(scene: SceneConfig) -> bool:
    """Return whether the law of places of these scenes is known: equal, uncorrelated sources."""
    return scene.power_spread_db == 0 and scene.source_correlation == 0


@lru_cache(maxsize=8)
def law_of_places(scene: SceneConfig, device: str = "cpu") -> LawOfPlaces:
    """Return the law of places of scenes of equal, uncorrelated sources.

    Raises:
        ConfigError: if powers differ or sources are correlated.
    """
    require(
        has_law(scene),
        "power_spread_db == 0 and source_correlation == 0",
        f"power_spread_db={scene.power_spread_db}, source_correlation={scene.source_correlation}",
        "The posterior of places is known for equal, uncorrelated sources only.",
    )
    azimuth, elevation = math.radians(scene.azimuth_max_deg), math.radians(scene.elevation_max_deg)
    lower = torch.tensor([-azimuth, -elevation, 1 / scene.range_max_m], dtype=torch.float64)
    upper = torch.tensor([azimuth, elevation, 1 / scene.range_min_m], dtype=torch.float64)
    nodes = _lattice(upper, FREE_NODES, ends=True)
    cells = _lattice(upper, FREE_CELLS, ends=False).flatten(0, 1)
    free = [far_apart(scene, row.unsqueeze(1), cells).double().mean(-1) for row in nodes]
    lower, upper, table = (x.to(device, torch.float32) for x in (lower, upper, torch.stack(free)))
    return LawOfPlaces(scene, lower, upper, table)


def cosines(places: Tensor) -> Tensor:
    """Return the direction cosines (u, v) of places [*batch, 3]: [*batch, 2]."""
    azimuth, elevation = places[..., 0], places[..., 1]
    return torch.stack([azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)


def _lattice(upper: Tensor, shape: tuple[int, int], *, ends: bool) -> Tensor:
    """Return direction cosines of a lattice over the region, [elevations, azimuths, 2]."""
    axes = []
    for edge, count in zip((upper[1], upper[0]), shape, strict=True):
        step = torch.arange(count, dtype=upper.dtype)
        unit = step / (count - 1) if ends else (step + 0.5) / count
        axes.append((2 * unit - 1) * edge)
    elevation, azimuth = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)
