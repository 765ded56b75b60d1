"""The difference that something makes, against SNR: one panel per ablation, with its interval."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.analysis import MEASURES, Effect, incomplete, verdict
from search.report.data import Run, as_run
from trainer.atomic import write_atomically

from .plots import BEST, STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {"capped_error": BEST, "source_number_found": STYLES["lmmse_music"]}
"""Measures in the figure, and how each is drawn."""
PANELS_WIDE = 4


def draw(run: Run | str | Path, found: Mapping[str, list[Effect]]) -> "Figure | None":
    """With minus without, 95 % intervals; None if no ablation has effects to show.

    Args:
        found: ablation -> its effects (`ablation.effects`).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = as_run(run)
    found = {name: own for name, own in found.items() if own}
    if not found:
        return None
    wide = min(PANELS_WIDE, len(found))
    high = -(-len(found) // wide)
    figure = Figure(
        figsize=(max(7.0, 1.6 + 3.3 * wide), 1.4 + 2.9 * high), dpi=130, layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.subplots(high, wide, sharex=True, sharey=True, squeeze=False)
    for axes, (name, own) in zip(grid.flat, found.items(), strict=False):
        _panel(axes, own, run.objective_snr_db)
        lost = incomplete(run, name)
        left_out = f"\ndid not complete: {lost}" if lost.any else ""
        axes.set_title(f"{name}: {verdict(own[0])}{left_out}", fontsize=9)
    for axes in grid.flat[len(found) :]:
        axes.set_visible(False)
    for axes in grid.flat[max(0, len(found) - wide) : len(found)]:  # the lowest of each column
        axes.set_xlabel("SNR [dB]")
        axes.tick_params(labelbottom=True)
    for row in grid:
        row[0].set_ylabel("with - without")
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    any_one = next(iter(found.values()))[0]
    figure.suptitle(
        f"{run.name}: same configurations, seeds and {any_one.scenes} scenes in both arms, "
        "95 % intervals",
        fontsize=11,
    )
    return figure


def write(run: Run | str | Path, found: Mapping[str, list[Effect]], path: Path) -> Path | None:
    """Writes the figure as PNG; None if there is nothing to draw."""
    figure = draw(run, found)
    if figure is None:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    write_atomically(path, content.getvalue())
    return path


def _panel(axes: "Axes", own: list[Effect], objective_snr_db: tuple[float, ...]) -> None:
    for snr in objective_snr_db:
        axes.axvspan(snr - 0.6, snr + 0.6, color="#000000", alpha=0.06, linewidth=0)
    axes.axhline(0, color="black", linewidth=0.8)
    for shift, (measure, style) in zip((-0.25, 0.25), SHOWN.items(), strict=True):
        points = [e for e in own if e.measure == measure and e.snr_db is not None]
        if not points:
            continue
        means = [e.difference.mean for e in points]
        axes.errorbar(
            [e.snr_db + shift for e in points if e.snr_db is not None],
            means,
            yerr=[
                [e.difference.mean - e.difference.low for e in points],
                [e.difference.high - e.difference.mean for e in points],
            ],
            label=MEASURES[measure],
            capsize=3,
            markersize=5,
            color=style["color"],
            marker=style["marker"],
            linewidth=1.4,
        )
    axes.grid(True, alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
