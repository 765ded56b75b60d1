"""Finds a run; brings one on a bucket into its working copy, and only the files that are new.

Readers of a run on a bucket read the working copy, so it must be consistent at any moment, as the
bucket is: rows of `trials` are there after everything they rest on.
"""

import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from pyarrow import fs

from search.plan import RUNS, RunNotFound
from search.records import RAY_FOLDER, TABLES, RunStore
from trainer.atomic import write_atomically
from trainer.config import did_you_mean

from .bucket import RemoteFiles, bucket_errors, is_uri, runs_folder, split_uri, uri_of
from .lock import is_locked

SESSION_FILE = ".session"
"""Holds a number that is new with every driver of a run; never copied from the bucket."""
CHECKPOINT_FILE = re.compile(rf"{RAY_FOLDER}/(?P<trial>[^/.]+)[^/]*/[^/]+/[^/]+")
CONNECTIONS = 8
YOUNG_NS = 2_000_000_000
"""A bucket's times are in whole seconds: a file no older than the newest one by more than this may
still get another version of the same time."""

Listing = dict[str, fs.FileInfo]
Stamp = tuple[int, int]
"""Size of a file, and its time in nanoseconds."""


def resolve_run(run: str | Path, out: str | Path | None = None, *, to_drive: bool = False) -> Path:
    """Return the folder of a run, given by its name under `out`, its path or its URI.

    A run on object storage is brought into its working copy, with checkpoints `to_drive`.
    Raise RunNotFound, with the nearest existing name, if there is none.
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


def pull(run: Path, *, to_drive: bool = False) -> None:
    """Bring a working copy up to date; leave a run on a disk alone.

    The bucket counts, unless this machine was the last to drive the run: then the working copy is
    as new or newer, because the bucket may have been out of reach at the end. A copy that was only
    read is never the newest. `to_drive`, fetch the checkpoints of unfinished trials, too.
    Raise BucketError if the bucket cannot be read, RunNotFound if it has no such run, CorruptRun
    if its `trials` are damaged, `to_drive`.
    """
    uri = uri_of(run)
    if not is_uri(uri) or is_locked(run):
        return  # whoever drives it has the newest
    with bucket_errors(uri):
        remote = RemoteFiles(uri)
        found = remote.list()
        has_copy = run.joinpath("run.json").exists()
        if "run.json" not in found and not has_copy:
            raise RunNotFound(f"a run has a run.json, but {uri} has none. Check the URI.")
        session = remote.read(SESSION_FILE) if SESSION_FILE in found else b""
        own = run / SESSION_FILE
        if not has_copy or session != (own.read_bytes() if own.exists() else b""):
            _update(run, remote, found)
        if to_drive:
            shutil.rmtree(run / RAY_FOLDER, ignore_errors=True)
            ended = set(RunStore(run, {}, {}).read("trials", columns=["trial_id"])["trial_id"])
            for name in found:
                file = CHECKPOINT_FILE.fullmatch(name)
                if file and file["trial"] not in ended:
                    _write(run, name, remote.read(name))


def is_of_trials(name: str) -> bool:
    """Tell if a file says which trials have ended, of the run or of its reruns."""
    return "trials" in name.split("/")[:-1]


def local_files(run: Path) -> dict[str, Stamp]:
    """Return the stamps of a working copy's files by name, without those being written."""
    found = {}
    for path in sorted(run.rglob("*")):
        with suppress(FileNotFoundError):  # removed meanwhile
            if not path.name.endswith(".tmp") and path.is_file():
                stat = path.stat()
                found[path.relative_to(run).as_posix()] = (stat.st_size, stat.st_mtime_ns)
    return found


def _update(run: Path, remote: RemoteFiles, listed: Listing) -> None:
    """Make the working copy what the bucket has, checkpoints aside; fetch only what differs.

    Parts are replaced on the bucket meanwhile. So `trials` is read first, all the rest is listed
    and read after that, and `trials` is written last; where it has gone, it is removed first.
    """
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        names = [name for name in _new(run, listed) if is_of_trials(name)]
        trials = dict(zip(names, pool.map(remote.read, names), strict=True))
        found = remote.list()
        gone = filter(_is_copied, local_files(run).keys() - found.keys())
        for name in sorted(gone, key=is_of_trials, reverse=True):
            if not is_locked(run):
                run.joinpath(name).unlink(missing_ok=True)
        rest = [name for name in _new(run, found) if not is_of_trials(name)]
        times = _reliable_times(found)
        list(pool.map(lambda name: _write(run, name, remote.read(name), times.get(name)), rest))
    times = _reliable_times(listed)
    for name in trials.keys() & found.keys():
        _write(run, name, trials[name], times.get(name))
    for name in found:  # a bucket has no empty folders
        if Path(name).name == "run.json":
            run.joinpath(name).with_name("configs").mkdir(exist_ok=True)


def _is_copied(name: str) -> bool:
    return name.split("/")[0] != RAY_FOLDER and name != SESSION_FILE


def _new(run: Path, listed: Listing) -> list[str]:
    """Return the files that the working copy lacks, or has another version of."""
    own = local_files(run)
    stamps = {name: (info.size, info.mtime_ns) for name, info in listed.items()}
    return [name for name, stamp in stamps.items() if _is_copied(name) and own.get(name) != stamp]


def _reliable_times(listed: Listing) -> dict[str, int]:
    """Return the times of the files that are old enough to be known by size and time alone."""
    times = {name: info.mtime_ns for name, info in listed.items()}
    newest = max(times.values(), default=0)
    return {name: time for name, time in times.items() if time < newest - YOUNG_NS}


def _write(run: Path, name: str, content: bytes, time_ns: int | None = None) -> None:
    """Write a file of the working copy, unless somebody drives the run since a moment ago.

    With its time on the bucket, this version is known again.
    """
    if not is_locked(run):
        target = run / name
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
        if time_ns is not None:
            os.utime(target, ns=(time_ns, time_ns))
