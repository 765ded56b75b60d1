"""Model folders: a trained network that can be copied, shared, and used by `localise`.

    state.pt       state of the best epoch: the weights, and the configuration they belong to
    config.json    that configuration for people and `--config`, and the calibration of confidence
    model_card.md  purpose, results on held-out scenes, origin

`python -m search.run` leaves one in `runs/<name>/best`, `python -m trainer train --out X` one in
`X/best`. The folder appears whole. No folder can replace another in one step: a reader sees the
old one, for an instant none, then the new one. An export that is killed in that instant leaves the
old one as `.best.old`, until the next export. `config.json` has the SHA-256 of `state.pt`, so that
files of two models, or overwritten bytes, are noticed.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from trainer.config import ConfigError, TrainConfig
from trainer.covariance import steering_dictionary
from trainer.evaluation import (
    NUM_COEFFICIENTS,
    Calibration,
    calibrate,
    distance_to_limit,
    evaluate_network,
)
from trainer.intervals import Interval, mean_errors
from trainer.limits import snr_of_limit
from trainer.record import STATE_FILE

from .card import model_card
from .checkpoint import TrainState, restore_network
from .loop import resolve_device

CONFIG_FILE = "config.json"
CARD_FILE = "model_card.md"
MODEL_FOLDER = "best"
"""Name of the model folder in the folder of a search or a training."""


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
    """Measurements of a checkpoint for its model folder; they take longer than the rest of it.

    Attributes:
        calibration: of its confidence.
        rows: `EvaluationRow`s on the held-out scenes as dictionaries, of MUSIC alone (`network`)
            and refined as `localise` does (`network+scoring` or `network+judged`).
        scenes: the errors per scene behind them, a dictionary each.
        distances: `Interval`s of their distance to the limit, by estimator, and `snr_db`, the SNRs
            that it is the mean over; empty if the limit is not kept for these scenes.
    """

    calibration: Calibration
    rows: list[dict[str, Any]]
    scenes: list[dict[str, Any]]
    distances: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Rebuild it from its `dataclasses.asdict`."""
        return cls(**{**plain, "calibration": Calibration(**plain["calibration"])})


def evaluate_model(state: Path) -> ModelEvaluation:
    """Evaluate a checkpoint on held-out scenes, and calibrate its confidence.

    Raises:
        ConfigError: if the checkpoint cannot be read.
    """
    config, network = restore_network(state, torch.device("cpu"))
    network = network.to(resolve_device("cpu" if config.device == "cpu" else "auto"))
    found = [evaluate_network(network, config, refine=refine) for refine in (False, True)]
    at = {"snr_db": snr_of_limit(config)}
    distances = {one.scenes.estimator: distance_to_limit(config, one.scenes) for one in found}
    return ModelEvaluation(
        calibrate(network, config),
        [asdict(row) for one in found for row in one.rows],
        [row for one in found for row in one.scenes.rows()],
        {name: asdict(found) | at for name, found in distances.items() if found},
    )


def export_model(
    state: Path,
    folder: Path,
    *,
    about: Mapping[str, Any],
    others: Mapping[str, Interval] | None = None,
    evaluation: ModelEvaluation | None = None,
) -> None:
    """Make a model folder of a checkpoint.

    Args:
        about: origin, as `provenance` returns it.
        others: mean capped errors of other estimators on the same held-out scenes, over the SNRs
            of the objective and K, by name, for the card.
        evaluation: of this checkpoint; by default `evaluate_model` makes it.

    Raises:
        ConfigError: if the checkpoint cannot be read, or the folder cannot be made.
    """
    evaluation = evaluation or evaluate_model(state)
    config, network = restore_network(state, torch.device("cpu"))
    snr_db = config.evaluation.objective_snr_db
    card = model_card(
        TrainState.load(state),
        evaluation.rows,
        evaluation.calibration,
        means={**mean_errors(evaluation.scenes, snr_db), **(others or {})},
        distances=evaluation.distances,
        about=about,
        size=sum(parameter.numel() for parameter in network.parameters()),
        dictionary=steering_dictionary(config.scene, torch.get_default_dtype()),
    )
    record = {
        "params": config.to_params(),
        "confidence": asdict(evaluation.calibration),
        "state_sha256": hashlib.sha256(state.read_bytes()).hexdigest(),
    }
    hidden = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(hidden, ignore_errors=True)  # left by an export that was killed
    try:
        hidden.mkdir(parents=True)
        shutil.copyfile(state, hidden / STATE_FILE)
        (hidden / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n")
        (hidden / CARD_FILE).write_text(card, encoding="utf-8")
        _replace(folder, hidden)
    except OSError as error:
        raise ConfigError(
            f"a model folder must be writable, but {folder} is not ({error.strerror}). Make room, "
            "or choose another folder."
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _replace(folder: Path, new: Path) -> None:
    """Put `new` in the place of `folder`, which stays if that fails."""
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
    """Return the model folder that a path stands for: itself, or the one in it.

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
    """Read a model folder, or the one in the folder of a search or a training.

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
    """Return the recorded calibration, or raise ValueError unless all its numbers are finite."""
    made = Calibration(**record)
    sets, numbers = [made.coefficients], [made.error, made.count]
    if made.asked_coefficients is not None:
        sets.append(made.asked_coefficients)
    numbers += [number for each in sets for number in each]
    whole = all(len(each) == NUM_COEFFICIENTS for each in sets)
    if not whole or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{NUM_COEFFICIENTS} finite coefficients are needed, not {record}")
    return made
