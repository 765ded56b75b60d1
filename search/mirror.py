"""Keeps a run on a bucket and its working copy the same: brought down first, sent up while driven.

The bucket is a few seconds behind the working copy, and consistent whenever its driver dies: the
rows of `trials` are sent after everything they rest on. One driver at a time holds a run, wherever
it is: by a lock on its own machine, by a sign of life on the bucket elsewhere.
"""

import contextlib
import json
import os
import platform
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow import fs

from .bucket import first_line, home_of, is_uri, opened, refusal
from .files import DRIVER_FILE, Driver, RunError, RunNotFound, driven, exclusive

MIRROR_SECONDS = 5.0
"""The bucket is this far behind the working copy."""
STALE_SECONDS = 60.0
"""A driver that has written nothing for so long has gone."""
CHECKPOINTS = "ray"
"""Folder that workers write to: never uploaded from here."""
SESSION_FILE = ".session"
"""Holds a number that is new whenever a driver takes a run over."""


def pull(run: Path, *, to_drive: bool = False) -> None:
    """Brings a run's working copy up to date; does nothing for a run at home on a disk.

    The bucket counts, unless this machine was the last to drive the run: then the working copy is
    as new or newer, because the bucket may have been out of reach at the end.

    Args:
        to_drive: whether checkpoints of unfinished trials are wanted too.

    Raises:
        BucketError, RunNotFound: if it cannot be read, or has no such run.
    """
    home = home_of(run)
    if not is_uri(home) or driven(run):
        return  # whoever drives it has the newest
    where, path = opened(home)
    try:
        names = _listed(where, path)
        if "run.json" not in names and not run.joinpath("run.json").exists():
            raise RunNotFound(f"a run has a run.json, but {home} has none. Check the URI.")
        session = _read(where, f"{path}/{SESSION_FILE}")
        if session != _own_session(run) or not run.joinpath("run.json").exists():
            fresh = run.with_name(f".{run.name}.{os.getpid()}.tmp")
            for name in sorted(names):
                if name.split("/")[0] != CHECKPOINTS:
                    _download(where, path, fresh, name)
            for file in list(fresh.rglob("run.json")):  # a bucket has no empty folders
                file.with_name("configs").mkdir(exist_ok=True)
            shutil.rmtree(run, ignore_errors=True)
            fresh.rename(run)
        if to_drive:
            shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
            ended = {p.stem for p in run.joinpath("trials").glob("*.parquet")}
            for name in sorted(names):
                parts = name.split("/")
                if parts[0] == CHECKPOINTS and len(parts) == 4 and _trial(parts[1]) not in ended:
                    _download(where, path, run, name)
    except OSError as error:
        raise refusal(home, error) from None


def push(folder: Path) -> None:
    """Sends a folder of a run, such as its report; does nothing for a run at home on a disk.

    Raises:
        BucketError: if the bucket does not take it.
    """
    home = home_of(folder)
    if not is_uri(home):
        return
    where, path = opened(home)
    try:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                with where.open_output_stream(f"{path}/{file.relative_to(folder)}") as sent:
                    sent.write(file.read_bytes())
    except OSError as error:
        raise refusal(home, error) from None


@contextlib.contextmanager
def driving(run: Path) -> Iterator[Driver]:
    """Holds a run for one driver, and mirrors it to its bucket if it is at home on one.

    Raises:
        RunError: if another driver holds it, here or, by its sign of life, elsewhere.
    """
    home = home_of(run)
    with exclusive(run) as driver:
        if not is_uri(home):
            yield driver
            return
        refuse_driven(home)
        run.joinpath(SESSION_FILE).write_text(os.urandom(8).hex())
        mirror = Mirror(run, home)
        mirror.sync()
        mirror.start()
        try:
            with driver.noting():
                yield driver
        finally:
            mirror.stop()
            try:
                mirror.sync()
            except OSError as error:
                driver.exit_code = 1
                print(
                    f"{home} lacks the last results ({first_line(error)}), but {run} has them: "
                    f"--resume {home} from this machine uploads them",
                    flush=True,
                )


def refuse_driven(home: str) -> None:
    """Raises RunError if a driver has shown signs of life on the bucket lately."""
    state = sign_of_life(home)
    if state is not None:
        raise RunError(
            f"a run has one driver at a time, but {home} has one on {state['host']}. Stop it, or "
            f"wait {STALE_SECONDS:.0f} s if it was killed."
        )


def sign_of_life(home: str) -> dict[str, Any] | None:
    """What a driver that is alive has written to the bucket; None if there is none.

    One that was killed on this machine is known to be dead, one elsewhere after a minute.
    """
    where, path = opened(home)
    try:
        text = _read(where, f"{path}/{DRIVER_FILE}")
    except OSError as error:
        raise refusal(home, error) from None
    state: dict[str, Any] = json.loads(text or "{}")
    if not state or "exit_code" in state or time.time() - state["seen"] > STALE_SECONDS:
        return None
    if state["host"] == platform.node() and not Path(f"/proc/{state['pid']}").exists():
        return None
    return state


class Mirror:
    """Uploads what has changed in a working copy, at intervals, from a thread of its own.

    Args:
        run: the working copy.
        home: URI of the run.
    """

    def __init__(self, run: Path, home: str) -> None:
        self._run, self._home = run, home
        self._where, self._path = opened(home)
        self._sent: dict[str, tuple[int, int]] = {}
        self._old = {p.parent for p in run.glob(f"{CHECKPOINTS}/*/checkpoint_*")}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep_up, daemon=True)

    def start(self) -> None:
        """Begins to mirror."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it; what is new since then needs another `sync`."""
        self._stopped.set()
        self._thread.join()

    def sync(self) -> None:
        """Uploads what is new now.

        Raises:
            OSError: if the bucket does not take it; the next call tries again.
        """
        # `trials` is listed first and sent last: a row there never precedes what it rests on
        found = {"trials": self._new("trials"), "": self._new("")}
        for name, stamp in {**found[""], **found["trials"]}.items():
            content = self._run.joinpath(name).read_bytes()
            if name == DRIVER_FILE and content:
                content = json.dumps(json.loads(content) | {"seen": time.time()}).encode()
            with self._where.open_output_stream(f"{self._path}/{name}") as file:
                file.write(content)
            if name != DRIVER_FILE:  # that one is a sign of life
                self._sent[name] = stamp
        for folder in [folder for folder in self._old if not folder.exists()]:
            self._where.delete_dir(f"{self._path}/{CHECKPOINTS}/{folder.name}")
            self._old.discard(folder)

    def _new(self, below: str) -> dict[str, tuple[int, int]]:
        """Files that have changed since they were sent, with size and time."""
        new = {}
        for path in sorted(self._run.joinpath(below).rglob("*")):
            name = path.relative_to(self._run).as_posix()
            if CHECKPOINTS in name.split("/")[:-1] or name.endswith(".tmp"):
                continue
            if below == "" and name.startswith("trials/"):
                continue
            with contextlib.suppress(FileNotFoundError):  # replaced or moved meanwhile
                stat = path.stat()
                stamp = (stat.st_size, stat.st_mtime_ns)
                if path.is_file() and self._sent.get(name) != stamp:
                    new[name] = stamp
        return new

    def _keep_up(self) -> None:
        failing = False
        while not self._stopped.wait(MIRROR_SECONDS):
            try:
                self.sync()
                if failing:
                    print(f"{self._home} takes files again", flush=True)
                failing = False
            except OSError as error:
                if not failing:
                    print(
                        f"{self._home} takes no files ({first_line(error)}); they are kept in "
                        f"{self._run} and sent when it does",
                        flush=True,
                    )
                failing = True


def _trial(folder: str) -> str:
    return folder.partition(".")[0]


def _own_session(run: Path) -> str:
    file = run / SESSION_FILE
    return file.read_text() if file.exists() else ""


def _listed(where: fs.FileSystem, path: str) -> set[str]:
    selector = fs.FileSelector(path, recursive=True, allow_not_found=True)
    found: list[Any] = where.get_file_info(selector)
    return {info.path[len(path) + 1 :] for info in found if info.is_file}


def _read(where: fs.FileSystem, file: str) -> str:
    """Content of a small file on the bucket; empty if there is none."""
    if not where.get_file_info(file).is_file:
        return ""
    with where.open_input_stream(file) as stream:
        return str(stream.read().decode())


def _download(where: fs.FileSystem, path: str, to: Path, name: str) -> None:
    target = to / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with where.open_input_stream(f"{path}/{name}") as stream:
        target.write_bytes(stream.read())
