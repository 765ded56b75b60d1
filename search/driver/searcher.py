"""Optuna under Ray Tune, told the truth about every trial (the table in `outcome.py`).

Ray's own Optuna searcher tells rung-stopped trials as COMPLETE, so that the best value and the
importances mix fidelities, and leaves trials that ended in NaN RUNNING for ever. Here every
outcome has its state, and a trial that may not be best carries a constraint.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import optuna
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from search.plan import EarlyStopper, SearchConfig
from search.remote import uri_of
from search.suggest import (
    EndedTrial,
    History,
    OptunaLog,
    UnfinishedTrial,
    compatible_trials,
    constraints,
    frozen_trial,
    in_space,
    new_study,
    sampler_for,
    state_and_values,
)
from trainer.config import ConfigError

OBJECTIVE = "objective"

Record = dict[str, Any]
Register = Callable[[Record], Record]


def trial_name(number: int) -> str:
    """Return the id of the search's trial of that number."""
    return f"t{number:04d}"


class RecordedSearcher(Searcher, ABC):
    """A searcher whose run is restored from its own records, never from Ray's snapshot.

    Ray tells its searcher of an ending early, without the error, and of some endings twice: the
    callback calls `ended` instead.
    """

    def __init__(self) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")

    @abstractmethod
    def ended(self, past: EndedTrial) -> None:
        """Take in what became of a trial; called once."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: see `ended`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write a note: see the class."""
        Path(checkpoint_path).write_text("restored from the run's own records\n")

    def restore(self, checkpoint_path: str) -> None:
        """Raise NotImplementedError: see the class."""
        raise NotImplementedError("restore a run with its own command, not with Tuner.restore")


class OptunaSearcher(RecordedSearcher):
    """Suggests configurations and tells Optuna what became of them.

    Args:
        plan: the search as planned.
        journal: file that ended trials are mirrored to; written anew from `history`.
        history: what earlier drivers of this run have left; unfinished trials are suggested first,
            under their old names, with their last checkpoint.
        register: called before a trial starts, with plain data from which it can be replayed;
            returns the record that the trial is run by.
        exhausted: called when a worker asks and no trial is left, and perhaps again.
    """

    def __init__(
        self,
        plan: SearchConfig,
        journal: Path,
        *,
        history: History,
        register: Register,
        exhausted: Callable[[], object],
    ) -> None:
        super().__init__()
        self._plan = plan
        self._register = register
        self._exhausted = exhausted
        self._unfinished = list(history.unfinished)
        given = history.numbers
        self._new = [n for n in range(plan.trials) if n not in given]
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._mirror = OptunaLog(plan, journal, history.ended)
        self._sampler: optuna.samplers.BaseSampler | None = None
        self.study = new_study(plan)
        self.study.add_trials(
            [
                frozen_trial(past, plan, to_sampler=True)
                for past in history.trials_for_sampler(plan)
            ]
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial as plain data; Ray's `trial_id` is not used."""
        if self._unfinished:
            return self._again(self._unfinished.pop(0))
        if not self._new:
            self._exhausted()
            return Searcher.FINISHED
        number = self._new.pop(0)
        name = trial_name(number)
        anchors = self._plan.space.anchors
        trial = self._ask(number, anchors[number] if number < len(anchors) else None)
        drawn = self._plan.space.suggest(trial)
        try:
            config = self._plan.train_config(drawn)
            params, digest = config.to_params(), config.digest
        except ConfigError:  # for the worker to find, so that it is recorded like every outcome
            params, digest = self._plan.template.to_params() | drawn, None
        record = self._register(
            {
                "trial_id": name,
                "number": number,
                "sampler": dict(trial.params),
                "sampler_attributes": _own_attributes(trial),
                "drawn": drawn,
                "params": params,
                "config_hash": digest,
            }
        )
        self._asked[name] = trial
        return _settings(record, folder=name)

    def ended(self, past: EndedTrial) -> None:
        """Tell Optuna what became of a trial, and mirror it to the journal."""
        trial = self._asked.pop(past.trial_id, None)
        if trial is not None:
            state, values = state_and_values(past, self._plan, to_sampler=True)
            if len(self._plan.objectives) == 1:
                for epoch, value in past.values.items():
                    trial.report(value, step=epoch)
            for name, value in constraints(past, self._plan, to_sampler=True).items():
                trial.set_constraint(name, value)
            self.study.tell(trial, values, state=state)
        self._mirror.add(past)

    def _again(self, old: UnfinishedTrial) -> dict[str, Any]:
        record = dict(old.record)
        # if the space has changed, it goes on, but the sampler cannot place or compare it
        if compatible_trials([old], self._plan) and in_space(record["sampler"], self._plan):
            trial = self._ask(old.number, record["sampler"])
            self._plan.space.suggest(trial)
            for noted, value in record.get("sampler_attributes", {}).items():
                trial.storage.set_trial_system_attr(trial._trial_id, noted, value)
            self._asked[record["trial_id"]] = trial
        return _again(old)

    def _ask(self, number: int, given: Any) -> optuna.trial.Trial:
        """Return a new trial of the study, drawn by its own sampler or with the values given."""
        if given:
            self.study.sampler = optuna.samplers.RandomSampler(seed=0)  # not asked: all is given
            self.study.enqueue_trial(dict(given))
        else:
            self.study.sampler = self._sampler = sampler_for(self._plan, number, self._sampler)
        return self.study.ask()


class ListSearcher(RecordedSearcher):
    """Suggests given trainings; those that an earlier driver began go on from their checkpoints.

    Args:
        records: records of the trainings, plain data from which each can be replayed.
        history: what earlier drivers of this run have left.
        register: called before a training starts, as for `OptunaSearcher`.
    """

    def __init__(
        self,
        records: Iterable[dict[str, Any]],
        *,
        history: History,
        register: Register,
    ) -> None:
        super().__init__()
        ended = {past.trial_id for past in history.ended}
        self._begun = {trial.name: trial for trial in history.unfinished}
        self._left = [one for one in records if one["trial_id"] not in ended]
        self._register = register

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next training as plain data; Ray's `trial_id` is not used."""
        if not self._left:
            return Searcher.FINISHED
        record = self._left.pop(0)
        name = record["trial_id"]
        if name in self._begun:
            return _again(self._begun[name])
        return _settings(self._register(record), folder=name)

    def ended(self, past: EndedTrial) -> None:
        """Do nothing: the list is fixed."""


class Scheduler(FIFOScheduler):
    """Stops the trials that `stopper` gives up, when they report.

    Args:
        stopper: told of what earlier drivers have left.
        aside: names of trials that are not judged.
    """

    def __init__(self, stopper: EarlyStopper, aside: Collection[str] = ()) -> None:
        super().__init__()
        self._stopper = stopper
        self._aside = frozenset(aside)

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return Ray's word for what becomes of the trial."""
        name, number = trial.config["trial_id"], trial.config["number"]
        if name in self._aside:
            return str(FIFOScheduler.CONTINUE)
        stops = self._stopper.should_stop(name, number, result["epoch"], result["objective"])
        return str(FIFOScheduler.STOP if stops else FIFOScheduler.CONTINUE)


def _settings(record: Record, *, folder: str, checkpoint: str | None = None) -> Record:
    """Return what a worker is given."""
    same = {name: record[name] for name in ("trial_id", "number", "params", "threads")}
    return same | {"folder": folder, "checkpoint": checkpoint}


def _again(old: UnfinishedTrial) -> dict[str, Any]:
    checkpoint = None if old.checkpoint is None else uri_of(old.checkpoint)
    return _settings(dict(old.record), folder=old.folder, checkpoint=checkpoint)


def _own_attributes(trial: optuna.trial.Trial) -> dict[str, Any]:
    """Return what the sampler noted on the trial (CMA-ES keeps its state there)."""
    noted = trial.storage.get_trial_system_attrs(trial._trial_id)
    return {name: value for name, value in noted.items() if name != "fixed_params"}
