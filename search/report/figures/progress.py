"""How the search went: objective by trial, and learning curves with the rungs that cut them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from search.plan import Outcome
from search.report.analysis import REFERENCE, rungs, table
from search.report.data import Run

from .style import BLACK, BLUE, GREY, OUTCOME_COLOURS, RED, new_figure, plain, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OBJECTIVE = "objective (validation capped error)"


def draw_history(run: Run) -> "Figure | str":
    """Objective of every trial in order of suggestion, and the best one so far."""
    trials = run.trials.sort_values("number")
    if trials.empty:
        return run.empty("trials", "No trial has ended, so there is no history yet.")
    valued = trials.dropna(subset=["objective"])
    figure = new_figure(4.0)
    axes = figure.subplots()
    for outcome in (Outcome.COMPLETED, Outcome.STOPPED):
        rows = valued[valued["outcome"] == outcome]
        if rows.empty:
            continue
        filled = outcome is Outcome.COMPLETED
        label = "completed" if filled else "stopped: value at its rung, not comparable"
        axes.scatter(
            rows["number"],
            rows["objective"],
            s=34 if filled else 22,
            facecolors=BLUE if filled else "none",
            edgecolors=BLUE if filled else GREY,
            label=label,
            zorder=3,
        )
    completed = valued[valued["outcome"] == Outcome.COMPLETED]
    if len(completed):
        best = completed["objective"].cummin()
        axes.step(
            completed["number"], best, where="post", color=BLUE, linewidth=1.4, label="best so far"
        )
    _reference_line(axes, run)
    bottom, top = axes.get_ylim()
    failed = trials[~trials["outcome"].isin([Outcome.COMPLETED, Outcome.STOPPED])]
    for word, rows in failed.groupby("outcome"):
        axes.scatter(
            rows["number"],
            np.full(len(rows), top + 0.03 * (top - bottom)),
            marker="x",
            color=OUTCOME_COLOURS.get(str(word), BLACK),
            s=30,
            label=f"{word}: no value",
            clip_on=False,
        )
    axes.set_xlabel("trial, in order of suggestion")
    axes.set_ylabel(OBJECTIVE)
    whole_numbers(axes.xaxis)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def draw_learning_curves(run: Run) -> "Figure | str":
    """Objective by epoch, one line per trial; where lines end, and at which rungs."""
    epochs = run.tables["epochs"].dropna(subset=["objective"])
    if epochs.empty:
        return "No trial has reported an epoch yet."
    outcomes = run.trials.set_index("trial_id")["outcome"].to_dict()
    figure = new_figure(4.4)
    axes = figure.subplots()
    labelled: set[str] = set()
    for name, rows in epochs.sort_values("epoch").groupby("trial_id"):
        outcome = outcomes.get(name, "running")
        best = name == run.best
        label = f"best trial, {name}" if best else str(outcome)
        colour = BLUE if best else OUTCOME_COLOURS.get(outcome, BLACK)
        axes.plot(
            rows["epoch"],
            rows["objective"],
            color=colour,
            linewidth=2.4 if best else 1.1,
            alpha=1.0 if best else 0.55,
            linestyle=":" if outcome == "running" else "-",
            zorder=5 if best else 2,
            label=label if label not in labelled else None,
        )
        labelled.add(label)
        if outcome != Outcome.COMPLETED:
            mark = "x" if outcome not in (Outcome.STOPPED, "running") else "o"
            last = rows.iloc[-1]
            axes.plot(last["epoch"], last["objective"], mark, color=colour, markersize=5)
    for i, rung in enumerate(rungs(run)):
        label = "" if i else "rung"
        axes.axvline(rung, color=BLACK, linestyle="--", linewidth=0.9, alpha=0.6, label=label)
    axes.set_xlabel("epoch")
    axes.set_ylabel(OBJECTIVE)
    whole_numbers(axes.xaxis)
    plain(axes)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    return figure


def _reference_line(axes: "Axes", run: Run) -> None:
    board = table(run)
    value = board.loc[board["name"] == REFERENCE, "capped_error"]
    if len(value) and pd.notna(value.iloc[0]):
        level = float(value.iloc[0])
        label = "LMMSE-MUSIC on held-out scenes"
        axes.axhline(level, color=RED, linestyle="--", linewidth=1.2, label=label)
