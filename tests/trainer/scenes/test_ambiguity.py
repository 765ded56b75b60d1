"""Placed elements whose directions look alike are refused, with a region where they do not."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch

from trainer.config import ConfigError, SceneConfig, TrainConfig
from trainer.scenes.geometry import Panel, planar_steering_vector
from trainer.scenes.grid import grid_shape, search_grid
from trainer.scenes.simulation import EvalScenes


def placed(panel: Panel, **limits: float) -> SceneConfig:
    """Return a scene of the same elements, given by their positions."""
    coordinates = panel.element_positions(torch.float64, torch.device("cpu"))
    same = Panel.of_positions(torch.stack(coordinates, -1).tolist(), panel.wavelength_m)
    return SceneConfig(
        num_horizontal=same.num_elements,
        num_vertical=1,
        spacing_m=same.spacing_m,
        positions_m=same.positions_m,
        **limits,
    )


@pytest.mark.parametrize("size", [(6, 6), (8, 5), (12, 12), (1, 9)])
def test_a_lattice_has_the_same_grid_either_way(size: tuple[int, int]) -> None:
    lattice = SceneConfig(num_horizontal=size[0], num_vertical=size[1])
    scene = placed(Panel.from_config(lattice))
    assert grid_shape(scene) == grid_shape(lattice)
    assert scene.fraunhofer_m == pytest.approx(lattice.fraunhofer_m)
    torch.testing.assert_close(search_grid(scene).steering, search_grid(lattice).steering)


@pytest.mark.parametrize("size", [(6, 6), (8, 1), (1, 8)])
@pytest.mark.parametrize("spacing_m", [0.17, 0.21, 0.28])
def test_grating_lobes_are_refused_and_the_advice_holds(
    size: tuple[int, int], spacing_m: float
) -> None:
    """As for lattices: at wavelength / spacing from a direction of the region."""
    waves = 0.3 / spacing_m
    needed = [
        1 + math.sin(math.radians(limit)) for limit, n in ((60, size[0]), (30, size[1])) if n > 1
    ]
    scene = placed(Panel(*size, 0.15, 0.3))
    search_grid(scene)
    wide = placed(Panel(*size, 0.15, 0.3))
    positions = tuple((h * spacing_m / 0.15, v * spacing_m / 0.15) for h, v in wide.positions_m)
    wide = replace(wide, positions_m=positions, spacing_m=wide.spacing_m * spacing_m / 0.15)
    if waves > max(needed) + 0.1:
        search_grid(wide)
        return
    with pytest.raises(ConfigError, match="look like no other") as refused:
        search_grid(wide)
    message = str(refused.value)
    advised = dict(re.findall(r"(\w+_max_deg)=([\d.]+)", message))
    search_grid(replace(wide, **{name: float(angle) for name, angle in advised.items()}))
    # two directions that differ by what the message says do look alike
    u, v = map(float, re.search(r"by \(([\d.e-]+), ([\d.e-]+)\)", message).groups())
    azimuth, elevation = math.asin(u / 2), math.asin(v / 2)
    ends = torch.tensor([[azimuth, elevation], [-azimuth, -elevation]]).double()
    if min(u, v) < 1e-3:  # else, sines of azimuth are not direction cosines
        one, other = planar_steering_vector(Panel.from_config(wide), *ends.unbind(-1))
        assert (one.conj() * other).sum().abs() > 0.9 * wide.num_elements


def test_a_random_panel_with_wide_gaps_has_no_grating_lobes() -> None:
    generator = torch.Generator().manual_seed(0)
    positions = 1.6 * torch.rand(48, 2, generator=generator).double()
    panel = Panel.of_positions((positions - positions.mean(0)).tolist(), 0.3)
    search_grid(placed(panel))


def test_what_a_line_cannot_tell_apart_anyway_is_not_a_grating_lobe() -> None:
    search_grid(placed(Panel.of_positions([(0.08 * i, 0.08 * i) for i in range(-4, 4)], 0.3)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_horizontal": 4}, "Give num_horizontal=36, num_vertical=1"),
        ({"spacing_m": 0.2}, r"Give spacing_m=0\.1[45]"),
        ({"positions_m": ((0.0, math.nan),) * 36}, "finite pairs"),
        ({"positions_m": ((0.0, 1.0, 2.0),) * 36}, "finite pairs"),
    ],
)
def test_configurations_of_positions_are_checked(changes: dict[str, object], message: str) -> None:
    scene = placed(Panel(6, 6, 0.15, 0.3))
    with pytest.raises(ConfigError, match=message):
        replace(scene, **changes)


def test_a_lattice_by_its_positions_gives_the_same_scenes_and_survives_json() -> None:
    lattice = SceneConfig(num_horizontal=4, num_vertical=3)
    scene = placed(Panel.from_config(lattice))
    config = TrainConfig(scene=scene)
    again = TrainConfig.from_params(json.loads(json.dumps(config.to_params())))
    assert again == config
    assert again.digest == config.digest
    made, wanted = (EvalScenes(c, 1).batch(range(3), snr_db=0.0) for c in (again.scene, lattice))
    torch.testing.assert_close(made.snapshots, wanted.snapshots)
    torch.testing.assert_close(made.sources.azimuth, wanted.sources.azimuth)
