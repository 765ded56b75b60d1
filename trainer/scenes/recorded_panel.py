"""The panel of a recording, and its codes: which elements there are, and how they reflect.

The panel is a lattice (num_horizontal, num_vertical, spacing_m) or a list of positions_m. Codes
are complex reflection coefficients; phases, states and bits are refused with the expression that
makes coefficients of them.
"""

import math

import numpy as np
import torch

from trainer.config import CLOSEST, require, unit_hint

from .geometry import Panel
from .measurement import CODE_TOLERANCE
from .recorded_arrays import Arrays

LATTICE = ("num_horizontal", "num_vertical", "spacing_m")
PLACED = ("positions_m", "origin_m")
NEIGHBOURS = "the least distance of positions_m"
FARTHEST = 2.0
"""Largest distance of an element from the origin of places, in diameters of the panel: beyond, the
directions and ranges of a region mean little to the panel."""
PLANE_TOLERANCE = 1e-3
"""Largest spread of elements ahead of or behind the panel's plane, in wavelengths."""


def positive_number(arrays: Arrays, name: str, *, whole: bool = False) -> float:
    """Return a scalar array as a number."""
    value = arrays[name]
    kind = "positive whole number" if whole else "positive number"
    valid = value.size == 1 and value.dtype.kind in "iuf" and 0 < value.item() < math.inf
    valid = valid and (not whole or value.item() % 1 == 0)
    require(valid, f"{name} is a {kind}", f"{value!r}", f"Give one {kind}.")
    return float(value.item())


def recorded_panel(arrays: Arrays) -> Panel:
    """Return the panel with all its elements, those of `element_mask` included.

    Raises:
        ConfigError: if neither or both of its descriptions are given, or one breaks a rule.
    """
    lattice = [name for name in LATTICE if name in arrays]
    placed = [name for name in PLACED if name in arrays]
    require(
        not (lattice and placed),
        "either num_horizontal, num_vertical and spacing_m or positions_m are given",
        f"{[*lattice, *placed]}",
        f"Leave out {lattice}: positions_m says it all.",
    )
    wavelength = positive_number(arrays, "wavelength_m")
    if placed:
        panel = Panel.of_positions(_positions(arrays, wavelength).tolist(), wavelength)
        if panel.num_elements > 1:
            # sparse panels may be wide; `search_grid` looks for directions that look alike
            _require_unit(panel.spacing_m, wavelength, NEIGHBOURS, math.inf)
        return panel
    missing = [name for name in LATTICE if name not in arrays]
    rule = f"{', '.join(LATTICE)} (or positions_m) are given"
    require(not missing, rule, f"no {missing}", "Add them.")
    across, up = (int(positive_number(arrays, name, whole=True)) for name in LATTICE[:2])
    panel = Panel(across, up, positive_number(arrays, "spacing_m"), wavelength)
    if panel.num_elements > 1:
        _require_unit(panel.spacing_m, wavelength, "spacing_m", 1)
    return panel


def _require_unit(spacing: float, wavelength: float, name: str, most: float) -> None:
    """Raise ConfigError for a spacing in wavelengths that only a mistaken unit explains."""
    hint = unit_hint(spacing, wavelength, placed=name == NEIGHBOURS)
    require(
        CLOSEST <= spacing / wavelength <= most or not hint,
        f"{CLOSEST:g} <= {name} / wavelength_m <= {most:g}, both in metres",
        f"{name}={spacing:.6g}, wavelength_m={wavelength:.6g}",
        hint,
    )


def _positions(arrays: Arrays, wavelength: float) -> np.ndarray:
    """Return positions [N, 2] relative to the origin of places."""
    rule = "positions_m has shape [N, 2]: right and up in the panel's plane"
    require("positions_m" in arrays, rule, "origin_m alone", "Add positions_m.")
    value = arrays["positions_m"]
    shape = f"{value.dtype} of shape {list(value.shape)}"
    plane = "Give a row per element, in the order of channel's and codes' last axis."
    numeric = value.dtype.kind in "iuf" and value.ndim == 2 and len(value) > 0
    require(numeric and value.shape[1] in (2, 3), rule, shape, plane)
    require(bool(np.isfinite(value).all()), "positions_m is finite", "NaN or inf", plane)
    value = value.astype(float)
    if value.shape[1] == 3:
        spread = float(np.ptp(value[:, 2])) / wavelength
        require(
            spread < PLANE_TOLERANCE,
            "positions_m lie in the panel's plane: equal third coordinates",
            f"a spread of {spread:.3g} wavelengths",
            "Give right and up as seen along the panel's normal, [N, 2]: positions_m @ axes.T, "
            "with the unit vectors to the right and up as the rows of axes.",
        )
        value = value[:, :2]
    distinct = len(np.unique(value, axis=0))
    twice = "Keep one of them, also in channel, codes and element_mask."
    require(distinct == len(value), "elements have places of their own", "equal rows", twice)
    if "origin_m" not in arrays:
        return value - value.mean(0)
    origin = arrays["origin_m"]
    valid = origin.shape == (2,) and origin.dtype.kind in "iuf" and np.isfinite(origin).all()
    rule = "origin_m has shape [2], in the coordinates of positions_m"
    require(bool(valid), rule, f"{origin!r}", "Leave it out to have the centre.")
    return value - origin.astype(float)


def require_near_origin(panel: Panel) -> None:
    """Raise ConfigError if the origin of places is far from the panel's working elements."""
    h, v = (x.numpy() for x in panel.element_positions(torch.float64, torch.device("cpu")))
    farthest = float(np.hypot(h, v).max())
    diameter = math.hypot(np.ptp(h), np.ptp(v))
    require(
        farthest <= FARTHEST * diameter or farthest == 0,
        f"elements are within {FARTHEST:g} diameters of the point that places refer to",
        f"{farthest:.4g} m, diameter {diameter:.4g} m",
        "Give positions_m of the working elements without origin_m: places then refer to their "
        "mean.",
    )


def masked_codes(arrays: Arrays, codes: np.ndarray) -> np.ndarray:
    """Return codes [B, L, N] with 0 where `element_mask` says that an element is dead."""
    if "element_mask" in arrays:
        mask, size = arrays["element_mask"], codes.shape[-1]
        valid = mask.shape == (size,) and mask.dtype.kind in "biuf"
        require(
            valid and bool(np.isin(mask, (0, 1)).all()),
            f"element_mask has shape [{size}], True where an element works",
            f"{mask.dtype} of shape {list(mask.shape)}",
            "Give one for all scenes; an element that is dead in some has code 0 there.",
        )
        codes = codes * mask.astype(bool)
    dark = np.flatnonzero(~codes.any(axis=(-2, -1)))
    remedy = "Drop these scenes; the array element_mask is True for elements that work."
    rule = "some element of every scene reflects: a code is not 0 and not masked"
    which = f"none in {len(dark)} scenes, {', '.join(map(str, dark[:4]))} first"
    require(len(dark) == 0, rule, which, remedy)
    return codes


def require_reflection(codes: np.ndarray) -> None:
    """Raise ConfigError unless codes are complex reflection coefficients, 0 <= |c| <= 1.

    Real arrays are taken if they hold -1 and 1, and perhaps 0, as panels of one bit do. What else
    is real might be phases, states or bits.
    """
    real = codes.dtype.kind in "biuf" or not codes.imag.any()
    values = codes.real
    peak = float(np.abs(codes).max())
    if real and codes.dtype.kind == "c" and peak <= 1 + CODE_TOLERANCE:
        return
    if real:
        _require_signs(values.astype(float))
        return
    require(
        peak <= 1 + CODE_TOLERANCE,
        "abs(codes) <= 1: a panel reflects no more than it receives",
        f"moduli up to {peak:.6g}",
        f"Divide codes by {peak!r} and multiply channel by it: their product stays.",
    )


def _is_every_state(values: np.ndarray) -> bool:
    """Return whether most whole numbers from 0 to 2^bits - 1 occur, up to eight bits."""
    states = values.max() + 1
    return states in (32, 64, 128, 256) and len(np.unique(values)) > states / 2


def _map_states(values: np.ndarray) -> str:
    """Return advice for whole numbers that are states."""
    low, high = f"{values.min():.0f}", f"{values.max():.0f}"
    table = f"np.array([c0, ..., c{high}], complex)[codes.astype(int)]"
    if len(np.unique(values)) == 2:
        table = f"np.where(codes == {low}, c{low}, c{high}).astype(complex)"
    steps = "np.exp(2j * np.pi / S * codes)"
    return f"Map states to reflection coefficients: {table}, for S equal steps of phase {steps}."


def _require_signs(values: np.ndarray) -> None:
    rule = "codes are complex reflection coefficients, or -1 and 1"
    low, high = float(values.min()), float(values.max())
    got = f"real numbers from {low:.4g} to {high:.4g}"
    holds, whole = False, bool((values == np.rint(values)).all())
    taken = "codes.astype(complex), if they are real reflection coefficients"
    radians, degrees = "np.exp(1j * codes)", "np.exp(1j * np.pi / 180 * codes)"
    if whole and low >= 0 and high <= 1:
        holds, got = low == 1, f"{got}: bits"
        remedy = (
            "Map states to reflection coefficients: np.array([c0, c1], complex)"
            "[codes.astype(int)], for phases 0 and 180 degrees np.array([1, -1])"
            "[codes.astype(int)]. If 0 means that an element reflects nothing, give "
            "codes.astype(complex)."
        )
    elif low >= -1 - CODE_TOLERANCE and high <= 1 + CODE_TOLERANCE:
        signs = np.abs(np.abs(values) - 1) < CODE_TOLERANCE
        holds = bool((signs | (values == 0)).all())
        remedy = (
            f"Give {radians} for phases in radians, np.exp(2j * np.pi * codes) for phases in "
            f"turns, or {taken}."
        )
    elif whole and low >= 0 and (high < 16 or _is_every_state(values)):
        got = f"{got}, all whole"
        remedy = f"{_map_states(values)} For phases in radians give {radians}."
    elif max(-low, high) <= 2 * math.pi + CODE_TOLERANCE:
        level = " For levels in dB give 10 ** (codes / 20) times the phasor." if high <= 0 else ""
        remedy = f"Give {radians} for phases in radians.{level}"
    else:
        remedy = f"Give {degrees} for phases in degrees, {radians} for unwrapped ones in radians."
        remedy += f" {_map_states(values)}" if whole and low >= 0 else ""
    require(holds, rule, got, remedy)
