"""Runs a planned search on Ray: start, suggest, train, watch, score, stop.

Everything that Ray knows of the cluster leaves this module as plain data (`Cluster`), and
everything that must outlive the driver is in the run's store before `search` returns.
"""

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
from ray import tune
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainer.config import ConfigError
from trainer.provenance import versions

from .bucket import brought, home_of, opened
from .config import SearchConfig
from .environment import PACKAGES, STORAGE_ENV, WORKER_ENV
from .monitor import EndSearch, Monitor
from .preflight import (
    LONG_MINUTES,
    Cluster,
    Node,
    Refused,
    Resources,
    refuse_other_versions,
    smallest_training,
)
from .recall import RAY_FOLDER, STATE_FILE, History, recall
from .rows import scored_rows
from .rungs import Judge, judge_of
from .schema import BASELINES
from .searcher import OBJECTIVE, ListSearcher, OptunaSearcher, Scheduler
from .store import RunStore, best_trial
from .trainable import (
    Train,
    backends_task,
    baselines_task,
    export_task,
    make_trainable,
    node_task,
    smoke_task,
    state_task,
)
from .warm import warm_trials

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
LOST_RETRIES = 3
BEST_FOLDER = "best"
"""The best trial's network, as `trainer.model` keeps one."""


@contextmanager
def connect(plan: SearchConfig) -> Iterator[Cluster]:
    """A local Ray, or the cluster at `plan.address`, for as long as the context lasts.

    SIGINT and SIGTERM raise `Interrupted` in it.

    Raises:
        Refused: if there is no cluster at that address.
    """
    # a stopped trial is in its next epoch already, which its worker must end before the next trial
    workers = WORKER_ENV | {"TUNE_FUNCTION_THREAD_TIMEOUT_S": f"{plan.trial_timeout_s:.0f}"}
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
    try:
        context = ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        if "Version mismatch" in said:  # Ray's own check, of itself and of Python
            raise Refused(
                f"the driver and the cluster must have the same versions, but: {said}. Run the "
                "driver where the cluster's image runs, or start the cluster with this one's."
            ) from error
        raise Refused(
            f"--address must name a running Ray cluster, but {plan.address!r} does not answer "
            f"({said[:200]}). Start one with `ray start --head`, give the token "
            "of one started elsewhere in RAY_AUTH_TOKEN, or leave --address out."
        ) from error
    try:
        with _interruptible():
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


class Interrupted(KeyboardInterrupt):
    """Somebody asked the search to stop; the message is the signal's name."""


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted`, once; a second one does not disturb the clean-up.

    Raising at any point is safe: the run's files are such that a driver may die at any moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def interrupt(number: int, frame: object) -> None:
        for each in INTERRUPTS:
            signal.signal(each, signal.SIG_IGN)
        raise Interrupted(signal.Signals(number).name)

    before = {each: signal.signal(each, interrupt) for each in INTERRUPTS}
    try:
        yield
    except Interrupted:
        raise  # and stay deaf: what is left is the clean-up
    else:
        for each, handler in before.items():
            signal.signal(each, handler)


def preflight_checks(plan: SearchConfig, store: RunStore, resources: Resources) -> None:
    """Seconds of checks on the machines that will do the work; prints what they found.

    Raises:
        Refused: if trials could not keep their checkpoints, or not train, or not as here.
    """
    check_nodes(store)
    for line in (*check_backends(plan, resources), *try_networks(plan, resources)):
        print(line, flush=True)


def check_nodes(store: RunStore) -> None:
    """Lets every node of the cluster look for a file in the run's folder, and say its versions.

    Raises:
        Refused: if one of them does not see it, or has other versions than the driver.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if len(nodes) == 1 and ray.get_runtime_context().get_node_id() == nodes[0]["NodeID"]:
        return  # this one has just made the folder
    home = home_of(store.path)
    probe = home_of(store.path / f".probe-{os.getpid()}")
    where, path = opened(probe)
    with where.open_output_stream(path) as file:
        file.write(b"0")
    try:
        asked = {_host(node): _look(node["NodeID"], probe) for node in nodes}
        answers = {host: ray.get(answer) for host, answer in asked.items()}
    finally:
        where.delete_file(path)
    refuse_other_versions(versions(), {host: theirs for host, (_, theirs) in answers.items()})
    if blind := [host for host, (sees, _) in answers.items() if not sees]:
        raise Refused(
            f"all nodes must see and write the run's folder, but {', '.join(blind)} cannot use "
            f"{home}. Put --out on storage that they share, such as NFS or s3://bucket/prefix."
        )


def _host(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} (node {node['NodeID'][:8]})"


def _look(node_id: str, probe: str) -> Any:
    """A future: whether that node sees a file and can write beside it, and its versions."""
    there = NodeAffinitySchedulingStrategy(node_id, soft=False)
    task = node_task.options(num_cpus=0, scheduling_strategy=there)
    return task.remote(probe)


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


def try_networks(plan: SearchConfig, resources: Resources) -> list[str]:
    """Lets a worker take one step with each kind of network, if the plan is a long one.

    Raises:
        Refused: if one of them fails.
    """
    if plan.minutes <= LONG_MINUTES:
        return []
    kinds = {}
    for drawn in plan.space.branches():
        config = plan.train_config(drawn)
        kinds[config.network.kind] = smallest_training(config)  # the last: most of it drawn
    said = []
    for kind, config in kinds.items():
        task = _task(smoke_task, resources).remote(config.to_params(), resources.threads)
        try:
            said.append(f"{kind} network: {ray.get(task)}")
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise Refused(
                f"a network of kind `{kind}` must survive one step, but: {reason}. Try it alone "
                "with `python -m trainer train`, or skip this check with --no-preflight."
            ) from error
    return said


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
    scores = None
    if not store.has_part("evaluations", BASELINES):
        scores = _task(baselines_task, resources).remote(plan.template, resources.threads)
    _work_off(
        plan,
        store,
        resources,
        train,
        lambda: plan.trials - len(store.ended()),
        lambda history: (
            OptunaSearcher(
                plan,
                store.path / "optuna.log",
                history=history,
                record=_recorder(store, resources),
            ),
            judge(plan, history),
        ),
    )
    if scores is not None:
        _write_scores(store, plan, None, ray.get(scores))


def rerun(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    records: list[dict[str, Any]],
    *,
    train: Train | None = None,
) -> None:
    """Trains those of the given configurations that have not ended yet; none is stopped early.

    Args:
        store: of the run that holds such trainings.
        records: as `configs/<trial_id>.json` holds them.
        plan, resources, train: as for `search`.

    Raises:
        SearchFailed: if it ended itself; what had finished is in the store.
    """
    names = {record["trial_id"] for record in records}
    _work_off(
        plan,
        store,
        resources,
        train,
        lambda: len(names - store.ended()),
        lambda history: (
            ListSearcher(records, history=history, record=_recorder(store, resources)),
            judge_of("none", plan.template.epochs),
        ),
    )


def as_ready(
    jobs: Mapping[str, tuple[Any, ...]], resources: Resources
) -> Iterator[tuple[str, Any]]:
    """Does each job, `(task, *arguments)`, on some worker; name and result, as they come.

    Raises:
        SearchFailed: if one of them fails.
    """
    waiting = {
        _task(task, resources).remote(*arguments): name
        for name, (task, *arguments) in jobs.items()
    }
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        name = waiting.pop(done)
        try:
            yield name, ray.get(done)
        except ray.exceptions.RayError as error:
            raise SearchFailed(f"{name} could not be scored: {error}") from error


def _work_off(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    train: Train | None,
    left: Callable[[], int],
    suggesting: Callable[[History], tuple[OptunaSearcher | ListSearcher, Judge]],
) -> None:
    """Lets Ray run trials until `left` says that none is.

    Args:
        suggesting: who suggests and who judges, given what has happened so far.
    """
    ending = EndSearch()
    trainable = make_trainable(train, resources.threads, plan.name)
    while before := left():
        history = recall(store, warm_trials(store.path))
        _fit(plan, store, resources, ending, trainable, history, *suggesting(history))
        if ending.reason:
            raise SearchFailed(ending.reason)
        if left() == before:
            raise SearchFailed(f"Ray gave up with {before} trials not ended")
        # else Ray has dropped a trial: it counts one as failed, without a word to anybody, whose
        # worker was not free in time. It is unfinished, as after a restart, and goes on.


def _recorder(store: RunStore, resources: Resources) -> Callable[[str, Mapping[str, Any]], object]:
    """Keeps what a trial is to be before it starts, with all else that a replay needs."""

    def record(name: str, suggested: Mapping[str, Any]) -> None:
        store.write_config(name, {**suggested, "threads": resources.threads})

    return record


def _fit(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    ending: EndSearch,
    trainable: Any,
    history: History,
    searcher: OptunaSearcher | ListSearcher,
    judge: Judge,
) -> None:
    """Lets Ray run what is left, until nothing is or `ending` has a reason."""
    monitor = Monitor(plan, store, history, ending, searcher.ended)
    needs = {"cpu": resources.cpus} | ({"gpu": resources.gpus} if resources.gpus else {})
    where, path = opened(home_of(store.path))
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Scheduler(judge),
            num_samples=-1,
            max_concurrent_trials=resources.concurrent,
            reuse_actors=True,
            trial_name_creator=_folder,
            trial_dirname_creator=_folder,
        ),
        run_config=tune.RunConfig(
            name=RAY_FOLDER,
            storage_path=path,
            storage_filesystem=where,
            callbacks=[monitor],
            stop=ending,
            failure_config=tune.FailureConfig(max_failures=LOST_RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except OSError as error:  # of Ray's own files, or a new trial's configuration
        ending.reason = ending.reason or f"{store.path} takes no files: {error}"
    finally:
        monitor.close()


def judge(plan: SearchConfig, history: History) -> Judge:
    """The scheduler, with all that trials have reached already.

    The last report of an unfinished trial is left out: it is made again, and judged then.
    """
    epochs = plan.template.epochs
    judge = judge_of(plan.scheduler, epochs)
    for past in history.ended:
        judge.recall(past.trial_id, past.number, past.values)
    for trial in history.unfinished:
        values = {r["epoch"]: r[OBJECTIVE] for r in trial.reports[:-1]}
        judge.recall(trial.name, int(trial.record["number"]), values)
    return judge


def score_best(plan: SearchConfig, store: RunStore, resources: Resources) -> None:
    """Scores the best trial's network scene by scene on the held-out scenes, for paired tests,
    and keeps what its eigenvalues and pseudospectra look like."""
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or store.has_part("scenes", best):
        return
    checkpoint = str(trials.set_index("trial_id")["checkpoint"][best])
    state = home_of(store.path / checkpoint / STATE_FILE)
    tables = ray.get(_task(state_task, resources).remote(state, resources.threads))
    _write_scores(store, plan, store.read_config(best), tables)


def export_best(store: RunStore, resources: Resources) -> None:
    """Leaves the best trial's network of its best epoch in the run's folder `best`.

    Raises:
        SearchFailed: if the folder cannot be made.
    """
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None:
        return
    checkpoint = home_of(store.path / str(trials.set_index("trial_id")["checkpoint"][best]))
    scored = store.read("evaluations")
    others = scored[scored["trial_id"].isna()].to_dict("records")
    about = store.plan.get("provenance", {})
    folder = home_of(store.path / BEST_FOLDER)
    task = _task(export_task, resources)
    try:
        ray.get(task.remote(checkpoint, folder, about, others, resources.threads))
        with brought(folder) as model:  # from the bucket into the working copy
            if str(model) != folder:
                shutil.copytree(model, store.path / BEST_FOLDER, dirs_exist_ok=True)
    except ConfigError as error:
        raise SearchFailed(f"the best network could not be kept: {error}") from error


class SearchFailed(Exception):
    """The search ended itself; the message says why."""


def _folder(trial: Any) -> str:
    return str(trial.config["folder"])


def _task(task: Any, resources: Resources) -> Any:
    return task.options(num_cpus=resources.cpus, num_gpus=resources.gpus)


def _write_scores(
    store: RunStore, plan: SearchConfig, record: dict[str, Any] | None, tables: dict[str, Any]
) -> None:
    part = record["trial_id"] if record else BASELINES
    for table, rows in tables.items():
        if record is None or table != "evaluations":  # a trial has brought its own
            kept = scored_rows(rows, table, record, plan.template.evaluation.test_seed)
            store.write_part(table, part, kept)
