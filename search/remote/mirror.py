"""Sends a run's working copy to its bucket while it is driven.

The bucket is a few seconds behind the working copy, and consistent whenever its driver dies: the
rows of `trials` are sent after everything they rest on. One driver at a time holds a run, wherever
it is: by a lock on its own machine, by a sign of life on the bucket elsewhere.
"""

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search.plan import RunError
from search.records import RAY_FOLDER

from .bucket import first_line, home_of, is_uri, opened, refusal
from .lock import DRIVER_FILE, Driver, exclusive
from .working_copy import SESSION_FILE, of_trials, read

MIRROR_SECONDS = 5.0
"""The bucket is this far behind the working copy."""
STALE_SECONDS = 60.0
"""A driver that has written nothing for so long has gone."""


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
        text = read(where, f"{path}/{DRIVER_FILE}")
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
        self._old = {p.parent for p in run.glob(f"{RAY_FOLDER}/*/checkpoint_*")}
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
        ended = {name: stamp for name, stamp in self._new().items() if of_trials(name)}
        rest = {name: stamp for name, stamp in self._new().items() if not of_trials(name)}
        for name, stamp in {**rest, **ended}.items():
            content = self._run.joinpath(name).read_bytes()
            if name == DRIVER_FILE:
                try:
                    content = json.dumps(json.loads(content) | {"seen": time.time()}).encode()
                except ValueError:
                    continue  # it is being written
            with self._where.open_output_stream(f"{self._path}/{name}") as file:
                file.write(content)
            if name != DRIVER_FILE:  # that one is a sign of life
                self._sent[name] = stamp
        for folder in [folder for folder in self._old if not folder.exists()]:
            self._where.delete_dir(f"{self._path}/{RAY_FOLDER}/{folder.name}")
            self._old.discard(folder)

    def _new(self) -> dict[str, tuple[int, int]]:
        """Files that have changed since they were sent, with size and time."""
        new = {}
        for path in sorted(self._run.rglob("*")):
            name = path.relative_to(self._run).as_posix()
            if RAY_FOLDER in name.split("/")[:-1] or name.endswith(".tmp"):
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
