"""Console output of a running search: one line per event, and its progress.

Events: started, improved, lost, stopped at a rung, diverged with its cause, completed. On a
terminal, a progress bar stays below them; in a file, progress is a line per ended trial.
"""

import io
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from search.plan import RULES, Outcome
from search.suggest import EndedTrial

BAR = "{n_fmt}/{total_fmt} trials |{bar:20}| {elapsed} < {remaining}{postfix}"


class ProgressReporter:
    """Prints the events of a search of `total` trials; its owner keeps `tally`, the number of
    ended trials by outcome, up to date."""

    def __init__(self, total: int, tally: Counter[Outcome]) -> None:
        self._tally = tally
        self._terminal = sys.stdout.isatty()
        file = sys.stdout if self._terminal else io.StringIO()
        self._bar = tqdm(total=total, initial=tally.total(), file=file, bar_format=BAR)

    def started(self, record: Mapping[str, Any], attempt: int, epoch: int | None) -> None:
        """Print what a trial tries, and the epoch that it goes on from; None if it begins."""
        again = f"again ({attempt}) " if attempt > 1 else ""
        if epoch is not None:
            again = f"again, from epoch {epoch} on: "
        about = record.get("about") or _phrase(record["drawn"])
        self._print(record["trial_id"], "started", again + about)

    def improved(self, name: str, report: Mapping[str, Any]) -> None:
        """Print a new lowest objective."""
        self._print(name, "improved", f"{_number(report['objective'])} at epoch {report['epoch']}")

    def lost(self, name: str) -> None:
        """Print that a trial has lost its worker and has not ended."""
        self._print(name, "lost", "its worker; it goes on later")

    def logger_failed(self, name: str, why: str) -> None:
        """Print that a logger has failed."""
        self._print(name, "failed", f"{why}; the search goes on without it")

    def ended(self, trial: EndedTrial, last: Mapping[str, Any]) -> None:
        """Print what became of a trial with that last report, and the progress."""
        self._print(trial.trial_id, *_ending(trial, last))
        tally = ", ".join(f"{n} {outcome}" for outcome, n in sorted(self._tally.items()))
        self._bar.set_postfix_str(tally, refresh=False)
        self._bar.update(1)
        if not self._terminal:
            print(self._bar, flush=True)

    def close(self) -> None:
        """Leave the progress bar."""
        self._bar.close()

    def _print(self, name: str, event: str, detail: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {name}  {event:<17} {detail}"
        self._bar.write(line, file=sys.stdout)
        sys.stdout.flush()


def _ending(trial: EndedTrial, last: Mapping[str, Any]) -> tuple[str, str]:
    """Return the name of the event and its detail."""
    if trial.outcome is Outcome.STOPPED:
        return f"stopped at rung {last['epoch']}", _number(last["objective"])
    if trial.outcome is Outcome.COMPLETED:
        return "completed", f"{_number(last['objective'])}, {trial.cost:.2g} s per epoch"
    cause = trial.cause or RULES[trial.outcome].about
    where = f" in `{last['failure_term']}`" if last.get("failure_term") else ""
    when = f", step {last['failure_step']}" if last.get("failure_step") is not None else ""
    return trial.outcome.value, f"{cause}{where}{when}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 1e6 else f"{value:.3g}"


def _phrase(drawn: Mapping[str, Any]) -> str:
    """Return a drawn configuration on one line: short names, three digits."""
    words = []
    for name, value in drawn.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(f"{name.partition('.')[2] or name}={text}")
    return " ".join(words)
