"""One driver at a time: the lock on a run and what it says of its holder."""

import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from search.plan import INTERRUPTED, RunError, interruption_of

DRIVER_FILE = ".driver"
"""Who drives a run, and how that ended; locked for as long as it lasts."""


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
            fitting = [
                code for kind, code in codes.items() if isinstance(interruption_of(error), kind)
            ]
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
