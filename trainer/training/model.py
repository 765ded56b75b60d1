"""A trained network as a folder that can be handed on, and used by `localisation`.

    state.pt       the state of its best epoch: the weights, and the configuration they belong to
    config.json    that configuration for people and `--config`, and how confidence is calibrated
    model_card.md  what it is, how well it does on held-out scenes, how it was made

`python -m search.run` leaves one in `runs/<name>/best`, `python -m trainer train --out X` one in
`X/best`. The folder appears whole. A folder cannot take the place of another in one go: while one
is replaced a reader sees the old one, for an instant none, then the new one. An export that is
killed in that instant leaves the old one as `.best.old`, until the next export.
`config.json` has the SHA-256 of `state.pt`, so that who reads one file of each, or overwritten
bytes, is told.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from trainer.config import ConfigError, TrainConfig
from trainer.evaluation import NUM_COEFFICIENTS, Calibration, calibrate, evaluate_network

from .card import model_card
from .checkpoint import TrainState, restore_network
from .loop import resolve_device

STATE_FILE = "state.pt"
CONFIG_FILE = "config.json"
CARD_FILE = "model_card.md"
MODEL_FOLDER = "best"
"""Where a model folder lies in what a search or a training leaves behind."""


@dataclass(frozen=True)
class Model:
    """A trained network, ready to be used.

    Attributes:
        config: of its training.
        network: in evaluation mode, on the device it was loaded to.
        calibration: of its confidence.
    """

    config: TrainConfig
    network: nn.Module
    calibration: Calibration


@dataclass(frozen=True)
class ModelEvaluation:
    """What is measured of a checkpoint before it is a model, which takes longest.

    Attributes:
        calibration: of its confidence.
        rows: its scores on the held-out scenes, the source number told and not.
    """

    calibration: Calibration
    rows: list[dict[str, Any]]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """The same again from `dataclasses.asdict`."""
        return cls(Calibration(**plain["calibration"]), plain["rows"])


def evaluate_model(state: Path) -> ModelEvaluation:
    """Calibrates a checkpoint's confidence, and scores it on held-out scenes.

    Raises:
        ConfigError: if the checkpoint cannot be read.
    """
    kept = TrainState.load(state)
    device = resolve_device("cpu" if kept.config.device == "cpu" else "auto")
    config, network = restore_network(state, device)
    readouts = (evaluate_network(network, config, fisher_scoring=on) for on in (False, True))
    rows = [asdict(row) for scored in readouts for row in scored.rows]
    return ModelEvaluation(calibrate(network, config), rows)


def export_model(
    state: Path,
    folder: Path,
    *,
    about: Mapping[str, Any],
    others: Sequence[Mapping[str, Any]] = (),
    measured: ModelEvaluation | None = None,
) -> None:
    """Makes a model folder of a checkpoint: calibrates its confidence and scores it, held out.

    Args:
        about: where it comes from, as `provenance` tells it.
        others: rows of other estimators on the same held-out scenes, for the card.
        measured: what `measure` says of it, where it has been asked.

    Raises:
        ConfigError: if the checkpoint cannot be read, or the folder cannot be made.
    """
    measured = measured or evaluate_model(state)
    kept = TrainState.load(state)
    config, network = restore_network(state, resolve_device("cpu"))
    card = model_card(
        kept,
        [*measured.rows, *others],
        measured.calibration,
        about=about,
        size=sum(parameter.numel() for parameter in network.parameters()),
    )
    record = {
        "params": config.to_params(),
        "confidence": asdict(measured.calibration),
        "state_sha256": hashlib.sha256(state.read_bytes()).hexdigest(),
    }
    hidden = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(hidden, ignore_errors=True)  # of an export that was killed
    try:
        hidden.mkdir(parents=True)
        shutil.copyfile(state, hidden / STATE_FILE)
        (hidden / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n")
        (hidden / CARD_FILE).write_text(card)
        _replace(folder, hidden)
    except OSError as error:
        raise ConfigError(
            f"a model folder must be writable, but {folder} is not ({error.strerror}). Make room, "
            "or choose another folder."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    """Puts `new` in the place of `folder`, which stays if that fails."""
    old = folder.with_name(f".{folder.name}.old")
    had_one = folder.exists()
    if had_one:
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if had_one:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def find_model(path: str | Path) -> Path:
    """The model folder that a path means: itself, or the `best` in what was left behind there.

    Raises:
        ConfigError: if there is none.
    """
    path = Path(path)
    for folder in (path, path / MODEL_FOLDER):
        if (folder / STATE_FILE).is_file() and (folder / CARD_FILE).is_file():
            return folder
    raise ConfigError(
        f"a model is a folder with {STATE_FILE}, {CONFIG_FILE} and {CARD_FILE}, but {path} is "
        "none. A search leaves one in runs/<name>/best, `python -m trainer train --out X` one in "
        "X/best."
    )


def load_model(path: str | Path, device: torch.device | str = "cpu") -> Model:
    """Reads a model folder, or the one in what a search or a training has left.

    Raises:
        ConfigError: if there is none, or it is damaged.
    """
    folder = find_model(path)
    file, state = folder / CONFIG_FILE, folder / STATE_FILE
    try:
        record = json.loads(file.read_text())
        calibration, digest = _calibration(record["confidence"]), record["state_sha256"]
        found = hashlib.sha256(state.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"a model's {CONFIG_FILE} must say how its confidence is calibrated, and the SHA-256 "
            f"of its {STATE_FILE}, but {file} does not ({type(error).__name__}: {error}). Restore "
            "it from a copy."
        ) from error
    if found != digest:
        raise ConfigError(
            f"a model's {STATE_FILE} must be the one that its {CONFIG_FILE} was written for, but "
            f"the SHA-256 of {state} is {found[:12]}... and {str(digest)[:12]}... is recorded: it "
            "is damaged, or was just being replaced. Restore it from a copy, or try again."
        )
    return Model(*restore_network(state, torch.device(device)), calibration)


def _calibration(record: Mapping[str, Any]) -> Calibration:
    """As recorded: a finite coefficient for a constant and for each of three numbers."""
    made = Calibration(**record)
    numbers = [*made.coefficients, made.error, made.count]
    if len(made.coefficients) != NUM_COEFFICIENTS or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{NUM_COEFFICIENTS} finite coefficients are needed, not {record}")
    return made
