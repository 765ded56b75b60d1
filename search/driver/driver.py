"""The loop of a driver: the trials of a planned search, or given trainings, on Ray.

Everything that must outlive the driver is in the run's store before `search` returns.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from ray import tune

from search.cluster import SearchAbort, Train, Trainer, make_trainable, trainer_of
from search.plan import (
    EarlyStopper,
    Resources,
    SearchConfig,
    SearchFailed,
    early_stopper,
    freeze_loaded_objects,
)
from search.records import RAY_FOLDER, RunStore
from search.remote import filesystem_of, uri_of
from search.suggest import (
    EndedTrial,
    History,
    Record,
    Suggester,
    compatible_trials,
    rerun_settings,
    trial_name,
)
from trainer.provenance import versions

from .callback import SearchCallback
from .loggers import Loggers, open_loggers
from .progress_reporter import ProgressReporter
from .prometheus import PrometheusMetrics
from .recorder import Recorder
from .tune_adapters import OBJECTIVE, Scheduler, TrialSearcher

LOST_RETRIES = 3
"""Times that Ray starts a trial again whose worker was lost."""

Tell = Callable[[EndedTrial], object]


def search(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    *,
    exhausted: Callable[[], object] = lambda: None,
    train: Train | None = None,
) -> None:
    """Run the trials that have not ended yet; `score_best` scores the best.

    Args:
        exhausted: called when a worker is free and no trial is left, and perhaps again.
        train: instead of `trainer.training.train`; a user's trainer is in the plan.

    Raises:
        SearchFailed: if the search ended itself; what had finished is in the store.
    """

    def prepare(recorder: Recorder) -> tuple[Iterator[Record], Scheduler, Tell]:
        history = recorder.history
        suggester = Suggester(plan, store.path / "optuna.log", history, recorder.register)
        stopper = restored_stopper(plan, history)
        scheduler = Scheduler(stopper, history.incompatible_trials(plan), plan.spares)
        return suggester.trials(exhausted), scheduler, suggester.tell

    names = {trial_name(number) for number in range(plan.trials)}
    trainer = trainer_of(plan.own_trainer, resources, train)
    with open_loggers(plan.log, store) as loggers:
        _run_trials(names, prepare, plan, store, resources, trainer, loggers)


def rerun(
    plan: SearchConfig, store: RunStore, resources: Resources, records: list[Record]
) -> None:
    """Train the configurations of `records` that have not ended yet, none of them stopped early;
    raise SearchFailed as `search` does."""

    def prepare(recorder: Recorder) -> tuple[Iterator[Record], Scheduler, Tell]:
        trials = rerun_settings(records, recorder.history, recorder.register)
        return trials, Scheduler(early_stopper("none", plan.config({}).epochs)), lambda ended: None

    names = {record["trial_id"] for record in records}
    trainer = trainer_of(plan.own_trainer, resources)
    _run_trials(names, prepare, plan, store, resources, trainer, Loggers((), store))


def _run_trials(
    names: set[str],
    prepare: Callable[[Recorder], tuple[Iterator[Record], Scheduler, Tell]],
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    trainer: Trainer,
    loggers: Loggers,
) -> None:
    """Let Ray run trials until those named have ended.

    Ray counts a trial as failed, without telling anybody, if the worker it was to reuse was not
    free in time. Such a trial is unfinished, as after a restart, and goes on in another round, for
    which `prepare` returns the trials, the scheduler, and a function to call with ended trials.
    """
    freeze_loaded_objects()
    abort = SearchAbort()
    code, gpus = resources.code_texts, resources.gpus
    trainable = make_trainable(trainer, plan.name, versions(), code, gpus)
    left = names
    while left:
        recorder = Recorder(plan, store, resources.threads)
        before = names - recorder.ended
        if before:
            trials, scheduler, tell = prepare(recorder)
            reporter = ProgressReporter(plan.trials, recorder.tally)
            metrics = PrometheusMetrics(recorder)
            callback = SearchCallback(recorder, reporter, metrics, loggers, abort, tell)
            _fit(store, resources, trainable, TrialSearcher(trials), scheduler, abort, callback)
        if abort.reason:
            raise SearchFailed(abort.reason)
        left = names - recorder.ended
        if left and left == before:
            raise SearchFailed(f"Ray gave up with {len(left)} trials not ended")


def _fit(
    store: RunStore,
    resources: Resources,
    trainable: Any,
    searcher: TrialSearcher,
    scheduler: Scheduler,
    abort: SearchAbort,
    callback: SearchCallback,
) -> None:
    """Let Ray run what is left, until nothing is or `abort` has a reason."""
    # a full disk is reported in one sentence; nothing is restored from what Ray could not save
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    needs = {"cpu": resources.cpus, "gpu": resources.gpus, "memory": resources.memory}
    needs = {name: amount for name, amount in needs.items() if amount}
    where, path = filesystem_of(uri_of(store.path))
    tuner = tune.Tuner(
        tune.with_resources(trainable, needs),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
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
            callbacks=[callback],
            stop=abort,
            failure_config=tune.FailureConfig(max_failures=LOST_RETRIES),
            checkpoint_config=tune.CheckpointConfig(num_to_keep=1),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except OSError as error:  # of Ray's own files, or a new trial's configuration
        abort.reason = abort.reason or f"{store.path} takes no files: {error}"
    finally:
        callback.close()


def restored_stopper(plan: SearchConfig, history: History) -> EarlyStopper:
    """Return the plan's early stopper with what earlier trials have reached.

    The last report of an unfinished trial is left out, since it comes again; so are trials of
    another budget or other scenes (the space was changed), whose values do not compare.
    """
    stopper = early_stopper(plan.scheduler, plan.config({}).epochs)
    for past in compatible_trials(history.ended, plan):
        spared = plan.spares(past.params)
        stopper.restore(past.trial_id, past.number, past.values, spared=spared)
    for trial in compatible_trials(history.unfinished, plan):
        values = {r["epoch"]: r[OBJECTIVE] for r in trial.reports[:-1]}
        stopper.restore(trial.name, trial.number, values, spared=plan.spares(trial.params))
    return stopper


def _folder(trial: Any) -> str:
    return str(trial.config["folder"])
