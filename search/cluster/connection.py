"""A Ray to work on while it is needed, left in order also on Ctrl-C and SIGTERM."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

from search.plan import (
    INTERRUPTED,
    PACKAGES,
    STORAGE_ENV,
    WORKER_ENV,
    Cluster,
    Interrupted,
    Node,
    Refused,
    SearchConfig,
    install_handlers,
    interruptible,
    interruption_of,
    run_undisturbed,
)


@contextmanager
def connect(plan: SearchConfig) -> Iterator[Cluster]:
    """Connect to the cluster at `plan.address`, or start a local Ray for this context.

    SIGINT and SIGTERM raise `Interrupted` in it.
    """
    workers = {name: os.environ.get(name, value) for name, value in WORKER_ENV.items()}
    # ending a stopped trial takes long on a busy machine; Ray drops the next one after this time
    workers["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = f"{plan.trial_timeout_s:.0f}"
    workers |= {name: os.environ[name] for name in STORAGE_ENV if name in os.environ}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if plan.address is None:
        os.environ.update(workers)  # workers of a local Ray inherit it
        options |= {"address": "local", "include_dashboard": True}
    else:
        # workers run this code, whatever is installed on their machines
        options |= {
            "address": plan.address,
            "runtime_env": {"env_vars": workers, "py_modules": [str(p) for p in PACKAGES]},
        }
    with interruptible():
        try:
            context = start_ray(options)
            install_handlers()
            url = context.dashboard_url
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield Cluster(
                nodes=tuple(Node(own.get("CPU", 0.0), own.get("GPU", 0.0)) for own in alive),
                dashboard=f"http://{url}" if url else None,
                # Ray does not tell: who asks for many trials at a time expects it to grow
                can_grow=plan.address is not None and plan.max_concurrent is not None,
            )
        finally:
            run_undisturbed(ray.shutdown)


def start_ray(options: dict[str, Any]) -> Any:
    """Return what `ray.init` returns, or raise Refused with a remedy."""
    try:
        return ray.init(**options)
    except BaseException as error:
        stopped = interruption_of(error)
        if isinstance(stopped, SystemExit):  # by Ray's own handler of SIGTERM
            stopped = Interrupted("SIGTERM")
        if isinstance(stopped, Interrupted):
            atexit.register(_exit_at_once)
            raise stopped from None
        if isinstance(error, Exception):  # Ray raises this class if its processes are too slow
            raise _refusal(error, options["address"]) from error
        raise


def _exit_at_once() -> None:
    """End the process: with half of a Ray the interpreter ends in a segmentation fault."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(INTERRUPTED)


def _refusal(error: Exception, address: str) -> Refused:
    said = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.AuthenticationError):
        return Refused(
            f"--address must name a Ray cluster that lets this user in, but {address!r} "
            f"asks for another token ({str(error)[:200]}). Put the token of the cluster (there: "
            "`ray get-auth-token`) into ~/.ray/auth_token or RAY_AUTH_TOKEN."
        )
    if "Version mismatch" in said:  # Ray's own check, of itself and of Python
        return Refused(
            f"the driver and the cluster must have the same versions, but: {said}. Run the "
            "driver where the cluster's image runs, or start the cluster with this one's."
        )
    if address == "local":
        return Refused(
            f"a local Ray must start, but did not ({said[:200]}). It gives its own processes "
            "half a minute: try again when this machine is less busy."
        )
    return Refused(
        f"--address must name a running Ray cluster, but {address!r} does not answer "
        f"({said[:200]}). Start one with `ray start --head`, give the token "
        "of one started elsewhere in RAY_AUTH_TOKEN, or leave --address out."
    )
