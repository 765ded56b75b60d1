"""Holds a run for one driver, and sends its working copy to its bucket meanwhile.

The bucket is a few seconds behind the working copy, and consistent whenever the driver dies: rows
of `trials` are sent after everything they rest on.
"""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import pyarrow as pa

from search.plan import INTERRUPTED, RunError, interruption_of
from search.records import RAY_FOLDER

from .bucket import RemoteFiles, bucket_errors, first_line, is_uri, uri_of
from .lock import DRIVER_FILE, STALE_SECONDS, Driver, sign_of_life
from .working_copy import SESSION_FILE, Stamp, is_of_trials, local_files

MIRROR_SECONDS = 5.0
"""Delay of the bucket behind the working copy."""


@contextmanager
def lock_run(run: Path) -> Iterator[Driver]:
    """Hold a run for one driver, and mirror it to its bucket if it is on one.

    The exit code of the command is noted as the context ends: by its exception, or else the one
    that it has set. If another driver holds the run, raise RunError and change nothing.
    """
    uri = uri_of(run)
    with open(run / DRIVER_FILE, "a") as file:
        for patience in (0.1, 0.1, 0.0):  # `is_locked` may hold it for an instant
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(patience)
        else:
            raise RunError(
                f"a run has one driver at a time, but {run} has one now. Wait for it, or stop it."
            )
        if is_uri(uri) and (other := sign_of_life(uri)):
            raise RunError(
                f"a run has one driver at a time, but {uri} has one on {other['host']}. Stop it, "
                f"or wait {STALE_SECONDS:.0f} s if it was killed."
            )
        driver = Driver(file)
        with mirrored(run, uri, driver) if is_uri(uri) else nullcontext():
            try:
                yield driver
                driver.exit_code = driver.exit_code or 0
            except BaseException as error:
                codes = {KeyboardInterrupt: INTERRUPTED, RunError: 2, BaseException: 1}
                cause = interruption_of(error)
                driver.exit_code = next(codes[kind] for kind in codes if isinstance(cause, kind))
                raise
            finally:
                driver.write()


@contextmanager
def mirrored(run: Path, uri: str, driver: Driver) -> Iterator[None]:
    """Send a working copy to its bucket at the start, at intervals, and at the end.

    Raise BucketError if the bucket takes no files at the start. A later outage is bridged and
    printed; if it lasts beyond the end, the exit code is 1.
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
    """Uploads the changes of a working copy, and its driver's sign of life."""

    def __init__(self, run: Path, uri: str, driver: Driver) -> None:
        self._run, self._uri, self._driver = run, uri, driver
        self._remote = RemoteFiles(uri)
        self._sent: dict[str, Stamp] = {}
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
            except (OSError, pa.ArrowException) as error:
                if not failing:
                    print(
                        f"{self._uri} takes no files ({first_line(error)}); they are kept in "
                        f"{self._run} and sent when it does",
                        flush=True,
                    )
                failing = True

    def sync(self) -> None:
        """Upload what has changed; after an OSError the next call tries again."""
        state = self._driver.state() | {"seen": time.time()}
        ended, heartbeat = "exit_code" in state, json.dumps(state).encode()
        if not ended:
            self._remote.write(DRIVER_FILE, heartbeat)
        # Parts are replaced meanwhile: read `trials` before the other tables and send it last, so
        # that every row it refers to is on the bucket already.
        trials = list(self._changed(of_trials=True))
        for files in (self._changed(of_trials=False), trials):
            for name, stamp, content in files:
                self._remote.write(name, content)
                self._sent[name] = stamp
        for folder in [folder for folder in self._old if not folder.exists()]:
            self._remote.remove(f"{RAY_FOLDER}/{folder.name}")
            self._old.discard(folder)
        if ended:  # last: whoever follows the run knows then that nothing is to come
            self._remote.write(DRIVER_FILE, heartbeat)

    def _changed(self, *, of_trials: bool) -> Iterator[tuple[str, Stamp, bytes]]:
        for name, stamp in local_files(self._run).items():
            if RAY_FOLDER in name.split("/")[:-1] or name == DRIVER_FILE:
                continue
            if is_of_trials(name) is of_trials and self._sent.get(name) != stamp:
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield name, stamp, self._run.joinpath(name).read_bytes()
