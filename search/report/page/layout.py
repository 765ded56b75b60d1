"""The page as data: sections of sentences, tables, lists and figures; and its HTML.

The page is one file with everything in it: figures are embedded, nothing is loaded from anywhere,
and a content security policy says so to the browser.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from search.report.data import Run, Table
from search.report.figures import FORMATS, Picture, rendered, save

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class Shown:
    """A figure on the page, or the reason why there is none.

    Attributes:
        run: name of the run.
        title, caption: in words.
        source: a data URI; empty if there is no figure.
        files: names of the figure's own files beside the page.
    """

    run: str
    title: str
    caption: str = ""
    source: str = ""
    reason: str = ""
    files: tuple[str, ...] = ()


def shown(run: Run, picture: Picture, folder: Path | None = None) -> Shown:
    """Draw a figure for the page; write its files to `folder`, if there is one."""
    figure = picture.draw(run)
    files = [folder / f"{picture.name}.{kind}" for kind in FORMATS] if folder else []
    if isinstance(figure, str):
        for file in files:
            file.unlink(missing_ok=True)
        return Shown(run.name, picture.title, reason=figure)
    svg, *_ = [save(figure, file) for file in files] or [rendered(figure, "svg")]
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    names = tuple(file.name for file in files)
    return Shown(run.name, picture.title, picture.caption, source, files=names)


@dataclass(frozen=True)
class Section:
    """One section of the page: sentences, tables, lists, figures (one or two in a row)."""

    name: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()
    figures: Sequence[tuple[Shown, ...]] = ()


def html(
    title: str,
    subtitle: str,
    lead: Sequence[str],
    notes: Sequence[str],
    sections: Sequence[Section],
) -> bytes:
    """Return the page as one self-contained file.

    Args:
        title, subtitle, lead: its head; `lead` is for a hurried reader.
        notes: on parts that could not be read.
        sections: its body.
    """
    page = _template().render(
        title=title, subtitle=subtitle, lead=lead, notes=notes, sections=sections
    )
    return page.encode()


def _coded(text: str) -> "Markup":
    """Return a sentence whose words in backticks are code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader(__name__.rpartition(".")[0], "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["coded"] = _coded
    return environment.get_template(TEMPLATE)
