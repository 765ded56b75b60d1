"""`python -m search.report`: the results of a run as a page, figures and a table.

Needs neither Ray nor torch; works on a copied folder, and while the search still runs. Exit codes:
0 written; 2 bad usage; 130 interrupted.
"""

import argparse
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from search.plan import run_command
from search.remote import push, resolve_run
from trainer.cli import OneLineParser, UsageError


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    p = OneLineParser(
        prog="python -m search.report",
        description="Writes RUN/report: index.html with everything in it, each figure as PNG and "
        "SVG, and summary.parquet. Needs neither Ray nor torch, and works while a search runs.",
    )
    p.add_argument("run", metavar="RUN", help="path of a run, or its name below --runs")
    p.add_argument(
        "--compare", metavar="RUN", help="another run; also writes compare-<its name>.html"
    )
    p.add_argument(
        "--open", action="store_true", help="show the page, or the comparison, in the browser"
    )
    p.add_argument("--out", type=Path, help="folder to write to (default: report in the run)")
    p.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of runs (default: runs)"
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(parser(), report, argv)


def report(args: argparse.Namespace) -> int:
    """Write the report, and the comparison if requested; print their paths."""
    from search.report.data import load
    from search.report.page import write_report

    run = load(resolve_run(args.run, args.runs))
    other = None if args.compare is None else load(resolve_run(args.compare, args.runs))
    if other is not None and other.path.resolve() == run.path.resolve():
        raise UsageError(f"--compare takes another run, but got {args.compare} itself. Name one.")
    page = write_report(run, args.out)
    push(page.parent)
    print(f"report:  {page}")
    print(f"summary: {page.with_name('summary.parquet')}")
    if other is not None:
        page = write_report(run, args.out, other)
        push(page.parent)
        print(f"compare: {page}")
    for note in run.notes:
        print(f"note:    {note}")
    if args.open and not webbrowser.open(page.resolve().as_uri()):
        print("note:    no browser could be started; open the report yourself")
    return 0


if __name__ == "__main__":
    sys.exit(main())
