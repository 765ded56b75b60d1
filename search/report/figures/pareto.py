"""The Pareto front of error and cost: the trials that no other beats in both."""

import pandas as pd
from matplotlib.figure import Figure

from search.report.data import Heading, Run, Table, TableRow, number, words

from .style import BLUE, GREY, Style, legend, new_figure, plain

COST = "seconds_per_epoch"


def front(run: Run) -> pd.DataFrame:
    """Return the completed trials with no other both as good and as cheap, the cheapest first.

    Columns: those of `trials`. Cost is wall-clock time per epoch on the machine at hand: compare
    it within a run.
    """
    known = run.completed.dropna(subset=["objective", COST])
    ranked = known.sort_values([COST, "objective", "number"])
    before = ranked["objective"].cummin().shift(fill_value=float("inf"))
    return ranked[ranked["objective"] < before].reset_index(drop=True)


def draw_front(run: Run) -> Figure | str:
    """Draw objective against cost of every completed trial, and the front with its names."""
    best = front(run)
    if best.empty:
        return "No trial completed, so there is no Pareto front yet."
    others = run.completed.dropna(subset=[COST])
    others = others[~others["trial_id"].isin(best["trial_id"])]
    figure = new_figure(4.0)
    axes = figure.subplots()
    axes.scatter(others[COST], others["objective"], s=30, color=GREY, label="beaten")
    axes.step(best[COST], best["objective"], where="post", color=BLUE, linewidth=1.4)
    axes.scatter(best[COST], best["objective"], s=36, color=BLUE, label="Pareto front", zorder=3)
    above: Style = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8}
    for name, cost, error in best[["trial_id", COST, "objective"]].itertuples(index=False):
        axes.annotate(name, (cost, error), **above)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set(xlabel="cost [s per epoch]", ylabel=run.objective_label)
    plain(axes)
    legend(figure)
    return figure


def text(run: Run) -> str:
    """Return the front for a console."""
    found = front(run)
    if found.empty:
        return "No Pareto front: no trial completed."
    titles = ("objective", "cost [s per epoch]")
    columns = (Heading("trial"), *(Heading(title, "number") for title in titles))
    rows = tuple(
        TableRow((words(name), number(objective), number(cost, 2)))
        for name, objective, cost in found[["trial_id", "objective", COST]].itertuples(index=False)
    )
    return (
        "Pareto front of objective and seconds per epoch, the cheapest first:\n"
        + Table("front", columns, rows).text()
    )
