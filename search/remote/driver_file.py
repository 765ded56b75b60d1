"""The file `.driver` of a run: the process that drives it, and how that ended."""

import fcntl
import json
import os
import platform
import time
from pathlib import Path
from typing import IO, Any

DRIVER_FILE = ".driver"
"""Name of the file; its driver holds a lock on it."""


class Driver:
    """The process that drives a run, as its open `.driver` describes it.

    Attributes:
        exit_code: of the command; None while it runs.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._about = {"host": platform.node(), "pid": os.getpid(), "since": time.time()}
        self.exit_code: int | None = None
        self.write()

    def state(self) -> dict[str, Any]:
        """Return the content of the file."""
        ended = {} if self.exit_code is None else {"exit_code": self.exit_code}
        return self._about | ended

    def write(self) -> None:
        """Write the file in place, since the lock is on the file and not on its name."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(json.dumps(self.state()))
        self._file.flush()


def is_locked(run: Path) -> bool:
    """Tell if a driver on this machine, or on one that shares the folder, holds the run."""
    try:
        with open(run / DRIVER_FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
