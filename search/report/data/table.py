"""Tables of plain data, in one format of numbers and intervals, and their text for a console.

The page shows the same tables as HTML (`page.html.jinja`).
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

NOT_KNOWN = "–"
"""Shown in place of a number that is not known."""
LARGE = 1e6
"""Numbers from here on are written with an exponent."""


@dataclass(frozen=True)
class Cell:
    """Text of a table's cell, the key that it sorts by (empty ones last), and smaller text."""

    text: str
    key: str = ""
    small: str = ""

    @property
    def full(self) -> str:
        """Both texts in one line."""
        return f"{self.text} {self.small}".rstrip()


@dataclass(frozen=True)
class Heading:
    """A column's title, kind (`number`, `prose`, `code` or none), and hint for the pointer."""

    title: str
    kind: str = ""
    hint: str = ""


@dataclass(frozen=True)
class TableRow:
    """Cells of a row, which may be `shared` by all trials, or of the `best` one."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """A table, sortable on the page."""

    name: str
    columns: tuple[Heading, ...]
    rows: tuple[TableRow, ...]
    title: str = ""
    note: str = ""

    def only(self, titles: Collection[str]) -> "Table":
        """Return the table with the columns of these titles."""
        kept = [i for i, column in enumerate(self.columns) if column.title in titles]
        rows = (replace(row, cells=tuple(row.cells[i] for i in kept)) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=tuple(rows))

    def text(
        self,
        titles: Mapping[str, str] | None = None,
        *,
        bare: Collection[str] = (),
        markdown: bool = False,
    ) -> str:
        """Return aligned lines for a console, or a Markdown table.

        Args:
            titles: headings of the columns to show, by title, in order; all by default.
            bare: titles of columns whose smaller text is left out.
            markdown: puts bars between the columns, and a rule below the titles.
        """
        index = {column.title: i for i, column in enumerate(self.columns)}
        titles = titles or {title: title for title in index}
        shown = [index[title] for title in titles]
        lines = [list(titles.values())]
        for row in self.rows:
            cells = [(row.cells[i], self.columns[i].title in bare) for i in shown]
            lines.append([cell.text if alone else cell.full for cell, alone in cells])
        widths = [max(map(len, texts)) for texts in zip(*lines, strict=True)]
        if markdown:
            lines.insert(1, ["-" * width for width in widths])
        numbers = [self.columns[i].kind == "number" for i in shown]
        between = " | " if markdown else "  "
        padded = [
            between.join(
                text.rjust(width) if number else text.ljust(width)
                for text, width, number in zip(line, widths, numbers, strict=True)
            )
            for line in lines
        ]
        return "\n".join(f"| {line} |" if markdown else line.rstrip() for line in padded)


def number(value: Any, digits: int = 3, small: str = "", *, sign: str = "") -> Cell:
    """Return a number's cell; `sign` is `+` for differences."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return Cell(NOT_KNOWN)
    kind = "f" if abs(value) < LARGE else "g"
    return Cell(f"{value:{sign}.{digits}{kind}}", repr(float(value)), small)


def interval(ends: Iterable[Any], more: str = "", *, sign: str = "") -> Cell:
    """Return a value's cell with its interval as smaller text, of value, low and high end."""
    value, low, high = ends
    if pd.isna(low) or pd.isna(high):
        return number(value, small=more, sign=sign)
    return number(value, small=f"[{low:{sign}.3f}, {high:{sign}.3f}]{more}", sign=sign)


def words(text: Any) -> Cell:
    """Return a cell of text; empty where there is none."""
    shown = "" if text is None or pd.isna(text) else str(text)
    return Cell(shown, shown)
