"""Training, replaying it, and handing on the model that it leaves."""

from .checkpoint import TrainState
from .hinge_rows import hinges
from .localisation import Localised, localise, on_scene
from .loop import (
    CLIP_NORM,
    EpochReport,
    Training,
    initial_network,
    resolve_device,
    restore_network,
    train,
)
from .model import FOLDER, STATE_FILE, Measured, Model, export, measure
from .replay import BEST_FILE, follow, look, repeat
from .terms import eigengap_hinge, eigengap_term, loss_terms

__all__ = [
    "BEST_FILE",
    "CLIP_NORM",
    "FOLDER",
    "STATE_FILE",
    "EpochReport",
    "Localised",
    "Measured",
    "Model",
    "TrainState",
    "Training",
    "eigengap_hinge",
    "eigengap_term",
    "export",
    "follow",
    "hinges",
    "initial_network",
    "localise",
    "look",
    "loss_terms",
    "measure",
    "on_scene",
    "repeat",
    "resolve_device",
    "restore_network",
    "train",
]
