"""A Ray to work on while it is needed, left in order also on Ctrl-C and SIGTERM."""

import atexit
import math
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray._private.services import canonicalize_bootstrap_address

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
    check_address,
    install_handlers,
    interruptible,
    interruption_of,
    run_undisturbed,
)

WATCH_SECONDS, GONE_AFTER = 3.0, 5
"""Interval at which the head is asked for a sign of life; it has gone after so many in vain."""


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
        # workers run this code and the user's, whatever is installed on their machines
        modules = [*map(str, PACKAGES), *plan.code_modules]
        options |= {
            "address": plan.address,
            "runtime_env": {"env_vars": workers, "py_modules": modules},
        }
    left = threading.Event()
    with interruptible():
        try:
            context = start_ray(options)
            install_handlers()
            head = ray.get_runtime_context().gcs_address
            threading.Thread(target=watch_head, args=(head, left), daemon=True).start()
            url = context.dashboard_url
            alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            yield Cluster(
                nodes=tuple(map(_node, alive)),
                dashboard=f"http://{url}" if url else None,
                # Ray does not tell: who asks for many trials at a time expects it to grow
                can_grow=plan.address is not None and plan.max_concurrent is not None,
            )
        finally:
            left.set()
            run_undisturbed(ray.shutdown)


def _node(own: Mapping[str, float]) -> Node:
    """Return a machine from Ray's account of it; its memory is what Ray leaves to workers."""
    kinds = [name.partition(":")[2] for name in own if name.startswith("accelerator_type:")]
    memory, kind = own.get("memory", math.inf), kinds[0] if kinds else None
    return Node(own.get("CPU", 0.0), own.get("GPU", 0.0), memory, kind)


def start_ray(options: dict[str, Any]) -> Any:
    """Return what `ray.init` returns, or raise Refused with a remedy."""
    try:
        if options["address"] != "local":  # a file may name a head that has gone
            check_address(canonicalize_bootstrap_address(options["address"]))
        return ray.init(**options)
    except BaseException as error:
        stopped = interruption_of(error)
        if isinstance(stopped, SystemExit):  # by Ray's own handler of SIGTERM
            stopped = Interrupted("SIGTERM")
        if isinstance(stopped, Interrupted):
            atexit.register(_exit_at_once)
            raise stopped from None
        # `Exception` itself is Ray's if its processes are too slow
        if isinstance(error, Exception) and not isinstance(error, Refused):
            raise _refusal(error, options["address"]) from error
        raise


def watch_head(address: str, left: threading.Event) -> None:
    """End this process with exit code 1 once the head at `address` has gone, until `left` is set.

    Calls of Ray do not return then, and a minute later its C++ aborts the process without a word.
    """
    import psutil  # Ray's, found once Ray is imported

    silent = 0
    while silent < GONE_AFTER:
        if left.wait(WATCH_SECONDS):
            return
        try:
            check_address(address)
            silent = 0
        except Refused:
            silent += 1
    lost = f"the head of the Ray cluster at {address} has gone, but nothing is lost: continue"
    print(lost, "with --resume (a search) or the same command elsewhere", file=sys.stderr)
    for process in psutil.Process().children(recursive=True):  # those of our own Ray
        with suppress(psutil.Error):
            process.kill()
    _exit_at_once(1)


def _exit_at_once(code: int = INTERRUPTED) -> None:
    """End the process: with half of a Ray the interpreter ends in a segmentation fault."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)


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
        busy = "Its own processes have half a minute: try again when this machine is less busy."
        full = "Make room there, or choose another folder with RAY_TMPDIR."
        remedy = full if isinstance(error, OSError) else busy
        return Refused(f"a local Ray must start, but did not ({said[:200]}). {remedy}")
    return Refused(
        f"--address must name a running Ray cluster, but {address!r} does not answer "
        f"({said[:200]}). Start one with `ray start --head`, give the token "
        "of one started elsewhere in RAY_AUTH_TOKEN, or leave --address out."
    )
