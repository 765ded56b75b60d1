"""Brings a run from its bucket into its working copy: whole files, and only those that are new.

Whoever reads or follows a run on a bucket reads the copy, so what lies there must be consistent at
any moment: rows of `trials` are there after everything they rest on, as they are on the bucket.
"""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyarrow import fs

from search.plan import RunNotFound
from search.records import RAY_FOLDER, RunStore
from trainer.atomic import write_atomically

from .bucket import home_of, is_uri, opened, refusal
from .lock import driven

SESSION_FILE = ".session"
"""Holds a number that is new whenever a driver takes a run over; never copied from the bucket."""
READ_TRIES = 10
CONNECTIONS = 8
YOUNG_NS = 2_000_000_000
"""Files that were written so shortly before a copy's newest are fetched again the next time."""


def pull(run: Path, *, to_drive: bool = False) -> None:
    """Brings a run's working copy up to date; does nothing for a run at home on a disk.

    The bucket counts, unless this machine was the last to drive the run: then the working copy is
    as new or newer, because the bucket may have been out of reach at the end. A copy that was only
    read never counts as that, however often it is read.

    Args:
        to_drive: whether checkpoints of unfinished trials are wanted too.

    Raises:
        BucketError, RunNotFound: if it cannot be read, or has no such run.
        CorruptRun: if what it has of `trials` is damaged, `to_drive`.
    """
    home = home_of(run)
    if not is_uri(home) or driven(run):
        return  # whoever drives it has the newest
    where, path = opened(home)
    try:
        found = _listed(where, path)
        if "run.json" not in found and not run.joinpath("run.json").exists():
            raise RunNotFound(f"a run has a run.json, but {home} has none. Check the URI.")
        session = read(where, f"{path}/{SESSION_FILE}")
        if session != _own_session(run) or not run.joinpath("run.json").exists():
            _bring(where, path, run, found)
        if to_drive:
            shutil.rmtree(run / RAY_FOLDER, ignore_errors=True)
            ended = set(RunStore(run, {}, {}).read("trials", columns=["trial_id"])["trial_id"])
            for name in sorted(found):
                parts = name.split("/")
                if parts[0] == RAY_FOLDER and len(parts) == 4 and _trial(parts[1]) not in ended:
                    _download(where, path, run, name)
    except OSError as error:
        raise refusal(home, error) from None


def _bring(where: fs.FileSystem, path: str, run: Path, found: dict[str, fs.FileInfo]) -> None:
    """Makes the working copy what the bucket has, checkpoints aside; fetches only what differs.

    `trials` goes last, and first where it has gone: a row there never precedes what it rests on,
    whenever this ends.
    """
    wanted = {
        name: info
        for name, info in found.items()
        if name.split("/")[0] != RAY_FOLDER and name != SESSION_FILE
    }
    own = {
        name: file
        for file in run.rglob("*")
        if (name := file.relative_to(run).as_posix()).split("/")[0] != RAY_FOLDER
        and file.is_file()
        and name != SESSION_FILE
        and not name.endswith(".tmp")  # of another reader on this machine
    }
    for name in sorted(own.keys() - wanted.keys(), key=of_trials, reverse=True):
        if driven(run):
            return  # since a moment ago: now the copy is the newest
        own[name].unlink(missing_ok=True)
    # a file may be replaced within the second that the bucket's clock knows
    young = max((info.mtime_ns for info in wanted.values()), default=0) - YOUNG_NS

    def fetch(name: str) -> None:
        info = wanted[name]
        stat = own[name].stat() if name in own else None
        if stat and (stat.st_size, stat.st_mtime_ns) == (info.size, info.mtime_ns):
            return
        if not driven(run):
            _download(where, path, run, name)
            if info.mtime_ns < young:
                os.utime(run / name, ns=(info.mtime_ns, info.mtime_ns))

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for last in (False, True):
            list(pool.map(fetch, [name for name in wanted if of_trials(name) is last]))
    for name in wanted:  # a bucket has no empty folders
        if Path(name).name == "run.json":
            (run / name).with_name("configs").mkdir(exist_ok=True)


def of_trials(name: str) -> bool:
    """Whether that file of a run says which trials have ended, of the run or of its reruns."""
    return "trials" in name.split("/")[:-1]


def _own_session(run: Path) -> str:
    file = run / SESSION_FILE
    return file.read_text() if file.exists() else ""


def _trial(folder: str) -> str:
    return folder.partition(".")[0]


def _listed(where: fs.FileSystem, path: str) -> dict[str, fs.FileInfo]:
    """All files of a run on the bucket, by their names in the run."""
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    found: list[Any] = where.get_file_info(selector)
    return {info.path[len(path) + 1 :]: info for info in found if info.is_file}


def read(where: fs.FileSystem, file: str) -> str:
    """Content of a small file on the bucket; empty if there is none."""
    if not where.get_file_info(file).is_file:
        return ""
    return content_of(where, file).decode()


def content_of(where: fs.FileSystem, file: str) -> bytes:
    """Content of a file that may be replaced while it is read: of one version, never of two.

    A stream asks for the size first and for so many bytes then; a version that came in between and
    is longer would be cut.
    """
    for _ in range(READ_TRIES):
        with where.open_input_stream(file) as stream:
            content: bytes = stream.read()
        if where.get_file_info(file).size == len(content):
            return content
    raise OSError(f"{file} is replaced faster than it can be read")


def _download(where: fs.FileSystem, path: str, run: Path, name: str) -> None:
    target = run / name
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, content_of(where, f"{path}/{name}"))
