"""Optuna under Ray Tune, told the truth about every trial (the table in `outcome.py`).

Ray's own Optuna searcher tells rung-stopped trials as COMPLETE, so that the best value and the
importances mix fidelities, and leaves trials that ended in NaN RUNNING for ever. Here every
outcome has its state, and a trial that may not be best carries a constraint.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from ray.tune.search import Searcher

from .config import SearchConfig
from .outcome import RULES, classify, constraint_value
from .study import new_study, open_mirror

OBJECTIVE = "objective"
CONSTRAINT = "aborted"


class OptunaSearcher(Searcher):
    """Suggests configurations and tells Optuna what became of them.

    Args:
        plan: the search as planned.
        journal: file that ended trials are mirrored to; trials found there are known already.
        unfinished: records of trials that an earlier driver started and nobody finished; they are
            suggested first, under their old names.
        first_number: number of the first new trial.
        record: called with (trial_id, record) before a trial starts; the record is plain data from
            which the trial can be replayed.
    """

    def __init__(
        self,
        plan: SearchConfig,
        journal: Path,
        *,
        unfinished: Sequence[Mapping[str, Any]] = (),
        first_number: int = 0,
        record: Callable[[str, dict[str, Any]], object],
    ) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        self._plan = plan
        self._record = record
        self._number = first_number
        self._unfinished = list(unfinished)
        self._asked: dict[str, optuna.trial.Trial] = {}
        self._mirror = open_mirror(plan, journal)
        self.study = new_study(plan, started=first_number)
        self.study.add_trials(self._mirror.get_trials(deepcopy=False))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """The next trial as plain data; Ray's `trial_id` is only used to find it again."""
        if self._unfinished:
            old = self._unfinished.pop(0)
            name, number = str(old["trial_id"]), int(old["number"])
            self.study.enqueue_trial(dict(old["sampler"]))
        elif self._number < self._plan.trials:
            name, number = f"t{self._number:04d}", self._number
            self._number += 1
        else:
            return Searcher.FINISHED
        trial = self.study.ask()
        drawn = self._plan.space.suggest(trial)
        config = self._plan.train_config(drawn)
        params = config.to_params()
        trial.set_user_attr("trial_id", name)
        self._asked[trial_id] = trial
        self._record(
            name,
            {
                "trial_id": name,
                "number": number,
                "sampler": dict(trial.params),
                "drawn": drawn,
                "params": params,
                "config_hash": config.digest,
            },
        )
        return {"trial_id": name, "number": number, "params": params}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes the objective of an epoch on as an intermediate value."""
        if not result.get("outcome"):
            self._asked[trial_id].report(result[OBJECTIVE], step=result["epoch"])

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Tells Optuna once what became of the trial and mirrors it to the journal."""
        trial = self._asked.pop(trial_id, None)
        if trial is None:
            return  # Ray tells some endings twice
        # a trial never raises into Ray, so an error here is a worker that was lost
        outcome = classify(result, error_type="ActorDiedError" if error else None)
        rule = RULES[outcome]
        state = optuna.trial.TrialState[rule.optuna_state]
        trial.set_user_attr("outcome", outcome.value)
        if cause := (result or {}).get("cause"):
            trial.set_user_attr("cause", cause)
        trial.set_constraint(CONSTRAINT, constraint_value(outcome))
        if state is optuna.trial.TrialState.COMPLETE:
            assert result is not None, "a completed trial has reported"
            trial.report(result[OBJECTIVE], step=result["epoch"])
            self.study.tell(trial, result[OBJECTIVE])
        else:
            self.study.tell(trial, state=state)
        self._mirror.add_trial(self.study.get_trials(deepcopy=False)[trial.number])

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a run is restored from its own records, not from Ray's snapshot."""
        Path(checkpoint_path).write_text("restored from the run's own records\n")

    def restore(self, checkpoint_path: str) -> None:
        """Never called: see `save`."""
        raise NotImplementedError("restore a run with `--resume`, not with Tuner.restore")
