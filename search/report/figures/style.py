"""How figures look: one palette, one way to make and to save a figure.

Matplotlib is imported in this package only inside functions, through its object interface on Agg:
no display, no global state, and a leaderboard can be printed without it.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.plan import Outcome
from trainer.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Style = dict[str, Any]

# Okabe and Ito's palette: told apart with any colour vision; shapes differ as well, for print.
BLUE, RED, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PINK, SKY, YELLOW, BLACK, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#222222", "#9A9A9A"
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
COLOURMAP = "viridis"
"""Dark is good: smaller errors are darker."""

WIDTH = 10.4
"""Of every figure [inch]; with 100 dots per inch it fills a page of 1280 px beside its margins."""
FORMATS = ("svg", "png")


def new_figure(height: float, width: float = WIDTH) -> "Figure":
    """An empty figure with a constrained layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: "Axes", *, grid: str = "both") -> None:
    """Axes without a box, with a faint grid along `grid` (x, y, both, or none)."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    if grid == "none":
        axes.grid(False)
    else:
        axes.grid(True, which="major", axis=grid, alpha=0.3)  # type: ignore[arg-type]


def whole_numbers(axis: Any) -> None:
    """Ticks at whole numbers only: epochs, counts."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))


def rows_of(count: int, columns: int) -> int:
    """Rows of a grid of `count` panels."""
    return -(-count // columns)


def rendered(figure: "Figure", kind: str) -> bytes:
    """The figure as a file of that kind; equal figures give equal bytes."""
    import matplotlib

    content = io.BytesIO()
    # without a date and with fixed ids; text as outlines, so that every machine shows the same
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(content, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return content.getvalue()


def save(figure: "Figure", stem: Path) -> dict[str, bytes]:
    """Writes `stem`.svg and `stem`.png, each in one step; returns what is in them, by kind."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    contents = {}
    for kind in FORMATS:
        contents[kind] = rendered(figure, kind)
        write_atomically(stem.with_name(f"{stem.name}.{kind}"), contents[kind])
        figure.set_layout_engine("none")  # found once, it holds for the other file too
    return contents
