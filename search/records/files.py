"""The file system under a run: finding it, reading it with clear errors, writing whole files only.

Errors here are for the person at the command line: one line with the rule, the value and the
remedy.
"""

import difflib
import fcntl
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.plan.config import RUNS
from search.plan.interrupts import INTERRUPTED, meant

from .arrow import check_parameters
from .schema import TABLES

FORMAT = 1
"""Version of the layout; a run of another one is refused, not guessed at."""

DRIVER_FILE = ".driver"
"""Who drives a run, and how that ended; locked for as long as it lasts."""

_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class RunError(Exception):
    """A run that cannot be used as asked; the message has the rule, the value and the remedy."""


class RunExists(RunError):
    """A new run was to be made where one lies already."""


class RunNotFound(RunError):
    """No run under that name or path."""


class RunNotWritable(RunError):
    """The file system refuses to take the run's files."""


class CorruptRun(RunError):
    """A run folder whose files contradict the layout."""


def resolve_run(run: str | Path, out: str | Path | None = None) -> Path:
    """The folder that RUN stands for: a name under `out`, or a path.

    One on object storage is brought into its working copy.

    Raises:
        RunNotFound: with the nearest existing name.
    """
    from search.remote import bucket, working_copy

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
        + hint(str(run), existing)
    )


class Driver:
    """What `.driver` says of the process that drives a run.

    Attributes:
        exit_code: how it ended; None while it lasts.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._about = {"host": platform.node(), "pid": os.getpid(), "since": time.time()}
        self.exit_code: int | None = None

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Notes the exit code that the command line has for how the context ends."""
        try:
            yield
        except BaseException as error:
            codes = {KeyboardInterrupt: INTERRUPTED, RunError: 2}
            fitting = [code for kind, code in codes.items() if isinstance(meant(error), kind)]
            self.exit_code = fitting[0] if fitting else 1
            raise
        else:
            self.exit_code = self.exit_code or 0
        finally:
            self.write()

    def write(self) -> None:
        """Puts it into the file, in place: the lock is on the file and not on its name."""
        ended = {} if self.exit_code is None else {"exit_code": self.exit_code}
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self._about | ended))
        self._file.flush()


@contextmanager
def exclusive(run: Path) -> Iterator[Driver]:
    """Holds a run for one driver; the system gives it back even if that is killed.

    Raises:
        RunError: if another driver holds it.
    """
    with open(run / DRIVER_FILE, "a") as lock:
        for patience in (0.1, 0.1, 0.0):  # `driven` may hold it for an instant
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(patience)
        else:
            raise _driven(run)
        driver = Driver(lock)
        driver.write()
        with driver.noting():
            yield driver


def driven(run: Path) -> bool:
    """Whether a driver of this machine, or of one that shares the folder, holds the run."""
    try:
        with open(run / DRIVER_FILE) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _driven(run: Path) -> RunError:
    return RunError(
        f"a run has one driver at a time, but {run} has one now. Wait for it, or stop it."
    )


def refuse_existing(path: Path) -> None:
    """Raises RunExists if there is anything under `path`."""
    if os.path.lexists(path):
        raise RunExists(
            f"a new run needs a new folder, but {path} exists. Continue it with "
            f"`--resume {path}`, or choose another `--name`."
        )


def read_run(path: str | Path) -> dict[str, Any]:
    """`run.json` with its `format` and `parameters`.

    Raises:
        CorruptRun: if it is missing, damaged, or of another format.
    """
    file = Path(path) / "run.json"
    if not file.exists():
        raise CorruptRun(missing(file))
    content = read_json(file)
    if content.get("format") != FORMAT:
        raise CorruptRun(
            f"{file} must have format {FORMAT}, but has {content.get('format')!r}. "
            "Read it with the version of this project that wrote it."
        )
    try:
        check_parameters({k: tuple(v) for k, v in content["parameters"].items()})
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CorruptRun(
            f"{file} must name the space's parameters, but: {error}. Restore it from a copy, or "
            "start anew with another `--name`."
        ) from None
    return content


def part_files(folder: Path) -> list[Path]:
    """The part files of a table that count: a writer's temporary ones are hidden."""
    return sorted(folder.glob("[!._]*.parquet"))


def is_readable(part: Path) -> bool:
    """Whether every row of a part can be read."""
    try:
        pq.ParquetFile(part).read()
    except (pa.ArrowException, OSError):
        return False
    return True


def read_part_schema(part: Path) -> pa.Schema:
    """The schema in a part's footer.

    Raises:
        CorruptRun: if the file is no complete Parquet file.
    """
    try:
        return pq.read_schema(part)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        ended = part.parent.parent / "trials" / part.name
        both = f" and {ended}" if ended.exists() and ended != part else ""
        raise CorruptRun(
            f"{part} must be a complete Parquet file, but is not ({reason}). Delete it{both}, "
            "then `--resume` the run: what they held is computed again."
        ) from None


def write_atomically(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Puts `content` under `path` in one step: readers see the old file or the new one.

    That holds whatever happens to this process. What a power cut within the next seconds may do
    to a trial's files is found by `RunStore.open` and repaired by `--resume`; waiting for the disk
    (`sync`) several times per trial would cost more than all other bookkeeping.
    """
    folder, name = os.path.split(path)
    temporary = f"{folder}/.{name}.{os.getpid()}.tmp"  # hidden: Arrow skips it
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_json(path: Path, remedy: str = "start anew with another `--name`") -> dict[str, Any]:
    """What a file holds.

    Raises:
        CorruptRun: if that is no JSON object; it is to be restored, or else `remedy`.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, not an object")
    except (OSError, ValueError) as error:
        raise CorruptRun(
            f"{path} must be readable JSON, but is not ({error}). Restore it from a copy, or "
            f"{remedy}."
        ) from None
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """JSON, a line for each entry; a number that is not finite is refused, since JSON has none.

    Not indented further: that takes the encoder that is written in Python, ten times as long.
    """
    entries = (f"  {_JSON.encode(k)}: {_JSON.encode(v)}" for k, v in content.items())
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a part or trial name has letters, digits, `.`, `_`, `-` and begins with a letter or "
            f"digit (hidden files are skipped by readers), but got {name!r}. Rename it."
        )
    return name


def missing(path: Path) -> str:
    return (
        f"a run folder has {path.name}, but {path} is missing. Restore it from a copy, or start "
        "anew with another `--name`."
    )


def hint(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""
