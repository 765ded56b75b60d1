"""When a trial ends, and when the search must: it goes on unless something is a bug, or lost."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ray import tune

from .outcome import RULES, Outcome


class SearchFailed(Exception):
    """The search ended itself; the message says why."""


class EndSearch(tune.Stopper):
    """Ends a trial that has said how it ended, and the search where going on is of no use.

    Attributes:
        reason: what ended the search, for a person; None while it may go on.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self.reason: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial must end."""
        if refused := result.get("refused"):
            self.reason = self.reason or refused
            return True
        if lost := result.get("storage_lost"):
            self.reason = self.reason or f"a worker could not keep its checkpoint: {lost}"
            return True
        word = result.get("outcome")
        if not word:
            return False
        limit = RULES[Outcome(word)].ends_search_at
        signature = (word, str(result.get("cause")))
        self._seen[signature] += 1
        if limit is not None and self._seen[signature] >= limit:
            seen = str(result.get("failure_traceback") or result.get("cause"))
            times = f"the same failure {limit} times" if limit > 1 else "a failure"
            self.reason = f"{times}, which is a bug and not a trial:\n{seen}"
        return True

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
