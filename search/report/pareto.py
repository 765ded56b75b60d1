"""The Pareto front of error and cost: the trials that no other beats in both."""

from pathlib import Path

import pandas as pd

from ..outcome import Outcome
from .runs import Run, as_run

COST = "seconds_per_epoch"


def front(run: Run | str | Path) -> pd.DataFrame:
    """Completed trials, each with no other both as good and as cheap, the cheapest first.

    Columns: those of `trials`. Cost is wall-clock time per epoch on the machine at hand: compare
    it within a run.
    """
    trials = as_run(run).trials
    known = trials[trials["outcome"] == Outcome.COMPLETED].dropna(subset=["objective", COST])
    ranked = known.sort_values([COST, "objective", "number"])
    before = ranked["objective"].cummin().shift(fill_value=float("inf"))
    return ranked[ranked["objective"] < before].reset_index(drop=True)


def text(run: Run | str | Path) -> str:
    """The front, for a person."""
    found = front(run)
    if found.empty:
        return "No Pareto front: no trial completed."
    lines = ["Pareto front of objective and seconds per epoch, the cheapest first:"]
    for _, row in found.iterrows():
        lines.append(f"  {row['trial_id']:<8}{row['objective']:>9.3f}{row[COST]:>9.2f} s")
    return "\n".join(lines)
