"""The failure atlas: regions of the space where trials fail, by cause, backend and loss term."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.report.analysis import WELL
from search.report.data import Run, SearchedParameter, format_value, parameters
from trainer.intervals import wilson_share

from .choices import BACKEND, NO_TERM, backends_of
from .style import BLACK, CYCLE, GREY, legend, new_figure, panels_of, plain, rows_of

COLUMNS = 4
BINS = 5
"""Parts of a numeric range, in each of which the share that failed is drawn."""


def draw_failure_atlas(run: Run) -> Figure | str:
    """Draw causes by backend and term, and the share that failed along each parameter."""
    trials = run.trials
    if trials.empty:
        return run.empty("trials", "No trial has ended, so none has failed.")
    bad = ~trials["outcome"].isin(WELL)
    if not bad.any():
        return f"None of {len(trials)} trials failed: there is no atlas to draw."
    cause = trials["cause"].fillna(trials["outcome"]).where(bad).astype(object)
    causes = [str(name) for name in cause.dropna().value_counts().index]
    varied = [p for p in parameters(run) if p.varies and not (p.numeric and p.low == p.high)]
    backend = backends_of(run)
    used = backend.where(backend != NO_TERM)
    varied = [replace(p, values=used) if p.name == BACKEND else p for p in varied]
    rows = rows_of(len(varied), COLUMNS)
    figure = new_figure(2.0 + 0.3 * len(causes) + 1.9 * rows)
    heights = [1.6 + 0.3 * len(causes), max(1.9 * rows, 0.1)]
    above, below = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    _counts(above.subplots(), run, cause, causes)
    if varied:
        panels = panels_of(below, len(varied), COLUMNS, ylabel="share failed", sharey=True)
        for axes, parameter in zip(panels.flat, varied, strict=False):
            _panel(axes, parameter, cause, causes)
        legend(below)
    return figure


def _counts(axes: Axes, run: Run, cause: "pd.Series[Any]", causes: list[str]) -> None:
    """Draw the number of failed trials by cause, backend and loss term that was not finite."""
    trials = run.trials
    terms = run.tables["failures"].drop_duplicates("trial_id", keep="last")
    term = trials["trial_id"].map(terms.set_index("trial_id")["term"].to_dict())
    term = term.astype(object).fillna("-")
    where = backends_of(run) + "\n" + term
    counts = pd.crosstab(cause, where).reindex(causes)
    shown_counts = counts.to_numpy(dtype=float)
    axes.imshow(shown_counts, cmap="Reds", aspect="auto", vmin=0, vmax=shown_counts.max() * 2.5)
    for (i, j), count in np.ndenumerate(shown_counts):
        axes.text(j, i, f"{count:.0f}", ha="center", va="center", color=BLACK, fontsize=9)
    axes.set_xticks(range(counts.shape[1]), list(counts.columns), fontsize=8)
    axes.set_yticks(range(len(causes)), causes, fontsize=9)
    axes.set_xlabel("spectral backend, and below it the loss term that was not finite", fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _panel(
    axes: Axes, parameter: SearchedParameter, cause: "pd.Series[Any]", causes: list[str]
) -> None:
    """Draw the share that failed along one parameter, its interval, and every trial as a mark."""
    places = parameter.places()
    known = np.isfinite(places)
    bad = cause.notna().to_numpy()
    if parameter.numeric:
        edges = np.linspace(0, 1, BINS + 1)
        part = np.clip(np.digitize(places, edges) - 1, 0, BINS - 1)
        middles = (edges[:-1] + edges[1:]) / 2
        width = 0.9 / BINS
    else:
        middles = np.linspace(0, 1, len(parameter.choices))
        part = np.abs(np.where(known, places, 0)[:, None] - middles).argmin(1)
        width = 0.6 / max(len(parameter.choices) - 1, 1)
    for i, middle in enumerate(middles):
        here = known & (part == i)
        if not here.any():
            continue
        share = wilson_share(float(bad[here].mean()), int(here.sum()))
        axes.bar(middle, share.mean, width=width, color="#E8B9A0", linewidth=0)
        axes.plot([middle, middle], [share.low, share.high], color=GREY, linewidth=1.2)
    shift = np.random.default_rng(0).uniform(-0.4, 0.4, len(places)) * width
    spot = places if parameter.numeric else places + shift
    for i, name in enumerate(causes):
        at = known & (cause == name).to_numpy()
        colour = CYCLE[1 + i % (len(CYCLE) - 1)]
        axes.plot(spot[at], np.full(at.sum(), 1.09), "o", color=colour, ms=3.5, label=name)
    well = spot[known & ~bad]
    axes.plot(well, np.full(len(well), -0.09), "|", color=GREY, ms=5, label="ended well")
    axes.set(ylim=(-0.16, 1.18), yticks=[0, 0.5, 1])
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(parameter.name, fontsize=9)
    if parameter.numeric:
        axes.set_xlim(-0.04, 1.04)
        axes.set_xticks(
            [0, 1], [format_value(parameter.low), format_value(parameter.high)], fontsize=8
        )
    else:
        axes.set_xlim(-width, 1 + width)
        axes.set_xticks(middles, parameter.choices, fontsize=7, rotation=25)
    plain(axes, grid="y")
