"""The ranking of trials, the one definition of which is best."""

import pandas as pd

from search.plan import Outcome

RANKED_BY = ("objective", "number")
"""Columns of `trials` that rank the completed ones, smallest first: of equal objectives, the
oldest trial is best."""


def best_trial(trials: pd.DataFrame) -> str | None:
    """Return the id of the best trial (see `best_trials`), or None."""
    return next(iter(best_trials(trials)), None)


def best_trials(trials: pd.DataFrame) -> list[str]:
    """Return the ids of the completed ones among these rows of `trials`, the best first."""
    completed = trials[trials["outcome"] == Outcome.COMPLETED].dropna(subset=["objective"])
    return [str(name) for name in completed.sort_values([*RANKED_BY])["trial_id"]]
