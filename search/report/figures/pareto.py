"""The Pareto front of error and cost: the trials that no other beats in both."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from search.plan import Outcome
from search.report.data import Run, as_run

from .progress import OBJECTIVE
from .style import BLUE, GREY, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def draw_front(run: Run) -> "Figure | str":
    """Objective against cost of every completed trial; the front as a line, its trials named."""
    best = front(run)
    if best.empty:
        return "No trial completed, so there is no Pareto front yet."
    others = run.trials[run.trials["outcome"] == Outcome.COMPLETED].dropna(subset=[COST])
    others = others[~others["trial_id"].isin(best["trial_id"])]
    figure = new_figure(4.0)
    axes = figure.subplots()
    axes.scatter(others[COST], others["objective"], s=30, color=GREY, label="beaten")
    axes.step(best[COST], best["objective"], where="post", color=BLUE, linewidth=1.4)
    axes.scatter(best[COST], best["objective"], s=36, color=BLUE, label="Pareto front", zorder=3)
    for row in best.itertuples():
        axes.annotate(
            str(row.trial_id),
            (row.seconds_per_epoch, row.objective),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel("cost [s per epoch]")
    axes.set_ylabel(OBJECTIVE)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def text(run: Run | str | Path) -> str:
    """The front, for a person."""
    found = front(run)
    if found.empty:
        return "No Pareto front: no trial completed."
    lines = ["Pareto front of objective and seconds per epoch, the cheapest first:"]
    for _, row in found.iterrows():
        lines.append(f"  {row['trial_id']:<8}{row['objective']:>9.3f}{row[COST]:>9.2f} s")
    return "\n".join(lines)
