"""The ranking of trials, the one definition of which is best."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from search.plan import Outcome

RANKED_BY = ("guard_above", "objective", "number")
"""Columns of `trials` that `rank` takes."""


def rank(trial: Mapping[Any, Any]) -> tuple[bool, float, int]:
    """Return the key that sorts completed trials, the best first: those that are above LMMSE-MUSIC
    at a reported SNR last, then by objective; of equal objectives, the oldest trial is best."""
    above, objective, number = (trial[column] for column in RANKED_BY)
    return (above or 0) > 0, objective, number  # null where it was not compared


def best_trial(trials: pd.DataFrame) -> str | None:
    """Return the id of the best trial (see `best_trials`), or None."""
    return next(iter(best_trials(trials)), None)


def best_trials(trials: pd.DataFrame) -> list[str]:
    """Return the ids of the completed ones among these rows of `trials`, the best first."""
    completed = trials[trials["outcome"] == Outcome.COMPLETED].dropna(subset=["objective"])
    rows = completed[["trial_id", *RANKED_BY]].to_dict("records")
    return [str(row["trial_id"]) for row in sorted(rows, key=rank)]
