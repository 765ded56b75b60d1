"""Parameters: parallel coordinates, importances, and the backends side by side."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from search.plan import Outcome
from search.report.analysis import WELL, importances, same_fidelity
from search.report.data import WEIGHT, Run, SearchedParameter, format_value, parameters
from trainer.intervals import wilson_share

from .style import BLACK, BLUE, COLOURMAP, GREY, RED, Style, legend, new_figure, plain

ABSENT = -0.14
"""Height of a line at the axis of a parameter that its trial did not have, below the range."""
BACKEND = "spectral.backend"
NO_TERM = "no term"


def draw_parallel_coordinates(run: Run) -> Figure | str:
    """Draw one line per trial through its parameters, coloured by the objective at one epoch."""
    axes_of = [p for p in parameters(run) if p.varies]
    if not axes_of or run.trials.empty:
        return "No two trials differ in a parameter yet."
    reached = same_fidelity(run)
    values = (
        run.trials.set_index("trial_id")["objective"] if isinstance(reached, str) else reached[1]
    )
    figure = new_figure(5.4)
    axes = figure.subplots()
    places = np.stack([p.places() for p in axes_of], axis=1)
    objective = run.trials["trial_id"].map(values).to_numpy(dtype=float)
    outcome = run.trials["outcome"].to_numpy()
    failed = ~np.isin(outcome, WELL)
    known = objective[np.isfinite(objective)]
    ends = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    colour = ScalarMappable(Normalize(*ends), COLOURMAP)
    order = np.argsort(-np.nan_to_num(objective, nan=np.inf))  # the best on top
    for i in order:
        line = np.where(np.isnan(places[i]), ABSENT, places[i])
        best = run.trials["trial_id"].iloc[i] == run.best
        look: dict[str, Any] = {"color": colour.to_rgba(objective[i]), "alpha": 0.75}
        if failed[i] or np.isnan(objective[i]):
            look = {"color": RED if failed[i] else GREY, "alpha": 0.5, "linestyle": ":"}
        axes.plot(line, linewidth=2.8 if best else 1.0, zorder=5 if best else 2, **look)
    for x, parameter in enumerate(axes_of):
        axes.axvline(x, color=BLACK, linewidth=0.8, zorder=3)
        _axis_labels(axes, x, parameter)
    axes.set_xticks(range(len(axes_of)), [_broken(p.name) for p in axes_of], fontsize=8)
    axes.tick_params(axis="x", length=0, pad=10, rotation=40)
    for label in axes.get_xticklabels():
        label.set(horizontalalignment="right", rotation_mode="anchor")
    axes.set_ylim(ABSENT - 0.06, 1.06)
    axes.set_yticks([ABSENT], ["absent"], fontsize=8)
    axes.spines[:].set_visible(False)
    if len(known):
        when = "" if isinstance(reached, str) else f" at epoch {reached[0]}"
        bar = figure.colorbar(colour, ax=axes, pad=0.01, aspect=40)
        bar.set_label(f"objective{when} (lower is better)")
    return figure


def draw_importances(run: Run) -> Figure | str:
    """Draw shares of importance with their scatter, and the shares by chance alone."""
    found = importances(run)
    if isinstance(found, str):
        return found
    rows = found.shares.iloc[::-1]
    figure = new_figure(1.2 + 0.3 * len(rows))
    axes = figure.subplots()
    y = np.arange(len(rows))
    beyond = rows["beyond_chance"].to_numpy(dtype=bool)
    for own, colour, label in (
        (beyond, BLUE, "beyond chance"),
        (~beyond, GREY, "not beyond chance"),
    ):
        axes.barh(y[own], rows["share"][own], color=colour, height=0.62, alpha=0.85, label=label)
    spread = [rows["share"] - rows["low"], rows["high"] - rows["share"]]
    bars: Style = {"fmt": "none", "ecolor": BLACK, "elinewidth": 1, "capsize": 2.5}
    bars["label"] = "95 % over halves of the trials"
    axes.errorbar(rows["share"], y, xerr=spread, **bars)
    marks: Style = {"color": RED, "markersize": 13, "markeredgewidth": 2}
    axes.plot(rows["chance"], y, "|", label="95 % of shuffled objectives", **marks)
    axes.set_yticks(y, rows["name"])
    about = f"share of importance at epoch {found.epoch}, {found.num_trials} trials"
    axes.set(xlim=(0, None), xlabel=about)
    plain(axes, grid="x")
    legend(figure)
    return figure


def backends_of(run: Run) -> "pd.Series[str]":
    """Return the spectral backend of every trial; `NO_TERM` where its training used none."""
    trials = run.trials
    none = pd.Series(None, index=trials.index, dtype=object)
    backend = trials.get(f"params.{BACKEND}", none).astype(object)
    off = trials.get(f"params.{WEIGHT}", none) == 0
    return backend.mask(off | backend.isna(), NO_TERM)


def draw_backends(run: Run) -> Figure | str:
    """Draw objective, share that diverged, and seconds per epoch, by spectral backend."""
    column = f"params.{BACKEND}"
    if column not in run.trials or run.trials[column].isna().all():
        return "No trial has a spectral backend: the term is off, or the space does not vary it."
    trials = run.trials.assign(backend=backends_of(run))
    names = sorted(set(trials["backend"]) - {NO_TERM})
    names += [NO_TERM] if NO_TERM in set(trials["backend"]) else []
    figure = new_figure(3.4)
    accuracy, failing, speed = figure.subplots(1, 3)
    reached = same_fidelity(run)
    if isinstance(reached, str):
        objective, what = run.completed["objective"], "objective, completed trials"
    else:
        objective = trials["trial_id"].map(reached[1])
        what = f"objective at epoch {reached[0]}"
    groups = [trials.index[trials["backend"] == name] for name in names]
    _dots(accuracy, [objective.reindex(g).dropna() for g in groups])
    accuracy.set_ylabel(what)
    _dots(speed, [trials.loc[g, "seconds_per_epoch"].dropna() for g in groups])
    speed.set(ylabel="seconds per epoch", ylim=(0, None))
    for x, group in enumerate(groups):
        bad = trials.loc[group, "outcome"] == Outcome.DIVERGED
        share = wilson_share(float(bad.mean()), len(bad))
        failing.bar(x, share.mean, color=RED, width=0.55, alpha=0.85)
        error = [[share.mean - share.low], [share.high - share.mean]]
        failing.errorbar(x, share.mean, yerr=error, color=BLACK, elinewidth=1, capsize=3)
        failing.text(x, share.high + 0.02, f"{int(bad.sum())} / {len(bad)}", ha="center", size=8)
    failing.set(ylabel="share that diverged, 95 % interval", ylim=(0, 1.1))
    for axes in (accuracy, failing, speed):
        axes.set_xticks(range(len(names)), names, rotation=30)
        axes.set_xlim(-0.6, len(names) - 0.4)
        plain(axes, grid="y")
    return figure


def _dots(axes: Axes, groups: "list[pd.Series[float]]") -> None:
    """Draw every value as a dot, side by side, and the median as a bar."""
    for x, values in enumerate(groups):
        spread = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else [0.0] * len(values)
        axes.scatter(np.add(x, spread), values, s=16, color=BLUE, alpha=0.55, linewidths=0)
        if len(values):
            middle = float(values.median())
            axes.plot([x - 0.25, x + 0.25], [middle, middle], color=BLACK, linewidth=2)


def _axis_labels(axes: Axes, x: int, parameter: SearchedParameter) -> None:
    look: dict[str, Any] = {"fontsize": 7, "color": BLACK, "zorder": 6}
    look["bbox"] = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
    if parameter.numeric:
        axes.text(x, -0.035, format_value(parameter.low), ha="center", va="top", **look)
        axes.text(x, 1.02, format_value(parameter.high), ha="center", va="bottom", **look)
        return
    steps = max(len(parameter.choices) - 1, 1)
    for i, choice in enumerate(parameter.choices):
        axes.text(x + 0.05, i / steps, choice, ha="left", va="center", **look)


def _broken(name: str) -> str:
    return name.replace(".", ".\n", 1) if len(name) > 14 else name
