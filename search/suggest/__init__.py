"""Optuna: samplers, its study, and what earlier trials teach it."""

from .history import History, Unfinished, comparable, drawable, recall
from .samplers import SAMPLERS, STARTUP_TRIALS, sampler_for, stream
from .study import CONSTRAINT, Mirror, Past, constraints, distributions, frozen, new_study, told
from .warm import (
    WARM_FILE,
    defaults_changed,
    differences,
    past_of,
    versions_changed,
    warm_start,
    warm_trials,
)

__all__ = [
    "CONSTRAINT",
    "SAMPLERS",
    "STARTUP_TRIALS",
    "WARM_FILE",
    "History",
    "Mirror",
    "Past",
    "Unfinished",
    "comparable",
    "constraints",
    "defaults_changed",
    "differences",
    "distributions",
    "drawable",
    "frozen",
    "new_study",
    "past_of",
    "recall",
    "sampler_for",
    "stream",
    "told",
    "versions_changed",
    "warm_start",
    "warm_trials",
]
