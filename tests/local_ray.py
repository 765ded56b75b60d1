"""A stand-in for Ray: trials and tasks run in this process, one after the other.

Its tuner makes the calls that Tune's controller makes to the searcher, scheduler, stopper and
callback of a search, in its order, and keeps checkpoints where Tune does. Workers, retries and
timeouts are tested on a real Ray.
"""

import os
import pickle
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray import tune
from ray.exceptions import RayTaskError
from ray.remote_function import RemoteFunction
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from search.cluster import connection
from search.plan.environment import WORKER_ENV

NODE = {"Alive": True, "NodeID": "here", "NodeManagerHostname": "here", "Resources": {"CPU": 2.0}}


def install(patch: pytest.MonkeyPatch) -> None:
    """Put the stand-in in the place of Ray."""
    for name in WORKER_ENV:  # which a local Ray's driver sets for its workers
        patch.setenv(name, os.environ.get(name, WORKER_ENV[name]))
    here = SimpleNamespace(get_node_id=lambda: NODE["NodeID"], gcs_address="")
    patch.setattr(ray, "init", lambda **options: SimpleNamespace(dashboard_url=None))
    patch.setattr(ray, "shutdown", lambda: None)
    patch.setattr(connection, "watch_head", lambda head, left: None)
    patch.setattr(ray, "nodes", lambda: [NODE])
    patch.setattr(ray, "get_runtime_context", lambda: here)
    patch.setattr(ray, "get", lambda task: task.result())
    patch.setattr(ray, "wait", lambda tasks: (tasks[:1], tasks[1:]))
    patch.setattr(RemoteFunction, "_remote", lambda *given, **how: Task(*given, **how))
    patch.setattr(tune, "Tuner", LocalTuner)


class Task:
    """A task that has ended: what calling a remote function returns."""

    def __init__(self, function: RemoteFunction, args: Any, kwargs: Any, **options: Any) -> None:
        self._error: Exception | None = None
        try:
            sent = pickle.loads(pickle.dumps((args, kwargs)))
            self._result = function._function(*sent[0], **sent[1])
        except Exception as error:  # noqa: BLE001 - a worker hands any error to the driver
            name = function._function.__name__
            self._error = RayTaskError(name, traceback.format_exc(), error).as_instanceof_cause()

    def result(self) -> Any:
        """Return what the function returned, or raise as `ray.get` does."""
        if self._error is not None:
            raise self._error
        return self._result


class Stopped(BaseException):
    """Ends a training whose report was answered by a stop."""


class LocalTuner:
    """Takes what `tune.Tuner` takes; `fit` runs the trials here."""

    def __init__(
        self,
        trainable: Callable[[dict[str, Any]], None],
        *,
        tune_config: tune.TuneConfig,
        run_config: tune.RunConfig,
    ) -> None:
        self._trainable = trainable
        self._searcher, self._scheduler = tune_config.search_alg, tune_config.scheduler
        self._stopper, self._callbacks = run_config.stop, run_config.callbacks
        self._folder = Path(run_config.storage_path) / run_config.name

    def fit(self) -> None:
        """Run trials until the searcher has no more or the stopper ends the search."""
        while not self._stopper.stop_all():
            config = self._searcher.suggest("")
            if config is None or config == Searcher.FINISHED:
                return
            self._run(config)

    def _run(self, config: dict[str, Any]) -> None:
        trial = SimpleNamespace(
            config=config,
            status="RUNNING",
            last_result={},
            checkpoint=None,
            error_file=None,
            max_failures=0,
            run_metadata=SimpleNamespace(num_failures=0),
            metric_analysis={},
            metric_n_steps={},
            placement_group_factory=SimpleNamespace(required_resources={"CPU": 1.0}),
        )
        self._call("on_trial_start", trial)

        def report(result: dict[str, Any], *, checkpoint: tune.Checkpoint | None = None) -> None:
            if checkpoint is not None:
                trial.checkpoint = self._keep(checkpoint, trial)
            ends = self._stopper(config["trial_id"], result)
            if not ends:
                decision = self._scheduler.on_trial_result(None, trial, result)
                ends = decision == TrialScheduler.STOP
            self._call("on_trial_result", trial, result=result)
            trial.last_result = result
            if ends:
                raise Stopped

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tune, "report", report)
            patch.setattr(tune, "get_checkpoint", lambda: None)
            try:
                self._trainable(config)
            except Stopped:
                self._call("on_trial_complete", trial)
            except Exception:  # noqa: BLE001 - a worker hands any error to Tune
                trial.run_metadata.num_failures = 1
                trial.error_file = self._folder / config["folder"] / "error.txt"
                trial.error_file.parent.mkdir(parents=True, exist_ok=True)
                trial.error_file.write_text(traceback.format_exc())
                self._call("on_trial_error", trial)

    def _call(self, hook: str, trial: Any, **more: Any) -> None:
        for callback in self._callbacks:
            callback.on_step_begin(iteration=0, trials=[trial])
            getattr(callback, hook)(iteration=0, trials=[trial], trial=trial, **more)

    def _keep(self, checkpoint: tune.Checkpoint, trial: Any) -> tune.Checkpoint:
        """Copy a checkpoint into the trial's folder, and delete the one before."""
        before = trial.checkpoint
        number = 0 if before is None else int(Path(before.path).name[-6:]) + 1
        kept = self._folder / trial.config["folder"] / f"checkpoint_{number:06d}"
        shutil.copytree(checkpoint.path, kept)
        if before is not None:
            shutil.rmtree(before.path)
        return tune.Checkpoint.from_directory(kept)
