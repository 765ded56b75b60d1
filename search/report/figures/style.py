"""The look of the figures: one palette, one way to make, to label and to write a figure.

Only this package imports matplotlib, through its object interface: no display, no global state.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator

from search.plan import Outcome
from search.report.analysis import BOUND, LIMIT
from trainer.atomic import write_atomically
from trainer.config import REFERENCE

Style = dict[str, Any]

# Okabe and Ito's palette: told apart with any colour vision; shapes differ as well, for print.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#222222", "#9A9A9A"
CYCLE = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, GREY)

OUTCOME_COLOURS: dict[str, str] = {
    Outcome.COMPLETED: BLUE,
    Outcome.STOPPED: GREY,
    Outcome.DIVERGED: RED,
    Outcome.OUT_OF_MEMORY: PINK,
    Outcome.TIMED_OUT: ORANGE,
    Outcome.LOST: SKY,
    Outcome.CRASHED: BLACK,
    Outcome.INVALID: BLACK,
}
BEST: Style = {"color": BLUE, "marker": "o", "markersize": 7, "linewidth": 2.6, "zorder": 5}
ALONE: Style = BEST | {"linestyle": ":", "markerfacecolor": "white", "markersize": 6}
"""MUSIC on the best network's R, where its refined estimates are drawn, too."""
STYLES: dict[str, Style] = {
    BOUND: {"color": "black", "linestyle": "--", "linewidth": 1.4, "zorder": 4},
    LIMIT: {"color": "black", "linestyle": "-", "linewidth": 1.8, "zorder": 4},
    REFERENCE: {"color": RED, "marker": "s", "linewidth": 1.8, "zorder": 4},
    # on top of the refined network, from which it hardly differs at high SNR
    "sml": {"color": GREEN, "marker": "D", "markersize": 4, "linewidth": 1.2, "zorder": 6},
    "lmmse_mvdr": {"color": PINK, "marker": "^", "linewidth": 1.2},
    "lmmse_beamformer": {"color": ORANGE, "marker": "v", "linewidth": 1.2},
    "pinv_music": {"color": SKY, "marker": "x", "linewidth": 1.2},
}
OTHER: Style = {"color": GREY, "marker": ".", "linewidth": 1.0}
COLOURMAP = "viridis"
"""Dark is good: smaller errors are darker."""

WIDTH = 10.4
"""Of every figure [inch]; with 100 dots per inch it fills a page of 1280 px beside its margins."""
FORMATS = ("svg", "png")


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure with a constrained layout."""
    return Figure(figsize=(width, height), dpi=130, layout="constrained")


def panels_of(
    figure: Any, count: int, columns: int, xlabel: str = "", ylabel: str = "", **share: Any
) -> Any:
    """Return an array [rows, columns] of `count` panels, labelled below and at the left; those
    left over at its end are hidden."""
    grid = figure.subplots(rows_of(count, columns), columns, squeeze=False, **share)
    for axes in grid.flat[count:]:
        axes.set_axis_off()
    for axes in grid.flat[max(count - columns, 0) : count]:  # the lowest of each column
        axes.set_xlabel(xlabel)
        axes.tick_params(labelbottom=True)
    for axes in grid[:, 0]:
        axes.set_ylabel(ylabel)
    return grid


def rows_of(count: int, columns: int) -> int:
    """Return the number of rows of a grid of `count` panels."""
    return -(-count // columns)


def plain(axes: Axes, *, grid: str = "both") -> None:
    """Draw axes without a box, with a faint grid along `grid` (x, y, or both)."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(True, which="major", axis=grid, alpha=0.3)  # type: ignore[arg-type]


def shade(axes: Axes, snrs_db: Iterable[float]) -> None:
    """Shade the SNRs of the objective; the others are extrapolation."""
    for snr in snrs_db:
        axes.axvspan(snr - 0.6, snr + 0.6, color="#000000", alpha=0.06, linewidth=0)


def whole_numbers(axis: Any) -> None:
    """Put ticks at whole numbers only: epochs, counts."""
    axis.set_major_locator(MaxNLocator(integer=True))


def legend(figure: Any, *, columns: int = 4) -> Legend:
    """Put one legend below a figure, with every label of its panels once."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    place = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
    below: Legend = figure.legend(handles=list(found.values()), **place)
    return below


def rendered(figure: Figure, kind: str) -> bytes:
    """Return the figure as a file of that kind; equal figures give equal bytes."""
    content = io.BytesIO()
    # without a date and with fixed ids; text as outlines, so that every machine shows the same
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def save(figure: Figure, path: Path) -> bytes:
    """Write the figure to `path`, in the format of its suffix, atomically; return its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = rendered(figure, path.suffix[1:])
    write_atomically(path, content)
    figure.set_layout_engine(None)  # found once, it holds for other formats too
    return content
