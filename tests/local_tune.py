"""A stand-in for Ray Tune's loop: trials train in this process, one after the other.

It makes the calls that `TuneController` makes to the searcher, scheduler, stopper and callback of
a search, in its order, and keeps checkpoints where Tune does. Workers, retries and timeouts are
Ray's and are tested on a real one.
"""

import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher


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
