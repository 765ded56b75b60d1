"""What a run remembers: which trials have ended, how, and where the others can go on.

Read from the run's own files, by whoever resumes it or starts warm from it. A trial has ended if
it has a row in `trials`. One that has not goes on from its newest whole checkpoint.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
"""What is scored after a trial: its objective does not depend on it."""


@dataclass(frozen=True)
class UnfinishedTrial:
    """A trial that was started and has not ended.

    Attributes:
        record: `configs/<trial_id>.json`.
        folder: where this session's checkpoints of it go, a new one below `ray/`.
        checkpoint: its newest complete checkpoint, or None.
        reports: what it had reported by then; the last one is reported again.
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
    def params(self) -> Mapping[str, Any]:
        """Its whole configuration."""
        params: Mapping[str, Any] = self.record.get("params", {})
        return params


P = TypeVar("P", EndedTrial, UnfinishedTrial)


@dataclass(frozen=True)
class History:
    """All that earlier drivers of a run have left, and what it was told at its start.

    Attributes:
        ended, unfinished: its trials, in order of their numbers.
        warm: trials of another run, which count for the sampler only.
    """

    ended: tuple[EndedTrial, ...] = ()
    unfinished: tuple[UnfinishedTrial, ...] = ()
    warm: tuple[EndedTrial, ...] = ()

    @property
    def numbers(self) -> set[int]:
        """Numbers that have been given to trials."""
        running = {int(trial.record["number"]) for trial in self.unfinished}
        return running | {past.number for past in self.ended}

    def incompatible_trials(self, plan: SearchConfig) -> set[str]:
        """Return unfinished trials of another budget, scene or validation, which no rung stops."""
        ours = {trial.name for trial in compatible_trials(self.unfinished, plan)}
        return {trial.name for trial in self.unfinished} - ours

    def trials_for_sampler(self, plan: SearchConfig) -> list[EndedTrial]:
        """What the sampler is told: all that the plan's space could draw and that compares."""
        known = compatible_trials((*self.warm, *self.ended), plan)
        return [past for past in known if in_space(past.sampler, plan)]


def read_history(store: RunStore, warm: tuple[EndedTrial, ...] = ()) -> History:
    """Reads a run's history; a new run has an empty one."""
    ended = read_ended_trials(store)
    names = {past.trial_id for past in ended}
    left = [_unfinished(store, name) for name in store.started() if name not in names]
    left.sort(key=lambda trial: int(trial.record["number"]))
    return History(tuple(ended), tuple(left), warm)


def read_ended_trials(store: RunStore) -> list[EndedTrial]:
    """The trials that have ended, in order of their numbers."""
    trials = store.read("trials")  # first: of a run that grows, whatever has ended has epochs
    values = dict(iter(store.read("epochs").groupby("trial_id")))
    past = []
    for row in trials.sort_values("number").to_dict("records"):
        name = str(row["trial_id"])
        record = _record(store, name, "sampler")
        own = values.get(name)
        past.append(
            EndedTrial(
                trial_id=name,
                number=int(row["number"]),
                sampler=record["sampler"],
                outcome=Outcome(row["outcome"]),
                cause=None if pd.isna(row["cause"]) else str(row["cause"]),
                values={} if own is None else objectives(own),
                cost=_finite(row["seconds_per_epoch"]),
                attributes=record.get("sampler_attributes", {}),
                params=record.get("params", {}),
            )
        )
    return past


def objectives(epochs: pd.DataFrame) -> dict[int, float]:
    """Objective by epoch, from rows of one trial in `epochs`."""
    known = epochs.dropna(subset=["objective"]).sort_values("epoch")
    return {
        int(epoch): float(value)
        for epoch, value in zip(known["epoch"], known["objective"], strict=True)
    }


def _unfinished(store: RunStore, name: str) -> UnfinishedTrial:
    record = _record(store, name, "number")
    session = len(folders(store.path, name))
    taken = {folder.name for folder in folders(store.path, name)}
    folder = name
    while folder in taken:
        folder = f"{name}.{session}"
        session += 1
    best: tuple[Path | None, list[dict[str, Any]]] = (None, [])
    for checkpoint in checkpoints_of(store.path, name):
        reports = read_reports(checkpoint)
        if len(reports) > len(best[1]):
            best = (checkpoint, reports)
    return UnfinishedTrial(record, folder, best[0], tuple(best[1]))


def compatible_trials(past: Iterable[P], plan: SearchConfig) -> list[P]:
    """The trials that have the budget, scene and validation of this plan's trials: what the space
    does not search and no value depends on aside."""
    aside = {"seed", *HELD_OUT, *plan.space.parameters()}
    ours = {n: v for n, v in plan.template.to_params().items() if n not in aside}
    return [one for one in past if all(one.params.get(n, v) == v for n, v in ours.items())]


def in_space(sampler: Mapping[str, Any], plan: SearchConfig) -> bool:
    """Whether the plan's space could draw these sampler values."""
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


def _finite(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)
