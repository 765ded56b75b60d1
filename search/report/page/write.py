"""Write a run's report: the page, each figure as PNG and SVG, and `summary.parquet`.

Every file is replaced atomically, so that a report can be made again while somebody reads it. The
page says why a figure cannot be drawn, and an older figure of that name is removed.
"""

from pathlib import Path

from search.plan import RunNotWritable
from search.report.analysis import health, summary
from search.report.data import Run
from search.report.factorial import is_design
from search.report.figures import pictures_of
from trainer.atomic import write_atomically

from . import compare, sections
from .layout import Section, draw_picture, html

INDEX = "index.html"
FOLDER = "report"


def write_report(run: Run, folder: Path | None = None, other: Run | None = None) -> Path:
    """Write the report of a run, or its comparison with another, by default to `report/` in the
    run; return the path of the page.

    Raises:
        RunNotWritable: if the folder takes no files.
    """
    folder = folder or run.path / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if other is None:
            path, page = folder / INDEX, report(run, folder)
            summary.write(run, folder)
        else:
            path, page = folder / f"compare-{other.name}.html", compare.comparison(run, other)
        write_atomically(path, page)
    except OSError as error:
        raise RunNotWritable(
            f"the report's folder must be writable, but {folder} is not ({error.strerror}). "
            "Choose another with `--out`."
        ) from None
    return path


def report(run: Run, folder: Path) -> bytes:
    """Return the page of one run; write its figures to `folder`."""
    figures = [(draw_picture(run, picture, folder),) for picture in pictures_of(run)]
    what = "Search" if run.own_trainer else "Search for RIS covariance learning"
    if is_design(run):
        what, lead = "Ablation of terms by networks and regimes", [sections.state(run)]
        own = [sections.map_section(run)]
    else:
        lead, own = sections.lead(run), [sections.leaderboard_section(run)]
        if not run.own_trainer:
            own += [sections.source_numbers(run), sections.confirmations(run)]
        own.append(Section("health", "Health notes", lists=list(health.notes(run).items())))
    return html(
        title=run.name,
        subtitle=f"{what}: what was found, and how far to trust it",
        lead=lead,
        notes=run.notes,
        sections=(
            *own,
            Section("figures", "Figures", figures=figures),
            sections.failures(run),
            sections.plan(run),
        ),
    )
