"""Trainings that begin with the weights of a model, of another panel or region if need be.

The configuration names the model's file and its SHA-256, so that the training can be repeated, and
is refused once the file is another one. Optimiser and schedule begin afresh.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from trainer.config import ConfigError, TrainConfig
from trainer.networks import transfer

from .checkpoint import UNREADABLE, TrainState


def started_config(state: Path, params: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a training that begins with the weights of a checkpoint.

    Args:
        params: of the training; those of the network that are missing are the checkpoint's.

    Raises:
        ConfigError: if the checkpoint cannot be read, or a rule is broken.
    """
    begun = TrainState.load(state)
    network = {
        name: value
        for name, value in begun.params.items()
        if name.startswith("network.") or name == "covariance.blend_bound"
    }
    config = TrainConfig.from_params({**network, **params})
    planes = transfer(begun.config, config.scene).network.planes
    return replace(
        config,
        network=replace(config.network, planes=planes),
        start_from=str(state.resolve()),
        start_sha256=hashlib.sha256(state.read_bytes()).hexdigest(),
    )


def load_start(network: nn.Module, config: TrainConfig) -> None:
    """Load the weights that a training begins with, if its configuration names some.

    Raises:
        ConfigError: if they cannot be read, are not those that are named, or do not fit.
    """
    if config.start_from is None:
        return
    file = Path(config.start_from)
    state = TrainState.load(file)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != config.start_sha256:
        raise ConfigError(
            f"a training begins with the weights that its configuration names, but the SHA-256 of "
            f"{file} is {found[:12]}... and start_sha256 {str(config.start_sha256)[:12]}... "
            "Restore the file, or start anew with `--start-from`."
        )
    try:
        network.load_state_dict(state.network)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"a training begins with weights of its own network, but those of {file} do not fit "
            f"({reason}). Leave `--set network...` out: the model has it."
        ) from error
