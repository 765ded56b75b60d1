"""Training, replaying it, and handing on the model that it leaves."""

from .checkpoint import TrainState, restore_network
from .localisation import Localisation, adapt_network, localise
from .loop import (
    CLIP_NORM,
    EpochReport,
    TrainingLoop,
    initial_network,
    resolve_device,
    train,
)
from .model import MODEL_FOLDER, STATE_FILE, Model, ModelEvaluation, evaluate_model, export_model
from .replay import BEST_FILE, print_epochs, replay_to_step, replay_trial
from .terms import eigengap_hinge, eigengap_term, hinge_rows, loss_terms

__all__ = [
    "BEST_FILE",
    "CLIP_NORM",
    "MODEL_FOLDER",
    "STATE_FILE",
    "EpochReport",
    "Localisation",
    "Model",
    "ModelEvaluation",
    "TrainState",
    "TrainingLoop",
    "adapt_network",
    "eigengap_hinge",
    "eigengap_term",
    "evaluate_model",
    "export_model",
    "hinge_rows",
    "initial_network",
    "localise",
    "loss_terms",
    "print_epochs",
    "replay_to_step",
    "replay_trial",
    "resolve_device",
    "restore_network",
    "train",
]
