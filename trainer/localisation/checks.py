"""Checks of what goes into a localisation and of what comes out of it."""

import torch
from torch import Tensor

from trainer.config import ConfigError, require
from trainer.scenes import Scenes, require_reflection, require_scale
from trainer.training import Model


def check_scenes(scenes: Scenes) -> None:
    """Check scenes made in memory like those of a recording.

    Silent scenes are allowed: none of their sources is resolved.

    Raises:
        ConfigError: if an array is not complex, finite, of the right shape and of a usable scale,
            or codes are no reflection coefficients.
    """
    shape, elements = scenes.snapshots.shape, scenes.panel.num_elements
    valid = len(shape) == 3 and scenes.snapshots.numel() > 0
    require(valid, "snapshots has shape [B, L, M]", f"{list(shape)}", "Put antennas last.")
    size, snapshots, antennas = shape
    shapes = {
        "snapshots": shape,
        "channel": (size, antennas, elements),
        "codes": (size, snapshots, elements),
    }
    for name, expected in shapes.items():
        value = getattr(scenes, name)
        rule = f"{name} has shape {list(expected)}"
        fits = "It must match snapshots [B, L, M] and the elements of the panel."
        require(value.shape == expected, rule, f"{list(value.shape)}", fits)
        require(value.is_complex(), f"{name} is complex", f"{value.dtype}", "Convert it.")
        peaks = value.abs().flatten(1).amax(-1)
        bad = (~torch.isfinite(peaks)).nonzero().flatten().tolist()
        which = f"{len(bad)} scenes that are not, {', '.join(map(str, bad[:4]))} first"
        require(not bad, f"{name} is finite", which, "Leave these scenes out.")
        require_scale(name, peaks[peaks > 0].cpu().numpy())
    require_reflection(scenes.codes.cpu().numpy())


def require_finite_output(values: dict[str, Tensor], model: Model) -> None:
    """Check that all numbers are finite.

    Raises:
        ConfigError: if one is not.
    """
    for name, value in values.items():
        bad = (~torch.isfinite(value)).flatten(1).any(-1)
        if bad.any():
            weights = all(torch.isfinite(p).all() for p in model.network.parameters())
            way = "Leave those scenes out" if weights else "It is damaged: restore it from a copy"
            raise ConfigError(
                f"a model's estimates must be finite, but its {name} is not in {int(bad.sum())} "
                f"of {len(bad)} scenes. {way}."
            )
