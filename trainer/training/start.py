"""Trainings that begin with the weights of a model, of another panel or region if need be.

The configuration names the SHA-256 of the model's checkpoint, so that the training can be
repeated, and is refused with another one. Its content is that of a file which the configuration
names too, or given (`give_start`), as the driver of a search does. Optimiser and schedule begin
afresh. A curriculum is a chain of such trainings, or searches: each is resumed, replayed and
recorded as any other.
"""

import hashlib
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from trainer.config import ConfigError, SceneConfig, TrainConfig
from trainer.networks import transfer

from .checkpoint import UNREADABLE, TrainState

_given: dict[str, bytes] = {}
"""Checkpoints by their SHA-256."""


def give_start(content: bytes) -> None:
    """Take a checkpoint's content for the trainings that name its SHA-256; nothing if empty."""
    if content:
        _given[hashlib.sha256(content).hexdigest()] = content


def start_params(state: Path, scene: SceneConfig) -> dict[str, Any]:
    """Return the parameters of trainings on a scene that begin with a checkpoint's weights: its
    network's, and `start_sha256`.

    Raises:
        ConfigError: if the checkpoint cannot be read.
    """
    begun = TrainState.load(state)
    network = {
        name: value
        for name, value in begun.params.items()
        if name.startswith("network.") or name == "covariance.blend_bound"
    }
    network.pop("network.planes", None)
    planes = transfer(begun.config, scene).network.planes
    kept = {} if planes is None else {"network.planes": planes}
    return network | kept | {"start_sha256": hashlib.sha256(state.read_bytes()).hexdigest()}


def started_config(state: Path, params: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration of a training that begins with the weights of a checkpoint.

    Args:
        params: of the training; those of the network that are missing are the checkpoint's.

    Raises:
        ConfigError: if the checkpoint cannot be read, or a rule is broken.
    """
    own = {name: value for name, value in params.items() if name.startswith("scene.")}
    begun = start_params(state, TrainConfig.from_params(own).scene)
    config = TrainConfig.from_params({**begun, **params})
    return replace(config, start_from=str(state.resolve()))


def load_start(network: nn.Module, config: TrainConfig) -> None:
    """Load the weights that a training begins with, if its configuration names some.

    Raises:
        ConfigError: if they cannot be read, are not those that are named, or do not fit.
    """
    sha256 = config.start_sha256
    if sha256 is None:
        return
    content = _given.get(sha256) or _read(config.start_from, sha256)
    try:
        network.load_state_dict(TrainState.load(io.BytesIO(content)).network)
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"a training begins with weights of its own network, but those of SHA-256 "
            f"{sha256[:12]}... do not fit ({reason}). Leave `--set network...` out: the model has "
            "it."
        ) from error


def _read(file: str | None, sha256: str) -> bytes:
    """Return the content of a checkpoint's file; raise ConfigError if it is not as named."""
    if file is None:
        raise ConfigError(
            f"a training begins with the weights of SHA-256 {sha256[:12]}..., but no file with "
            "them is named. A run has one, `start.pt`: name it with `--set start_from=FILE`."
        )
    TrainState.load(Path(file))  # says what is wrong with a file that is none
    content = Path(file).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ConfigError(
            f"a training begins with the weights that its configuration names, but the SHA-256 of "
            f"{file} is {found[:12]}... and start_sha256 {sha256[:12]}... Restore the file, or "
            "start anew with `--start-from`."
        )
    return content
