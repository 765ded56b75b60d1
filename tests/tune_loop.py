"""A stand-in for Ray Tune's loop: one trial at a time, in this process, without Ray.

The searcher, the scheduler, the callback and the trainable are the real ones; only what lies
between them is this file. `standing_in` puts it in the place of `driver._fit`.
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.search import Searcher

from search.cluster import trainable as workers
from search.driver import driver
from search.records.checkpoints import RAY_FOLDER


class Stopped(BaseException):
    """A trial is stopped at its report."""


class Killed(BaseException):
    """The driver is killed: nothing is tidied up."""


class Trial:
    """What the callback reads of Ray's trial."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.last_result: dict[str, Any] = {}
        self.checkpoint: Any = None
        self.error_file: str | None = None
        self.status = "RUNNING"
        self.max_failures = 3
        self.run_metadata = SimpleNamespace(num_failures=0)
        self.temporary_state = SimpleNamespace(ray_actor=None)
        self.placement_group_factory = SimpleNamespace(required_resources={"CPU": 1.0})


def fit(
    store: Any,
    resources: Any,
    ending: Any,
    train: Any,
    searcher: Any,
    scheduler: Any,
    callback: Any,
) -> None:
    """As `driver._fit`, without Ray."""
    try:
        while not ending.stop_all():
            callback.on_step_begin(0, [])
            config = searcher.suggest("")
            if config in (None, Searcher.FINISHED):
                break
            trial = Trial(config)
            callback.on_trial_start(0, [trial], trial)
            run_one(trial, store.path / RAY_FOLDER, ending, train, scheduler, callback)
            callback.on_trial_complete(0, [trial], trial)
    except OSError as error:
        ending.reason = ending.reason or f"{store.path} takes no files: {error}"
    except Killed:
        raise
    except BaseException:
        callback.close()
        raise
    callback.close()


def run_one(
    trial: Trial, ray: Path, ending: Any, train: Any, scheduler: Any, callback: Any
) -> None:
    """Trains one trial until it ends or is stopped."""
    made = 0

    def report(row: dict[str, Any], checkpoint: Path | None = None) -> None:
        nonlocal made
        if checkpoint is not None:
            kept = ray / trial.config["folder"] / f"checkpoint_{made:06d}"
            shutil.copytree(checkpoint, kept)
            if trial.checkpoint is not None:
                shutil.rmtree(trial.checkpoint.path)
            trial.checkpoint = SimpleNamespace(path=str(kept))
            made += 1
        trial.last_result = row
        stops = ending(trial.config["trial_id"], row)
        decided = stops or scheduler.on_trial_result(None, trial, row) == scheduler.STOP
        callback.on_trial_result(0, [trial], trial, row)
        callback.on_step_begin(0, [trial])
        if decided:
            raise Stopped

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            workers,
            "tune",
            SimpleNamespace(
                report=report,
                get_checkpoint=lambda: None,
                Checkpoint=SimpleNamespace(from_directory=lambda folder: folder),
            ),
        )
        with suppress(Stopped):
            train(trial.config)


def standing_in() -> Iterator[None]:
    """For a fixture: searches run in this loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(driver, "_fit", fit)
        yield
