"""Replay of a recorded trial, alone: the same numbers on the same machine, or one step in detail.

A record has the configuration and the number of threads (`configs/<trial_id>.json`), the report of
the last epoch, and the failure, if there was one (`endings`). Numbers are compared bit for bit.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from trainer.config import ConfigError, TrainConfig
from trainer.failure import Diverged, Failure
from trainer.own_trainer import OwnConfig, OwnTrainer
from trainer.record import BEST_FILE

from .loop import EpochReport, TrainingLoop, resolve_device
from .step_inspection import inspect_step

COMPARED = ("cause", "term", "tensor", "step", "epoch", "min_eigengap")
"""Fields in which two equal failures agree."""
CUT_SHORT = ("stopped", "timed_out", "out_of_memory", "lost")
"""Outcomes of a training that was ended from outside: alone, it would go on."""


def replay_trial(record: Mapping[str, Any]) -> int:
    """Train a recorded trial as far as it got; return 0 if it is reproduced, else 1.

    Raises:
        ConfigError: if it cannot be trained; CodeError if a user's code is not as it was.
    """
    if "trainable" in record:
        return _replay_own(record)
    loop = _start(record)
    config = loop.config
    budget = _budget(record, config.epochs)
    rows: dict[int, dict[str, Any]] = {}

    def watched() -> Iterator[EpochReport]:
        for report in islice(loop.reports(), budget):
            rows[report.epoch] = report.row()
            yield report

    failure = print_epochs(config, watched())
    if failure is not None:
        print("\n".join(inspect_step(loop).lines()))
    return _compare(record, rows, failure)


def _replay_own(record: Mapping[str, Any]) -> int:
    """Train a recorded trial of a user's trainer and compare; return 0 or 1."""
    own, threads = OwnTrainer(**record["trainable"]), int(record.get("threads", 1))
    budget = _budget(record, OwnConfig.from_params(record["params"]).epochs)
    rows: dict[int, dict[str, Any]] = {}
    failure = None
    try:
        for report in islice(own.reports(record["params"], threads=threads), budget):
            rows[report.epoch] = report.row()
            numbers = "  ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
            print(f"epoch {report.epoch:3d}  {numbers}  {report.seconds:.1f} s", flush=True)
    except Diverged as diverged:
        print(f"diverged: {diverged}")
        failure = diverged.failure
    return _compare(record, rows, failure)


def _budget(record: Mapping[str, Any], epochs: int) -> int:
    """Return the epochs to train: all of a trial that ended by itself."""
    cut = record.get("outcome", "unfinished") in CUT_SHORT
    return int((record.get("reached") or {}).get("epoch", 0)) if cut else epochs


def _compare(
    record: Mapping[str, Any], rows: Mapping[int, Mapping[str, Any]], failure: Failure | None
) -> int:
    """Print how a trial ended and how its replay did; return 0 if they are the same, else 1."""
    reached, outcome = record.get("reached") or {}, record.get("outcome", "unfinished")
    epochs = int(reached.get("epoch", 0))
    found = failure.as_dict() if failure else {}
    diverged = (outcome in ("diverged", "unfinished") and record.get("failure")) or {}
    wrong = _differences(COMPARED, diverged, found)
    wrong += _differences(reached, reached, rows.get(epochs, {}), f" of epoch {epochs}")
    print("recorded:", _described(diverged) if diverged else f"{outcome} after {epochs} epochs")
    print("replayed:", _described(found) if found else f"trained {len(rows)} epochs")
    if wrong:
        print(f"NOT reproduced: {'; '.join(wrong)}. Another machine or another version?")
        return 1
    print("reproduced, bit for bit" if reached or diverged else "nothing was recorded to compare")
    return 0


def replay_to_step(record: Mapping[str, Any], step: int) -> int:
    """Train a recorded trial for `step` steps and print the next one in detail.

    Returns:
        0, or 1 if it diverged before.

    Raises:
        ConfigError: if the trial has no such step.
    """
    if "trainable" in record:
        raise ConfigError("--step is of our trainer, but the trial is one of yours. Leave it out.")
    loop = _start(record)
    config = loop.config
    budget = config.epochs * config.steps_per_epoch
    if not 0 <= step < budget:
        raise ConfigError(
            f"--step must lie in 0 ... {budget - 1}, since the trial has {budget} steps, but got "
            f"{step}. It counts the steps taken before the one that is shown."
        )
    try:
        while loop.steps < step:
            loop.epoch = loop.steps // config.steps_per_epoch + 1
            loop.step()
    except Diverged as diverged:
        print(f"diverged before step {step}: {diverged}")
    else:
        loop.draw()
    print("\n".join(inspect_step(loop).lines()))
    return 0 if loop.steps == step else 1


def print_epochs(
    config: TrainConfig, reports: Iterator[EpochReport], save_to: Path | None = None
) -> Failure | None:
    """Train; print a line per epoch; return the failure, if there was one.

    Args:
        save_to: folder for the last state, and for the best epoch's in `BEST_FILE`.
    """
    print(f"configuration {config.digest}")
    least = math.inf
    try:
        for report in reports:
            losses = "  ".join(f"{term} {value:.4f}" for term, value in report.losses.items())
            print(
                f"epoch {report.epoch:3d}/{config.epochs}  {losses}  "
                f"capped error {report.capped_error:.3f}  success {report.success_rate:.2f}  "
                f"smallest eigengap {report.min_eigengap:.1e}  {report.seconds:.1f} s",
                flush=True,
            )
            if save_to is not None:
                report.state.save(save_to / "state.pt")
                if report.capped_error < least:
                    report.state.save(save_to / BEST_FILE)
                    least = report.capped_error
    except Diverged as diverged:
        print(f"diverged: {diverged}")
        return diverged.failure
    return None


def _start(record: Mapping[str, Any]) -> TrainingLoop:
    # sums over more or fewer threads differ in their last bits
    torch.set_num_threads(int(record.get("threads", 1)))
    config = TrainConfig.from_params(record["params"])
    return TrainingLoop(config, resolve_device(config.device))


def _differences(
    names: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any], where: str = ""
) -> list[str]:
    return [
        f"{name}{where} was {before.get(name)!r}, is {after.get(name)!r}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _described(failure: Mapping[str, Any]) -> str:
    where = f" in {failure['tensor']}" if failure.get("tensor") else ""
    when = "" if failure["step"] is None else f" at step {failure['step']}"
    return f"{failure['cause']} of `{failure['term']}`{where}{when}"
