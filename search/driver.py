"""Runs a planned search on Ray: suggest, train, watch, score.

Everything that must outlive the driver is in the run's store before `search` returns.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray import tune

from trainer.config import ConfigError
from trainer.provenance import versions

from .bucket import brought, home_of, opened
from .checkpoints import RAY_FOLDER, STATE_FILE
from .config import SearchConfig
from .connection import on_worker
from .ending import EndSearch
from .monitor import Monitor
from .preflight import Resources
from .recall import History, comparable, recall
from .rows import scored_rows
from .rungs import Judge, judge_of
from .schema import BASELINES
from .searcher import OBJECTIVE, ListSearcher, OptunaSearcher, Scheduler
from .store import RunStore, best_trial
from .tasks import baselines_task, export_task, state_task
from .trainable import Train, make_trainable
from .waiting import write_left
from .warm import warm_trials

Record = dict[str, Any]
Recorder = Callable[[str, Record], object]

LEADING = ("crb", "lmmse_music", "sml")
"""What every leaderboard begins with, whatever else a network is held against."""

LOST_RETRIES = 3
BEST_FOLDER = "best"
"""The best trial's network, as `trainer.model` keeps one."""


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
        scores = on_worker(baselines_task, resources).remote(plan.template, resources.threads)
    _work_off(
        plan,
        store,
        resources,
        train,
        lambda: plan.trials - len(store.ended()),
        lambda history, record: (
            OptunaSearcher(plan, store.path / "optuna.log", history=history, record=record),
            judge(plan, history),
        ),
    )
    if scores is not None:
        tables = _scored(scores, "the classical methods")
        late = [n for n in LEADING if n not in plan.template.evaluation.baselines]
        if late:  # slow ones: not while trials wait for a worker
            job = on_worker(baselines_task, resources).remote(
                plan.template, resources.threads, late
            )
            more = _scored(job, ", ".join(late))
            tables = {name: rows + more[name] for name, rows in tables.items()}
        _write_scores(store, plan, None, tables)


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
        lambda history, record: (
            ListSearcher(records, history=history, record=record),
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
        on_worker(task, resources).remote(*arguments): name
        for name, (task, *arguments) in jobs.items()
    }
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        name = waiting.pop(done)
        yield name, _scored(done, name)


def _scored(job: Any, name: str) -> Any:
    try:
        return ray.get(job)
    except ray.exceptions.RayError as error:
        raise SearchFailed(f"{name} could not be scored: {error}") from error


def _work_off(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    train: Train | None,
    left: Callable[[], int],
    suggesting: Callable[[History, Recorder], tuple[OptunaSearcher | ListSearcher, Judge]],
) -> None:
    """Lets Ray run trials until `left` says that none is.

    Args:
        suggesting: who suggests and who judges, given what has happened so far, and a function
            that keeps what a trial is to be, with all else that a replay needs.
    """
    write_left(store)
    ending = EndSearch()
    trainable = make_trainable(train, resources.threads, plan.name, versions())
    while before := left():
        history = recall(store, warm_trials(store.path))
        records = {trial.name: dict(trial.record) for trial in history.unfinished}

        def record(name: str, suggested: Record, records: dict[str, Record] = records) -> None:
            records[name] = {**suggested, "threads": resources.threads}
            store.write_config(name, records[name])

        searcher, judge = suggesting(history, record)
        monitor = Monitor(plan, store, history, records, ending, searcher.ended)
        _fit(store, resources, ending, trainable, searcher, judge, monitor)
        if ending.reason:
            raise SearchFailed(ending.reason)
        if left() == before:
            raise SearchFailed(f"Ray gave up with {before} trials not ended")
        # else Ray has dropped a trial: it counts one as failed, without a word to anybody, whose
        # worker was not free in time. It is unfinished, as after a restart, and goes on.


def _fit(
    store: RunStore,
    resources: Resources,
    ending: EndSearch,
    trainable: Any,
    searcher: OptunaSearcher | ListSearcher,
    judge: Judge,
    monitor: Monitor,
) -> None:
    """Lets Ray run what is left, until nothing is or `ending` has a reason."""
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

    An unfinished trial makes its last report again, which is not judged again: it had passed, or
    it would have ended. Values of another budget or other scenes (the space was changed) are no
    match for those of this plan.
    """
    epochs = plan.template.epochs
    judge = judge_of(plan.scheduler, epochs)
    for past in comparable(history.ended, plan):
        judge.recall(past.trial_id, past.number, past.values)
    for trial in history.unfinished:
        values = {r["epoch"]: r[OBJECTIVE] for r in trial.reports}
        judge.recall(trial.name, int(trial.record["number"]), values)
    return judge


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
    task = on_worker(export_task, resources)
    try:
        ray.get(task.remote(checkpoint, folder, about, others, resources.threads))
        with brought(folder) as model:  # from the bucket into the working copy
            if str(model) != folder:
                shutil.copytree(model, store.path / BEST_FOLDER, dirs_exist_ok=True)
    except ConfigError as error:
        raise SearchFailed(f"the best network could not be kept: {error}") from error


def score_best(plan: SearchConfig, store: RunStore, resources: Resources) -> None:
    """Scores the best trial's network scene by scene on the held-out scenes, for paired tests,
    and keeps what its eigenvalues and pseudospectra look like; once, and after all else: a search
    whose best trial has its scenes is through."""
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or store.has_part("scenes", best):
        return
    checkpoint = str(trials.set_index("trial_id")["checkpoint"][best])
    state = home_of(store.path / checkpoint / STATE_FILE)
    tables = _scored(on_worker(state_task, resources).remote(state, resources.threads), best)
    _write_scores(store, plan, store.read_config(best), tables)


class SearchFailed(Exception):
    """The search ended itself; the message says why."""


def _folder(trial: Any) -> str:
    return str(trial.config["folder"])


def _write_scores(
    store: RunStore, plan: SearchConfig, record: dict[str, Any] | None, tables: dict[str, Any]
) -> None:
    part = record["trial_id"] if record else BASELINES
    for table, rows in tables.items():
        if record is None or table != "evaluations":  # a trial has brought its own
            kept = scored_rows(rows, table, record, plan.template.evaluation.test_seed)
            store.write_part(table, part, kept)
