"""Sends a run's working copy to its bucket while it is driven.

The bucket is a few seconds behind the working copy, and consistent whenever the driver dies: rows
of `trials` are sent after everything they rest on.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from search.records import RAY_FOLDER

from .bucket import RemoteFiles, bucket_errors, first_line
from .driver_file import DRIVER_FILE, Driver
from .working_copy import SESSION_FILE, is_of_trials

MIRROR_SECONDS = 5.0
"""Delay of the bucket behind the working copy."""

Changed = tuple[str, tuple[int, int], bytes]
"""A file's name in the run, its size and time, and its content."""


@contextmanager
def mirrored(run: Path, uri: str, driver: Driver) -> Iterator[None]:
    """Send a working copy to its bucket at the start, at intervals, and at the end.

    An outage of the bucket is bridged and told. If it lasts beyond the end, the exit code is 1.

    Raises:
        BucketError: if the bucket takes no files at the start.
    """
    run.joinpath(SESSION_FILE).write_text(os.urandom(8).hex())
    mirror = Mirror(run, uri, driver)
    with bucket_errors(uri):
        mirror.sync()
    stopped = threading.Event()
    thread = threading.Thread(target=mirror.keep_up, args=(stopped,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        try:
            mirror.sync()
        except OSError as error:
            driver.exit_code = 1
            driver.write()
            print(
                f"{uri} lacks the last results ({first_line(error)}), but {run} has them: "
                f"--resume {uri} from this machine uploads them",
                flush=True,
            )


class Mirror:
    """Uploads the changes of a working copy.

    Args:
        run: the working copy.
        uri: of the run.
        driver: of the run, of which the bucket gets a sign of life.
    """

    def __init__(self, run: Path, uri: str, driver: Driver) -> None:
        self._run, self._uri, self._driver = run, uri, driver
        self._remote = RemoteFiles(uri)
        self._sent: dict[str, tuple[int, int]] = {}
        self._old = {p.parent for p in run.glob(f"{RAY_FOLDER}/*/checkpoint_*")}

    def keep_up(self, stopped: threading.Event) -> None:
        """Upload changes at intervals until `stopped`; print when an outage begins and ends."""
        failing = False
        while not stopped.wait(MIRROR_SECONDS):
            try:
                self.sync()
                if failing:
                    print(f"{self._uri} takes files again", flush=True)
                failing = False
            except OSError as error:
                if not failing:
                    print(
                        f"{self._uri} takes no files ({first_line(error)}); they are kept in "
                        f"{self._run} and sent when it does",
                        flush=True,
                    )
                failing = True

    def sync(self) -> None:
        """Upload what has changed.

        Raises:
            OSError: if the bucket does not take it; the next call tries again.
        """
        ended = self._driver.exit_code is not None
        if not ended:
            self._send_sign_of_life()
        # Parts are replaced meanwhile: what is read of `trials` first rests on nothing that is
        # written later, and it is sent last.
        trials = list(self._changed(of_trials=True))
        for files in (self._changed(of_trials=False), trials):
            for name, stamp, content in files:
                self._remote.write(name, content)
                self._sent[name] = stamp
        for folder in [folder for folder in self._old if not folder.exists()]:
            self._remote.remove(f"{RAY_FOLDER}/{folder.name}")
            self._old.discard(folder)
        if ended:  # last: whoever follows the run knows then that nothing is to come
            self._send_sign_of_life()

    def _send_sign_of_life(self) -> None:
        state = self._driver.state() | {"seen": time.time()}
        self._remote.write(DRIVER_FILE, json.dumps(state).encode())

    def _changed(self, *, of_trials: bool) -> Iterator[Changed]:
        for path in sorted(self._run.rglob("*")):
            name = path.relative_to(self._run).as_posix()
            if RAY_FOLDER in name.split("/")[:-1] or name.endswith(".tmp") or name == DRIVER_FILE:
                continue
            if is_of_trials(name) is not of_trials or not path.is_file():
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                stat = path.stat()
                stamp = (stat.st_size, stat.st_mtime_ns)
                if self._sent.get(name) != stamp:
                    yield name, stamp, path.read_bytes()
