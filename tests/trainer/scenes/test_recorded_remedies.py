"""Remedies for arrays of a recording, followed literally, lead to the recording that was meant."""

import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.config import ConfigError, SceneConfig
from trainer.scenes import Panel, load_scenes, save_scenes, search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

CONFIG = SceneConfig(
    num_horizontal=4, num_vertical=3, num_antennas=5, num_snapshots=6, noise_correlation=0.4
)
Arrays = dict[str, np.ndarray]


def recording(folder: Path) -> Arrays:
    scenes = EvalScenes(CONFIG, 1).batch(range(4), snr_db=3.0, dtype=torch.complex128)
    save_scenes(scenes, folder / "saved.npz")
    with np.load(folder / "saved.npz") as file:
        return dict(file)


def load(folder: Path, arrays: Arrays, dtype: torch.dtype = torch.complex128) -> Scenes:
    np.savez(folder / "given.npz", **arrays)
    return load_scenes(folder / "given.npz", dtype=dtype)


def refusal(folder: Path, arrays: Arrays) -> str:
    with pytest.raises(ConfigError) as refused:
        load(folder, arrays)
    return str(refused.value)


def assert_equal(got: Scenes, wanted: Scenes) -> None:
    """The same up to units: responses per noise, and the SNR that follows from truth and noise."""
    torch.testing.assert_close(got.snr_db, wanted.snr_db)
    for name in ("azimuth", "elevation", "range_m"):
        torch.testing.assert_close(getattr(got.sources, name), getattr(wanted.sources, name))
    roots = [s.noise_variance.sqrt()[:, None, None] for s in (got, wanted)]
    torch.testing.assert_close(got.snapshots / roots[0], wanted.snapshots / roots[1])


# how an array is spoilt, and the array of which the message gives an expression
EXPRESSIONS: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray], str]] = {
    "I/Q pairs": ("snapshots", lambda x: np.stack([x.real, x.imag], -1), r"Give (.+?)\.$"),
    "axes": ("channel", lambda x: x.swapaxes(1, 2), r"Give (.+)\.$"),
    "batch last": ("codes", lambda x: np.moveaxis(x, 0, -1), r"Give (.+)\.$"),
    "row vector": ("noise_variance", lambda x: x[None, :], r"Give (.+)\.$"),
    "text": ("channel", lambda x: x.astype(str), r"Give (.+)\.$"),
    "complex angles": ("azimuth", lambda x: x + 0j, r"Give (.+)\.$"),
    "degrees": ("azimuth", lambda x: np.rad2deg(x), r"Give (.+?) for degrees"),
    "edge": ("elevation", lambda x: x + np.pi / 2, r"degrees, (.+?) for radians"),
    "triangle": ("noise_covariance", np.tril, r"triangle: (.+)\.$"),
    "upper": ("noise_covariance", np.triu, r"triangle: (.+)\.$"),
    "skew": (
        "noise_covariance",
        lambda x: x + 0.1 * (np.eye(5, k=1) - np.eye(5, k=-1)),
        r"transpose: (.+)\.$",
    ),
}


@pytest.mark.parametrize("kind", EXPRESSIONS)
def test_the_advised_expression_gives_the_array(tmp_path: Path, kind: str) -> None:
    name, spoil, pattern = EXPRESSIONS[kind]
    arrays = recording(tmp_path)
    given = spoil(arrays[name])
    message = refusal(tmp_path, arrays | {name: given})
    found = re.search(pattern, message)
    assert found, message
    assert name in message
    repaired = eval(found[1], {"np": np, "Q": given, name: given})
    assert_equal(load(tmp_path, arrays | {name: repaired}), load(tmp_path, arrays))


def test_a_scale_of_the_noise_covariance_goes_where_the_advice_says(tmp_path: Path) -> None:
    arrays = recording(tmp_path)
    loud = arrays | {
        "noise_covariance": 7 * arrays["noise_covariance"],
        "noise_variance": arrays["noise_variance"] / 7,
    }
    message = refusal(tmp_path, loud)
    assert "Divide it by its diagonal, and multiply noise_variance by that" in message
    loud["noise_covariance"] = loud["noise_covariance"] / 7
    loud["noise_variance"] = loud["noise_variance"] * 7
    assert_equal(load(tmp_path, loud), load(tmp_path, arrays))


def test_antennas_of_unlike_noise_are_scaled_as_the_advice_says(tmp_path: Path) -> None:
    """The measurement is the same after whitening: the SNR of whitened data is kept."""
    arrays = recording(tmp_path)
    gains = np.array([1.0, 2.0, 0.5, 1.5, 1.0])
    uneven = arrays | {
        "noise_covariance": arrays["noise_covariance"] * gains[:, None] * gains,
        "snapshots": arrays["snapshots"] * gains,
        "channel": arrays["channel"] * gains[:, None],
    }
    assert "divide Q by d[..., :, None] * d[..., None, :]" in refusal(tmp_path, uneven)
    q = uneven["noise_covariance"]
    d = np.sqrt(np.diagonal(q, axis1=-2, axis2=-1).real)
    uneven |= {
        "noise_covariance": q / (d[..., :, None] * d[..., None, :]),
        "snapshots": uneven["snapshots"] / d[..., None, :],
        "channel": uneven["channel"] / d[..., :, None],
    }
    assert_equal(load(tmp_path, uneven), load(tmp_path, arrays))


def test_a_singular_noise_covariance_is_loaded_as_advised(tmp_path: Path) -> None:
    arrays = recording(tmp_path)
    singular = np.ones((5, 5))
    message = refusal(tmp_path, arrays | {"noise_covariance": singular})
    expression = re.search(r"diagonal: (.+)\.$", message)[1]
    load(tmp_path, arrays | {"noise_covariance": eval(expression, {"np": np, "Q": singular})})


@pytest.mark.parametrize("name", ["snapshots", "channel"])
@pytest.mark.parametrize("factor", [1e-25, 1e30])
def test_units_are_changed_as_advised(tmp_path: Path, name: str, factor: float) -> None:
    arrays = recording(tmp_path)
    wanted = load(tmp_path, arrays)
    odd = arrays | {name: arrays[name] * factor}
    if name == "snapshots":
        odd |= {n: arrays[n] * factor**2 for n in ("noise_variance", "power")}
    else:
        odd |= {"power": arrays["power"] / factor**2}
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, odd, torch.complex64)
    message = str(refused.value)
    assert "divide it by its largest modulus" in message
    peak = np.abs(odd[name]).max((1, 2))
    odd[name] = odd[name] / peak[:, None, None]
    if name == "snapshots":
        assert "and noise_variance and power by the square of that" in message
        odd["noise_variance"] = odd["noise_variance"] / peak**2
        odd["power"] = odd["power"] / peak[:, None] ** 2
    else:
        assert "and multiply power by the square of that" in message
        odd["power"] = odd["power"] * peak[:, None] ** 2
    assert_equal(load(tmp_path, odd), wanted)


def test_infinite_ranges_are_far(tmp_path: Path) -> None:
    arrays = recording(tmp_path)
    range_m = arrays["range_m"].copy()
    range_m[0, 0] = np.inf
    message = refusal(tmp_path, arrays | {"range_m": range_m})
    far = eval(re.search(r"m: (.+)\.$", message)[1], {"range_m": range_m})
    assert load(tmp_path, arrays | {"range_m": far}).sources.range_m[0, 0] == 1e4


@pytest.mark.parametrize("name", ["snapshots", "codes", "noise_variance"])
def test_what_is_not_finite_is_dropped_or_zeroed_as_advised(tmp_path: Path, name: str) -> None:
    arrays = recording(tmp_path)
    broken = arrays[name].copy()
    broken[(2,) * broken.ndim] = np.nan
    message = refusal(tmp_path, arrays | {name: broken})
    if name == "snapshots":
        assert "Drop these scenes (2 first)" in message
        batched = ("snapshots", "channel", "codes", "noise_variance", "noise_covariance")
        places = ("azimuth", "elevation", "range_m", "power")
        rest = {n: np.delete(arrays[n], 2, axis=0) for n in (*batched, *places)}
        assert load(tmp_path, arrays | rest).batch_size == 3
    elif name == "codes":
        assert "Give 0 where an element reflects nothing" in message
        load(tmp_path, arrays | {name: np.nan_to_num(broken)})
    else:
        assert "Leave the array out" in message
        load(tmp_path, {n: x for n, x in arrays.items() if n != name})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"spacing_m": 0.5, "wavelength_m": 0.01}, "spacing_m"),  # in wavelengths
        ({"spacing_m": 15.0}, "spacing_m"),  # centimetres
        ({"spacing_m": 150.0}, "spacing_m"),  # millimetres
        ({"wavelength_m": 300.0}, "wavelength_m"),  # millimetres
        ({"wavelength_m": 30.0}, "wavelength_m"),  # centimetres
        ({"spacing_m": 0.0625, "wavelength_m": 2.4e9}, "wavelength_m"),  # Hz
        ({"spacing_m": 0.0625, "wavelength_m": 2.4}, "wavelength_m"),  # GHz
        ({"wavelength_m": 0.3e9}, "wavelength_m"),  # frequency_hz was given in GHz
    ],
)
def test_the_unit_that_is_advised_makes_half_a_wavelength(tmp_path, change, name):
    arrays = recording(tmp_path) | {k: np.array(v) for k, v in change.items()}
    message = refusal(tmp_path, arrays)
    found = re.search(r"Is (\w+) [\w .]+\? Then use (\w+) = ([\d.e-]+)\.", message)
    assert found, message
    assert found[1] == found[2] == name
    right = load(tmp_path, arrays | {name: np.array(float(found[3]))})
    assert right.panel.spacing_m / right.panel.wavelength_m == pytest.approx(0.5, rel=2e-3)


def test_placed_elements_in_wavelengths_are_led_to_metres(tmp_path):
    arrays = recording(tmp_path)
    lattice = {n: arrays.pop(n) for n in ("num_horizontal", "num_vertical", "spacing_m")}
    across, up = np.meshgrid(np.arange(4), np.arange(3))
    placed = np.stack([across.ravel(), up.ravel()], -1) * float(lattice["spacing_m"])
    load(tmp_path, arrays | {"positions_m": placed})
    message = refusal(tmp_path, arrays | {"positions_m": placed, "wavelength_m": np.array(300.0)})
    assert "Is wavelength_m in millimetres? Then use wavelength_m = 0.3." in message


def test_placed_elements_in_millimetres_are_led_to_metres():
    across, up = np.meshgrid(150.0 * np.arange(4), 150.0 * np.arange(3))
    placed = Panel.of_positions(np.stack([across.ravel(), up.ravel()], -1).tolist(), 0.3)
    with pytest.raises(ConfigError, match=r"millimetres. Then multiply them by 0.001") as refused:
        search_grid(replace(SceneConfig(), **asdict(placed)))
    assert "Are positions_m in" in str(refused.value)


@pytest.mark.parametrize("order", [(0, 2, 1), (2, 1, 0), (1, 2, 0)])
def test_axes_of_snapshots_in_another_order_are_named_as_such(tmp_path, order):
    """Not the channel is at fault, which has the shape that the panel and the antennas give it."""
    arrays = recording(tmp_path)
    given = arrays["snapshots"].transpose(order)
    message = refusal(tmp_path, arrays | {"snapshots": given})
    assert message.startswith("`snapshots has shape [B, L, M]")
    expression = re.search(r"Give (.+)\.$", message)[1]
    repaired = eval(expression, {"snapshots": given})
    np.testing.assert_array_equal(repaired, arrays["snapshots"])


@pytest.mark.parametrize("name", ["snapshots", "channel"])
def test_a_dead_antenna_is_dropped_as_advised_and_all_scenes_stay(tmp_path, name):
    arrays = recording(tmp_path)
    broken = {n: arrays[n].copy() for n in ("snapshots", "channel")}
    broken[name][(slice(None), 3) if name == "channel" else (..., 3)] = np.nan
    message = refusal(tmp_path, arrays | broken)
    assert "Drop the antennas [3]" in message
    ways = re.findall(r"np\.delete\((\w+), (\[[\d, ]+\]), axis=(-\d)\)", message)
    assert {way[0] for way in ways} == {"snapshots", "channel"}
    given = {**arrays, **broken}
    for array, gone, axis in ways:
        given[array] = np.delete(given[array], eval(gone), axis=int(axis))
    assert "both axes of noise_covariance" in message
    for axis in (1, 2):
        given["noise_covariance"] = np.delete(given["noise_covariance"], 3, axis=axis)
    kept = load(tmp_path, given)
    assert (kept.batch_size, kept.num_antennas) == (4, 4)


def test_a_snapshot_and_an_element_without_numbers_are_dropped_as_advised(tmp_path):
    arrays = recording(tmp_path)
    late = arrays["snapshots"].copy()
    late[:, 2] = np.nan
    message = refusal(tmp_path, arrays | {"snapshots": late})
    ways = dict(re.findall(r"(np\.delete\((\w+), [^)]*\))", message))
    names = {"np": np, "codes": arrays["codes"], "snapshots": late}
    assert load(tmp_path, arrays | {n: eval(e, names) for e, n in ways.items()}).num_snapshots == 5
    channel = arrays["channel"].copy()
    channel[..., 7] = np.nan
    message = refusal(tmp_path, arrays | {"channel": channel})
    mask = eval(re.search(r"element_mask = (.+), one more array", message)[1], {"np": np})
    assert "channel[..., [7]] = 0" in message
    channel[..., [7]] = 0
    assert load(tmp_path, arrays | {"channel": channel, "element_mask": mask}).batch_size == 4
