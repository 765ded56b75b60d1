"""A trainer that ends as its parameters say: the search is real, only the learning is not.

Handed to the driver in place of `trainer.training.train`. What happens follows from the learning
rate that the trial was given, so that a test can ask for each outcome by an anchor.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from search.plan.environment import WORKER_ENV
from trainer.config import TrainConfig
from trainer.evaluation.reference import Margin
from trainer.failure import Cause, Diverged, Failure
from trainer.training.checkpoint import TrainState
from trainer.training.loop import EpochReport


def report(config: TrainConfig, epoch: int, error: float, **more: Any) -> EpochReport:
    """A report with the given objective and plausible everything else."""
    state = TrainState(config.to_params(), epoch, epoch, {}, {}, {}, torch.zeros(1))
    plain = {
        "losses": {"total": error, "covariance": error},
        "gradient_norm": 1.0,
        "min_eigengap": 0.1,
        "median_eigengap": 0.2,
        "loading": 1e-5,
        "skipped_samples": 0,
        "replaced_samples": 0,
        "learning_rate": 1e-3,
        "capped_error": error,
        "capped_error_low": error - 0.01,
        "capped_error_high": error + 0.01,
        "success_rate": 1 - error,
        "seconds": 0.01,
        "evaluation": (),
        "scene_errors": (error - 0.1, error, error + 0.1),
    }
    return EpochReport(epoch=epoch, step=epoch, state=state, **(plain | more))


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Learns, the faster the higher the rate; above 0.01 it ends badly in epoch 2 (`ENDINGS`)."""
    rate = config.optimizer.learning_rate
    for epoch in range(1 if resume is None else resume.epoch + 1, config.epochs + 1):
        if epoch == 2:
            ending = [end for above, end in ENDINGS.items() if rate >= above]
            if ending:
                ending[-1](rate)
        yield report(config, epoch, error=0.5 + 0.1 / epoch - 10 * rate)


def train_above(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Trains; above a rate of 0.006 it ends above the reference at three points."""
    above = 3 if config.optimizer.learning_rate > 0.006 else 0
    margin = Margin(above, 8, 16, 10.0, 2, 0.2, 0.1 if above else -0.1, 0.3)
    for each in train(config, resume=resume):
        yield replace(each, margin=margin) if each.epoch == config.epochs else each


def train_past_its_best(
    config: TrainConfig, *, resume: TrainState | None = None
) -> Iterator[EpochReport]:
    """Is best in its second epoch, and worse in every other."""
    for epoch in range(1 if resume is None else resume.epoch + 1, config.epochs + 1):
        yield report(config, epoch, error=0.5 if epoch == 2 else 0.6)


def train_and_linger(
    config: TrainConfig, *, resume: TrainState | None = None
) -> Iterator[EpochReport]:
    """Trains, and takes its time to end when it is stopped, as on a machine that is busy."""
    try:
        yield from train(config, resume=resume)
    finally:
        time.sleep(4.0)


def train_and_block(
    folder: Path, config: TrainConfig, *, resume: TrainState | None = None
) -> Iterator[EpochReport]:
    """Trains, but at its second epoch puts a file where a folder of the run was."""
    for each in train(config, resume=resume):
        if each.epoch == 2 and folder.is_dir() and config.optimizer.learning_rate == BLOCKS:
            folder.rename(folder.with_name(folder.name + ".away"))
            folder.write_text("")
        yield each


def note_and_train(
    file: Path, config: TrainConfig, *, resume: TrainState | None = None
) -> Iterator[EpochReport]:
    """Notes on what kind of worker a trial finds itself, and trains."""
    names = (*WORKER_ENV, "OMP_NUM_THREADS")
    found = {"pid": os.getpid()} | {name: os.environ.get(name) for name in names}
    with file.open("a") as notes:
        notes.write(json.dumps(found) + "\n")
    yield from train(config, resume=resume)


class Unpackable:
    """Cannot be sent to a worker: no trial begins there."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpack, (os.getpid(),)

    def __call__(self, config: TrainConfig, *, resume: TrainState | None = None) -> Any:
        raise AssertionError("it has arrived")


def _unpack(driver: int) -> Unpackable:
    if os.getpid() != driver:
        raise RuntimeError("this trainer cannot be unpacked")
    return Unpackable()


BLOCKS = 0.007


def crash(rate: float) -> None:
    raise RuntimeError(f"a bug, met at rate {rate}")


def diverge(rate: float) -> None:
    raise Diverged(Failure(Cause.NONFINITE_GRADIENT, "eigengap", "trunk.0.weight", 7, 2, 1e-9))


def exhaust(rate: float) -> None:
    torch.empty(2**60, dtype=torch.uint8)  # more than any machine has


def vanish(rate: float) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(rate: float) -> None:
    threading.Event().wait()


ENDINGS = {0.011: crash, 0.021: diverge, 0.026: exhaust, 0.027: vanish, 0.028: hang}
"""What happens from which learning rate on."""
