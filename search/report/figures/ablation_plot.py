"""The effect of each ablation against SNR: one panel per ablation, with its intervals."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.analysis import MEASURES, Effect, ablation, incomplete, verdict
from search.report.data import Run

from .style import (
    BEST,
    REFERENCE,
    STYLES,
    legend,
    new_figure,
    panels_of,
    plain,
    rows_of,
    save,
    shade,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {"capped_error": BEST, "source_number_found": STYLES[REFERENCE]}
"""Measures in the figure, and their styles."""
PANELS_WIDE = 4


def draw_ablations(run: Run, names: Sequence[str] = ()) -> "Figure | str":
    """Draw with minus without, 95 % intervals, for these ablations or all of the run."""
    found = {name: ablation.effects(run, name) for name in names or ablation.names(run)}
    found = {name: own for name, own in found.items() if own}
    if not found:
        return "Fewer than two configurations have both arms of an ablation yet."
    wide = min(PANELS_WIDE, len(found))
    figure = new_figure(1.4 + 2.9 * rows_of(len(found), wide), width=max(7.0, 1.6 + 3.3 * wide))
    grid = panels_of(figure, len(found), wide, sharex=True, sharey=True)
    panels = [axes for row in grid for axes in row][: len(found)]
    for axes, (name, own) in zip(panels, found.items(), strict=True):
        _panel(axes, own, run.objective_snr_db)
        lost = incomplete(run, name)
        left_out = f"\ndid not complete: {lost}" if lost.any else ""
        axes.set_title(f"{name}: {verdict(own[0])}{left_out}", fontsize=9)
    for axes in panels[-wide:]:  # the lowest of each column
        axes.set_xlabel("SNR [dB]")
        axes.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("with - without")
    legend(figure)
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
    save(figure, path)
    return path


def _panel(axes: "Axes", own: list[Effect], objective_snr_db: tuple[float, ...]) -> None:
    shade(axes, objective_snr_db)
    axes.axhline(0, color="black", linewidth=0.8)
    for shift, (measure, style) in zip((-0.25, 0.25), SHOWN.items(), strict=True):
        points = {
            e.snr_db + shift: e.difference
            for e in own
            if e.measure == measure and e.snr_db is not None
        }
        if points:
            ends = [[d.mean - d.low, d.high - d.mean] for d in points.values()]
            axes.errorbar(
                list(points),
                [d.mean for d in points.values()],
                yerr=list(zip(*ends, strict=True)),
                label=MEASURES[measure],
                capsize=3,
                markersize=5,
                color=style["color"],
                marker=style["marker"],
                linewidth=1.4,
            )
    plain(axes)
