"""The callback of Ray Tune, which passes its calls on to the parts of the driver."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from search.cluster import SearchAbort
from search.plan import Outcome
from search.records import remove_other_folders
from search.suggest import EndedTrial

from .loggers import Loggers
from .progress_reporter import ProgressReporter
from .prometheus import PrometheusMetrics
from .recorder import Recorder
from .watchdog import Watchdog


class SearchCallback(tune.Callback):
    """Translates the calls of Ray Tune's loop.

    Ray takes an exception raised here for a failure of the trial, and runs that again. So a folder
    that takes no files ends the search instead. `tell` is called with every trial that has ended.
    """

    def __init__(
        self,
        recorder: Recorder,
        reporter: ProgressReporter,
        metrics: PrometheusMetrics,
        loggers: Loggers,
        abort: SearchAbort,
        tell: Callable[[EndedTrial], object],
    ) -> None:
        self._recorder = recorder
        self._reporter = reporter
        self._metrics = metrics
        self._loggers = loggers
        self._abort = abort
        self._tell = tell
        self._run = recorder.store.path
        self._watchdog = Watchdog(recorder.plan.trial_timeout_s)
        self._hung: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray pickles its callbacks; a run is restored from its own records

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Print what is being tried."""
        name = trial.config["trial_id"]
        self._watchdog.hear(name)
        epoch = self._recorder.start(name)
        record = self._recorder.records[name]
        self._reporter.started(record, self._recorder.attempts[name], epoch)
        self._loggers.begin(record, self._recorder.tables.epochs(name))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record the epoch, and print a new best."""
        name = trial.config["trial_id"]
        self._watchdog.hear(name)
        if result.get("outcome") not in (None, Outcome.COMPLETED) or not result["epoch"]:
            return  # the trial's end, not an epoch
        with self._abort.on_storage_failure(self._run):
            if self._recorder.report(name, result, _gpus(trial)):
                self._reporter.improved(name, result)
            self._loggers.epoch(name, self._recorder.tables.epochs(name)[result["epoch"]])

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Write rows, set metrics, and end every trial that has been silent for too long.

        Its worker is killed, since code that hangs does not listen; Ray then calls
        `on_trial_error`, without another try.
        """
        self._metrics.refresh()
        for failed, why in self._loggers.new_failures().items():
            self._reporter.logger_failed(failed, why)
        with self._abort.on_storage_failure(self._run):
            self._recorder.tables.flush()
        silent = self._watchdog.silent() - self._hung
        for trial in trials if silent else []:
            name, actor = trial.config["trial_id"], trial.temporary_state.ray_actor
            if name in silent and trial.status == "RUNNING" and actor is not None:
                self._hung.add(name)
                trial.max_failures = 0
                ray.kill(actor)

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Record a trial that has ended by itself, or at a rung."""
        self._end(trial, error=None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a trial that was killed, or whose worker Ray lost too often.

        Ray may also report one dead worker twice and end the trial on the second report: such a
        trial is unfinished, and goes on when the others have ended.
        """
        name = trial.config["trial_id"]
        if trial.run_metadata.num_failures <= trial.max_failures:
            self._watchdog.forget(name)
            self._recorder.running.pop(name, None)
            self._reporter.lost(name)
            return
        file = trial.error_file
        self._end(trial, Path(file).read_text(errors="replace") if file else "its worker vanished")

    def close(self) -> None:
        """Leave all that has happened readable, unfinished trials included."""
        with self._abort.on_storage_failure(self._run):
            self._recorder.tables.flush(now=True)
        self._recorder.running.clear()
        self._metrics.refresh(now=True)
        self._reporter.close()

    def _end(self, trial: Any, error: str | None) -> None:
        name, last = trial.config["trial_id"], dict(trial.last_result or {})
        self._watchdog.forget(name)
        if self._abort.reason is not None and not last.get("outcome"):
            return  # it ends with the search, and goes on when that is resumed
        checkpoint = trial.checkpoint
        record = self._recorder.records[name]
        with self._abort.on_storage_failure(self._run):
            ended = self._recorder.end(
                name,
                last,
                gpus=_gpus(trial),
                checkpoint="/".join(checkpoint.path.split("/")[-3:]) if checkpoint else None,
                error=error,
                timed_out=name in self._hung,
            )
            if error and not last.get("outcome"):
                self._abort.count(ended.outcome, str(ended.cause), error)
            self._reporter.ended(ended, last)
            self._loggers.end(record, ended)
            self._tell(ended)
        # Ray keeps statistics of every number of a report, 100 KB a trial that nobody reads
        trial.metric_analysis.clear()
        trial.metric_n_steps.clear()
        if checkpoint and trial.config["checkpoint"]:  # it went on from one in another folder
            remove_other_folders(self._run, name, trial.config["folder"])


def _gpus(trial: Any) -> float:
    return float(trial.placement_group_factory.required_resources.get("GPU", 0.0))
