"""The picture of a run: error against SNR, with the bound and the classical methods beside it.

Matplotlib is imported here and nowhere else, through its object interface on Agg: no display, no
global state, safe beside anything else that draws.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..files import write_atomically
from .leaderboard import BASELINES, BOUND, REFERENCE
from .runs import Run, as_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = dict[str, Any]

# Okabe and Ito's palette: told apart with any colour vision; shapes differ as well, for print.
BEST: Style = {"color": "#0072B2", "marker": "o", "linewidth": 2.4, "zorder": 5}
STYLES: dict[str, Style] = {
    BOUND: {"color": "black", "linestyle": "--", "linewidth": 1.4, "zorder": 4},
    REFERENCE: {"color": "#D55E00", "marker": "s", "linewidth": 1.8, "zorder": 4},
    "sml": {"color": "#009E73", "marker": "D", "linewidth": 1.4},
    "lmmse_mvdr": {"color": "#CC79A7", "marker": "^", "linewidth": 1.2},
    "lmmse_beamformer": {"color": "#E69F00", "marker": "v", "linewidth": 1.2},
    "pinv_music": {"color": "#56B4E9", "marker": "x", "linewidth": 1.2},
}
OTHER: Style = {"color": "#999999", "marker": ".", "linewidth": 1.0}
LABELS = {
    BOUND: "√CRB (bounds unbiased estimators)",
    REFERENCE: "LMMSE-MUSIC",
    "sml": "stochastic ML",
    "lmmse_mvdr": "LMMSE-MVDR",
    "lmmse_beamformer": "LMMSE beamformer",
    "pinv_music": "pseudo-inverse MUSIC",
}

MEASURES = {
    "capped_error": "capped error, mean(min(err, 10°)) / 10°",
    "rmspe_deg": "RMSPE [deg]",
}


def draw_error_vs_snr(run: Run) -> "Figure | None":
    """One column per K: capped error with 95 % intervals above, RMSPE on a log axis below.

    Returns:
        The figure; None if the run has no evaluations yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = _series(run)
    counts = sorted({int(k) for _, _, rows in series for k in rows["num_sources"]})
    if not counts:
        return None
    figure = Figure(figsize=(1.2 + 4.4 * len(counts), 7.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(counts), sharex=True, sharey="row", squeeze=False)
    for axes_row, measure in zip(grid, MEASURES, strict=True):
        for axes, count in zip(axes_row, counts, strict=True):
            _panel(axes, measure, count, series, run.objective_snr_db)
        axes_row[0].set_ylabel(MEASURES[measure])
    for axes, count in zip(grid[0], counts, strict=True):
        axes.set_title(f"K = {count} source{'s' if count > 1 else ''}", fontsize=11)
    for axes in grid[1]:
        axes.set_xlabel("SNR [dB]")
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_lines()}
    lines = {label: lines[label] for _, label, _ in series if label in lines}
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, frameon=False)
    figure.align_ylabels(grid[:, 0])
    figure.suptitle(_title(run), fontsize=12)
    return figure


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
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())
    return path


def _series(run: Run) -> list[tuple[Style, str, pd.DataFrame]]:
    """Style, label and rows of every line, the best trial first."""
    evaluations = run.tables["evaluations"]
    shared = evaluations[evaluations["trial_id"].isna()]
    names = [n for n in BASELINES if n in set(shared["estimator"])]
    names += sorted(set(shared["estimator"]) - set(names))
    best = evaluations[
        (evaluations["trial_id"] == run.best) & (evaluations["estimator"] == "network")
    ]
    series = [(BEST, f"best trial, {run.best}", best)] if len(best) else []
    for name in names:
        rows = shared[shared["estimator"] == name]
        series.append((STYLES.get(name, OTHER), LABELS.get(name, name), rows))
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
    else:
        axes.set_ylim(0, 1)
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _title(run: Run) -> str:
    if run.best is None:
        return f"{run.name}: no trial completed; classical methods on the held-out scenes"
    return f"{run.name}: error on held-out scenes; shaded SNRs are those of the objective"
