"""Accuracy: error against SNR, and decibels above the bound, beside the classical methods."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.report.analysis import BOUND, LABELS, LIMIT_BLIND, in_order
from search.report.data import Run
from trainer.config import REFINED_NAMES

from . import style
from .style import ALONE, BEST, OTHER, STYLES, Style, legend, new_figure, panels_of, rows_of

MEASURES = {"capped_error": "capped error, mean(min(err, 10°)) / 10°", "rmspe_deg": "RMSPE [deg]"}
ABOVE_CRB = "crb_db"
SNR_DB = "SNR [dB]"
COLUMNS = 3
MOST_LINES = 7
"""Of a panel; the others are in the leaderboard."""


def draw_errors(run: Run, counts: Sequence[int] = ()) -> Figure | str:
    """Draw capped error with 95 % intervals, and RMSPE on a logarithmic axis: one row for each of
    these numbers of sources, or for all."""
    counts = counts or numbers_of_sources(run)
    if not counts:
        return "Nothing has been scored on held-out scenes yet."
    figure = new_figure(0.4 + 4.2 * len(counts))
    grid = panels_of(figure, 2 * len(counts), 2, SNR_DB, sharex=True, sharey="col")
    for row, count in zip(grid, counts, strict=True):
        for axes, (measure, label) in zip(row, MEASURES.items(), strict=True):
            _panel(axes, run, measure, count)
            axes.set_title(_sources(count), fontsize=11)
            axes.set_ylabel(label)
    legend(figure, columns=2)
    return figure


def draw_above_crb(run: Run) -> Figure | str:
    """Draw decibels above the root CRB against SNR, one panel per K."""
    known = [rows.dropna(subset=[ABOVE_CRB]) for _, _, rows in _series(run, bound=False)]
    counts = sorted({int(k) for rows in known for k in rows["num_sources"]})
    if not counts:
        return "Nothing has been held against the Cramér-Rao bound yet."
    columns = min(len(counts), COLUMNS)
    figure = new_figure(0.9 + 3.3 * rows_of(len(counts), columns))
    labels = (SNR_DB, "error above √CRB [dB]")
    grid = panels_of(figure, len(counts), columns, *labels, sharex=True, sharey=True)
    for axes, count in zip(grid.flat, counts, strict=False):
        _panel(axes, run, ABOVE_CRB, count)
        axes.axhline(0, color="black", linestyle="--", linewidth=1.2)
        axes.set_title(_sources(count), fontsize=11)
    legend(figure)
    return figure


def numbers_of_sources(run: Run) -> list[int]:
    """Return every K that was scored."""
    return sorted({int(k) for _, _, rows in _series(run) for k in rows["num_sources"]})


def error_vs_snr(run: Run, path: Path | None = None) -> Path | None:
    """Write `draw_errors` as PNG, by default to `report/error_vs_snr.png` in the run; return its
    path, or None if there is nothing to draw."""
    figure = draw_errors(run)
    if isinstance(figure, str):
        return None
    about = "error on held-out scenes; shaded SNRs are those of the objective"
    if run.best is None:
        about = "no trial completed; classical methods on the held-out scenes"
    figure.suptitle(f"{run.name}: {about}", fontsize=12)
    path = path or run.path / "report" / "error_vs_snr.png"
    style.save(figure, path)
    return path


def _series(run: Run, *, bound: bool = True) -> list[tuple[Style, str, pd.DataFrame]]:
    """Return style, label and rows of every line, at most `MOST_LINES`: the best trial's and then
    the others `in_order`, sorted by their error, the largest first.

    Estimators that were scored beside confirmations only (stochastic ML) have their line from
    there, and a label that says so. Runs of earlier versions have no refined estimates.
    """
    scored, again = run.tables["evaluations"], run.tables["confirmations"]
    mine = scored[scored["trial_id"] == run.best]
    best, refined = (
        mine[mine["estimator"].isin(names)] for names in (("network",), REFINED_NAMES)
    )
    shared = scored[scored["trial_id"].isna()]
    again = again[again["trial_id"].isna() & ~again["estimator"].isin(shared["estimator"])]
    title = f"best network, {run.best}"
    own_lines = (
        (BEST, f"{title}, refined by likelihood", refined),
        (ALONE if len(refined) else BEST, f"{title}, MUSIC alone", best),
    )
    series = [line for line in own_lines if len(line[-1])]
    for rows, where in ((shared, ""), (again, ", fresh scenes")):
        for name in in_order(rows["estimator"]):
            # the limits of both observers hardly differ: one line
            if name != LIMIT_BLIND and (bound or name != BOUND):
                own = rows[rows["estimator"] == name]
                series.append((STYLES.get(name, OTHER), f"{LABELS.get(name, name)}{where}", own))
    return sorted(series[:MOST_LINES], key=lambda line: -line[-1]["capped_error"].mean())


def _panel(axes: Axes, run: Run, measure: str, count: int) -> None:
    """Draw a measure against SNR for one number of sources, a line per estimator."""
    style.shade(axes, run.objective_snr_db)
    for look, label, rows in _series(run, bound=measure != ABOVE_CRB):
        at = rows[rows["num_sources"] == count].dropna(subset=[measure]).sort_values("snr_db")
        if at.empty:
            continue
        axes.plot(at["snr_db"], at[measure], label=label, **{"markersize": 5, **look})
        if f"{measure}_low" in at:
            ends = at[["snr_db", f"{measure}_low", f"{measure}_high"]].dropna().to_numpy(float).T
            axes.fill_between(*ends, color=look["color"], alpha=0.15, linewidth=0)
    if measure == "rmspe_deg":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    elif measure == "capped_error":
        axes.set_ylim(0, 1)
    style.plain(axes)


def _sources(count: int) -> str:
    return f"K = {count} source{'s' if count > 1 else ''}"
