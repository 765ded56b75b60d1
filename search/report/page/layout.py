"""The page as data: sections of sentences, tables, lists and figures; and its HTML.

The page is one file with everything in it: figures are embedded, nothing is loaded from anywhere,
and a content security policy says so to the browser.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from search.report.data import Run, Table
from search.report.figures import FORMATS, Picture, rendered, save

TEMPLATE = "page.html.jinja"


@dataclass(frozen=True)
class DrawnPicture:
    """A figure of a run on the page (`source`: a data URI; `files`: names of its own files beside
    the page), or the reason why there is none."""

    run: str
    title: str
    caption: str = ""
    source: str = ""
    reason: str = ""
    files: tuple[str, ...] = ()


def draw_picture(run: Run, picture: Picture, folder: Path | None = None) -> DrawnPicture:
    """Draw a figure for the page; write its files to `folder`, if there is one."""
    figure = picture.draw(run)
    files = [folder / f"{picture.name}.{kind}" for kind in FORMATS] if folder else []
    if isinstance(figure, str):
        for file in files:
            file.unlink(missing_ok=True)
        return DrawnPicture(run.name, picture.title, reason=figure)
    svg, *_ = [save(figure, file) for file in files] or [rendered(figure, "svg")]
    source = "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
    names = tuple(file.name for file in files)
    return DrawnPicture(run.name, picture.title, picture.caption, source, files=names)


@dataclass(frozen=True)
class Section:
    """One section of the page: sentences, tables, lists, figures (one or two in a row)."""

    name: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    lists: Sequence[tuple[str, Sequence[str]]] = ()
    figures: Sequence[tuple[DrawnPicture, ...]] = ()


def html(
    title: str,
    subtitle: str,
    lead: Sequence[str],
    notes: Sequence[str],
    sections: Sequence[Section],
) -> bytes:
    """Return the page as one self-contained file; `lead` is for a hurried reader, `notes` are on
    parts that could not be read."""
    loader = PackageLoader(__name__.rpartition(".")[0], "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.filters["coded"] = _coded
    page = environment.get_template(TEMPLATE).render(
        title=title, subtitle=subtitle, lead=lead, notes=notes, sections=sections
    )
    return page.encode()


def _coded(text: str) -> Markup:
    """Return a sentence whose words in backticks are code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
