"""Environment variables that Ray reads, in the driver and in its workers.

Ray reads the driver's when it is imported: call `set_ray_environment` before.
"""

import atexit
import gc
import os
import secrets
import tempfile
from functools import cache
from pathlib import Path

PACKAGES = tuple(Path(__file__).parents[2] / name for name in ("search", "spaces", "trainer"))
"""Packages that are sent to the workers of a cluster."""

STORAGE_ENV = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")
"""Address of the object storage, for workers too; credentials are those of their machines."""

WORKER_ENV = {
    # else glibc returns and maps large buffers again at every step: half of a training's time
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
    # else a trial without a share of a GPU sees them all
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
DRIVER_ENV = {
    # no tables and loggers of Ray's: `search.driver` prints one line per event
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # the table `failures` has them
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # `interrupts` handles it
    "RAY_USAGE_STATS_ENABLED": "0",
}


def set_ray_environment(address: str | None = None) -> None:
    """Set the variables that the driver's Ray reads; those that the user has set stay."""
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    # A Ray that we start makes itself a token. A cluster that was started without one asks for
    # none, so that whoever has none must not ask Ray to show it.
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    known = "RAY_AUTH_TOKEN" in os.environ or file.exists()
    if address is None or known:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    home = file.parent if file.parent.exists() else file.parents[1]
    if address is None and not (known or os.access(home, os.W_OK | os.X_OK)):
        private = tempfile.TemporaryDirectory()  # Ray could not keep its token at home
        atexit.register(private.cleanup)
        os.environ["RAY_AUTH_TOKEN_PATH"] = os.path.join(private.name, "auth_token")
        Path(private.name, "auth_token").write_text(secrets.token_hex(16))


@cache
def freeze_loaded_objects() -> None:
    """Exempt all objects of the libraries loaded so far from garbage collection, once a process.

    They stay anyway, and going through them takes a sixth of a second on a worker.
    """
    gc.freeze()
