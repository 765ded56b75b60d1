"""The best network: its eigenvalues before and after training, and MUSIC's pseudospectrum."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.report.data import Run

from . import style
from .style import BLACK, BLUE, GREY, RED, Style

STAGES = {
    "measured": ("LMMSE back-projection (classical)", RED, "s"),
    "untrained": ("network, untrained", GREY, "^"),
    "trained": ("network, trained", BLUE, "o"),
}
TITLES = {"lmmse_music": "classical: LMMSE-MUSIC", "network": "learned: network + MUSIC"}
SHOWN_EIGENVALUES = 16
LEAST = 1e-5
"""Smallest eigenvalue drawn: the foot of the logarithmic axis."""
NOT_WRITTEN = (
    "is written when the search ends and its best trial is scored; nothing of it can be read "
    "here (yet)."
)


def draw_spectra(run: Run) -> Figure | str:
    """Draw eigenvalues of R by index, one panel per SNR and K, the gap from K to K+1 marked."""
    rows = _of_best(run, "spectra")
    if rows.empty:
        return f"The table `spectra` {NOT_WRITTEN}"
    snrs = sorted(rows["snr_db"].unique())
    counts = sorted(rows["num_sources"].unique())
    figure = style.new_figure(1.0 + 2.9 * len(snrs))
    labels = ("index, largest first", "eigenvalue / tr(R)")
    grid = style.panels_of(
        figure, len(snrs) * len(counts), len(counts), *labels, sharex=True, sharey=True
    )
    for panels, snr_db in zip(grid, snrs, strict=True):
        for axes, count in zip(panels, counts, strict=True):
            here = rows[(rows["snr_db"] == snr_db) & (rows["num_sources"] == count)]
            _eigenvalues(axes, here, int(count))
            axes.set_title(f"SNR {snr_db:g} dB, K = {count}", fontsize=10)
    style.legend(figure)
    return figure


def draw_pseudospectra(run: Run) -> Figure | str:
    """Draw MUSIC's pseudospectrum of one scene on two covariances, with true and found places."""
    rows = _of_best(run, "pseudospectra")
    methods = [name for name in TITLES if name in set(rows["estimator"])]
    if not methods:
        return f"The table `pseudospectra` {NOT_WRITTEN}"
    figure = style.new_figure(3.6)
    count, labels = len(methods), ("azimuth [deg]", "elevation [deg]")
    (panels,) = style.panels_of(figure, count, count, *labels, sharex=True, sharey=True)
    sources = rows[rows["kind"] == "source"]
    truth = sources[sources["estimator"] == "truth"]
    for axes, name in zip(panels, methods, strict=True):
        own = rows[(rows["estimator"] == name) & (rows["kind"] == "grid")]
        level = own.pivot(index="elevation_deg", columns="azimuth_deg", values="level_db")
        image = axes.pcolormesh(
            level.columns, level.index, level, cmap="magma", shading="gouraud", rasterized=True
        )
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=22)
        bar.set_label("pseudospectrum [dB]")
        found = sources[sources["estimator"] == name]
        rings: Style = {"s": 150, "facecolors": "none", "edgecolors": "#7CFC9A"}
        rings["label"] = "true source"
        crosses: Style = {"s": 55, "marker": "x", "color": "white", "label": "found"}
        for places, look in ((truth, rings), (found, crosses)):
            axes.scatter(places["azimuth_deg"], places["elevation_deg"], linewidths=2, **look)
        axes.set_title(TITLES[name], fontsize=10)
    below = style.legend(figure)
    below.set_frame_on(True)
    below.get_frame().set_facecolor("#4a3b56")  # the marks are bright
    for text in below.get_texts():
        text.set_color("white")
    return figure


def scene_of(run: Run) -> str:
    """Return the scene of the pseudospectra in words; empty if there are none."""
    rows = _of_best(run, "pseudospectra")
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return (
        f"scene {row['scene_id']} of seed {row['evaluation_seed']}, "
        f"SNR {row['snr_db']:g} dB, K = {row['num_sources']}"
    )


def _of_best(run: Run, table: str) -> pd.DataFrame:
    """Return the rows of the best trial, or of another one if the best was not scored."""
    rows = run.tables[table]
    own = rows[rows["trial_id"] == run.best]
    if len(own) or rows.empty:
        return own
    return rows[rows["trial_id"] == rows["trial_id"].iloc[-1]]


def _eigenvalues(axes: Axes, rows: pd.DataFrame, count: int) -> None:
    for stage, (label, colour, marker) in STAGES.items():
        own = rows[(rows["stage"] == stage) & (rows["index"] <= SHOWN_EIGENVALUES)]
        own = own.sort_values("index")
        middle, low, high = (
            np.maximum(own[name].to_numpy(dtype=float), LEAST)
            for name in ("eigenvalue", "eigenvalue_low", "eigenvalue_high")
        )
        axes.plot(own["index"], middle, marker=marker, ms=4, color=colour, lw=1.5, label=label)
        axes.fill_between(own["index"], low, high, color=colour, alpha=0.13, linewidth=0)
    axes.axvspan(count, count + 1, color=BLACK, alpha=0.08, linewidth=0, label="the gap, K to K+1")
    axes.set_yscale("log")
    style.whole_numbers(axes.xaxis)
    style.plain(axes)
