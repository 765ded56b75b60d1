"""The ranking of trials, the one definition of which is best."""

import pandas as pd

from search.plan import Outcome, may_be_best


def best_trial(trials: pd.DataFrame) -> str | None:
    """Return the id of the best trial (see `best_trials`), or None."""
    return next(iter(best_trials(trials)), None)


def best_trials(trials: pd.DataFrame) -> list[str]:
    """Return the ids of trials of full fidelity and feasible parameters, ranked by objective.

    Of equal objectives, the oldest trial comes first.

    Args:
        trials: rows of the `trials` table.
    """
    may = trials[trials["outcome"].isin([o.value for o in Outcome if may_be_best(o)])]
    ranked = may.dropna(subset=["objective"]).sort_values(["objective", "number"])
    return [str(name) for name in ranked["trial_id"]]
