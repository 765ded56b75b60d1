"""A source that was not told, or is outside the region, or moves, vouches for no estimate."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.covariance import whiten
from trainer.estimation import score, sml
from trainer.evaluation import constancy_p_value
from trainer.localisation import vouch, vouched
from trainer.localisation.best_places import LEVEL
from trainer.localisation.goodness_of_fit import WIDEST_DEG, further_source, in_front
from trainer.localisation.vouching import BEYOND, CONSTANCY_LEVEL, FURTHER
from trainer.scenes import Scenes, respond, search_grid

LONG = replace(SCENE, num_snapshots=24)
CPU = torch.device("cpu")


def p_values(scenes: Scenes, scene=SCENE) -> torch.Tensor:
    """Return p of no source but the true ones, scored to the maximum near them."""
    truth = scenes.sources
    places = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1).double()
    data, search = whiten(scenes).to(torch.complex128), search_grid(scene)
    end, _ = score(data, places, truth.active, search, steps=8)
    places = end.point[:, : places[0].numel()].view_as(places)
    return further_source(scenes, places, truth.active, in_front(scene, CPU))[0]


def constancy(scenes: Scenes, places: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """Return p of places that stay, scored to the maximum near these."""
    data, search = whiten(scenes).to(torch.complex128), search_grid(LONG)
    end, _ = score(data, places.double(), active, search, steps=8)
    return constancy_p_value(
        scenes, end.point[:, : places[0].numel()].view_as(places), active, search
    )


def judged(scenes: Scenes, count: int, scene=SCENE):
    counts = torch.full((scenes.batch_size,), count)
    scenes = replace(scenes, noise_variance=torch.full_like(scenes.noise_variance, torch.nan))
    return vouch(scenes, sml(scenes, counts, search_grid(scene)), counts, scene)


@pytest.mark.parametrize(
    "change", [{}, {"num_snapshots": 1}, {"num_antennas": 3}, {"num_vertical": 1}], ids=str
)
@pytest.mark.parametrize("snr_db", [0.0, 60.0])
def test_of_the_law_no_further_source_is_seen_more_often_than_the_bound_says(change, snr_db):
    """At most 1 % of 96: five standard errors more are 6."""
    scene = replace(SCENE, **change)
    for count in (1, 2):
        found = p_values(scenes_of(scene, count=count, snr_db=snr_db, size=96), scene)
        assert (found < LEVEL).sum() <= 6


def test_a_source_outside_the_region_is_named_and_one_inside_a_wider_region_is_not():
    wide = replace(SCENE, elevation_max_deg=70.0)
    law = scenes_of(wide, snr_db=12.0, size=48)
    outside = law.sources.elevation[:, 0].abs().rad2deg() > SCENE.elevation_max_deg + 12
    law = law.take(outside.nonzero().flatten())
    assert law.batch_size > 10
    places = sml(law, torch.ones(law.batch_size, dtype=torch.long), search_grid(SCENE))
    p_value, where = further_source(
        law, places.positions[:, :1], places.active[:, :1], in_front(SCENE, CPU)
    )
    assert (p_value < LEVEL).float().mean() > 0.9
    assert (where[:, 1].abs().rad2deg() > SCENE.elevation_max_deg).float().mean() > 0.8
    few = law.take(slice(0, 4))
    assert not vouched(judged(few, 1)).any()
    assert BEYOND not in judged(few, 1, wide).reason


def test_estimates_of_fewer_sources_than_there_are_are_not_vouched_for():
    law = scenes_of(count=2, snr_db=8.0, size=8)
    found = judged(law, 1)
    seen = np.isin(found.reason, (FURTHER, BEYOND))
    assert seen.any()
    assert not found.resolved[seen].any()
    assert vouched(found).mean() < 0.1
    assert vouched(judged(law, 2)).mean() > 0.5


def test_a_source_that_moves_while_snapshots_are_taken_is_not_vouched_for():
    law = scenes_of(LONG, snr_db=10.0, size=16)
    truth, search = law.sources, search_grid(SCENE)
    share = torch.linspace(-0.5, 0.5, law.num_snapshots)
    path = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)[:, :1]
    path = path.repeat(1, law.num_snapshots, 1)
    path[..., 0] += math.radians(20) * share
    echoes = respond(law.channel, law.codes, search.response(path))
    moving = echoes.diagonal(dim1=1, dim2=3).mT  # of snapshot l, the place at l
    generator = torch.Generator().manual_seed(1)
    draw = torch.randn(*moving.shape[:2], 1, generator=generator, dtype=torch.cfloat)
    noise = torch.randn(*moving.shape, generator=generator, dtype=torch.cfloat)
    power = moving.abs().square().mean((1, 2)) / 10 ** (law.snr_db / 10)
    snapshots = draw * moving + power.sqrt()[:, None, None] * noise
    found = judged(replace(law, snapshots=snapshots), 1, LONG)
    assert vouched(found).mean() < 0.25
    one = torch.ones(16, dtype=torch.long)
    moved = replace(law, snapshots=snapshots)
    places = sml(moved, one, search)
    assert (
        constancy(moved, places.positions, places.active) < CONSTANCY_LEVEL
    ).float().mean() > 0.7


@pytest.mark.parametrize("count", [1, 2])
def test_places_of_sources_that_stay_change_as_seldom_as_chi_squared_says(count):
    """p is uniform: of 192 at most 5 % and four standard errors lie below .05."""
    law = scenes_of(LONG, count=count, snr_db=5.0, size=192)
    truth = law.sources
    places = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)
    found = constancy(law, places, truth.active)
    assert 0 < (found < 0.05).float().mean() < 0.05 + 4 * (0.05 * 0.95 / 192) ** 0.5
    few = replace(law, snapshots=law.snapshots[:, :2], codes=law.codes[:, :2])
    assert (constancy(few, places, truth.active) == 1).all()


def test_what_is_in_front_of_a_panel_ends_where_directions_look_alike():
    half = in_front(SCENE, CPU)
    assert float(half.upper[0].rad2deg()) == pytest.approx(WIDEST_DEG)
    waves = 1 + math.sin(math.radians(65))
    sparse = replace(SCENE, spacing_m=SCENE.wavelength_m / waves)
    assert float(in_front(sparse, CPU).upper[0].rad2deg()) == pytest.approx(65, abs=1e-3)
