"""The arrays of a recording, one by one: each refusal names the array, its value and the remedy.

Remedies are NumPy expressions where there are some; followed literally, they lead to the arrays
that were meant.
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from trainer.config import require

from .measurement import Sources

SIGNALS = ("snapshots", "channel", "codes")
COORDINATES = ("azimuth", "elevation", "range_m")
FAR_M = 1e4
"""A range that is as good as infinite for any panel."""

Arrays = Mapping[str, np.ndarray]


def snapshot_sizes(arrays: Arrays, num_elements: int) -> tuple[int, int, int]:
    """Return B, L and M; refuse axes in an order that channel and codes contradict."""
    snapshots = arrays["snapshots"]
    rule, valid = "snapshots has shape [B, L, M] or [L, M]", snapshots.ndim in (2, 3)
    pairs = snapshots.ndim > 2 and snapshots.shape[-1] == 2 and snapshots.dtype.kind != "c"
    way = "snapshots[..., 0] + 1j * snapshots[..., 1]" if pairs else "all antennas, as last axis"
    if valid and snapshots.size == 0:
        way = "one scene, snapshot and antenna or more: an axis has length 0"
    require(valid and snapshots.size > 0, rule, f"{list(snapshots.shape)}", f"Give {way}.")
    kind = f"{snapshots.dtype}"
    iq = f"Give {way}." if pairs else "Give I + jQ of every antenna."
    require(snapshots.dtype.kind == "c", "snapshots are complex", kind, iq)
    size = snapshots.shape[0] if snapshots.ndim == 3 else 1
    _require_order(arrays, num_elements)
    return size, snapshots.shape[-2], snapshots.shape[-1]


def _require_order(arrays: Arrays, num_elements: int) -> None:
    """Raise ConfigError if another order of the axes of snapshots, and no more than that, suits
    both channel [B, M, N] and codes [B, L, N]."""
    snapshots, channel, codes = (arrays[name] for name in SIGNALS)

    def suits(shape: tuple[int, ...]) -> bool:
        *batch, length, antennas = shape
        return all(
            value.shape in ((size, num_elements), (*batch, size, num_elements))
            for value, size in ((channel, antennas), (codes, length))
        )

    orders = itertools.permutations(range(snapshots.ndim))
    fitting = [each for each in orders if suits(tuple(snapshots.shape[i] for i in each))]
    right = not fitting or tuple(range(snapshots.ndim)) in fitting
    require(
        right,
        "snapshots has shape [B, L, M] or [L, M]: scenes, snapshots, antennas, in this order",
        f"{list(snapshots.shape)}, where channel has {list(channel.shape)} ([B, M, N]) and codes "
        f"{list(codes.shape)} ([B, L, N])",
        "" if right else f"Give snapshots.transpose({', '.join(map(str, fitting[0]))}).",
    )


def checked(
    arrays: Arrays, name: str, size: int, shape: tuple[int, ...], *, gaps: bool = False
) -> np.ndarray:
    """Return the array as [B, *shape], once it is numeric, finite (or NaN if `gaps`) and fits."""
    value = arrays[name]
    may_be_complex = name in (*SIGNALS, "noise_covariance")
    kinds = ("iufc" if may_be_complex else "iuf") + ("b" if name == "codes" else "")
    numbers = "complex" if may_be_complex else "float"
    way = f"{name}.real" if value.dtype.kind == "c" else f"{name}.astype({numbers})"
    rule = f"{name} holds {'' if may_be_complex else 'real '}numbers"
    require(value.dtype.kind in kinds, rule, f"{value.dtype}", f"Give {way}.")
    full = (size, *shape)
    require(
        value.shape in (full, shape),
        f"{name} has shape {list(full)}" + (f" or {list(shape)}" if shape else " or is a scalar"),
        f"{list(value.shape)}",
        _reordering(name, value.shape, full, shape),
    )
    valid = np.isfinite(value) | (np.isnan(value) if gaps else False)
    bad = int(value.size - np.count_nonzero(valid))
    require(bad == 0, f"{name} is finite", f"{bad} entries that are not", _repair(name, valid))
    return np.broadcast_to(value, full)


AXES = {
    "channel": ("scenes", "antennas", "elements"),
    "codes": ("scenes", "snapshots", "elements"),
}
"""What the axes of arrays count."""


def _reordering(
    name: str, got: tuple[int, ...], full: tuple[int, ...], shape: tuple[int, ...]
) -> str:
    """Return the remedy for an array of another shape: the order of axes that fits, if any."""
    fitting = [
        order
        for order in itertools.permutations(range(len(got)))
        if tuple(got[axis] for axis in order) in (full, shape)
    ]
    if len(fitting) == 1:
        return f"Give {name}.transpose({', '.join(map(str, fitting[0]))})."
    for wanted in (full, shape):
        if [n for n in got if n > 1] == [n for n in wanted if n > 1]:
            return f"Give {name}.reshape({wanted})."
    for wanted in (full, shape):
        pairs = list(zip(got, wanted, strict=True)) if len(got) == len(wanted) else []
        wrong = [i for i, (have, need) in enumerate(pairs) if have != need]
        if len(wrong) == 1 and name in AXES:
            (have, need), axis = pairs[wrong[0]], AXES[name][wrong[0] - len(got)]
            return (
                f"There are {need} {axis} by snapshots and panel, and {have} by {name}: keep "
                "those that all arrays have, in the same order."
            )
    return "It must match snapshots [B, L, M] and the N elements of the panel."


def _repair(name: str, valid: np.ndarray) -> str:
    """Return the remedy for entries that are not finite."""
    if name == "noise_variance":
        return "Leave the array out if it is not known."
    if name == "codes":
        return "Give 0 where an element reflects nothing; drop scenes whose codes are not known."
    if name == "range_m":
        return f"Give sources far away {FAR_M:g} m: range_m.clip(max={FAR_M:g})."
    part = broken_part(name, valid) if name in ("snapshots", "channel") else ""
    if part:
        return part
    if valid.ndim < 3:
        return "Drop these scenes."
    scenes = np.flatnonzero(~valid.reshape(len(valid), -1).all(-1))
    return f"Drop these scenes ({', '.join(map(str, scenes[:4]))} first)."


def broken_part(name: str, valid: np.ndarray) -> str:
    """Return the remedy for entries that are bad in every scene, or "".

    Dropping antennas, snapshots or elements that are not measured keeps the scenes.

    Args:
        valid: of snapshots or channel, [*batch, L or M, M or N].
    """
    bad = ~valid.reshape(-1, *valid.shape[-2:])
    if not bad.any((1, 2)).all():
        return ""
    rows, columns = (np.flatnonzero(bad.any((0, axis))).tolist() for axis in (2, 1))
    of_columns = len(columns) <= len(rows) and len(columns) < valid.shape[-1]
    if not of_columns and len(rows) == valid.shape[-2]:
        return ""
    if name == "channel" and of_columns:
        return (
            f"Mask the elements {columns}: channel[..., {columns}] = 0 and "
            f"element_mask = ~np.isin(np.arange({valid.shape[-1]}), {columns}), one more array of "
            "the recording (in a mapping of convert: element_mask = [true, false, ...])."
        )
    if name == "snapshots" and not of_columns:
        return (
            f"Drop the snapshots {rows}: np.delete(snapshots, {rows}, axis=-2) and "
            f"np.delete(codes, {rows}, axis=-2)."
        )
    gone = columns if name == "snapshots" else rows
    return (
        f"Drop the antennas {gone}: np.delete(snapshots, {gone}, axis=-1), np.delete(channel, "
        f"{gone}, axis=-2), and both axes of noise_covariance, if it is given."
    )


def recorded_truth(arrays: Arrays, size: int) -> Sources | None:
    """Return the true sources, active ones first; None if none are given."""
    given = [name for name in COORDINATES if name in arrays]
    correlation = 0.0
    if "source_correlation" in arrays:
        correlation = float(checked(arrays, "source_correlation", 1, ())[0])
        rule = "0 <= source_correlation < 1"
        require(0 <= correlation < 1, rule, f"{correlation}", "Give a coefficient.")
    if not given:
        extra = [name for name in ("power", "source_correlation") if name in arrays]
        rule, way = "places are given if power or source_correlation is", "or leave these out"
        truth = ", ".join(COORDINATES)
        require(not extra, rule, f"only {extra}", f"Add {truth}, {way}.")
        return None
    require(
        len(given) == len(COORDINATES),
        "azimuth, elevation and range_m are given together",
        f"only {given}",
        "Add the others, or leave all out.",
    )
    most = arrays["azimuth"].shape[-1] if arrays["azimuth"].ndim else 0
    require(most >= 1, "azimuth has shape [B, K] or [K]", "a scalar or nothing", "Give a list.")
    named = {n: checked(arrays, n, size, (most,), gaps=True) for n in COORDINATES}
    active = np.isfinite(named["azimuth"])
    power = active.astype(float)
    if "power" in arrays:
        named["power"] = power = checked(arrays, "power", size, (most,), gaps=True)
    same = all(bool((np.isfinite(v) == active).all()) for v in named.values())
    rule = "azimuth, elevation, range_m and power are NaN for the same sources"
    require(same, rule, "different gaps", "Use NaN for all of a missing source.")
    for name in ("azimuth", "elevation"):
        largest = float(np.max(np.abs(named[name]), where=active, initial=0))
        rule = f"abs({name}) < π/2 [rad], from the panel's normal"
        way = f"Give np.deg2rad({name}) for degrees"
        if largest <= math.pi:
            way += f", {name} - np.pi / 2 for radians from the panel's edge"
        require(largest < math.pi / 2, rule, f"{largest:.4g}", f"{way}.")
    for name, value in (("range_m", named["range_m"]), ("power", power)):
        least = float(np.min(value, where=active, initial=np.inf))
        require(least > 0, f"{name} > 0", f"{least:.4g}", "Use NaN for a missing source.")
    order = np.argsort(~active, axis=-1, kind="stable")  # active ones first

    def tensor(value: np.ndarray, placeholder: float) -> Tensor:
        filled = np.where(active, value, placeholder)
        return torch.from_numpy(np.take_along_axis(filled, order, -1).astype(np.float64))

    return Sources(
        azimuth=tensor(named["azimuth"], 0.0),
        elevation=tensor(named["elevation"], 0.0),
        range_m=tensor(
            named["range_m"], float(np.max(named["range_m"], where=active, initial=1.0))
        ),
        power=tensor(power, 0.0),
        active=torch.from_numpy(np.take_along_axis(active, order, -1)),
        correlation=correlation,
    )


def recorded_noise_covariance(arrays: Arrays, size: int, antennas: int) -> Tensor | None:
    """Return Q, [B, M, M], or None if the noise is white."""
    if "noise_covariance" not in arrays:
        return None
    value = checked(arrays, "noise_covariance", size, (antennas, antennas)).astype(np.complex128)
    tolerance = 1e-5  # single precision files are welcome
    lower, upper = np.tril(value, -1), np.triu(value, 1)
    half = bool(lower.any()) != bool(upper.any())
    triangle = "np.tril(Q, -1)" if lower.any() else "np.triu(Q, 1)"
    require(
        bool((np.abs(value - value.conj().swapaxes(-1, -2)) < tolerance).all()),
        "noise_covariance is Hermitian",
        "a triangle alone" if half else "one that is not",
        f"Add the other triangle: Q + np.swapaxes({triangle}, -1, -2).conj()."
        if half
        else "Average it with its conjugate transpose: (Q + np.swapaxes(Q, -1, -2).conj()) / 2.",
    )
    diagonal = np.diagonal(value, axis1=-2, axis2=-1).real
    require(
        bool((diagonal > 0).all()),
        "noise_covariance has a positive diagonal, the noise powers of the antennas",
        f"{diagonal.min():.4g}",
        "Leave the array out for white noise; leave an antenna without noise out of snapshots and "
        "channel.",
    )
    even = bool((np.ptp(diagonal, axis=-1) < tolerance * diagonal.max()).all())
    require(
        bool((np.abs(diagonal - 1) < tolerance).all()),
        "noise_covariance has a unit diagonal",
        f"{diagonal.min():.4g} ... {diagonal.max():.4g}",
        "Divide it by its diagonal, and multiply noise_variance by that."
        if even
        else "With d = np.sqrt(np.diagonal(Q, axis1=-2, axis2=-1).real), divide Q by "
        "d[..., :, None] * d[..., None, :], snapshots by d[..., None, :], channel by "
        "d[..., :, None].",
    )
    least = float(np.linalg.eigvalsh(value).min())
    load = 2 * (tolerance - least)
    require(
        least > tolerance,
        "noise_covariance is positive definite",
        f"eigenvalue {least:.3g}",
        f"Load its diagonal: (Q + {load:.2g} * np.eye({antennas})) / (1 + {load:.2g}).",
    )
    return torch.from_numpy(value)


def require_scale(name: str, peaks: np.ndarray, dtype: torch.dtype = torch.complex64) -> None:
    """Raise ConfigError where sums of squares would overflow or vanish in that precision.

    Args:
        name: of the array.
        peaks: its largest modulus in every scene.
    """
    also = {
        "snapshots": "noise_variance and power by the square of that",
        "channel": "multiply power by the square of that",
        "codes": "multiply channel by that",
    }
    info = torch.finfo(dtype)
    low, high = (info.tiny * 1e4) ** 0.5, (info.max * 1e-4) ** 0.5
    peaks = peaks.astype(np.float64)  # bounds may exceed the precision of the array
    least, most = peaks.min(initial=np.inf), peaks.max(initial=0)
    require(
        bool((peaks > low).all() and (peaks < high).all()),
        f"{low:.0e} < largest of {name} < {high:.0e}",
        f"{least:.3g} ... {most:.3g}",
        f"In every scene, divide it by its largest modulus, and {also[name]}.",
    )
