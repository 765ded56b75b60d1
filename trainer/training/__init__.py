"""Training, replay of a recorded training, and the models that it leaves.

`train` yields a report per epoch and raises `Diverged`; `replay_trial` trains a recorded trial
again. `export_model` makes a model folder of a checkpoint, `load_model` reads it.
"""

from .checkpoint import TrainState, restore_network
from .loop import CLIP_NORM, EpochReport, TrainingLoop, initial_network, resolve_device, train
from .model import (
    MODEL_FOLDER,
    Model,
    ModelEvaluation,
    evaluate_model,
    export_model,
    find_model,
    load_model,
)
from .replay import print_epochs, replay_to_step, replay_trial
from .start import give_start, start_params, started_config
from .terms import eigengap_hinge, eigengap_term, hinge_rows, loss_terms
