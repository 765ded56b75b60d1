"""The Optuna study behind a search: what it is told, and its mirror on disk.

Suggestions come from a study in memory. `optuna.log` (Optuna's journal storage) only mirrors
trials that have ended: that keeps a suggestion at its own cost whatever the file system does, and
`optuna-dashboard` can open the file while the search runs. Neither is a record: a resumed search
makes both anew from the run's tables, so that a torn line or a stale lock of a killed driver does
not matter.
"""

import json
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState

from search.plan import RULES, WORST_OBJECTIVE, Outcome, SearchConfig, constraint_value
from spaces import Choice, Float, Int, Range, Space

from .samplers import MODELS_COMPLETE_ONLY

CONSTRAINT = "aborted"


@dataclass(frozen=True)
class EndedTrial:
    """A trial that has ended, as a sampler needs to know it.

    Attributes:
        trial_id, number: its name and place.
        sampler: what the sampler drew, by the names it was asked under.
        outcome, cause: what became of it.
        values: objective by epoch.
        cost: seconds per epoch; None if no epoch was trained.
        attributes: what the sampler itself noted on the trial.
        params: its whole configuration.
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


def new_study(plan: SearchConfig, storage: Any = None) -> optuna.Study:
    """An empty study, in memory unless `storage` says otherwise."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        directions=["minimize"] * len(plan.objectives), study_name=plan.name, storage=storage
    )
    if len(plan.objectives) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(plan.objectives))
    return study


def state_and_values(
    past: EndedTrial, plan: SearchConfig, *, to_sampler: bool
) -> tuple[TrialState, Any]:
    """State and values that Optuna is told of a trial.

    The mirror is told the truth. A sampler that reads COMPLETE trials only is told a stopped trial
    as complete with its last value, and an infeasible one with the worst value there is: told
    nothing, it would go back to where trials diverge.
    """
    rule = RULES[past.outcome]
    state = TrialState[rule.optuna_state]
    last = past.values[max(past.values)] if past.values else None
    if to_sampler and plan.sampler in MODELS_COMPLETE_ONLY and state is TrialState.PRUNED:
        state, last = TrialState.COMPLETE, WORST_OBJECTIVE if rule.constraint else last
    if state is not TrialState.COMPLETE:
        return state, None
    values = [last] if len(plan.objectives) == 1 else [last, past.cost]
    return (TrialState.FAIL, None) if None in values else (state, values)


def constraints(past: EndedTrial, plan: SearchConfig, *, to_sampler: bool) -> dict[str, float]:
    """What Optuna is told of a trial's feasibility, by name; a sampler that takes no constraints
    would warn of it at every trial."""
    if to_sampler and plan.sampler == "cmaes":
        return {}
    return {CONSTRAINT: constraint_value(past.outcome)}


def frozen_trial(past: EndedTrial, plan: SearchConfig, *, to_sampler: bool) -> FrozenTrial:
    """The trial as Optuna holds it once it has ended.

    Raises:
        ValueError: if the space of the plan could not draw it.
    """
    state, values = state_and_values(past, plan, to_sampler=to_sampler)
    single = len(plan.objectives) == 1
    if state is TrialState.PRUNED and single and past.values:
        values = [past.values[max(past.values)]]  # as Optuna's own `tell` does
    attrs = {"trial_id": past.trial_id, "outcome": past.outcome.value}
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=dict(past.sampler),
        distributions=distributions(plan.space, past.sampler),
        user_attrs=attrs | ({"cause": past.cause} if past.cause else {}),
        system_attrs=dict(past.attributes),
        intermediate_values=dict(past.values) if single else {},
        constraints=constraints(past, plan, to_sampler=to_sampler),
    )


def distributions(space: Space, values: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Return the distributions that `space` draws the given sampler values from.

    Raises:
        ValueError: if it could not draw them.
    """
    return {name: _distribution(one) for name, one in space.ranges_of(values).items()}


def _distribution(values: Range) -> BaseDistribution:
    match values:
        case Float(low, high, log):
            return FloatDistribution(low, high, log=log)
        case Int(low, high, step):
            return IntDistribution(low, high, step=step)
        case Choice(choices):
            return CategoricalDistribution(choices)


class OptunaLog:
    """`optuna.log`: every ended trial once.

    Args:
        past: the trials that have ended already; those that the space cannot draw (it has changed)
            are left out.
    """

    def __init__(self, plan: SearchConfig, journal: Path, past: Iterable[EndedTrial] = ()) -> None:
        self._plan = plan
        growing = journal.with_name(f".{journal.name}.tmp")
        Path(f"{journal}.lock").unlink(missing_ok=True)  # of another program's Optuna
        self._study = new_study(plan, JournalStorage(_Journal(growing)))
        for trial in past:
            self.add(trial)
        os.replace(growing, journal)

    def add(self, past: EndedTrial) -> None:
        """Adds a trial that has ended."""
        try:
            trial = frozen_trial(past, self._plan, to_sampler=False)
        except ValueError:
            return
        self._study.add_trial(trial)


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
