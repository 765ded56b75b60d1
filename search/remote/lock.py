"""The lock of a run: one driver at a time, on this machine and on any other.

On a disk it is a lock of the operating system on `.driver`, which ends with the process. On a
bucket it is a sign of life in the same file, which the mirror renews.
"""

import fcntl
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from search.plan import INTERRUPTED, RunError, interruption_of

from .bucket import RemoteFiles, bucket_errors, is_uri, uri_of
from .driver_file import DRIVER_FILE, Driver, is_locked
from .mirror import mirrored

STALE_SECONDS = 60.0
"""Time without a sign of life after which a driver counts as dead."""


@contextmanager
def lock_run(run: Path) -> Iterator[Driver]:
    """Hold a run for one driver, and mirror it to its bucket if it is on one.

    The exit code of the command is noted as the context ends: by its exception, or else the one
    that it has set.

    Raises:
        RunError: if another driver holds the run; nothing has been changed then.
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
                driver.exit_code = _exit_code(interruption_of(error))
                raise
            finally:
                driver.write()


def _exit_code(error: BaseException) -> int:
    codes = {KeyboardInterrupt: INTERRUPTED, RunError: 2}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 1)


def is_driven(run: Path) -> bool:
    """Tell if some driver holds the run: by its lock here, or by its sign of life elsewhere."""
    uri = uri_of(run)
    return is_locked(run) or (is_uri(uri) and sign_of_life(uri) is not None)


def sign_of_life(uri: str) -> dict[str, Any] | None:
    """Return what a living driver has written to the bucket, None without one.

    One that was killed on this machine is known to be dead, one elsewhere after a minute.
    """
    with bucket_errors(uri):
        try:
            state: dict[str, Any] = json.loads(RemoteFiles(uri).read(DRIVER_FILE))
        except FileNotFoundError:
            return None
    if "exit_code" in state or time.time() - state.get("seen", 0) > STALE_SECONDS:
        return None
    if state["host"] == platform.node() and not Path(f"/proc/{state['pid']}").exists():
        return None
    return state
