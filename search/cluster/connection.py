"""A Ray to work on, for as long as it is needed; left in order, also by Ctrl-C and SIGTERM. And
jobs for its workers."""

import atexit
import os
import sys
from collections.abc import Iterator, Mapping
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
    Resources,
    SearchConfig,
    SearchFailed,
    install_handlers,
    interruptible,
    interruption_of,
    run_undisturbed,
)


@contextmanager
def connect(plan: SearchConfig) -> Iterator[Cluster]:
    """A local Ray, or the cluster at `plan.address`, for as long as the context lasts.

    SIGINT and SIGTERM raise `Interrupted` in it.

    Raises:
        Refused: if there is no cluster at that address.
    """
    # ending a stopped trial takes long on a busy machine; Ray drops the next one after this time
    workers = {name: os.environ.get(name, value) for name, value in WORKER_ENV.items()}
    workers |= {"TUNE_FUNCTION_THREAD_TIMEOUT_S": f"{plan.trial_timeout_s:.0f}"}
    workers |= {name: os.environ[name] for name in STORAGE_ENV if name in os.environ}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if plan.address is None:
        os.environ.update(workers)  # the workers of a local Ray inherit it
        options |= {"address": "local", "include_dashboard": True}
    else:
        # the workers run this code, whatever is installed there
        options |= {
            "address": plan.address,
            "runtime_env": {"env_vars": workers, "py_modules": [str(p) for p in PACKAGES]},
        }
    with interruptible():
        try:
            context = _started(options)
            install_handlers()
            url = context.dashboard_url
            yield Cluster(
                nodes=tuple(
                    Node(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0))
                    for n in ray.nodes()
                    if n["Alive"]
                ),
                dashboard=f"http://{url}" if url else None,
                # whoever says how many trials to run on a cluster expects it to grow for them
                can_grow=plan.address is not None and plan.max_concurrent is not None,
            )
        finally:
            run_undisturbed(ray.shutdown)


def _started(options: dict[str, Any]) -> Any:
    """What `ray.init` returns.

    Raises:
        Refused: if Ray does not start here, or there is no cluster at that address.
    """
    try:
        return ray.init(**options)
    except BaseException as error:
        stopped = interruption_of(error)
        if isinstance(stopped, SystemExit):  # Ray's own way with SIGTERM, which it takes meanwhile
            stopped = Interrupted("SIGTERM")
        if isinstance(stopped, Interrupted):
            atexit.register(_leave)
            raise stopped from None
        if isinstance(error, Exception):  # Ray raises that very class if it is not in time
            raise _refusal(error, options["address"]) from error
        raise


def _leave() -> None:
    """Ends a process in which Ray was begun and not finished: its half would end the interpreter
    with a segmentation fault."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # of one that nobody reads any more
            stream.flush()
    os._exit(INTERRUPTED)


def _refusal(error: Exception, address: str) -> Refused:
    """What to tell a person of a Ray that did not start."""
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


def on_worker(task: Any, resources: Resources) -> Any:
    """A remote function that takes what a trial takes."""
    return task.options(num_cpus=resources.cpus, num_gpus=resources.gpus)


def as_ready(
    jobs: Mapping[str, tuple[Any, ...]], resources: Resources
) -> Iterator[tuple[str, Any]]:
    """Does each job, `(task, *arguments)`, on some worker; name and result, as they come.

    Raises:
        SearchFailed: if one of them fails.
    """
    waiting = {
        on_worker(task, resources).remote(*arguments): name
        for name, (task, *arguments) in jobs.items()
    }
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        name = waiting.pop(done)
        yield name, result_of(done, name)


def result_of(job: Any, name: str) -> Any:
    """What a job on a worker returns.

    Raises:
        SearchFailed: if it fails.
    """
    try:
        return ray.get(job)
    except ray.exceptions.RayError as error:
        raise SearchFailed(f"{name} failed on its worker: {error}") from error
