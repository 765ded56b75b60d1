"""Training states on disk: written atomically, read without unpickling code.

A checkpoint holds all that a training needs to go on as if it had never stopped: weights,
optimiser, schedule, random generator, and the configuration they belong to.
"""

import io
import pickle
import struct
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self, get_origin, get_type_hints

import torch
from torch import nn

from trainer.atomic import write_atomically
from trainer.config import ConfigError, TrainConfig
from trainer.networks import build_network

UNREADABLE = (
    *(OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile, struct.error),
    *(ValueError, TypeError, LookupError, AttributeError, ImportError, OverflowError),
)
"""Exceptions that reading overwritten bytes raises."""


@dataclass(frozen=True)
class TrainState:
    """State of a training between two epochs; its tensors are those in use, so save it at once.

    Attributes:
        params: the configuration, as `TrainConfig.to_params` gives it.
        epoch, step: epochs and optimiser steps done.
        network, optimizer, schedule: their `state_dict`s.
        generator: state of the generator that training scenes are drawn from.
    """

    params: dict[str, Any]
    epoch: int
    step: int
    network: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]
    generator: torch.Tensor

    @property
    def config(self) -> TrainConfig:
        """The configuration the state belongs to."""
        return TrainConfig.from_params(self.params)

    def save(self, path: Path) -> None:
        """Write the state to one file, atomically and synced to the disk."""
        content = io.BytesIO()
        torch.save({f.name: getattr(self, f.name) for f in fields(self)}, content)
        write_atomically(path, content.getvalue(), sync=True)

    @classmethod
    def load(cls, path: Path | io.BytesIO, device: str | torch.device = "cpu") -> Self:
        """Read a state, a file or its content, onto `device`.

        Raises:
            ConfigError: if the file is missing, damaged, or not a checkpoint of this project.
        """
        try:
            data = torch.load(path, map_location=device, weights_only=True)
        except FileNotFoundError:
            raise ConfigError(f"a checkpoint must exist, but {path} does not.") from None
        except UNREADABLE as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ConfigError(
                f"a checkpoint must be readable, but {path} is not ({reason}). Train again."
            ) from error
        found = data if isinstance(data, dict) else {}
        kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(cls).items()}
        if others := sorted(found.keys() - kinds.keys()):
            raise ConfigError(
                f"a checkpoint must hold {', '.join(kinds)}, but {path} has `{others[0]}` too. "
                "Was it written by another version?"
            )
        for name, kind in kinds.items():
            if not isinstance(found.get(name), kind):
                raise ConfigError(
                    f"a checkpoint must hold {', '.join(kinds)}, but `{name}` of {path} is a "
                    f"{type(found.get(name)).__name__}. Train again."
                )
        # generator states live on the CPU whatever device they steer
        return cls(**found | {"generator": found["generator"].cpu()})


def restore_network(path: Path, device: torch.device) -> tuple[TrainConfig, nn.Module]:
    """Return the configuration and the trained network of a checkpoint, in evaluation mode.

    Raises:
        ConfigError: if it is damaged: unreadable, of other sizes, or not finite.
    """
    state = TrainState.load(path, device)
    try:
        config = state.config
        network = build_network(config).to(device)
        network.load_state_dict(state.network)
    except ConfigError:
        raise
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"a checkpoint's weights must fit its configuration, but those of {path} do not "
            f"({reason}). Restore it from a copy, or train again."
        ) from error
    wrong = [name for name, p in network.named_parameters() if not torch.isfinite(p).all()]
    if wrong:
        raise ConfigError(
            f"a network's weights must be finite, but `{wrong[0]}` of {path} is not: it is "
            "damaged. Restore it from a copy, or train again."
        )
    return config, network.eval()
