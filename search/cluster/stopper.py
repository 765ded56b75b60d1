"""When a trial ends, and when the search must: it goes on unless something is a bug, or lost."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from search.plan import RULES, Outcome


class EndSearch(tune.Stopper):
    """Ends a trial that has said how it ended, and the search where going on is of no use.

    Attributes:
        reason: what ended the search, for a person; None while it may go on.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[Outcome, str]] = Counter()
        self.reason: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial must end."""
        if refused := result.get("refused"):
            self.reason = self.reason or refused
            return True
        if lost := result.get("storage_lost"):
            self.reason = self.reason or f"a worker could not keep its checkpoint: {lost}"
            return True
        if not (word := result.get("outcome")):
            return False
        cause = str(result.get("cause"))
        self.count(Outcome(word), cause, str(result.get("failure_traceback") or cause))
        return True

    def count(self, outcome: Outcome, cause: str, said: str) -> None:
        """Ends the search with what was said, if so many trials have ended so for that cause."""
        limit = RULES[outcome].ends_search_at
        self._seen[outcome, cause] += 1
        if limit is not None and self._seen[outcome, cause] >= limit:
            times = f"the same failure {limit} times" if limit > 1 else "a failure"
            reason = f"{times}, which is a bug and not a trial:\n{said}"
            self.reason = self.reason or reason

    def stop_all(self) -> bool:
        """Whether the search must end."""
        return self.reason is not None

    @contextmanager
    def on_storage_failure(self, run: Path) -> Iterator[None]:
        """Ends the search, and does not raise, where the file system takes no more files.

        Ray would take an exception for a failure of the trial and run it again.
        """
        try:
            yield
        except OSError as error:
            self.reason = self.reason or f"{run} takes no files: {error}"
