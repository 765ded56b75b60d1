"""The lock of a run, its file `.driver`: the process that drives it, and how that ended.

On a disk it is a lock of the operating system on the file, which ends with the process. On a
bucket it is a sign of life in the file, which the mirror renews.
"""

import fcntl
import json
import os
import platform
import time
from pathlib import Path
from typing import IO, Any

from .bucket import RemoteFiles, bucket_errors

DRIVER_FILE = ".driver"
STALE_SECONDS = 60.0
"""Time without a sign of life after which a driver counts as dead."""


class Driver:
    """The process that drives a run; `exit_code` is its command's, None while it runs.

    It writes its open `.driver` in place, since the lock is on the file and not on its name.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._about = {"host": platform.node(), "pid": os.getpid(), "since": time.time()}
        self.exit_code: int | None = None
        self.write()

    def state(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self._about | ({} if self.exit_code is None else {"exit_code": self.exit_code})

    def write(self) -> None:
        """Write the file."""
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
        pass
    return False


def sign_of_life(uri: str) -> dict[str, Any] | None:
    """Return what a living driver has written to the bucket, None without one.

    One that was killed on this machine is known to be dead, one elsewhere after a minute.
    """
    with bucket_errors(uri):
        try:
            state: dict[str, Any] = json.loads(RemoteFiles(uri).read(DRIVER_FILE))
        except FileNotFoundError:
            return None
    gone = state["host"] == platform.node() and not Path(f"/proc/{state['pid']}").exists()
    late = time.time() - state.get("seen", 0) > STALE_SECONDS
    return None if "exit_code" in state or late or gone else state
