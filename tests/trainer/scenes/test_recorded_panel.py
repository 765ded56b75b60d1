"""Recordings of panels as they are: gains, placed and dead elements, and codes in disguise."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.resimulated import resimulated, two_state_codes
from trainer.config import ConfigError, SceneConfig
from trainer.estimation.maximum_likelihood import sml
from trainer.evaluation.crb import stochastic_crb
from trainer.scenes import load_scenes, origin_note, save_scenes
from trainer.scenes.geometry import Panel, steering_vector
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.recorded_panel import recorded_panel
from trainer.scenes.simulation import EvalScenes

CONFIG = SceneConfig(
    num_horizontal=5, num_vertical=4, num_antennas=8, num_snapshots=10, code_bits=2
)
DEAD = [0, 7, 13]


def scenes_of(count: int = 2) -> Scenes:
    scenes = EvalScenes(CONFIG, 2).batch(range(count), snr_db=15.0, dtype=torch.complex128)
    return resimulated(scenes, codes=scenes.codes * two_state_codes(scenes).abs(), snr_db=15.0)


def arrays_of(scenes: Scenes, folder: Path) -> dict[str, np.ndarray]:
    save_scenes(scenes, folder / "saved.npz")
    with np.load(folder / "saved.npz") as file:
        return dict(file)


def load(folder: Path, arrays: dict[str, np.ndarray]) -> Scenes:
    np.savez(folder / "given.npz", **arrays)
    return load_scenes(folder / "given.npz", dtype=torch.complex128)


def lattice_positions(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Take the lattice out of a recording and return its places with a corner at the origin."""
    across, up = (int(arrays.pop(name)) for name in ("num_horizontal", "num_vertical"))
    row, column = np.divmod(np.arange(across * up), across)
    return np.stack([column, row], -1) * float(arrays.pop("spacing_m"))


def found_by_ml(scenes: Scenes) -> Tensor:
    """Return places by maximum likelihood, sources in order of azimuth: [B, K, 3]."""
    panel = scenes.panel
    config = replace(
        CONFIG,
        num_horizontal=panel.num_horizontal,
        num_vertical=panel.num_vertical,
        spacing_m=panel.spacing_m,
        positions_m=panel.positions_m,
    )
    places = sml(scenes, scenes.sources.num_sources, search_grid(config)).positions
    return places.gather(1, places[..., :1].argsort(1).expand_as(places))


def assert_same_science(one: Scenes, other: Scenes) -> None:
    bounds = [stochastic_crb(each) for each in (one, other)]
    for name in ("azimuth", "elevation", "range_m"):
        wanted, got = (getattr(bound, name) for bound in bounds)
        torch.testing.assert_close(got, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(found_by_ml(other), found_by_ml(one), rtol=1e-4, atol=1e-5)


def test_gains_dropouts_and_the_bound_survive_a_file(tmp_path: Path) -> None:
    scenes = scenes_of()
    codes = scenes.codes.clone()
    codes[:, 2, 4] = 0  # a dropout
    codes[1, :, 5] = 0  # dead in one scene
    scenes = replace(scenes, codes=codes)
    save_scenes(scenes, tmp_path / "a.npz")
    loaded = load_scenes(tmp_path / "a.npz", dtype=torch.complex128)
    assert torch.equal(loaded.codes, scenes.codes)
    assert torch.equal(stochastic_crb(loaded).angle, stochastic_crb(scenes).angle)


def test_a_lattice_given_by_its_positions_in_any_order_is_the_same_panel(tmp_path: Path) -> None:
    lattice = scenes_of()
    arrays = arrays_of(lattice, tmp_path)
    positions = lattice_positions(arrays) + np.array([3.0, -40.0])
    order = np.random.default_rng(0).permutation(len(positions))
    arrays |= {name: arrays[name][..., order] for name in ("channel", "codes")}
    for given in (positions[order], np.insert(positions[order], 2, 7.0, axis=1)):
        placed = load(tmp_path, arrays | {"positions_m": given})
        assert placed.panel.num_elements == 20
        assert placed.panel.spacing_m == pytest.approx(0.15)
        torch.testing.assert_close(placed.snr_db, lattice.snr_db)
    assert_same_science(lattice, placed)


def test_masked_elements_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    """By a mask, by codes of 0 throughout, and by positions without them: one panel."""
    arrays = arrays_of(scenes_of(), tmp_path)
    works = np.isin(np.arange(20), DEAD, invert=True)
    masked = load(tmp_path, arrays | {"element_mask": works})
    dark = load(tmp_path, arrays | {"codes": arrays["codes"] * works})
    fewer = {name: arrays[name][..., works] for name in ("channel", "codes")}
    positions = lattice_positions(arrays)
    centre = positions.mean(0)
    rest = arrays | fewer | {"positions_m": positions[works], "origin_m": centre}
    placed = load(tmp_path, rest)
    for other in (dark, placed):
        assert masked.panel.num_elements == other.panel.num_elements == 17
        torch.testing.assert_close(
            torch.tensor(other.panel.positions_m), torch.tensor(masked.panel.positions_m)
        )
        assert torch.equal(masked.codes, other.codes)
        assert torch.equal(masked.channel, other.channel)
    full = scenes_of()
    zeroed = full.codes * torch.from_numpy(works)
    assert_same_science(masked, replace(full, codes=zeroed))


@pytest.mark.parametrize("mask", [None, DEAD])
def test_what_was_loaded_is_saved_and_loaded_equal(tmp_path: Path, mask: list[int] | None) -> None:
    arrays = arrays_of(scenes_of(), tmp_path)
    if mask is None:
        positions = lattice_positions(arrays)
        arrays |= {"positions_m": positions + np.random.default_rng(1).normal(0, 0.01, (20, 2))}
    else:
        arrays |= {"element_mask": ~np.isin(np.arange(20), mask)}
    first = load(tmp_path, arrays)
    save_scenes(first, tmp_path / "again.npz")
    second = load_scenes(tmp_path / "again.npz", dtype=torch.complex128)
    assert second.panel == first.panel
    assert torch.equal(second.channel, first.channel)
    assert torch.equal(second.sources.azimuth, first.sources.azimuth)


def test_another_origin_changes_the_names_of_places_alone() -> None:
    """A place seen from a corner is the place seen from the centre, less the way between them."""
    rng = np.random.default_rng(3)
    positions = rng.uniform(-0.4, 0.4, (12, 2))
    centred = Panel.of_positions(positions.tolist(), 0.3)
    corner = np.array([-0.4, 0.3])
    moved = Panel.of_positions((positions - corner).tolist(), 0.3)
    azimuth, elevation, far = rng.uniform(-0.5, 0.5, 5), rng.uniform(-0.4, 0.4, 5), 1.5
    right, up = far * np.sin(azimuth) * np.cos(elevation), far * np.sin(elevation)
    ahead = far * np.cos(azimuth) * np.cos(elevation)
    right, up = right - corner[0], up - corner[1]
    distance = np.sqrt(right**2 + up**2 + ahead**2)
    from_corner = (np.arctan2(right, ahead), np.arcsin(up / distance), distance)
    seen = steering_vector(
        centred, *map(torch.from_numpy, (azimuth, elevation, 0 * azimuth + far))
    )
    again = steering_vector(moved, *map(torch.from_numpy, from_corner))
    correlation = (seen.conj() * again).sum(-1).abs() / 12
    torch.testing.assert_close(correlation, torch.ones(5).double(), rtol=0, atol=1e-12)


# codes in disguise: what they were, as they are given, and how the advice begins
STATES = np.arange(20 * 10 * 2).reshape(2, 10, 20) * 7 % 4
BITS = STATES % 2
TWENTY, MOST = (np.arange(STATES.size).reshape(STATES.shape) * 7 % n for n in (20, 255))
FIVE = np.arange(STATES.size).reshape(STATES.shape) * 7 % 32
RADIANS = np.pi / 2 * STATES
DISGUISED = {
    "radians": (np.exp(1j * RADIANS), RADIANS, r"Give (.+?) for phases in radians"),
    "negative": (np.exp(1j * (RADIANS - 2)), RADIANS - 2, r"Give (.+?) for phases in radians"),
    "small": (np.exp(1j * RADIANS / 9), RADIANS / 9, r"Give (.+?) for phases in radians"),
    "complex": (np.exp(1j * RADIANS), RADIANS + 0j, r"Give (.+?) for phases in radians"),
    "unwrapped": (np.exp(5j * RADIANS), 5 * RADIANS, r"degrees, (.+?) for unwrapped"),
    "degrees": (np.exp(1j * RADIANS), 90 * STATES, r"Give (.+?) for phases in degrees"),
    "signed": (np.exp(1j * RADIANS) * -1, 90.0 * STATES - 180, r"Give (.+?) for phases in deg"),
    "states": (np.exp(1j * RADIANS), STATES, r"equal steps of phase (.+?)\. For"),
    "table": (np.exp(1j * RADIANS), STATES, r"coefficients: (.+?), for S"),
    "bits": ((-1.0) ** BITS + 0j, BITS, r"180 degrees (.+?)\. If"),
    "floats": ((-1.0) ** BITS + 0j, BITS * 1.0, r"180 degrees (.+?)\. If"),
    "booleans": ((-1.0) ** BITS + 0j, BITS > 0, r"180 degrees (.+?)\. If"),
    "gains of bits": (np.array([0.7, -1])[BITS] + 0j, BITS, r"coefficients: (.+?), for"),
    "dropouts": (BITS + 0j, BITS, r"reflects nothing, give (.+?)\.$"),
    "amplitudes": (
        0.7 + 0.3 * BITS + 0j,
        0.7 + 0.3 * BITS,
        r"turns, or (.+?), if they are real",
    ),
    "turns": (np.exp(1j * RADIANS), STATES / 4, r"radians, (.+?) for phases in turns"),
    "twenty": (np.exp(2j * np.pi * TWENTY / 20), TWENTY, r"equal steps of phase (.+?)\.$"),
    "255 of 256": (np.exp(2j * np.pi * MOST / 256), MOST, r"equal steps of phase (.+?)\.$"),
    "on and off": (1j**BITS, 255 * BITS, r"coefficients: (.+?), for S"),
    "five bits": (np.exp(2j * np.pi * FIVE / 32), FIVE, r"equal steps of phase (.+?)\. For"),
}


@pytest.mark.parametrize("name", DISGUISED)
def test_advice_on_codes_followed_literally_gives_the_codes(tmp_path: Path, name: str) -> None:
    meant, given, pattern = DISGUISED[name]
    arrays = arrays_of(scenes_of(), tmp_path)
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, arrays | {"codes": given})
    found = re.search(pattern, str(refused.value))
    assert found, str(refused.value)
    table = (
        {"c0": 0.7, "c1": -1, "S": 4} if name == "gains of bits" else {"c0": 1, "c1": 1j, "S": 4}
    )
    table |= {"S": {"five bits": 32, "twenty": 20, "255 of 256": 256}.get(name, 4), "c255": 1j}
    expression = found[1].replace("..., c3", "c1, -c0, -c1")
    codes = eval(expression, {"np": np, "codes": given} | table)
    loaded = load(tmp_path, arrays | {"codes": codes})
    used = (meant != 0).any((0, 1))
    np.testing.assert_allclose(loaded.codes.numpy(), meant[..., used], atol=1e-12)


def test_panels_of_one_bit_may_give_signs_and_dropouts_as_real_numbers(tmp_path: Path) -> None:
    arrays = arrays_of(scenes_of(), tmp_path)
    signs = (-1.0) ** BITS
    signs[1, 2, :5] = 0
    assert load(tmp_path, arrays | {"codes": signs}).codes[1, 2, :6].tolist() == [
        0,
        0,
        0,
        0,
        0,
        -1,
    ]


def test_a_gain_above_one_moves_to_the_channel_as_advised(tmp_path: Path) -> None:
    scenes = scenes_of()
    arrays = arrays_of(scenes, tmp_path)
    loud = arrays | {"codes": 3.7 * arrays["codes"], "channel": arrays["channel"] / 3.7}
    with pytest.raises(ConfigError, match=r"abs\(codes\) <= 1") as refused:
        load(tmp_path, loud)
    peak = float(re.search(r"Divide codes by ([\d.e+-]+) and", str(refused.value))[1])
    loud |= {"codes": loud["codes"] / peak, "channel": loud["channel"] * peak}
    responses = [
        s.channel.unsqueeze(1) * s.codes.unsqueeze(2) for s in (scenes, load(tmp_path, loud))
    ]
    torch.testing.assert_close(*responses)


POSITIONS = np.random.default_rng(4).uniform(-0.4, 0.4, (20, 2))
BROKEN: list[tuple[dict[str, object], str]] = [
    ({"spacing_m": 0.15}, r"Leave out \['spacing_m'\]"),
    ({"positions_m": None, "origin_m": np.zeros(2)}, "Add positions_m"),
    ({"positions_m": POSITIONS.T}, r"shape \[N, 2\].*Give a row per element"),
    ({"positions_m": POSITIONS[:-1]}, r"channel has shape \[2, 8, 19\]"),
    ({"positions_m": POSITIONS * np.nan}, "positions_m is finite"),
    ({"positions_m": POSITIONS[[0, *range(19)]]}, "places of their own"),
    ({"positions_m": np.insert(POSITIONS, 2, POSITIONS[:, 0], axis=1)}, "spread of"),
    ({"origin_m": np.zeros(3)}, r"origin_m has shape \[2\]"),
    ({"origin_m": np.array([5.0, 2.0])}, "within 2 diameters.*without origin_m"),
    ({"element_mask": np.zeros(20)}, "some element of every scene reflects.*none in 2 scenes"),
    ({"element_mask": np.ones((3, 20))}, r"element_mask has shape \[20\]"),
    ({"element_mask": np.full(20, 2)}, "True where an element works"),
    ({"codes": np.zeros((2, 10, 20), complex)}, "some element of every scene reflects"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_broken_panels_say_which_array_and_what_to_do(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    arrays = arrays_of(scenes_of(), tmp_path)
    lattice_positions(arrays)
    given = arrays | {"positions_m": POSITIONS} | changes
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, {name: value for name, value in given.items() if value is not None})


def test_elements_in_a_tilted_plane_are_turned_into_it_as_advised(tmp_path: Path) -> None:
    arrays = arrays_of(scenes_of(), tmp_path)
    lattice_positions(arrays)
    axes = np.array([[math.cos(0.4), 0.0, math.sin(0.4)], [0.0, 1.0, 0.0]])
    positions_m = POSITIONS @ axes
    with pytest.raises(ConfigError, match=r"positions_m @ axes\.T"):
        load(tmp_path, arrays | {"positions_m": positions_m})
    turned = load(tmp_path, arrays | {"positions_m": positions_m @ axes.T}).panel.positions_m
    np.testing.assert_allclose(turned, POSITIONS - POSITIONS.mean(0), atol=1e-12)


def test_places_refer_to_the_mean_of_positions_and_a_line_says_so(tmp_path):
    """The advice, followed literally, refers them to the origin of positions_m, and is silent."""
    path, corner = tmp_path / "x.npz", np.array([[0.0, 0.0], [0.4, 0.0], [0.0, 0.2], [0.4, 0.2]])
    for positions, advised, said in (
        (corner, {}, "(0.2, 0.1) m"),
        (corner, {"origin_m": np.array([0, 0])}, ""),
        (corner - corner.mean(0), {}, ""),
    ):
        np.savez(path, positions_m=positions, wavelength_m=0.3, **advised)
        note = origin_note(path)
        assert ("give origin_m = [0, 0]" in note) == bool(said)
        assert said in note
        panel = recorded_panel({"positions_m": positions, "wavelength_m": np.array(0.3)} | advised)
        first = panel.positions_m[0]
        assert first == pytest.approx((0, 0) if advised else (-0.2, -0.1))
