"""A recorded trial again, alone: the same numbers on the same machine, and a look at one step.

A record has the configuration and the threads it was computed with (`configs/<trial_id>.json`),
what its last epoch reported, and its failure, if it had one (`endings`). Numbers are compared bit
for bit.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from trainer.config import ConfigError, TrainConfig
from trainer.failure import Diverged, Failure

from .loop import EpochReport, TrainingLoop, resolve_device
from .step_inspection import inspect_step

BEST_FILE = "best.pt"
"""Where a training that has not ended keeps the state of its best epoch."""

MOMENT = ("cause", "term", "tensor", "step", "epoch", "min_eigengap")
"""What makes two failures the same."""


CUT_SHORT = ("stopped", "timed_out", "out_of_memory", "lost")
"""Endings that are not the training's own: it would go on, here perhaps to its end."""


def replay_trial(record: Mapping[str, Any]) -> int:
    """Trains a recorded trial as far as it got and compares; 0 if it is reproduced, or else 1."""
    config, training = _start(record)
    reached, failed = record.get("reached"), record.get("failure")
    epochs = int(reached["epoch"]) if reached else 0
    outcome = record.get("outcome", "unfinished")
    budget = epochs if outcome in CUT_SHORT else config.epochs
    seen: dict[int, dict[str, Any]] = {}

    def watched() -> Iterator[EpochReport]:
        for report in islice(training.reports(), budget):
            seen[report.epoch] = report.row()
            yield report

    failure = print_epochs(config, watched())
    if failure is not None:
        print("\n".join(inspect_step(training).lines()))
    found = failure.as_dict() if failure else None
    diverged = failed if outcome in ("diverged", "unfinished") else None
    wrong = [
        f"{name} was {_of(diverged, name)!r}, is {_of(found, name)!r}"
        for name in MOMENT
        if _of(diverged, name) != _of(found, name)
    ]
    if reached:
        again = seen.get(epochs, {})
        wrong += [
            f"{name} of epoch {epochs} was {value!r}, is {again.get(name)!r}"
            for name, value in reached.items()
            if again.get(name) != value
        ]
    print("recorded:", _described(diverged) if diverged else f"{outcome} after {epochs} epochs")
    print("replayed:", _described(found) if found else f"trained {len(seen)} epochs")
    if wrong:
        print(f"NOT reproduced: {'; '.join(wrong)}. Another machine or another version?")
        return 1
    print("reproduced, bit for bit" if reached or diverged else "nothing was recorded to compare")
    return 0


def replay_to_step(record: Mapping[str, Any], step: int) -> int:
    """Trains so many steps of a recorded trial and shows the next one; 1 if it diverges before.

    Raises:
        ConfigError: if the trial has no such step.
    """
    config, training = _start(record)
    budget = config.epochs * config.steps_per_epoch
    if not 0 <= step < budget:
        raise ConfigError(
            f"--step must lie in 0 ... {budget - 1}, since the trial has {budget} steps, but got "
            f"{step}. It counts the steps taken before the one that is shown."
        )
    try:
        while training.steps < step:
            training.epoch = training.steps // config.steps_per_epoch + 1
            training.step()
    except Diverged as diverged:
        print(f"diverged before step {step}: {diverged}")
    else:
        training.draw()
    print("\n".join(inspect_step(training).lines()))
    return 0 if training.steps == step else 1


def print_epochs(
    config: TrainConfig, reports: Iterator[EpochReport], save_to: Path | None = None
) -> Failure | None:
    """Prints an epoch a line; returns the failure, if there was one.

    Args:
        save_to: folder for the last state, and for that of the best epoch.
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


def _start(record: Mapping[str, Any]) -> tuple[TrainConfig, TrainingLoop]:
    # sums over more or fewer threads differ in their last bits
    torch.set_num_threads(int(record.get("threads", 1)))
    config = TrainConfig.from_params(record["params"])
    return config, TrainingLoop(config, resolve_device(config.device))


def _of(failure: Mapping[str, Any] | None, name: str) -> Any:
    return None if failure is None else failure.get(name)


def _described(failure: Mapping[str, Any]) -> str:
    where = f" in {failure['tensor']}" if failure.get("tensor") else ""
    return f"{failure['cause']} of `{failure['term']}`{where} at step {failure['step']}"
