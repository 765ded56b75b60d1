"""Recorded scenes: a NumPy `.npz` file whose arrays are checked before use.

B scenes with L snapshots of M antennas and a panel of N elements. An array that all scenes share
needs no leading B, and none does if B = 1. Pickled objects are refused.

    array              shape       unit                 meaning
    snapshots          [B, L, M]   any, complex         y
    channel            [B, M, N]   y per unit source    H, from the panel to the antennas
    codes              [B, L, N]   1, |c| <= 1          c, complex; 0 where an element is dead
    wavelength_m       scalar      m
    num_horizontal, num_vertical   1, scalars           elements per row, per column; element n is
    spacing_m          scalar      m                    in column n % num_horizontal
    positions_m        [N, 2]      m                    instead of these three: right and up
    origin_m           [2]         m                    optional; the mean of positions_m
    element_mask       [N]         booleans             optional; False where an element is dead
    azimuth, elevation [B, K]      rad                  optional truth, all three or none;
    range_m            [B, K]      m                    NaN where a scene has fewer sources
    power              [B, K]      y² per unit gain     optional; 1 if truth is given without it
    source_correlation scalar      1                    optional; 0
    noise_variance     [B]         y²                   optional; needed for the bound
    noise_covariance   [B, M, M]   1, unit diagonal     optional; identity

Places (azimuth, elevation, range_m), of the truth and of estimates, refer to the centre of the
panel: that of the lattice, or the mean of positions_m, not their own origin.
origin_m, in the coordinates of positions_m, is another point that they refer to, such as a corner.
Elements that are masked, or whose code is 0 in all snapshots of all scenes, are left out of the
panel; they still count for its centre. Do not mask an element of some scenes only: give it code 0.

The SNR is not stored: truth and noise_variance give it, by the definition in `simulation`.
"""

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.atomic import write_output
from trainer.config import ConfigError, did_you_mean, require

from .measurement import Scenes, expected_snr_db
from .recorded_arrays import (
    COORDINATES,
    SIGNALS,
    Arrays,
    checked,
    recorded_noise_covariance,
    recorded_truth,
    require_scale,
    snapshot_sizes,
)
from .recorded_panel import (
    LATTICE,
    PLACED,
    masked_codes,
    recorded_panel,
    require_near_origin,
    require_reflection,
)

OPTIONAL = (
    *(*LATTICE, *PLACED, "element_mask"),
    *(*COORDINATES, "power", "source_correlation", "noise_variance", "noise_covariance"),
)
FOREIGN = (".mat", ".h5", ".hdf5", ".csv", ".txt")
"""Endings of files that `python -m trainer convert` reads."""
LEAST_SHIFT = 0.1
"""Distance in wavelengths of the mean of positions_m from their origin that is worth a line."""


def save_scenes(scenes: Scenes, path: str | Path) -> None:
    """Write scenes to a file that `load_scenes` reads back equal, atomically.

    Raises:
        ConfigError: if it cannot be written.
    """
    path = Path(path)
    require(path.suffix == ".npz", "a recording ends in .npz", f"{path}", "Rename it.")
    panel = scenes.panel
    arrays: dict[str, Any] = {"wavelength_m": panel.wavelength_m}
    if panel.positions_m is None:
        arrays |= {name: getattr(panel, name) for name in LATTICE}
    else:
        arrays |= {"positions_m": np.array(panel.positions_m), "origin_m": np.zeros(2)}
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
    write_output(path, content.getvalue(), "a recording")


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
    panel = recorded_panel(arrays)
    size, snapshots, antennas = snapshot_sizes(arrays, panel.num_elements)
    shapes = {
        "snapshots": (snapshots, antennas),
        "channel": (antennas, panel.num_elements),
        "codes": (snapshots, panel.num_elements),
    }
    signals = {name: checked(arrays, name, size, shapes[name]) for name in SIGNALS}
    require_reflection(signals["codes"])
    signals["codes"] = masked_codes(arrays, signals["codes"])
    variance = np.full(size, np.nan)
    if "noise_variance" in arrays:
        variance = checked(arrays, "noise_variance", size, ())
        known, least = "Leave the array out if it is not known.", variance.min()
        require(bool(least > 0), "noise_variance > 0", f"{least:.4g}", known)
    for name in SIGNALS:
        peaks = np.abs(signals[name]).max(axis=(-2, -1))
        silent = int((peaks == 0).sum())
        require(silent == 0, f"{name} is not all zero", f"{silent} scenes of zeros", "Drop these.")
        require_scale(name, peaks, dtype)
    scenes = Scenes(
        panel,
        snapshots=torch.from_numpy(signals["snapshots"].astype(np.complex128)),
        channel=torch.from_numpy(signals["channel"].astype(np.complex128)),
        codes=torch.from_numpy(signals["codes"].astype(np.complex128)),
        truth=recorded_truth(arrays, size),
        snr_db=torch.full((size,), math.nan, dtype=torch.float64),
        noise_variance=torch.from_numpy(variance.astype(np.float64)),
        noise_covariance=recorded_noise_covariance(arrays, size, antennas),
    )
    scenes = scenes.without_dead_elements()
    require_near_origin(scenes.panel)
    if scenes.truth is not None:
        scenes.snr_db.copy_(expected_snr_db(scenes))
    return scenes.to(device=device, dtype=dtype)


def origin_note(path: str | Path) -> str:
    """Return a line for recordings whose places refer to a mean that is not the origin; or "".

    Reads the panel alone of a file that `load_scenes` has accepted.
    """
    with np.load(path, allow_pickle=False) as file:
        if "positions_m" not in file or "origin_m" in file:
            return ""
        across, up = file["positions_m"].mean(0)[:2]
        if math.hypot(across, up) <= LEAST_SHIFT * float(file["wavelength_m"]):
            return ""
    return (
        f"places refer to the mean of positions_m, ({across:.4g}, {up:.4g}) m from its origin; "
        "give origin_m = [0, 0] to refer to that"
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
    require(
        path.suffix.lower() != ".npy",
        "a recording is an .npz file",
        f"{path}, a single array",
        "Write all arrays into one file, np.savez('FILE.npz', snapshots=..., channel=..., "
        "codes=..., wavelength_m=..., ...), or join .npy files: python -m trainer convert *.npy "
        "--map MAP.toml --out FILE.npz (docs/data.md).",
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
        pickled = "allow_pickle" in str(error)  # advises what is unsafe
        why = "it holds Python objects, or is no file of NumPy" if pickled else error
        raise ConfigError(
            f"A recording must be an .npz file of plain arrays, but {path} is not ({why}). "
            "Write it with numpy.savez."
        ) from None


def _check_names(arrays: Arrays) -> None:
    required = (*SIGNALS, "wavelength_m")
    for name in arrays:
        if name not in required + OPTIONAL:
            near = did_you_mean(name, required + OPTIONAL) or " Leave it out."
            raise ConfigError(f"`{name}` is no array of a recording.{near}")
    missing = [name for name in required if name not in arrays]
    require(not missing, f"{', '.join(required)} are given", f"no {missing}", "Add them.")
