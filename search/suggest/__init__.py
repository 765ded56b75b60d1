"""Optuna: samplers, the study of a search, and the trials of earlier sessions and of other runs.
The driver asks it for configurations; the commands read a run's history with it."""

from .history import History, compatible_trials, read_history
from .samplers import SAMPLERS, STARTUP_TRIALS, sampler_for, trial_seed
from .study import CONSTRAINT, EndedTrial, distributions, new_study, state_and_values
from .suggester import Record, Suggester, rerun_settings, trial_name
from .warm import (
    default_changes,
    read_warm_trials,
    space_changes,
    version_changes,
    warm_file,
    warm_start,
)
