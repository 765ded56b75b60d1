"""The trials of a run so far: ended ones for the sampler, unfinished ones with their checkpoints.

Read from the run's own files, by a resumed run or by one that starts warm from it. A trial has
ended if it has a row in `trials`; any other goes on from its newest whole checkpoint.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from search.plan import CorruptRun, Outcome, SearchConfig
from search.records import RunStore, checkpoints_of, folders, read_reports, redrawn
from trainer.record import CONFIGS

from .study import EndedTrial, distributions

HELD_OUT = tuple(
    f"evaluation.{name}"
    for name in ("test_seed", "report_snr_db", "num_test_scenes", "tolerance", "baselines")
)
"""Settings of the scores after a training, on which the objective does not depend."""


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial that was started and has not ended.

    Attributes:
        record: `configs/<trial_id>.json`.
        folder: a new one below `ray/`, for the checkpoints of this session.
        checkpoint: its newest complete checkpoint, or None.
        reports: its reports up to that checkpoint; the last one is made again.
    """

    record: Mapping[str, Any]
    folder: str
    checkpoint: Path | None = None
    reports: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The trial's id."""
        return str(self.record["trial_id"])

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self.record["number"])

    @property
    def params(self) -> Mapping[str, Any]:
        """The whole configuration."""
        return dict(self.record.get("params", {}))


T = TypeVar("T", EndedTrial, UnfinishedTrial)


@dataclass(frozen=True)
class History:
    """The trials of earlier drivers of a run, in order of their numbers, and `warm`, those of
    another run, which count for the sampler only."""

    ended: tuple[EndedTrial, ...] = ()
    unfinished: tuple[UnfinishedTrial, ...] = ()
    warm: tuple[EndedTrial, ...] = ()

    def incompatible_trials(self, plan: SearchConfig) -> set[str]:
        """Return the unfinished trials of another budget, scene or validation than the plan's;
        they train to their end."""
        ours = {trial.name for trial in compatible_trials(self.unfinished, plan)}
        return {trial.name for trial in self.unfinished} - ours

    def trials_for_sampler(self, plan: SearchConfig) -> list[EndedTrial]:
        """Return the ended trials to tell the sampler: compatible, and in the plan's space."""
        known = compatible_trials((*self.warm, *self.ended), plan)
        return [trial for trial in known if in_space(trial.sampler, plan)]


def read_history(store: RunStore, warm: tuple[EndedTrial, ...] = ()) -> History:
    """Return a run's history; that of a new run is empty."""
    ended = read_ended_trials(store)
    names = {trial.trial_id for trial in ended}
    left = [_unfinished(store, name) for name in store.started() if name not in names]
    return History(tuple(ended), tuple(sorted(left, key=lambda trial: trial.number)), warm)


def read_ended_trials(store: RunStore) -> list[EndedTrial]:
    """Return the trials that have ended, in order of their numbers."""
    trials = store.read("trials")  # first: of a run that grows, whatever has ended has epochs
    epochs = store.read("epochs").dropna(subset=["objective"]).sort_values("epoch")
    values = {
        name: dict(zip(own["epoch"].astype(int), own["objective"].astype(float), strict=True))
        for name, own in epochs.groupby("trial_id")
    }
    ended = []
    for row in trials.sort_values("number").to_dict("records"):
        name = str(row["trial_id"])
        record = _record(store, name, "sampler")
        cost, end = row["seconds_per_epoch"], row["ended"]
        ended.append(
            EndedTrial(
                trial_id=name,
                number=int(row["number"]),
                sampler=record["sampler"],
                outcome=Outcome(row["outcome"]),
                cause=None if pd.isna(row["cause"]) else str(row["cause"]),
                values=values.get(name, {}),
                cost=None if pd.isna(cost) else float(cost),
                attributes=record.get("sampler_attributes", {}),
                params=record.get("params", {}),
                span=None if pd.isna(end) else (row["started"].timestamp(), end.timestamp()),
            )
        )
    return ended


def _unfinished(store: RunStore, name: str) -> UnfinishedTrial:
    record = _record(store, name, "number")
    taken = {folder.name for folder in folders(store.path, name)}
    names = (f"{name}.{session}" if session else name for session in count(len(taken)))
    folder = next(each for each in names if each not in taken)
    found = [(path, read_reports(path)) for path in checkpoints_of(store.path, name)]
    checkpoint, reports = max(found, key=lambda each: len(each[1]), default=(None, []))
    return UnfinishedTrial(record, folder, checkpoint if reports else None, tuple(reports))


def compatible_trials(trials: Iterable[T], plan: SearchConfig) -> list[T]:
    """Return the trials with the budget, scene and validation of the plan's trials.

    Searched parameters may differ, and settings on which no objective depends.
    """
    aside = {"seed", *HELD_OUT, *plan.space.parameters()}
    ours = {n: v for n, v in plan.config({}).to_params().items() if n not in aside}
    return [one for one in trials if all(one.params.get(n, v) == v for n, v in ours.items())]


def in_space(sampler: Mapping[str, Any], plan: SearchConfig) -> bool:
    """Return whether the plan's space could draw these sampler values."""
    try:
        distributions(plan.space, sampler)
    except ValueError:
        return False
    return True


def _record(store: RunStore, name: str, needed: str) -> dict[str, Any]:
    record = store.read_config(name)
    if needed not in record:
        raise CorruptRun(
            f"{store.path / CONFIGS / name}.json must have `{needed}`, but has not. Restore it "
            f"from a copy, or {redrawn(name)}."
        )
    return record
