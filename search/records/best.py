"""Which trials may be best, in their order: the one notion of it."""

import pandas as pd

from search.plan import Outcome, may_be_best


def best_trial(trials: pd.DataFrame) -> str | None:
    """Id of the best trial, or None: see `best_trials`."""
    return next(iter(best_trials(trials)), None)


def best_trials(trials: pd.DataFrame) -> list[str]:
    """Ids of the trials that may be best: of full fidelity, feasible; the smallest objective
    first, then the oldest.

    Args:
        trials: rows of the `trials` table.
    """
    may = trials[trials["outcome"].isin([o.value for o in Outcome if may_be_best(o)])]
    ranked = may.dropna(subset=["objective"]).sort_values(["objective", "number"])
    return [str(name) for name in ranked["trial_id"]]
