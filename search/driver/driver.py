"""Runs a planned search on Ray: suggest, train, watch.

Everything that must outlive the driver is in the run's store before `search` returns.
"""

import logging
from collections.abc import Callable
from typing import Any

from ray import tune

from search.cluster import EndSearch, Train, make_trainable
from search.plan import (
    EarlyStopper,
    Resources,
    SearchConfig,
    SearchFailed,
    early_stopper,
    freeze_loaded_objects,
)
from search.records import RAY_FOLDER, RunStore, drop_orphans, write_left
from search.remote import filesystem_of, uri_of
from search.suggest import History, compatible_trials, read_history, read_warm_trials
from trainer.provenance import versions

from .monitor import Monitor
from .searcher import OBJECTIVE, ListSearcher, OptunaSearcher, Scheduler

Record = dict[str, Any]
Recorder = Callable[[Record], Record]

LOST_RETRIES = 3


def search(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    *,
    exhausted: Callable[[], object] = lambda: None,
    train: Train | None = None,
) -> None:
    """Runs the trials that are not finished yet; `finish` keeps the rest.

    Args:
        plan: the search as planned.
        store: of a new run, or of one that is resumed.
        resources: of one trial, as `resolve_resources` found them possible.
        exhausted: called when a worker asks and no trial is left, and perhaps again.
        train: instead of `trainer.training.loop.train`.

    Raises:
        SearchFailed: if the search ended itself; what had finished is in the store.
    """
    _work_off(
        plan,
        store,
        resources,
        train,
        lambda: plan.trials - len(store.ended()),
        lambda history, record: (
            OptunaSearcher(
                plan,
                store.path / "optuna.log",
                history=history,
                record=record,
                exhausted=exhausted,
            ),
            Scheduler(restored_stopper(plan, history), aside=history.incompatible_trials(plan)),
        ),
    )


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
            Scheduler(early_stopper("none", plan.template.epochs)),
        ),
    )


def _work_off(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    train: Train | None,
    left: Callable[[], int],
    suggesting: Callable[[History, Recorder], tuple[OptunaSearcher | ListSearcher, Scheduler]],
) -> None:
    """Lets Ray run trials until `left` says that none is.

    Args:
        suggesting: who suggests and who judges, given what has happened so far, and a function
            that keeps what a trial is to be and returns it with all else that a replay needs.
    """
    write_left(store)
    drop_orphans(store)
    freeze_loaded_objects()
    ending = EndSearch()
    trainable = make_trainable(train, plan.name, versions())
    while before := left():
        history = read_history(store, read_warm_trials(store))
        records = {trial.name: dict(trial.record) for trial in history.unfinished}

        def record(suggested: Record, records: dict[str, Record] = records) -> Record:
            name = suggested["trial_id"]
            records[name] = {**suggested, "threads": resources.threads}
            store.write_config(name, records[name])
            return records[name]

        searcher, judging = suggesting(history, record)
        monitor = Monitor(plan, store, history, records, ending, searcher.ended)
        _fit(store, resources, ending, trainable, searcher, judging, monitor)
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
    judging: Scheduler,
    monitor: Monitor,
) -> None:
    """Lets Ray run what is left, until nothing is or `ending` has a reason."""
    # a full disk is told in one sentence; nothing is restored from what Ray could not save
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    needs = {"cpu": resources.cpus} | ({"gpu": resources.gpus} if resources.gpus else {})
    where, path = filesystem_of(uri_of(store.path))
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=judging,
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


def restored_stopper(plan: SearchConfig, history: History) -> EarlyStopper:
    """The scheduler, with all that trials have reached already.

    But for the last report of an unfinished trial, which is made again and judged when it is:
    nobody knows whether it had been. Trials of another budget or other scenes (the space was
    changed) are no match for those of this plan.
    """
    epochs = plan.template.epochs
    stopper = early_stopper(plan.scheduler, epochs)
    for past in compatible_trials(history.ended, plan):
        stopper.restore(past.trial_id, past.number, past.values)
    for trial in compatible_trials(history.unfinished, plan):
        values = {r["epoch"]: r[OBJECTIVE] for r in trial.reports[:-1]}
        stopper.restore(trial.name, trial.number, values)
    return stopper


def _folder(trial: Any) -> str:
    return str(trial.config["folder"])
