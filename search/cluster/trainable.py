"""One trial on a Ray worker.

A trial never raises into Ray: a failure is reported as a last result with its outcome and the
function returns, so that the driver hears of it in milliseconds, the worker lives on for the next
trial, and Ray's retries stay reserved for lost nodes. Every number reported is finite.
"""

import json
import math
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from ray import tune

from search.plan import (
    WORST_OBJECTIVE,
    Outcome,
    Refused,
    Resources,
    StorageLost,
    classify_error,
    crash_signature,
    freeze_loaded_objects,
    judged_epochs,
    objective_window,
    version_mismatch,
)
from search.records import (
    BEST_FILE,
    BY_SCENE,
    REPORTS_FILE,
    STATE_FILE,
    VALIDATED,
    mean_by_scene,
    mean_objective,
    read_reports,
)
from search.remote import downloaded
from trainer.config import TrainConfig
from trainer.failure import Diverged
from trainer.own_trainer import PREFIX, OwnConfig, OwnState, OwnTrainer, split_objective
from trainer.provenance import versions
from trainer.user_code import Source, give_texts

from .memory import cuda, free_memory, limit_gpu_memory, peak_bytes, require_gpu

Train = Callable[..., Iterator[Any]]
"""`trainer.training.train`, or what else takes `(config, *, resume)` and yields `EpochReport`s."""

NO_EPOCH = {"epoch": 0, "objective": WORST_OBJECTIVE}
"""Report of a trial that has ended before its first epoch."""


@dataclass(frozen=True)
class Training:
    """The training of one trial, as `run_trial` drives it.

    Attributes:
        epochs: its budget.
        reports: takes the state to go on from, or None, and yields what has `epoch`, `row()`,
            `state`, which has `save(path)`, and `evaluation`.
        load_state: reads what that `save` has written.
        values, sign: arguments of `mean_objective`.
    """

    epochs: int
    reports: Callable[[Any], Iterator[Any]]
    load_state: Callable[[Path], Any]
    values: Sequence[str] = VALIDATED
    sign: float = 1.0


Trainer = Callable[[Mapping[str, Any]], Training]
"""Returns the training of a trial with these settings; is sent to workers."""


def trainer_of(
    own: OwnTrainer | None, resources: Resources, train: Train | None = None
) -> Trainer:
    """Return the user's trainer, or else `train`, or else ours, imported on the worker."""
    if own is not None:
        return partial(_own_training, own)
    return partial(_our_training, train, resources.start, resources.gpus)


def _our_training(
    train: Train | None, start: bytes, gpus: float, settings: Mapping[str, Any]
) -> Training:
    config = TrainConfig.from_params(settings["params"])

    def reports(state: Any) -> Iterator[Any]:
        run = train or load_trainer(settings["threads"])
        if train is None:
            require_gpu(gpus)
        take_start(start)
        return run(config, resume=state)

    def load_state(path: Path) -> Any:
        from trainer.training import TrainState

        return TrainState.load(path)

    return Training(config.epochs, reports, load_state)


def _own_training(own: OwnTrainer, settings: Mapping[str, Any]) -> Training:
    own.check()  # imports what its states are made of
    params, (name, sign) = settings["params"], split_objective(own.objective)

    def reports(state: OwnState | None) -> Iterator[Any]:
        return own.reports(params, resume=state, threads=settings["threads"])

    epochs = OwnConfig.from_params(params).epochs
    return Training(epochs, reports, OwnState.load, (f"{PREFIX}{name}",), sign)


def make_trainable(
    trainer: Trainer,
    name: str,
    driver: Mapping[str, str | None],
    code_texts: Mapping[str, Source] | None = None,
    gpus: float = 0.0,
) -> Callable[[dict[str, Any]], None]:
    """Make a Ray trainable around a trainer.

    The dashboard shows the run's name with every worker. A machine that came after the driver's
    checks must have the driver's versions too. `code_texts` are those of the user's files, `gpus`
    is a trial's share of a GPU, and of its memory.
    """

    def trainable(settings: dict[str, Any]) -> None:
        # the worker's log, which the dashboard shows: what runs where
        print(f"{settings['trial_id']} of {name} on {platform.node()}", flush=True)
        if wrong := version_mismatch(driver, {platform.node(): own_versions()}):
            _report(NO_EPOCH | {"refused": wrong})
        else:
            give_texts(code_texts or {})
            run_trial(settings, trainer, gpus)

    trainable.__name__ = f"trials of {name}"
    return trainable


def run_trial(settings: Mapping[str, Any], trainer: Trainer, gpus: float = 0.0) -> None:
    """Train one configuration, report every epoch, and with the last report how it ended.

    A trial goes on from its checkpoint: Ray gives that of a lost worker, the settings that of an
    earlier driver, which may have died before it received the last report: that is sent again.
    """
    lost = tune.get_checkpoint()
    place = lost.path if lost else settings["checkpoint"]
    trial = Progress()
    try:
        # within the try: a broken torch is recorded as this trial's failure
        training = trainer(settings)
        state = trial.restore(place, lost, training.load_state) if place else None
        if trial.reports and lost is None:
            trial.report(trial.reports, state)
            if trial.reports[-1].get("outcome"):
                return
        epochs = training.reports(state)
        limit_gpu_memory(gpus)  # torch is loaded by now, and nothing on the GPU yet
        freeze_loaded_objects()  # torch too, by now
        for epoch in epochs:
            row = epoch.row()
            last = [*trial.reports, row][-objective_window(training.epochs) :]
            row |= mean_objective(last, training.values, training.sign)
            if epoch.epoch in judged_epochs(training.epochs):
                row |= mean_by_scene(last)
            row |= trial.resources_used()
            if epoch.epoch == training.epochs:
                row["outcome"] = Outcome.COMPLETED.value
                row["evaluations"] = [asdict(scores) for scores in epoch.evaluation]
            trial.report([*trial.reports, row], epoch.state)
        if not trial.reports or not trial.reports[-1].get("outcome"):
            raise RuntimeError(
                f"a training must report {training.epochs} epochs, but ended earlier"
            )
    except StorageLost as error:
        trial.end(outcome=None, storage_lost=str(error))
    except Refused as error:
        trial.end(outcome=None, refused=str(error))
    except Diverged as error:
        failure = error.failure.as_dict() | {"remedy": error.failure.remedy}
        named = {f"failure_{name}": value for name, value in failure.items()}
        trial.end(outcome=Outcome.DIVERGED.value, cause=error.failure.cause.value, **named)
    except Exception as error:  # noqa: BLE001 - whatever it is, the table of outcomes has a row
        text = traceback.format_exc()
        outcome = classify_error(text, type(error).__name__)
        if outcome is Outcome.INVALID and place is not None:  # it was valid when it began
            trial.end(outcome=None, refused=_stranded(settings["trial_id"], place, error))
            return
        crashed = outcome is Outcome.CRASHED
        how = {"failure_remedy": _less_memory(gpus)} if outcome is Outcome.OUT_OF_MEMORY else {}
        trial.end(
            outcome=outcome.value,
            cause=crash_signature(text) if crashed else type(error).__name__,
            failure_message=str(error),
            failure_traceback=text,
            **how,
        )
    finally:
        free_memory()


class Progress:
    """Progress of one trial: all its reports, and the state of its best epoch."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []
        self._best = b""  # the state file of the epoch with the least objective
        self._started = self._clock = time.time()

    def restore(
        self, place: str, lost: tune.Checkpoint | None, load_state: Callable[[Path], Any]
    ) -> Any:
        """Return the training's state from a checkpoint, or raise StorageLost."""
        try:
            with lost.as_directory() if lost else downloaded(place) as name:
                folder = Path(name)
                reports = read_reports(folder)
                if not reports:
                    raise StorageLost(f"the checkpoint {place} has gone or is not whole")
                state = load_state(folder / STATE_FILE)
                self._best = (folder / BEST_FILE).read_bytes()
        except OSError as error:
            raise StorageLost(f"the checkpoint {place}: {error}") from error
        self.reports = reports
        self._started = reports[-1].get("started", self._started)
        self._clock -= reports[-1].get("seconds_total", 0.0)
        return state

    def resources_used(self) -> dict[str, Any]:
        """Return where and when the trial has run, and what it took so far."""
        return {
            "host": platform.node(),
            "device": "cpu" if cuda() is None else "cuda",
            "started": self._started,
            "ended": time.time(),
            "seconds_total": time.time() - self._clock,
            "peak_bytes": peak_bytes(),
        }

    def report(self, reports: list[dict[str, Any]], state: Any) -> None:
        """Report the last of `reports` with a checkpoint of them all, or raise StorageLost."""
        *earlier, objective = (row["objective"] for row in reports)
        try:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                state.save(folder / STATE_FILE)
                if objective < min(earlier, default=math.inf):
                    self._best = (folder / STATE_FILE).read_bytes()
                (folder / BEST_FILE).write_bytes(self._best)
                (folder / REPORTS_FILE).write_text(json.dumps(reports, allow_nan=False))
                _report(reports[-1], tune.Checkpoint.from_directory(folder))
        except OSError as error:
            raise StorageLost(f"{type(error).__name__}: {error}") from error
        self.reports = reports

    def end(self, **how: Any) -> None:
        """Report how the trial ended, with its last epoch and without a checkpoint."""
        last = self.reports[-1] if self.reports else NO_EPOCH
        _report(last | self.resources_used() | how)


def load_trainer(threads: int) -> Train:
    """Import torch and the trainer, to compute on so many threads; return its `train`."""
    import torch

    from trainer.training import train

    torch.set_num_threads(threads)
    return train


def take_start(content: bytes) -> None:
    """Take the checkpoint whose weights trainings in this process begin with; none if empty."""
    if content:
        from trainer.training import give_start

        give_start(content)


@cache
def own_versions() -> dict[str, str | None]:
    """Return this worker's versions, looked up once."""
    return versions()  # `cache(versions)` itself would be pickled under the name of `versions`


def _less_memory(gpus: float) -> str:
    """Return the remedy for a trial that has run out of memory."""
    less = "lower batch_size, or search smaller networks"
    if not 0 < gpus < 1:
        return f"{less}, or take a larger machine"
    return f"raise --gpus-per-trial (it had {gpus:g} of a GPU and of its memory), {less}"


def _stranded(trial_id: str, place: str, error: Exception) -> str:
    return (
        f"{trial_id} cannot go on from its checkpoint {place}: {error} It is left as it is. Go on "
        f"with the code that wrote it (run.json has its commit), or delete ray/{trial_id} and "
        f"ray/{trial_id}.* in the run's folder, and it begins anew."
    )


def _report(row: dict[str, Any], checkpoint: tune.Checkpoint | None = None) -> None:
    bad = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    if bad:
        raise ValueError(
            f"a reported number must be finite, but {', '.join(f'{k}={row[k]}' for k in bad)}. "
            "The trainer must raise Diverged before it reports."
        )
    tune.report({k: v for k, v in row.items() if k != BY_SCENE}, checkpoint=checkpoint)
