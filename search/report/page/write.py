"""Writes a run's report: the page, each figure as PNG and SVG, and `summary.parquet`.

Every file appears in one step, so that a report can be made again while somebody reads it. What
cannot be drawn is said on the page, and an older figure of that name is removed.
"""

from pathlib import Path

from search.plan import RunNotWritable
from search.report.analysis import Importance, importances, summary
from search.report.data import Run
from search.report.figures import FORMATS, Picture, draw_importances, pictures_of, rendered, save
from trainer.atomic import write_atomically

from . import sections
from .layout import Page, Shown, html, svg_source

INDEX = "index.html"
FOLDER = "report"


def write_report(run: Run, folder: Path | None = None) -> Path:
    """Writes the report of a run; where the page lies.

    Args:
        folder: to write to; by default `report/` in the run.

    Raises:
        RunNotWritable: if the folder takes no files.
    """
    folder = folder or run.path / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page = folder / INDEX
        write_atomically(page, html(page_of(run, folder)).encode())
        summary.write(run, folder)
    except OSError as error:
        raise not_writable(folder, error) from None
    return page


def not_writable(folder: Path, error: OSError) -> RunNotWritable:
    """What to raise for a folder that takes no files."""
    return RunNotWritable(
        f"the report's folder must be writable, but {folder} is not ({error.strerror}). "
        "Choose another with `--out`."
    )


def page_of(run: Run, folder: Path) -> Page:
    """The page of one run; writes its figures to `folder`."""
    importance = importances(run)
    figures = [drawn(run, picture, folder, importance) for picture in pictures_of(run)]
    return Page(
        title=run.name,
        subtitle="Search for RIS covariance learning: what was found, and how far to trust it",
        lead=sections.lead(run),
        notes=run.notes,
        sections=(
            sections.leaderboard(run),
            sections.confirmations(run),
            sections.health_notes(run, importance),
            sections.figures([(figure,) for figure in figures]),
            sections.failures(run),
            sections.plan(run),
        ),
    )


def drawn(
    run: Run, picture: Picture, folder: Path | None, importance: Importance | str | None = None
) -> Shown:
    """A figure as the page shows it; its files go to `folder`, if there is one."""
    if picture.name == "importances" and importance is not None:
        figure = draw_importances(run, importance)
    else:
        figure = picture.draw(run)
    if isinstance(figure, str):
        if folder is not None:
            for kind in FORMATS:
                (folder / f"{picture.name}.{kind}").unlink(missing_ok=True)
        return Shown(picture.title, reason=figure, run=run.name)
    if folder is None:
        contents = {"svg": rendered(figure, "svg")}
    else:
        contents = save(figure, folder / picture.name)
    files = tuple(f"{picture.name}.{kind}" for kind in contents) if folder else ()
    source = svg_source(contents["svg"])
    return Shown(picture.title, picture.caption, source, files=files, run=run.name)
