"""The Optuna study of a search, and its copy on disk.

Suggestions come from a study in memory. `optuna.log` (Optuna's journal storage) is a copy of the
trials that have ended: a suggestion then never waits for the file system, and `optuna-dashboard`
can open the file while the search runs. Neither is a record: a resumed search makes both anew from
the run's tables, so that a torn line or a stale lock of a killed driver does no harm; what people
have added to the file (attributes of the study, notes of `optuna-dashboard`) is taken over.
"""

import json
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from search.plan import RULES, WORST_OBJECTIVE, Outcome, SearchConfig
from spaces import Choice, Float, Int, Range, Space

from .samplers import MODELS_COMPLETE_ONLY

CONSTRAINT = "aborted"

NOTED = re.compile(r"dashboard:(\d+):")  # begins optuna-dashboard's notes on the trial of an id


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, as samplers need it and `warm.json` holds it.

    Attributes:
        trial_id, number: its name and place.
        sampler: the sampler's values, by the names they were asked under.
        outcome, cause: its row in `trials`.
        values: objective by epoch.
        cost: seconds per epoch; None if no epoch was trained.
        attributes: the sampler's own notes on the trial.
        params: the whole configuration.
        span: its begin and end, in seconds since 1970; None if not known.
    """

    trial_id: str
    number: int
    sampler: Mapping[str, Any]
    outcome: Outcome
    cause: str | None = None
    values: Mapping[int, float] = field(default_factory=dict)
    cost: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    span: tuple[float, float] | None = None

    @property
    def last_value(self) -> float | None:
        """The objective after the last epoch; None before the first."""
        return self.values[max(self.values)] if self.values else None


def new_study(
    plan: SearchConfig, storage: Any = None, known: Iterable[EndedTrial] = ()
) -> optuna.Study:
    """Return a study that is told the `known` trials, in memory by default."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=["minimize"] * len(plan.objectives), study_name=plan.name, storage=storage
    )
    if len(plan.objectives) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(plan.objectives))
    known = list(known)
    worst = worst_objective(plan, known)
    study.add_trials([frozen_trial(one, plan, to_sampler=True, worst=worst) for one in known])
    return study


def worst_objective(plan: SearchConfig, trials: Iterable[EndedTrial]) -> float | None:
    """Return the objective of a trial that is infeasible: the largest that ours can have, or the
    largest that a user's trainer has had, None before the first."""
    if plan.trainable is None:
        return WORST_OBJECTIVE
    known = [trial.last_value for trial in trials if not RULES[trial.outcome].failed]
    return max((value for value in known if value is not None), default=None)


def state_and_values(
    trial: EndedTrial,
    plan: SearchConfig,
    *,
    to_sampler: bool,
    worst: float | None = WORST_OBJECTIVE,
) -> tuple[TrialState, Any]:
    """Return the state and the values with which Optuna is told of a trial.

    The file gets the outcome's own. A sampler that reads COMPLETE trials only is told a stopped
    trial as complete with its last value, and an infeasible one with the worst possible value:
    told nothing, it would return to where trials diverge.
    """
    rule = RULES[trial.outcome]
    state, last = TrialState[rule.optuna_state], trial.last_value
    if to_sampler and plan.sampler in MODELS_COMPLETE_ONLY and state is TrialState.PRUNED:
        state, last = TrialState.COMPLETE, worst if rule.constraint else last
    if state is not TrialState.COMPLETE:
        return state, None
    values = [last] if len(plan.objectives) == 1 else [last, trial.cost]
    return (TrialState.FAIL, None) if None in values else (state, values)


def constraints(trial: EndedTrial, plan: SearchConfig, *, to_sampler: bool) -> dict[str, float]:
    """Return the constraints that Optuna is told of a trial, by name; none for a sampler that
    takes no constraints and would warn at every trial."""
    if to_sampler and plan.sampler == "cmaes":
        return {}
    return {CONSTRAINT: float(RULES[trial.outcome].constraint)}  # feasible at or below 0


def frozen_trial(
    trial: EndedTrial,
    plan: SearchConfig,
    *,
    to_sampler: bool,
    worst: float | None = WORST_OBJECTIVE,
) -> FrozenTrial:
    """Return the trial as Optuna holds it once it has ended; raise ValueError if the space of the
    plan could not draw it."""
    state, values = state_and_values(trial, plan, to_sampler=to_sampler, worst=worst)
    single = len(plan.objectives) == 1
    if state is TrialState.PRUNED and single and trial.values:
        values = [trial.last_value]  # as Optuna's own `tell` does
    attrs = {"trial_id": trial.trial_id, "outcome": trial.outcome.value}
    frozen = optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(trial.sampler),
        distributions=distributions(plan.space, trial.sampler),
        user_attrs=attrs | ({"cause": trial.cause} if trial.cause else {}),
        system_attrs=dict(trial.attributes),
        intermediate_values=dict(trial.values) if single else {},
        constraints=constraints(trial, plan, to_sampler=to_sampler),
    )
    if trial.span is not None:  # else both are now
        frozen.datetime_start, frozen.datetime_complete = map(datetime.fromtimestamp, trial.span)
    return frozen


def distributions(space: Space, values: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return the distributions that `space` draws the given sampler values from; raise ValueError
    if it could not draw them."""

    def distribution(values: Range) -> BaseDistribution:
        match values:
            case Float(low, high, log):
                return optuna.distributions.FloatDistribution(low, high, log=log)
            case Int(low, high, step):
                return optuna.distributions.IntDistribution(low, high, step=step)
            case Choice(choices):
                return optuna.distributions.CategoricalDistribution(choices)

    return {name: distribution(one) for name, one in space.ranges_of(values).items()}


class OptunaLog:
    """`optuna.log`, with every ended trial once; those that the space cannot draw (it has changed)
    are left out."""

    def __init__(self, plan: SearchConfig, path: Path, ended: Iterable[EndedTrial] = ()) -> None:
        self._plan = plan
        self._notes = _notes(path)
        growing = path.with_name(f".{path.name}.tmp")
        Path(f"{path}.lock").unlink(missing_ok=True)  # of another program's Optuna
        self._study = new_study(plan, JournalStorage(_Journal(growing)))
        self._annotate("")
        for trial in ended:
            self.add(trial)
        os.replace(growing, path)  # not `write_atomically`: the journal stays open and grows

    def add(self, trial: EndedTrial) -> None:
        """Add a trial that has ended."""
        with suppress(ValueError):
            self._study.add_trial(frozen_trial(trial, self._plan, to_sampler=False))
            self._annotate(trial.trial_id, len(self._study.get_trials(deepcopy=False)) - 1)

    def _annotate(self, name: str, number: int | None = None) -> None:
        """Add what people had noted on a trial, now of that number in the log, or on the study."""
        for (kind, key), value in self._notes.pop(name, {}).items():
            add = getattr(self._study._storage, f"set_study_{kind}")
            add(self._study._study_id, NOTED.sub(f"dashboard:{number}:", key), value)


def _notes(path: Path) -> dict[str, dict[tuple[str, str], Any]]:
    """Return the attributes of the study in an earlier log by the name of the trial that they are
    about ("" for the study), their kind and key; Optuna refuses others on ended trials."""
    names: list[str] = []
    notes: dict[str, dict[tuple[str, str], Any]] = {}
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with suppress(ValueError, LookupError):  # torn, or about a trial that a torn line had
            log = json.loads(line)
            if {"study_id", "datetime_start"} <= log.keys():  # a new trial
                names.append(log.get("user_attrs", {}).get("trial_id", "?"))
            for kind in ("user_attr", "system_attr") if log.get("study_id") == 0 else ():
                for key, value in log.get(kind, {}).items():
                    name = names[int(about[1])] if (about := NOTED.match(key)) else ""
                    notes.setdefault(name, {})[kind, key] = value
    return notes


class _Journal(BaseJournalBackend):
    """Optuna's journal, begun anew, without its lock and without waiting for the disk: a run has
    one driver, which knows what it has written, and the file can be made again."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._file = path.open("a")  # a dashboard may append its users' notes
        self._unread: list[dict[str, Any]] = []

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._file.writelines(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._file.flush()
        self._unread += logs

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        del log_number_from  # its storage reads on from where it was
        logs, self._unread = self._unread, []
        return logs
