"""The rules that abort a whole search: a bug, a machine of other versions, storage that fails."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from search.plan import RULES, Outcome


class SearchAbort(tune.Stopper):
    """Ends a trial with its last report, and all trials once the search must be aborted."""

    def __init__(self) -> None:
        self._endings: Counter[tuple[Outcome, str]] = Counter()
        self.reason: str | None = None  # to print

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether the result is the trial's last."""
        if refused := result.get("refused"):
            self.abort(refused)
        elif lost := result.get("storage_lost"):
            self.abort(f"a worker could not keep its checkpoint: {lost}")
        elif outcome := result.get("outcome"):
            cause = str(result.get("cause"))
            # what breaks a rule says which; a crash is at a line
            told = "message" if outcome == Outcome.INVALID else "traceback"
            self.count(Outcome(outcome), cause, str(result.get(f"failure_{told}") or cause))
        else:
            return False
        return True

    def count(self, outcome: Outcome, cause: str, details: str) -> None:
        """Count an ended trial; abort if its outcome has come as often as `RULES` allow."""
        limit = RULES[outcome].ends_search_at
        self._endings[outcome, cause] += 1
        if limit is not None and self._endings[outcome, cause] >= limit:
            crash = f"the same failure {limit} times, which is a bug and not a trial:\n{details}"
            self.abort(crash if limit > 1 else f"a trial broke a rule: {details}")

    def abort(self, reason: str) -> None:
        """Abort the search; the first reason counts."""
        self.reason = self.reason or reason

    def stop_all(self) -> bool:
        """Return whether all trials must end."""
        return self.reason is not None

    @contextmanager
    def on_storage_failure(self, run: Path) -> Iterator[None]:
        """Abort the search if the run's folder takes no files.

        Ray would take the exception for a failure of the trial, and run that again.
        """
        try:
            yield
        except OSError as error:
            self.abort(f"{run} takes no files: {error}")
