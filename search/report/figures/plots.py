"""Accuracy in pictures: error against SNR, and decibels above the bound, beside the classical
methods."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from search.report.analysis import BOUND, REFERENCE, ROW_ORDER
from search.report.data import Run, as_run
from trainer.atomic import write_atomically

from .style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    Style,
    new_figure,
    plain,
    rendered,
    rows_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEST: Style = {"color": BLUE, "marker": "o", "linewidth": 2.4, "zorder": 5}
STYLES: dict[str, Style] = {
    BOUND: {"color": "black", "linestyle": "--", "linewidth": 1.4, "zorder": 4},
    REFERENCE: {"color": RED, "marker": "s", "linewidth": 1.8, "zorder": 4},
    "sml": {"color": GREEN, "marker": "D", "linewidth": 1.4},
    "lmmse_mvdr": {"color": PINK, "marker": "^", "linewidth": 1.2},
    "lmmse_beamformer": {"color": ORANGE, "marker": "v", "linewidth": 1.2},
    "pinv_music": {"color": SKY, "marker": "x", "linewidth": 1.2},
}
OTHER: Style = {"color": GREY, "marker": ".", "linewidth": 1.0}
LABELS = {
    BOUND: "√CRB (bounds unbiased estimators)",
    REFERENCE: "LMMSE-MUSIC",
    "sml": "stochastic ML",
    "lmmse_mvdr": "LMMSE-MVDR",
    "lmmse_beamformer": "LMMSE beamformer",
    "pinv_music": "pseudo-inverse MUSIC",
}


def short_label(name: str) -> str:
    """What a method is called where there is little room."""
    return LABELS.get(name, name).partition(" (")[0]


MEASURES = {
    "capped_error": "capped error, mean(min(err, 10°)) / 10°",
    "rmspe_deg": "RMSPE [deg]",
}


ABOVE_CRB = "crb_db"
COLUMNS = 3


def draw_error_vs_snr(run: Run) -> "Figure | None":
    """One column per K: capped error with 95 % intervals above, RMSPE on a log axis below.

    Returns:
        The figure; None if the run has no evaluations yet.
    """
    series = _series(run)
    counts = numbers_of_sources(run)
    if not counts:
        return None
    figure = new_figure(7.6, 1.2 + 4.4 * len(counts))
    grid = figure.subplots(2, len(counts), sharex=True, sharey="row", squeeze=False)
    for axes_row, measure in zip(grid, MEASURES, strict=True):
        for axes, count in zip(axes_row, counts, strict=True):
            _panel(axes, measure, count, series, run.objective_snr_db)
        axes_row[0].set_ylabel(MEASURES[measure])
    for axes, count in zip(grid[0], counts, strict=True):
        axes.set_title(_sources(count), fontsize=11)
    for axes in grid[1]:
        axes.set_xlabel("SNR [dB]")
    _legend(figure, series)
    figure.align_ylabels(grid[:, 0])
    figure.suptitle(_title(run), fontsize=12)
    return figure


def draw_error_of(run: Run, count: int) -> "Figure | str":
    """The same for one K, side by side."""
    series = _series(run)
    figure = new_figure(4.6)
    panels = figure.subplots(1, len(MEASURES))
    for axes, measure in zip(panels, MEASURES, strict=True):
        _panel(axes, measure, count, series, run.objective_snr_db)
        axes.set_ylabel(MEASURES[measure])
        axes.set_xlabel("SNR [dB]")
    _legend(figure, series)
    return figure


def draw_above_crb(run: Run) -> "Figure | str":
    """Decibels above the root CRB against SNR, one panel per K."""
    series = [
        (style, label, rows)
        for style, label, rows in _series(run)
        if not label.startswith(LABELS[BOUND])
    ]
    counts = [
        k
        for k in numbers_of_sources(run)
        if any(rows.loc[rows["num_sources"] == k, ABOVE_CRB].notna().any() for *_, rows in series)
    ]
    if not counts:
        return "Nothing has been held against the Cramér-Rao bound yet."
    columns = min(len(counts), COLUMNS)
    rows = rows_of(len(counts), columns)
    figure = new_figure(0.9 + 3.3 * rows)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in panels.flat[len(counts) :]:
        axes.set_axis_off()
    for axes, count in zip(panels.flat, counts, strict=False):
        _panel(axes, ABOVE_CRB, count, series, run.objective_snr_db)
        axes.axhline(0, color="black", linestyle="--", linewidth=1.2)
        axes.set_title(_sources(count), fontsize=11)
        axes.set_xlabel("SNR [dB]")
    for axes in panels[:, 0]:
        axes.set_ylabel("error above √CRB [dB]")
    _legend(figure, series)
    return figure


def numbers_of_sources(run: Run) -> list[int]:
    """Every K that was scored."""
    return sorted({int(k) for _, _, rows in _series(run) for k in rows["num_sources"]})


def error_vs_snr(run: Run | str | Path, path: Path | None = None) -> Path | None:
    """Writes the figure as PNG, by default to `report/error_vs_snr.png` in the run.

    Returns:
        Where it lies; None if there is nothing to draw.
    """
    run = as_run(run)
    figure = draw_error_vs_snr(run)
    if figure is None:
        return None
    path = path or run.path / "report" / "error_vs_snr.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, rendered(figure, "png"))
    return path


def _series(run: Run) -> list[tuple[Style, str, pd.DataFrame]]:
    """Style, label and rows of every line, the best trial first.

    What was scored beside confirmations only (stochastic ML) has its line from there, and says so.
    """
    evaluations = run.tables["evaluations"]
    shared = evaluations[evaluations["trial_id"].isna()]
    names = [n for n in ROW_ORDER if n in set(shared["estimator"])]
    names += sorted(set(shared["estimator"]) - set(names))
    best = evaluations[
        (evaluations["trial_id"] == run.best) & (evaluations["estimator"] == "network")
    ]
    series = [(BEST, f"best trial, {run.best}", best)] if len(best) else []
    for name in names:
        rows = shared[shared["estimator"] == name]
        series.append((STYLES.get(name, OTHER), LABELS.get(name, name), rows))
    again = run.tables["confirmations"]
    again = again[again["trial_id"].isna() & ~again["estimator"].isin(names)]
    for name in sorted(set(again["estimator"])):
        rows = again[again["estimator"] == name]
        series.append((STYLES.get(name, OTHER), f"{LABELS.get(name, name)}, fresh scenes", rows))
    return series


def _panel(
    axes: "Axes",
    measure: str,
    count: int,
    series: list[tuple[Style, str, pd.DataFrame]],
    objective_snr_db: tuple[float, ...],
) -> None:
    for snr in objective_snr_db:  # what the search optimised; the rest is extrapolation
        axes.axvspan(snr - 0.6, snr + 0.6, color="#000000", alpha=0.06, linewidth=0)
    for style, label, rows in series:
        at = rows[rows["num_sources"] == count].dropna(subset=[measure]).sort_values("snr_db")
        if at.empty:
            continue
        axes.plot(at["snr_db"], at[measure], label=label, markersize=5, **style)
        if f"{measure}_low" in at:
            known = at.dropna(subset=[f"{measure}_low", f"{measure}_high"])
            axes.fill_between(
                known["snr_db"],
                known[f"{measure}_low"],
                known[f"{measure}_high"],
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
    if measure == "rmspe_deg":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    elif measure == "capped_error":
        axes.set_ylim(0, 1)
    plain(axes)


def _legend(figure: "Figure", series: list[tuple[Style, str, pd.DataFrame]]) -> None:
    lines = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    shown = [label for _, label, _ in series if label in lines]
    handles = [lines[label] for label in shown]
    figure.legend(handles, shown, loc="outside lower center", ncols=4, frameon=False)


def _sources(count: int) -> str:
    return f"K = {count} source{'s' if count > 1 else ''}"


def _title(run: Run) -> str:
    if run.best is None:
        return f"{run.name}: no trial completed; classical methods on the held-out scenes"
    return f"{run.name}: error on held-out scenes; shaded SNRs are those of the objective"
