"""Runs a planned search on Ray: start, suggest, train, watch, score, stop.

Everything that Ray knows of the cluster leaves this module as plain data (`Cluster`), and
everything that must outlive the driver is in the run's store before `search` returns.
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from .config import SearchConfig
from .environment import WORKER_ENV
from .monitor import EndSearch, Monitor
from .outcome import Outcome
from .preflight import Cluster, Node, Refused, Resources
from .rows import scored_rows
from .schema import BASELINES
from .searcher import OBJECTIVE, OptunaSearcher
from .store import RunStore, best_trial
from .trainable import (
    STATE_FILE,
    Train,
    backends_task,
    baselines_task,
    make_trainable,
    state_task,
)

LOST_RETRIES = 3


@contextmanager
def connect(plan: SearchConfig) -> Iterator[Cluster]:
    """A local Ray, or the cluster at `plan.address`, for as long as the context lasts.

    Raises:
        Refused: if there is no cluster at that address.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if plan.address is None:
        os.environ.update(WORKER_ENV)  # the workers of a local Ray inherit it
        options |= {"address": "local", "include_dashboard": True}
    else:
        options |= {"address": plan.address, "runtime_env": {"env_vars": WORKER_ENV}}
    try:
        context = ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise Refused(
            f"--address must name a running Ray cluster, but {plan.address!r} does not answer "
            f"({str(error).splitlines()[0]}). Start one with `ray start --head`, give the token "
            "of one started elsewhere in RAY_AUTH_TOKEN, or leave --address out."
        ) from error
    try:
        url = context.dashboard_url
        yield Cluster(
            nodes=tuple(
                Node(n["Resources"].get("CPU", 0.0), n["Resources"].get("GPU", 0.0))
                for n in ray.nodes()
                if n["Alive"]
            ),
            dashboard=f"http://{url}" if url else None,
            # whoever says how many trials to run on a cluster knows that it grows to hold them
            can_grow=plan.address is not None and plan.max_concurrent is not None,
        )
    finally:
        ray.shutdown()


def check_backends(plan: SearchConfig, resources: Resources) -> list[str]:
    """Lets a worker check the eigendecompositions that the space's backends rest on.

    Returns:
        What was measured, for a person; empty if the space has no eigengap term.

    Raises:
        Refused: if one of them is wrong on that machine.
    """
    branches = (plan.train_config(drawn) for drawn in plan.space.branches())
    configs = [config for config in branches if config.eigengap.weight > 0]
    if not configs:
        return []
    reason, lines = ray.get(_task(backends_task, resources).remote(configs, resources.threads))
    if reason:
        raise Refused(reason)
    return list(lines)


def search(
    plan: SearchConfig, store: RunStore, resources: Resources, *, train: Train | None = None
) -> None:
    """Runs the trials that are not finished yet and scores what came of it.

    Args:
        plan: the search as planned.
        store: of a new run, or of one that is resumed.
        resources: of one trial, as `preflight.allot` found them possible.
        train: instead of `trainer.loop.train`.

    Raises:
        SearchFailed: if the search ended itself; what had finished is in the store.
    """
    records = [store.read_config(name) for name in store.started()]
    trials = store.read("trials")
    ended = set(trials["trial_id"])
    searcher = OptunaSearcher(
        plan,
        store.path / "optuna.log",
        unfinished=[record for record in records if record["trial_id"] not in ended],
        first_number=1 + max((int(record["number"]) for record in records), default=-1),
        record=store.write_config,
    )
    completed = trials[trials["outcome"] == Outcome.COMPLETED]["objective"]
    best = None if completed.empty else float(completed.min())
    monitor = Monitor(plan, store, Counter(trials["outcome"]), best)
    stopper = EndSearch()
    scores = None
    if not store.has_part("evaluations", BASELINES):
        scores = _task(baselines_task, resources).remote(plan.template, resources.threads)
    needs = {"cpu": resources.cpus} | ({"gpu": resources.gpus} if resources.gpus else {})
    tuner = tune.Tuner(
        tune.with_resources(make_trainable(train, resources.threads), needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler(plan),
            num_samples=-1,
            max_concurrent_trials=resources.concurrent,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=str(store.path.absolute()),
            callbacks=[monitor],
            stop=stopper,
            failure_config=tune.FailureConfig(max_failures=LOST_RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        monitor.close()
    if scores is not None:
        _write_scores(store, plan, None, ray.get(scores))
    if stopper.reason:
        raise SearchFailed(stopper.reason)


def score_best(plan: SearchConfig, store: RunStore, resources: Resources) -> None:
    """Scores the best trial's network scene by scene on the held-out scenes, for paired tests."""
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or store.has_part("scenes", best):
        return
    checkpoint = str(trials.set_index("trial_id")["checkpoint"][best])
    state = store.path.absolute() / checkpoint / STATE_FILE
    tables = ray.get(_task(state_task, resources).remote(str(state), resources.threads))
    _write_scores(store, plan, store.read_config(best), tables)


def scheduler(plan: SearchConfig) -> TrialScheduler:
    """ASHA with rungs in epochs, or none."""
    if plan.scheduler == "none":
        return FIFOScheduler()
    return AsyncHyperBandScheduler(
        time_attr="epoch",
        metric=OBJECTIVE,
        mode="min",
        max_t=plan.template.epochs,
        grace_period=max(1, plan.template.epochs // 9),
        reduction_factor=3,
    )


class SearchFailed(Exception):
    """The search ended itself; the message is the traceback that repeated."""


def _trial_name(trial: Any) -> str:
    return str(trial.config["trial_id"])


def _task(task: Any, resources: Resources) -> Any:
    return task.options(num_cpus=resources.cpus, num_gpus=resources.gpus)


def _write_scores(
    store: RunStore, plan: SearchConfig, record: dict[str, Any] | None, tables: dict[str, Any]
) -> None:
    part = record["trial_id"] if record else BASELINES
    for table, rows in tables.items():
        if record is None or table == "scenes":  # a trial has brought its own evaluations
            kept = scored_rows(rows, table, record, plan.template.evaluation.test_seed)
            store.write_part(table, part, kept)
