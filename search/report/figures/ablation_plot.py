"""The effect of each ablation against SNR: one panel per ablation, with its intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from search.report.analysis import MEASURES, Effect, ablation, incomplete, verdict
from search.report.data import Run

from . import style
from .style import REFERENCE, STYLES

SHOWN = {"capped_error": style.BEST, "source_number_found": STYLES[REFERENCE]}
"""Measures in the figure, and their styles."""
PANELS_WIDE = 4


def draw_ablations(run: Run, names: Sequence[str] = ()) -> Figure | str:
    """Draw with minus without, 95 % intervals, for these ablations or all of the run."""
    found = {name: ablation.effects(run, name) for name in names or ablation.names(run)}
    found = {name: own for name, own in found.items() if own}
    if not found:
        return "Fewer than two configurations have both arms of an ablation yet."
    wide = min(PANELS_WIDE, len(found))
    height = 1.4 + 2.9 * style.rows_of(len(found), wide)
    figure = style.new_figure(height, width=max(7.0, 1.6 + 3.3 * wide))
    labels = ("SNR [dB]", "with - without")
    grid = style.panels_of(figure, len(found), wide, *labels, sharex=True, sharey=True)
    for axes, (name, own) in zip(grid.flat, found.items(), strict=False):
        _panel(axes, own, run.objective_snr_db)
        lost = incomplete(run, name)
        left_out = f"\ndid not complete: {lost}" if lost.any else ""
        axes.set_title(f"{name}: {verdict(own[0])}{left_out}", fontsize=9)
    style.legend(figure)
    scenes = next(iter(found.values()))[0].scenes
    figure.suptitle(
        f"{run.name}: same configurations, seeds and {scenes} scenes in both arms, 95 % intervals",
        fontsize=11,
    )
    return figure


def write(run: Run, names: Sequence[str], path: Path) -> Path | None:
    """Write the figure as PNG; return its path, or None if there is nothing to draw."""
    figure = draw_ablations(run, names)
    if isinstance(figure, str):
        return None
    style.save(figure, path)
    return path


def _panel(axes: Axes, own: list[Effect], objective_snr_db: tuple[float, ...]) -> None:
    style.shade(axes, objective_snr_db)
    axes.axhline(0, color="black", linewidth=0.8)
    for shift, (measure, look) in zip((-0.25, 0.25), SHOWN.items(), strict=True):
        measured = {e.snr_db: e.difference for e in own if e.measure == measure}
        measured.pop(None, None)  # the mean over SNRs
        if measured:
            snr = np.array([*measured], dtype=float) + shift
            mean, low, high = np.array([(d.mean, d.low, d.high) for d in measured.values()]).T
            shape = {"color": look["color"], "marker": look["marker"], "label": MEASURES[measure]}
            spread = [mean - low, high - mean]
            axes.errorbar(snr, mean, yerr=spread, capsize=3, markersize=5, linewidth=1.4, **shape)
    style.plain(axes)
