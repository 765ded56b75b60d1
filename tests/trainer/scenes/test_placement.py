"""Laws of the places of sources and of the codes of the panel."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.scenes.placement import (
    ATTEMPTS,
    ROUNDS,
    candidates_shape,
    place,
    place_unread,
    require_placed,
)

SCENE = SceneConfig(num_horizontal=12, num_vertical=12, max_sources=5)


def rounds(config: SceneConfig, count: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    shape = candidates_shape(config)

    def draw(_: int) -> Tensor:
        return torch.rand(count, *shape, dtype=torch.float64, generator=generator)

    return draw


def cosines(azimuth: Tensor, elevation: Tensor) -> Tensor:
    return torch.stack([azimuth.sin() * elevation.cos(), elevation.sin()], dim=-1)


@pytest.mark.parametrize("size", [6, 12])
def test_sources_are_at_least_a_beam_apart(size: int) -> None:
    config = replace(SCENE, num_horizontal=size, num_vertical=size, max_sources=4)
    direction = cosines(*place(config, rounds(config, 2000)))
    distance = (direction.unsqueeze(2) - direction.unsqueeze(1)).norm(dim=-1)
    distance = distance + 9 * torch.eye(4)
    assert distance.min() >= 2 / size
    assert distance.min() < 2 / size * 1.05  # and no farther than asked


def test_oblong_panels_have_oblong_beams() -> None:
    config = replace(SCENE, num_horizontal=12, num_vertical=4, max_sources=2)
    direction = cosines(*place(config, rounds(config, 5000)))
    apart = (direction[:, 0] - direction[:, 1]).abs()
    assert ((apart * torch.tensor([6.0, 2.0])).square().sum(-1) >= 1).all()
    side_by_side = apart[:, 0] * 6 < 0.1
    assert apart[side_by_side, 1].min() > 0.49


def test_directions_fill_the_region_uniformly() -> None:
    config = replace(SCENE, max_sources=1)
    azimuth, elevation = place(config, rounds(config, 4000))
    assert candidates_shape(config) == (1, 1, 2)
    for angle, limit in ((azimuth, 60), (elevation, 30)):
        degrees = np.degrees(angle.flatten().numpy())
        assert scipy.stats.kstest(degrees, "uniform", (-limit, 2 * limit)).pvalue > 1e-4


def test_first_sources_do_not_depend_on_how_many_follow() -> None:
    """A scene of two is the scene of five without its last three."""
    draw = rounds(SCENE, 300)
    uniform = draw(0)
    azimuth, _ = place(SCENE, lambda _: uniform)
    two = replace(SCENE, max_sources=2)
    fewer, _ = place(two, lambda _: uniform[:, :, :2])
    assert torch.equal(fewer, azimuth[:, :2])


def test_crowded_scenes_are_drawn_anew_until_they_fit() -> None:
    """Six sources on a 5x5 panel often block the seventh's place; a later round finds one."""
    config = replace(SCENE, num_horizontal=5, num_vertical=5, max_sources=6)
    draw, used = rounds(config, 400), []

    def counted(number: int) -> Tensor:
        used.append(number)
        return draw(number)

    direction = cosines(*place(config, counted))
    distance = (direction.unsqueeze(2) - direction.unsqueeze(1)).norm(dim=-1) + 9 * torch.eye(6)
    assert distance.min() >= 2 / 5
    assert len(used) > 1
    assert used == list(range(len(used)))


def test_region_without_room_is_an_error_after_a_bounded_number_of_rounds() -> None:
    config = replace(SCENE, azimuth_max_deg=2.0, elevation_max_deg=2.0)
    draw, used = rounds(config, 3), []

    def counted(number: int) -> Tensor:
        used.append(number)
        return draw(number)

    with pytest.raises(ValueError, match=r"3 of 3 scenes had no room for 5 in 16 x 16 attempts"):
        place(config, counted)
    assert used == list(range(ROUNDS))
    assert candidates_shape(config)[0] == ATTEMPTS


def test_angles_stay_in_the_region() -> None:
    azimuth, elevation = place(SCENE, rounds(SCENE, 500))
    assert azimuth.abs().max() <= math.radians(60)
    assert elevation.abs().max() <= math.radians(30)


def test_places_without_reading_are_those_of_the_first_round_with_room() -> None:
    crowded = replace(SCENE, num_horizontal=3, num_vertical=3, max_sources=3)
    uniform = torch.stack([rounds(crowded, 400, seed=i)(0) for i in range(ROUNDS)], dim=1)
    drawn: list[int] = []

    def draw(number: int) -> Tensor:
        drawn.append(number)
        return uniform[:, number]

    expected = place(crowded, draw)
    assert len(drawn) > 1  # some scenes had no room in the first
    torch.testing.assert_close(place_unread(crowded, uniform), expected, rtol=0, atol=0)


def test_scenes_without_room_are_nan_where_nothing_is_read_and_refused_when_it_is() -> None:
    config = replace(SCENE, num_horizontal=2, num_vertical=2, max_sources=3)
    uniform = torch.rand(5, ROUNDS, *candidates_shape(config))
    uniform[:2] = 0.5  # all candidates in one place
    azimuth, elevation = place_unread(config, uniform)
    assert azimuth[:2].isnan().all()
    assert elevation[:2].isnan().all()
    with pytest.raises(ValueError, match="2 of 2 scenes had no room for 3"):
        require_placed(config, azimuth[:2])
