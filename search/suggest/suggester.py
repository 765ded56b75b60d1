"""Suggests the trials of a search, and tells Optuna the truth about each (the table in `outcome`).

Ray's own Optuna searcher tells rung-stopped trials as COMPLETE, so that the best value and the
importances mix fidelities, and leaves trials that ended in NaN RUNNING for ever. Here every
outcome has its state, and a trial that may not be best carries a constraint.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna

from search.plan import SearchConfig
from search.remote import uri_of
from trainer.config import ConfigError

from .history import History, UnfinishedTrial, compatible_trials, in_space
from .samplers import sampler_for
from .study import (
    EndedTrial,
    OptunaLog,
    constraints,
    new_study,
    state_and_values,
    worst_objective,
)

Record = dict[str, Any]
Register = Callable[[Record], Record]
"""Called before a trial starts, with plain data from which it can be replayed; returns the record
that the trial is run by."""


def trial_name(number: int) -> str:
    """Return the id of a search's trial of that number."""
    return f"t{number:04d}"


def worker_settings(record: Record, *, folder: str, checkpoint: str | None = None) -> Record:
    """Return what a worker is given of a trial: with the folder below `ray/` for its checkpoints,
    and the path or URI of the checkpoint that it goes on from."""
    same = {name: record[name] for name in ("trial_id", "number", "params", "threads")}
    return same | {"folder": folder, "checkpoint": checkpoint}


def rerun_settings(
    records: Iterable[Record], history: History, register: Register
) -> Iterator[Record]:
    """Yield worker settings for each of `records` that has not ended."""
    ended = {trial.trial_id for trial in history.ended}
    begun = {trial.name: trial for trial in history.unfinished}
    for record in records:
        name = record["trial_id"]
        if name in begun:
            yield _continued(begun[name])
        elif name not in ended:
            yield worker_settings(register(record), folder=name)


class Suggester:
    """Draws configurations from an Optuna study, and tells it what became of them.

    Args:
        log: file that ended trials are mirrored to; written anew from `history`.
        history: trials of earlier drivers; unfinished ones are suggested first, under their old
            names, with their last checkpoint.
    """

    def __init__(
        self, plan: SearchConfig, log: Path, history: History, register: Register
    ) -> None:
        self._plan = plan
        self._history = history
        self._register = register
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._log = OptunaLog(plan, log, history.ended)
        self._sampler: optuna.samplers.BaseSampler | None = None
        self._told = history.trials_for_sampler(plan)
        self.study = new_study(plan, known=self._told)

    def trials(self, exhausted: Callable[[], object]) -> Iterator[Record]:
        """Yield what workers are given of the trials, each drawn when it is asked for; call
        `exhausted` when none is left."""
        given = {old.number for old in self._history.ended}
        for unfinished in self._history.unfinished:
            given.add(unfinished.number)
            self._ask_again(unfinished)
            yield _continued(unfinished)
        for number in range(self._plan.trials):
            if number not in given:
                record = self._draw(number)
                yield worker_settings(record, folder=record["trial_id"])
        exhausted()

    def tell(self, ended: EndedTrial) -> None:
        """Tell Optuna what became of a trial, and add it to the log."""
        trial = self._asked.pop(ended.trial_id, None)
        if trial is not None:
            self._told.append(ended)
            worst = worst_objective(self._plan, self._told)
            state, values = state_and_values(ended, self._plan, to_sampler=True, worst=worst)
            if len(self._plan.objectives) == 1:
                for epoch, value in ended.values.items():
                    trial.report(value, step=epoch)
            for name, value in constraints(ended, self._plan, to_sampler=True).items():
                trial.set_constraint(name, value)
            self.study.tell(trial, values, state=state)
        self._log.add(ended)

    def _draw(self, number: int) -> Record:
        name, anchors = trial_name(number), self._plan.space.anchors
        trial = self._ask(number, anchors[number] if number < len(anchors) else None)
        drawn = self._plan.space.suggest(trial)
        try:
            config = self._plan.config(drawn)
            params, digest = config.to_params(), config.digest
        except ConfigError:  # for the worker to find, so that it is recorded like every outcome
            params, digest = self._plan.config({}).to_params() | drawn, None
        own = self._plan.own_trainer
        noted = trial.storage.get_trial_system_attrs(trial._trial_id)  # CMA-ES keeps its state so
        record = self._register(
            {
                "trial_id": name,
                "number": number,
                "sampler": dict(trial.params),
                "sampler_attributes": {k: v for k, v in noted.items() if k != "fixed_params"},
                "drawn": drawn,
                "params": params,
                "config_hash": digest,
            }
            | ({} if own is None else {"trainable": asdict(own)})
        )
        self._asked[name] = trial
        return record

    def _ask_again(self, old: UnfinishedTrial) -> None:
        """Add an unfinished trial to the study, if the space could still draw and compare it."""
        record = old.record
        if compatible_trials([old], self._plan) and in_space(record["sampler"], self._plan):
            trial = self._ask(old.number, record["sampler"])
            self._plan.space.suggest(trial)
            for noted, value in record.get("sampler_attributes", {}).items():
                trial.storage.set_trial_system_attr(trial._trial_id, noted, value)
            self._asked[old.name] = trial

    def _ask(self, number: int, given: Any) -> optuna.trial.Trial:
        """Return a new trial of the study, drawn by its own sampler or with the values given."""
        if given:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)  # not asked: all is given
            self.study.enqueue_trial(dict(given))
        else:
            self.study.sampler = self._sampler = sampler_for(self._plan, number, self._sampler)
        return self.study.ask()


def _continued(old: UnfinishedTrial) -> Record:
    checkpoint = None if old.checkpoint is None else uri_of(old.checkpoint)
    return worker_settings(dict(old.record), folder=old.folder, checkpoint=checkpoint)
