"""Finds the folder of a run by its name, path or URI."""

from pathlib import Path

from search.plan import RUNS, RunNotFound
from search.records import TABLES
from trainer.config import did_you_mean

from .bucket import is_uri, runs_folder, split_uri
from .working_copy import pull


def resolve_run(run: str | Path, out: str | Path | None = None, *, to_drive: bool = False) -> Path:
    """Return the folder of a run, given by its name under `out`, its path or its URI.

    A run on object storage is brought into its working copy, with checkpoints `to_drive`. One that
    does not exist is a RunNotFound with the nearest existing name.
    """
    out = out or RUNS
    if is_uri(run):
        out, run = split_uri(str(run))
    if is_uri(out):
        path = runs_folder(out) / run
        pull(path, to_drive=to_drive)
        return path
    # A folder that has lost its run.json may still be meant: `open` says what is wrong with it.
    for marks in (["run.json"], TABLES):
        for path in (Path(out) / run, Path(run)):
            if any(path.joinpath(mark).exists() for mark in marks):
                return path
    existing = sorted(p.parent.name for p in Path(out).glob("*/run.json"))
    known = f"{out} has {', '.join(existing[:8])}." if existing else f"{out} has no runs."
    raise RunNotFound(
        f"RUN is a name under `--out` or a path, but {str(run)!r} is neither. {known}"
        + did_you_mean(str(run), existing)
    )
