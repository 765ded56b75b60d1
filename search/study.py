"""The Optuna study behind a search: its sampler, its first trials, and its mirror on disk.

Suggestions come from a study in memory. `optuna.log` (Optuna's journal storage) only mirrors
trials that have ended: that keeps a suggestion at its own cost whatever the file system does, and
`optuna-dashboard` can open the file while the search runs.
"""

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from .config import SearchConfig

STARTUP_TRIALS = 8
"""Trials drawn at random before the sampler models anything."""


def new_study(plan: SearchConfig, *, started: int = 0) -> optuna.Study:
    """An empty study in memory, with the anchors that have not been started yet enqueued.

    Args:
        started: trials that an earlier driver has started; the sampler's stream moves on with it,
            or a resumed search would draw its first suggestions again.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=(plan.seed + 7919 * started) % 2**32,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=STARTUP_TRIALS,
    )
    study = optuna.create_study(direction="minimize", study_name=plan.name, sampler=sampler)
    for anchor in plan.space.anchors[started:]:
        study.enqueue_trial(dict(anchor))
    return study


def open_mirror(plan: SearchConfig, journal: Path) -> optuna.Study:
    """The study that ended trials are copied to."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name=plan.name,
        direction="minimize",
        load_if_exists=True,
    )
