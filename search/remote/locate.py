"""Finds the folder of a run by its name, path or URI."""

from pathlib import Path

from search.plan import RUNS, RunNotFound
from search.records import TABLES
from trainer.config import did_you_mean

from . import bucket, working_copy


def resolve_run(run: str | Path, out: str | Path | None = None) -> Path:
    """The folder that RUN stands for: a name under `out`, or a path.

    One on object storage is brought into its working copy.

    Raises:
        RunNotFound: with the nearest existing name.
    """
    out = out or RUNS
    if bucket.is_uri(run):
        out, run = bucket.split(str(run))
    if bucket.is_uri(out):
        path = bucket.folder_of(out) / run
        working_copy.pull(path)
        return path
    for path in (Path(out) / run, Path(run)):
        if path.joinpath("run.json").exists():
            return path
    # A folder that has lost its run.json is still the one that was meant: `open` says what is
    # wrong with it.
    for path in (Path(out) / run, Path(run)):
        if any(path.joinpath(table).is_dir() for table in TABLES):
            return path
    existing = sorted(p.parent.name for p in Path(out).glob("*/run.json"))
    known = f"{out} has {', '.join(existing[:8])}." if existing else f"{out} has no runs."
    raise RunNotFound(
        f"RUN is a name under `--out` or a path, but {str(run)!r} is neither. {known}"
        + did_you_mean(str(run), existing)
    )
