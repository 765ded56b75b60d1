"""Arrays of a recording, made from those of other files as a mapping says."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.config import LIGHT_M_PER_S, ConfigError, did_you_mean, require
from trainer.scenes import Scenes, scenes_of_arrays

from .axes import arrange
from .files import Arrays, describe_arrays, read_arrays
from .mapping import COMPLEX, REAL_SOURCES, SOURCES, TARGETS, Entry, read_mapping

FULL_TURN = 2 * np.pi + 1e-6
"""Largest phase [rad] of a file that wraps its phases, up to rounding."""
STEP = 360 / 256
"""Step of the phases of eight bits, in degrees: 22.5, 11.25, ... are multiples of it."""


def convert(files: Iterable[str | Path], mapping: str | Path) -> Scenes:
    """Return the scenes of a recording that other software made, in double precision.

    Args:
        files: that hold its arrays.
        mapping: the TOML file that says which array is which (`mapping`).

    Raises:
        ConfigError: if a file cannot be read, the mapping breaks a rule, or what it gives breaks a
            rule of `load_scenes`.
    """
    entries = read_mapping(Path(mapping))
    found = read_arrays([Path(file) for file in files])
    sizes = dict(entries.get("sizes", {}))
    arrays: Arrays = {}
    for name in TARGETS:
        if name in entries:
            arrays[name] = _value(name, entries[name], found, sizes, arrays)
        axis = {"num_horizontal": "column", "num_vertical": "row"}.get(name)
        if axis and name in arrays:
            count = float(arrays[name])
            whole = count % 1 == 0 and count >= 1
            require(whole, f"{name} is a positive whole number", f"{count}", "Give one number.")
            sizes[axis] = int(count)
    if "frequency_hz" in arrays:
        frequency = arrays.pop("frequency_hz")
        require(bool(frequency > 0), "frequency_hz > 0", f"{frequency}", "Give it in hertz.")
        arrays["wavelength_m"] = np.asarray(LIGHT_M_PER_S / frequency)
    if "place_m" in arrays:
        arrays |= _spherical(arrays.pop("place_m"))
    scenes_of_arrays(arrays)  # in single precision, as it will be read
    return scenes_of_arrays(arrays, dtype=torch.complex128)


def _value(
    name: str, entry: Any, found: Arrays, sizes: Mapping[str, int], done: Arrays
) -> np.ndarray:
    """Return an array of the recording, from an entry of the mapping."""
    value = (
        _made(name, entry, found, sizes)
        if isinstance(entry, dict)
        else _constant(name, entry, done)
    )
    if not TARGETS[name]:
        number = value.size == 1
        require(number, f"{name} is one number", f"shape {list(value.shape)}", "Take one: `at`.")
        value = value.reshape(())
    return value


def _made(name: str, entry: Entry, found: Arrays, sizes: Mapping[str, int]) -> np.ndarray:
    """Return an array of the recording, made from arrays of the files."""
    parts = {key: _named(name, entry[key], found) for key in SOURCES if key in entry}
    shapes = sorted({part.shape for part in parts.values()})
    alike = f"{' and '.join(parts)} of {name} have one shape"
    require(len(shapes) == 1, alike, f"{shapes}", "Name arrays that belong together.")
    for key in sorted(REAL_SOURCES & parts.keys()):
        _require_real(f"{name}.{key}", parts[key], "Name a real array, or read this by `from`.")
    value, target = _joined(name, entry, parts), TARGETS[name]
    axes = entry.get("axes", " ".join(target[max(len(target) - value.ndim, 0) :]))
    if axes:
        value = arrange(value, axes, target, sizes, entry.get("at", {}), name)
    if name not in COMPLEX:
        _require_real(name, value, "Name another array.")
    if "offset" in entry:
        _require_real(f"{name} with an offset", value, "Drop offset.")
        value = value + entry["offset"]
    if "origin" in entry:
        value = value - _three(entry["origin"], value)
    value = value * entry["scale"] if "scale" in entry else value
    if entry.get("degrees") and "phase" not in entry:
        value = np.radians(value)
    if name in ("place_m", "positions_m"):
        value = _oriented(name, value, entry.get("coordinates"))
    return value.conj() if entry.get("conjugate") else value


def _named(name: str, wanted: str, found: Arrays) -> np.ndarray:
    if wanted not in found:
        raise ConfigError(
            f"`{name}` is made from {wanted!r}, which none of the files has."
            f"{did_you_mean(wanted, found)} They have {'; '.join(describe_arrays(found))}."
        )
    return found[wanted]


def _require_real(rule: str, value: np.ndarray, remedy: str) -> None:
    require(value.dtype.kind in "biuf", f"{rule} is real", f"{value.dtype}", remedy)


def _joined(name: str, entry: Entry, parts: Arrays) -> np.ndarray:
    """Return the complex (or real) array that the parts stand for."""
    if "from" in parts:
        return parts["from"]
    if "real" in parts:
        return np.asarray(parts["real"] + 1j * parts["imag"])
    if "states" in parts:
        return _reflections(name, parts["states"], entry["table"])
    if "magnitude_db" in parts:
        parts["magnitude"] = 10 ** (parts["magnitude_db"] / 20)
    phase, degrees = parts["phase"], bool(entry.get("degrees"))
    _require_unit(name, phase, degrees)
    phase = np.radians(phase) if degrees else phase
    return np.asarray(parts.get("magnitude", 1.0) * np.exp(1j * phase))


def _require_unit(name: str, phase: np.ndarray, degrees: bool) -> None:
    """Check that phases are in the unit that the mapping says, where their values tell."""
    largest = float(np.nanmax(np.abs(phase), initial=0))
    if degrees:
        rule, fits = "in degrees exceed 2 pi", largest == 0 or largest > FULL_TURN
        remedy = "These look like radians: drop degrees = true, or convert the file's to radians."
    else:
        steps = any(bool((phase % step == 0).all()) for step in (1, STEP))
        rule = "in radians beyond 2 pi are no multiples of 1 or of 360 / 256"
        fits = largest <= FULL_TURN or not steps
        remedy = "These look like degrees: add degrees = true."
    require(fits, f"phases of {name} {rule}", f"{largest:.4g} at most", remedy)


def _reflections(name: str, states: np.ndarray, table: list[Any]) -> np.ndarray:
    """Return the reflection coefficients of states, from rows (modulus, phase in degrees)."""
    try:
        rows = np.asarray(table, dtype=float)
    except (TypeError, ValueError):
        rows = np.empty(0)
    rule = f"{name}.table has a modulus and a phase in degrees for every state"
    fits = rows.ndim == 2 and rows.shape[1] == 2
    require(fits, rule, f"{table}", "Write for example [[1, 0], [0.7, 180]].")
    real = states.dtype.kind in "biuf"
    require(real, f"states of {name} are whole numbers", f"{states.dtype}", "Name another array.")
    least, most = states.min(initial=0), states.max(initial=0)
    whole = bool((states == np.floor(states)).all()) and least >= 0 and most < len(rows)
    rule = f"states of {name} are whole numbers from 0 to {len(rows) - 1}, the rows of its table"
    require(whole, rule, f"{least:g} ... {most:g}", "Correct the table, or the states.")
    modulus, degrees = rows.T
    return np.asarray((modulus * np.exp(1j * np.radians(degrees)))[states.astype(int)])


def _constant(name: str, entry: Any, done: Arrays) -> np.ndarray:
    """Return a constant in the shape of the array it stands for."""
    if name == "channel" and entry == "identity":
        return np.eye(_num_elements(done))
    try:
        value = np.asarray(entry, dtype=float)
    except (TypeError, ValueError):
        raise ConfigError(
            f"`{name}` must be a number, a list of numbers or a table, but got {entry!r}. "
            f'To read an array, write [{name}] and below it from = "{entry}".'
        ) from None
    each = name == "codes" and value.ndim == 0 and "snapshots" in done
    if each and done["snapshots"].ndim >= 2:
        return np.full((done["snapshots"].shape[-2], _num_elements(done)), value)
    return value


def _num_elements(done: Arrays) -> int:
    if "positions_m" in done:
        return len(done["positions_m"])
    given = {"num_horizontal", "num_vertical"} <= done.keys()
    require(given, "num_horizontal and num_vertical are given", "not both", "Add them.")
    return int(done["num_horizontal"] * done["num_vertical"])


def _three(origin: list[Any], value: np.ndarray) -> np.ndarray:
    """Return the panel's centre as three numbers."""
    numbers = all(isinstance(x, int | float) for x in origin)
    fits = numbers and len(origin) == value.shape[-1]
    rule = "place_m.origin has a number for each coordinate"
    require(fits, rule, f"{origin} for {value.shape[-1]}", "Write for example [0.1, 0.1, 0].")
    return np.asarray(origin, dtype=float)


def _oriented(name: str, value: np.ndarray, coordinates: str | None) -> np.ndarray:
    """Return Cartesian places with their coordinates in the order right, up, ahead."""
    axes, size = ("right", "up", "ahead"), value.shape[-1]
    words = " ".join(axes[:size]).split() if coordinates is None else coordinates.split()
    names = [word.lstrip("-") for word in words]
    rule = f"{name}.coordinates names each of the {size} coordinates: right, up or ahead"
    fits = len(names) == len(set(names)) == size and set(names) <= set(axes)
    fits = fits and (size == 3 or name == "positions_m")
    example = 'Write for example coordinates = "ahead -right up".'
    require(fits, rule, f"{coordinates!r}", example)
    signs = np.array([-1.0 if word.startswith("-") else 1.0 for word in words])
    columns = dict(zip(names, np.moveaxis(value * signs, -1, 0), strict=True))
    # a line of elements has one coordinate
    zero = np.zeros(value.shape[:-1])
    return np.stack([columns.get(axis, zero) for axis in axes[: max(size, 2)]], axis=-1)


def _spherical(place: np.ndarray) -> Arrays:
    """Return azimuth, elevation and range of places (right, up, ahead) [..., 3]."""
    right, up, ahead = np.moveaxis(place, -1, 0)
    distance = np.linalg.norm(place, axis=-1)
    sine = np.divide(up, distance, out=np.zeros_like(up), where=distance > 0)
    azimuth, elevation = np.arctan2(right, ahead), np.arcsin(sine)
    return {"azimuth": azimuth, "elevation": elevation, "range_m": distance}
