"""The map of a design: a field for each term, network and regime, with its effect and verdict."""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from search.report.data import Run
from search.report.factorial import PRIMARY, CellEffect, effects

from . import style

COLOURS = {
    "helps": style.GREEN,
    "hurts": style.RED,
    "equivalent": style.SKY,
    "not known": "#E4E4E4",
}


def draw_map(run: Run) -> Figure | str:
    """Draw the primary outcomes of a design, a panel each."""
    found = [one for one in effects(run) if one.outcome in PRIMARY]
    if not found:
        return "No term and network have two pairs of trainings yet."
    rows = list(dict.fromkeys((one.network, one.regime) for one in found))
    terms = list(dict.fromkeys(one.term for one in found))
    figure = style.new_figure(1.6 + 0.42 * len(rows), width=max(7.0, 3.0 + 2.6 * len(terms)))
    grid = style.panels_of(figure, len(PRIMARY), len(PRIMARY), sharey=True)
    for axes, (name, outcome) in zip(grid.flat, PRIMARY.items(), strict=True):
        own = [one for one in found if one.outcome == name]
        _panel(axes, own, rows, terms)
        axes.set_title(f"{outcome.label}: with - without", fontsize=10)
    patches = [Patch(facecolor=colour, label=word) for word, colour in COLOURS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def write_map(run: Run, path: Path) -> Path | None:
    """Write the map as a picture; return its path, or None if there is nothing to draw."""
    figure = draw_map(run)
    if isinstance(figure, str):
        return None
    style.save(figure, path)
    return path


def _panel(
    axes: Axes, own: list[CellEffect], rows: list[tuple[str, str]], terms: list[str]
) -> None:
    for one in own:
        x, y = terms.index(one.term), rows.index((one.network, one.regime))
        corner, colour = (x - 0.5, y - 0.5), COLOURS[one.verdict]
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor="white", alpha=0.75))
        d = one.difference
        text = f"{d.mean:+.3f}\n[{d.low:+.3f}, {d.high:+.3f}]"
        axes.text(x, y, text, ha="center", va="center", fontsize=6.5)
    axes.set_xlim(-0.5, len(terms) - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks(range(len(terms)), terms, fontsize=9)
    axes.set_yticks(range(len(rows)), [f"{network}, {regime}" for network, regime in rows])
    axes.tick_params(length=0, labelsize=8)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
