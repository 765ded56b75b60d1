"""Environment variables of the driver and of its workers, and what both do once they are loaded.

Ray reads its own when it is imported, so `prepare` comes before the first import of `driver`.
"""

import gc
import os
from functools import cache
from pathlib import Path

PACKAGES = tuple(Path(__file__).parents[2] / name for name in ("search", "spaces", "trainer"))
"""The code that workers of a cluster are given."""

STORAGE_ENV = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_REGION")
"""Where the bucket is, which workers must know too; credentials are their machines' own."""

WORKER_ENV = {
    # glibc returns and re-maps large buffers at every step otherwise: half the time of a training
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}
DRIVER_ENV = {
    # Ray's own tables and loggers: the monitor prints one line per event instead
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are in the table `failures`
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # the driver handles it, and SIGTERM
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare(address: str | None = None) -> None:
    """Sets what the driver's Ray reads; what the user has set stays.

    Args:
        address: of the cluster that is there already, if it is to be one.
    """
    for name, value in DRIVER_ENV.items():
        os.environ.setdefault(name, value)
    # As Ray does: a Ray that we start has a token, made if need be. A cluster that was started
    # where there was none asks for none.
    if address is None or has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


@cache
def keep_what_is_loaded() -> None:
    """Libraries stay: among theirs, looking for garbage takes a sixth of a second on a worker."""
    gc.freeze()


def has_token() -> bool:
    """Whether Ray would find a token of this user's."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    own = Path(named) if named else Path.home() / ".ray" / "auth_token"
    return "RAY_AUTH_TOKEN" in os.environ or own.exists()
