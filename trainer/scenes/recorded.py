"""Recorded scenes: a NumPy `.npz` file whose arrays are checked before use.

B scenes with L snapshots of M antennas and a panel of N elements. An array that all scenes share
needs no leading B, and none does if B = 1. Pickled objects are refused.

    array              shape       unit                 meaning
    snapshots          [B, L, M]   any, complex         y
    channel            [B, M, N]   y per unit source    H, from the panel to the antennas
    codes              [B, L, N]   1, unit modulus      c; element n is column n % num_horizontal
    num_horizontal, num_vertical   1, scalars           elements per row, per column
    spacing_m, wavelength_m        m, scalars
    azimuth, elevation [B, K]      rad                  optional truth, all three or none;
    range_m            [B, K]      m                    NaN where a scene has fewer sources
    power              [B, K]      y² per unit gain     optional; 1 if truth is given without it
    source_correlation scalar      1                    optional; 0
    noise_variance     [B]         y²                   optional; needed for the bound
    noise_covariance   [B, M, M]   1, unit diagonal     optional; identity

The SNR is not stored: truth and noise_variance give it, by the definition in `simulation`.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.atomic import write_atomically
from trainer.config import ConfigError, did_you_mean, require

from .geometry import Panel
from .measurement import Scenes, Sources, expected_snr_db

GEOMETRY = ("num_horizontal", "num_vertical", "spacing_m", "wavelength_m")
SIGNALS = ("snapshots", "channel", "codes")
COORDINATES = ("azimuth", "elevation", "range_m")
OPTIONAL = (*COORDINATES, "power", "source_correlation", "noise_variance", "noise_covariance")
FOREIGN = (".mat", ".h5", ".hdf5", ".csv", ".txt")
"""Endings of files that `python -m trainer convert` reads."""
CODE_TOLERANCE = 1e-3
"""Largest deviation of a code's modulus from 1: estimators use G Gᴴ = H Hᴴ."""

Arrays = Mapping[str, np.ndarray]


def save_scenes(scenes: Scenes, path: str | Path) -> None:
    """Write scenes to a file that `load_scenes` reads back equal, atomically.

    Raises:
        ConfigError: if it cannot be written.
    """
    path = Path(path)
    require(path.suffix == ".npz", "a recording ends in .npz", f"{path}", "Rename it.")
    arrays: dict[str, Any] = asdict(scenes.panel)
    arrays |= {name: _numpy(getattr(scenes, name)) for name in SIGNALS}
    if scenes.truth is not None:
        active = _numpy(scenes.truth.active)
        for name in (*COORDINATES, "power"):
            arrays[name] = np.where(active, _numpy(getattr(scenes.truth, name)), np.nan)
        arrays["source_correlation"] = scenes.truth.correlation
    if bool(torch.isfinite(scenes.noise_variance).all()):
        arrays["noise_variance"] = _numpy(scenes.noise_variance)
    if scenes.noise_covariance is not None:
        arrays["noise_covariance"] = _numpy(scenes.noise_covariance)
    content = io.BytesIO()
    np.savez(content, **arrays)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        raise ConfigError(
            f"a recording goes to a file that can be written, but {path} is not "
            f"({error.strerror}). Choose another."
        ) from error


def load_scenes(
    path: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.complex64,
) -> Scenes:
    """Read and check a recording.

    Raises:
        ConfigError: if the file cannot be read or an array breaks a rule; the message names it.
    """
    return scenes_of_arrays(_read(Path(path)), device=device, dtype=dtype)


def scenes_of_arrays(
    arrays: Arrays,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.complex64,
) -> Scenes:
    """Check the arrays of a recording and return its scenes.

    Raises:
        ConfigError: if an array is missing, unknown or breaks a rule; the message names it.
    """
    _check_names(arrays)
    panel = _panel(arrays)
    size, snapshots, antennas = _sizes(arrays["snapshots"])
    shapes = {
        "snapshots": (snapshots, antennas),
        "channel": (antennas, panel.num_elements),
        "codes": (snapshots, panel.num_elements),
    }
    signals = {name: _array(arrays, name, size, shapes[name]) for name in SIGNALS}
    modulus = np.abs(signals["codes"])
    require(
        bool((np.abs(modulus - 1) < CODE_TOLERANCE).all()),
        "abs(codes) == 1",
        f"moduli in [{modulus.min():.4g}, {modulus.max():.4g}]",
        "Divide codes by their modulus; a gain common to all belongs into channel.",
    )
    variance = np.full(size, np.nan)
    if "noise_variance" in arrays:
        variance = _array(arrays, "noise_variance", size, ())
        known, least = "Leave the array out if it is not known.", variance.min()
        require(bool(least > 0), "noise_variance > 0", f"{least:.4g}", known)
    kind = signals["snapshots"].dtype.kind
    rule = "snapshots are complex"
    require(kind == "c", rule, f"{signals['snapshots'].dtype}", "Give I + jQ of every antenna.")
    for name in ("snapshots", "channel"):
        peaks = np.abs(signals[name]).max(axis=(-2, -1))
        silent = int((peaks == 0).sum())
        require(silent == 0, f"{name} is not all zero", f"{silent} scenes of zeros", "Drop these.")
        require_scale(name, peaks, dtype)
    scenes = Scenes(
        panel,
        snapshots=torch.from_numpy(signals["snapshots"].astype(np.complex128)),
        channel=torch.from_numpy(signals["channel"].astype(np.complex128)),
        codes=torch.from_numpy(signals["codes"].astype(np.complex128)),
        truth=_truth(arrays, size),
        snr_db=torch.full((size,), math.nan, dtype=torch.float64),
        noise_variance=torch.from_numpy(variance.astype(np.float64)),
        noise_covariance=_noise_covariance(arrays, size, antennas),
    )
    if scenes.truth is not None:
        scenes.snr_db.copy_(expected_snr_db(scenes))
    return scenes.to(device=device, dtype=dtype)


def require_scale(name: str, peaks: np.ndarray, dtype: torch.dtype = torch.complex64) -> None:
    """Raise ConfigError where sums of squares would overflow or vanish in that precision.

    Args:
        name: of the array.
        peaks: its largest modulus in every scene.
    """
    info = torch.finfo(dtype)
    low, high = (info.tiny * 1e4) ** 0.5, (info.max * 1e-4) ** 0.5
    least, most = peaks.min(initial=np.inf), peaks.max(initial=0)
    require(
        bool((peaks > low).all() and (peaks < high).all()),
        f"{low:.0e} < largest of {name} < {high:.0e}",
        f"{least:.3g} ... {most:.3g}",
        "Choose a unit in which it is about 1 (and that of noise_variance alike).",
    )


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of the file."""
    require(
        path.suffix.lower() not in FOREIGN,
        "a recording is an .npz file",
        f"{path}",
        f"Convert it: python -m trainer convert {path} --map MAP.toml --out FILE.npz "
        "(docs/data.md has mappings to copy).",
    )
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise ConfigError(f"A recording must exist, but there is no {path}.") from None
    except (
        OSError,
        ValueError,
        TypeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        raise ConfigError(
            f"A recording must be an .npz file of plain arrays, but {path} is not ({error}). "
            "Write it with numpy.savez."
        ) from None


def _check_names(arrays: Arrays) -> None:
    required = (*SIGNALS, *GEOMETRY)
    for name in arrays:
        if name not in required + OPTIONAL:
            near = did_you_mean(name, required + OPTIONAL)
            raise ConfigError(f"`{name}` is no array of a recording.{near}")
    missing = [name for name in required if name not in arrays]
    require(not missing, f"{', '.join(required)} are given", f"no {missing}", "Add them.")


def _panel(arrays: Arrays) -> Panel:
    values = {}
    for name in GEOMETRY:
        value = arrays[name]
        whole = name.startswith("num_")
        rule = f"{name} is a positive {'whole ' if whole else ''}number"
        valid = value.size == 1 and value.dtype.kind in "iuf" and value.item() > 0
        valid = valid and math.isfinite(value.item()) and (not whole or value.item() % 1 == 0)
        require(valid, rule, f"{value!r}", "Give one number.")
        values[name] = value.item()
    counts = int(values["num_horizontal"]), int(values["num_vertical"])
    return Panel(*counts, float(values["spacing_m"]), float(values["wavelength_m"]))


def _sizes(snapshots: np.ndarray) -> tuple[int, int, int]:
    rule, valid = "snapshots has shape [B, L, M] or [L, M]", snapshots.ndim in (2, 3)
    require(valid and snapshots.size > 0, rule, f"{list(snapshots.shape)}", "Put antennas last.")
    size = snapshots.shape[0] if snapshots.ndim == 3 else 1
    return size, snapshots.shape[-2], snapshots.shape[-1]


def _array(
    arrays: Arrays, name: str, size: int, shape: tuple[int, ...], *, gaps: bool = False
) -> np.ndarray:
    """Return the array as [B, *shape], once it is numeric, finite (or NaN if `gaps`) and fits."""
    value = arrays[name]
    kinds = "iufc" if name in (*SIGNALS, "noise_covariance") else "iuf"
    require(value.dtype.kind in kinds, f"{name} holds numbers", f"{value.dtype}", "Convert it.")
    valid = np.isfinite(value) | (np.isnan(value) if gaps else False)
    bad = int(value.size - np.count_nonzero(valid))
    require(bad == 0, f"{name} is finite", f"{bad} entries that are not", "Drop these scenes.")
    full = (size, *shape)
    require(
        value.shape in (full, shape),
        f"{name} has shape {list(full)}" + (f" or {list(shape)}" if shape else " or is a scalar"),
        f"{list(value.shape)}",
        "It must match snapshots [B, L, M] and num_horizontal x num_vertical elements.",
    )
    return np.broadcast_to(value, full)


def _truth(arrays: Arrays, size: int) -> Sources | None:
    given = [name for name in COORDINATES if name in arrays]
    if not given:
        extra = [name for name in ("power", "source_correlation") if name in arrays]
        require(not extra, "azimuth is given if power is", f"only {extra}", "Add the truth.")
        return None
    require(
        len(given) == len(COORDINATES),
        "azimuth, elevation and range_m are given together",
        f"only {given}",
        "Add the others, or leave all out.",
    )
    most = arrays["azimuth"].shape[-1] if arrays["azimuth"].ndim else 0
    require(most >= 1, "azimuth has shape [B, K] or [K]", "a scalar or nothing", "Give a list.")
    named = {n: _array(arrays, n, size, (most,), gaps=True) for n in COORDINATES}
    active = np.isfinite(named["azimuth"])
    power = active.astype(float)
    if "power" in arrays:
        named["power"] = power = _array(arrays, "power", size, (most,), gaps=True)
    same = all(bool((np.isfinite(v) == active).all()) for v in named.values())
    rule = "azimuth, elevation, range_m and power are NaN for the same sources"
    require(same, rule, "different gaps", "Use NaN for all of a missing source.")
    for name in ("azimuth", "elevation"):
        largest = float(np.max(np.abs(named[name]), where=active, initial=0))
        rule = f"abs({name}) < π/2 [rad]"
        require(largest < math.pi / 2, rule, f"{largest:.4g}", "Convert degrees to radians.")
    for name, value in (("range_m", named["range_m"]), ("power", power)):
        least = float(np.min(value, where=active, initial=np.inf))
        require(least > 0, f"{name} > 0", f"{least:.4g}", "Use NaN for a missing source.")
    correlation = 0.0
    if "source_correlation" in arrays:
        correlation = float(_array(arrays, "source_correlation", 1, ())[0])
        rule = "0 <= source_correlation < 1"
        require(0 <= correlation < 1, rule, f"{correlation}", "Give a coefficient.")
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


def _noise_covariance(arrays: Arrays, size: int, antennas: int) -> Tensor | None:
    if "noise_covariance" not in arrays:
        return None
    value = _array(arrays, "noise_covariance", size, (antennas, antennas)).astype(np.complex128)
    tolerance = 1e-5  # single precision files are welcome
    diagonal = np.diagonal(value, axis1=-2, axis2=-1)
    require(
        bool((np.abs(diagonal - 1) < tolerance).all()),
        "noise_covariance has a unit diagonal",
        f"{diagonal.real.min():.4g} ... {diagonal.real.max():.4g}",
        "Put the scale into noise_variance.",
    )
    require(
        bool((np.abs(value - value.conj().swapaxes(-1, -2)) < tolerance).all()),
        "noise_covariance is Hermitian",
        "one that is not",
        "Average it with its conjugate transpose.",
    )
    least = float(np.linalg.eigvalsh(value).min())
    rule = "noise_covariance is positive definite"
    require(least > tolerance, rule, f"eigenvalue {least:.3g}", "Load its diagonal.")
    return torch.from_numpy(value)
