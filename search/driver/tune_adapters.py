"""Adapters for Ray Tune: a searcher that hands out given trials, and a scheduler that stops them
early."""

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from search.plan import EarlyStopper

OBJECTIVE = "objective"


class TrialSearcher(Searcher):
    """Hands out given trials. A run is restored from its own records, never from Ray's snapshot.

    Ray tells its searcher of an ending early, without the error, and of some endings twice; so
    Optuna hears of it from the callback instead.
    """

    def __init__(self, trials: Iterator[dict[str, Any]]) -> None:
        super().__init__(metric=OBJECTIVE, mode="min")
        self._trials = trials

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Return the next trial; Ray's `trial_id` is not used."""
        return next(self._trials, Searcher.FINISHED)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing; the callback records the ending."""

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write a note, since nothing is restored from this file."""
        Path(checkpoint_path).write_text("restored from the run's own records\n")


class Scheduler(FIFOScheduler):
    """Stops a trial as it reports, if `stopper` says so and its name is not in `aside`; `spares`
    says of a trial's parameters whether it is spared."""

    def __init__(
        self,
        stopper: EarlyStopper,
        aside: Collection[str] = (),
        spares: Callable[[Mapping[str, Any]], bool] = lambda params: False,
    ) -> None:
        super().__init__()
        self._stopper = stopper
        self._aside = frozenset(aside)
        self._spares = spares

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return Ray's word for what becomes of the trial."""
        name, number = trial.config["trial_id"], trial.config["number"]
        if name in self._aside:
            return str(FIFOScheduler.CONTINUE)
        spared = self._spares(trial.config["params"])
        at = result["epoch"], result["objective"]
        stops = self._stopper.should_stop(name, number, *at, spared=spared)
        return str(FIFOScheduler.STOP if stops else FIFOScheduler.CONTINUE)
