"""The stopper of a search: ends trials that have ended themselves, and the search for a bug."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from search.plan import RULES, Outcome


class SearchStopper(tune.Stopper):
    """Ends a trial that has reported how it ended, and a search that cannot go on."""

    def __init__(self) -> None:
        self._endings: Counter[tuple[Outcome, str]] = Counter()
        self.reason: str | None = None  # of the search's end, for a person

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return True if the trial has ended with this result."""
        if refused := result.get("refused"):
            self.end_search(refused)
        elif lost := result.get("storage_lost"):
            self.end_search(f"a worker could not keep its checkpoint: {lost}")
        elif outcome := result.get("outcome"):
            cause = str(result.get("cause"))
            self.count(Outcome(outcome), cause, str(result.get("failure_traceback") or cause))
        else:
            return False
        return True

    def count(self, outcome: Outcome, cause: str, details: str) -> None:
        """Count a trial's end; end the search if its outcome is a bug and the cause is common."""
        limit = RULES[outcome].ends_search_at
        self._endings[outcome, cause] += 1
        if limit is not None and self._endings[outcome, cause] >= limit:
            times = f"the same failure {limit} times" if limit > 1 else "a failure"
            self.end_search(f"{times}, which is a bug and not a trial:\n{details}")

    def end_search(self, reason: str) -> None:
        """End the search; the first reason counts."""
        self.reason = self.reason or reason

    def stop_all(self) -> bool:
        """Return True if the search must end."""
        return self.reason is not None

    @contextmanager
    def on_storage_failure(self, run: Path) -> Iterator[None]:
        """End the search if the run's folder takes no files.

        Of an exception Ray would think that the trial has failed, and run it again.
        """
        try:
            yield
        except OSError as error:
            self.end_search(f"{run} takes no files: {error}")
