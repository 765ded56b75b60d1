"""Progress of the search: objective by trial, and learning curves with the scheduler's rungs."""

import numpy as np
from matplotlib.figure import Figure

from search.plan import Outcome
from search.report.analysis import WELL, leaderboard, rungs
from search.report.data import Run
from trainer.config import REFERENCE

from . import style
from .style import BLACK, BLUE, GREY, OUTCOME_COLOURS, RED, Style


def draw_history(run: Run) -> Figure | str:
    """Draw the objective of every trial in order of suggestion, and the best one so far."""
    trials = run.trials.sort_values("number")
    if trials.empty:
        return run.empty("trials", "No trial has ended, so there is no history yet.")
    valued = trials.dropna(subset=["objective"])
    figure = style.new_figure(4.0)
    axes = figure.subplots()
    for outcome, label, size, face, edge in (
        (Outcome.COMPLETED, "completed", 34, BLUE, BLUE),
        (Outcome.STOPPED, "stopped: value at its rung, not comparable", 22, "none", GREY),
    ):
        rows = valued[valued["outcome"] == outcome]
        if len(rows):
            look: Style = {"s": size, "facecolors": face, "edgecolors": edge, "zorder": 3}
            axes.scatter(rows["number"], rows["objective"], label=label, **look)
    completed = valued[valued["outcome"] == Outcome.COMPLETED]
    if len(completed):
        best = completed["objective"].cummin()
        line: Style = {"color": BLUE, "linewidth": 1.4, "label": "best so far"}
        axes.step(completed["number"], best, where="post", **line)
    board = leaderboard.board(run).set_index("name")["capped_error"].dropna()
    if REFERENCE in board:
        label = "LMMSE-MUSIC on held-out scenes"
        axes.axhline(board[REFERENCE], color=RED, linestyle="--", linewidth=1.2, label=label)
    bottom, top = axes.get_ylim()
    failed = trials[~trials["outcome"].isin(WELL)]
    for word, rows in failed.groupby("outcome"):
        look = {"color": OUTCOME_COLOURS.get(str(word), BLACK), "label": f"{word}: no value"}
        above = np.full(len(rows), top + 0.03 * (top - bottom))
        axes.scatter(rows["number"], above, marker="x", s=30, clip_on=False, **look)
    axes.set(xlabel="trial, in order of suggestion", ylabel=run.objective_label)
    style.whole_numbers(axes.xaxis)
    style.plain(axes)
    style.legend(figure)
    return figure


def draw_learning_curves(run: Run) -> Figure | str:
    """Draw the objective by epoch, one line per trial, the ends of lines, and the rungs."""
    epochs = run.tables["epochs"].dropna(subset=["objective"])
    if epochs.empty:
        return "No trial has reported an epoch yet."
    outcomes = run.trials.set_index("trial_id")["outcome"].to_dict()
    figure = style.new_figure(4.4)
    axes = figure.subplots()
    for name, rows in epochs.sort_values("epoch").groupby("trial_id"):
        outcome = outcomes.get(name, "running")
        colour = OUTCOME_COLOURS.get(outcome, BLACK)
        look: Style = {"linewidth": 1.1, "alpha": 0.55, "zorder": 2, "label": str(outcome)}
        if name == run.best:
            colour = BLUE
            look = {"linewidth": 2.4, "zorder": 5, "label": f"best trial, {run.best}"}
        line = ":" if outcome == "running" else "-"
        axes.plot(rows["epoch"], rows["objective"], color=colour, linestyle=line, **look)
        if outcome != Outcome.COMPLETED:
            mark = "x" if outcome not in (Outcome.STOPPED, "running") else "o"
            last = rows.iloc[-1]
            axes.plot(last["epoch"], last["objective"], mark, color=colour, markersize=5)
    for rung in rungs(run):
        axes.axvline(rung, color=BLACK, linestyle="--", linewidth=0.9, alpha=0.6, label="rung")
    axes.set(xlabel="epoch", ylabel=run.objective_label)
    style.whole_numbers(axes.xaxis)
    style.plain(axes)
    style.legend(figure, columns=6)
    return figure
