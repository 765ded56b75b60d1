"""The page as data, and its HTML: sections of sentences, sortable tables, lists and figures.

One file with everything in it: figures are embedded, nothing is loaded from anywhere, and a
content security policy says so to the browser.
"""

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Cell:
    """What is shown in a table's cell and what it is sorted by.

    Attributes:
        text, small: shown, the second one smaller.
        key: sorted by; empty sorts last.
        kind: `number`, `prose`, `code`, or empty.
    """

    text: str
    key: str = ""
    kind: str = ""
    small: str = ""


@dataclass(frozen=True)
class Heading:
    """A column's title; `hint` is shown when the pointer rests on it."""

    title: str
    number: bool = False
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """Cells, and whether the row is `shared` by all trials or of the `best` one."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A sortable table."""

    name: str
    columns: tuple[Heading, ...]
    rows: tuple[Row, ...]
    title: str = ""
    note: str = ""


@dataclass(frozen=True)
class Shown:
    """A figure on the page, or the reason why there is none.

    Attributes:
        title, caption: in words.
        source: a data URI; empty if there is no figure.
        files: names of the figure's own files beside the page.
        run: whose figure it is, where there are two.
    """

    title: str
    caption: str = ""
    source: str = ""
    reason: str = ""
    files: tuple[str, ...] = ()
    run: str = ""


@dataclass(frozen=True)
class Section:
    """One section of the page, in this order: sentences, tables, lists, figures (one or two in a
    row)."""

    name: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()
    figures: Sequence[tuple[Shown, ...]] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title, subtitle, lead: its head; `lead` is what a hurried reader reads.
        notes: what could not be read.
        sections: its body.
    """

    title: str
    subtitle: str
    lead: Sequence[str]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=tuple)


def html(page: Page) -> str:
    """The page as one self-contained file."""
    return _template().render(
        title=page.title,
        subtitle=page.subtitle,
        lead=page.lead,
        notes=page.notes,
        sections=page.sections,
    )


def number(value: Any, digits: int = 3, small: str = "") -> Cell:
    """A number's cell; a dash where there is none."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return Cell("–", kind="number")
    return Cell(f"{value:.{digits}f}", repr(float(value)), "number", small)


def with_interval(ends: Sequence[Any], digits: int = 3, more: str = "") -> Cell:
    """A number with its interval beside it, smaller: value, low, high."""
    value, low, high = ends
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return number(value, digits, more)
    return number(value, digits, f"[{low:.{digits}f}, {high:.{digits}f}]{more}")


def words(text: Any, kind: str = "") -> Cell:
    """A cell of text; empty where there is none."""
    shown = "" if text is None or pd.isna(text) else str(text)
    return Cell(shown, shown, kind)


def svg_source(content: bytes) -> str:
    """An SVG as a data URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(content).decode()


def _coded(text: str) -> "Markup":
    """A sentence whose words in backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader(__name__.rpartition(".")[0], "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["coded"] = _coded
    return environment.get_template(TEMPLATE)
