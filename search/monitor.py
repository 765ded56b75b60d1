"""Watches a search: one line per event, a progress bar, and rows for everything that happened.

A Ray Tune callback on the driver and the only writer of the run's tables. Events: started,
improved, stopped at a rung, diverged with its cause, completed. Ray pickles its callbacks, so what
cannot travel (the bar) is left out of the state.
"""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from ray import tune
from tqdm import tqdm

from .config import SearchConfig
from .outcome import RULES, Outcome, classify
from .rows import failure_row, pick, scored_rows, trial_row
from .store import RunStore

BAR = "{n_fmt}/{total_fmt} trials |{bar:20}| {elapsed} < {remaining}{postfix}"

FLUSH_SECONDS = 2.0
"""Epoch rows of a running trial reach its Parquet part at most this late."""


class Monitor(tune.Callback):
    """Prints events and writes rows.

    Args:
        plan: the search as planned.
        store: where the rows go.
        ended: outcomes of the trials that an earlier driver finished.
        best: their best objective, if any completed.
    """

    def __init__(
        self, plan: SearchConfig, store: RunStore, ended: Counter[str], best: float | None
    ) -> None:
        self._plan = plan
        self._store = store
        self._tally = Counter(ended)
        self._best = best
        self._epochs: dict[str, dict[int, dict[str, Any]]] = {}
        self._flushed: dict[str, float] = {}
        self._attempts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._before = sum(ended.values())
        # on a terminal the bar stays below the events; in a file it is a line per ended trial
        self._bar = (
            tqdm(total=plan.trials, initial=self._before, file=sys.stdout, bar_format=BAR)
            if sys.stdout.isatty()
            else None
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says what is being tried."""
        name = trial.config["trial_id"]
        self._attempts[name] += 1
        again = f"again ({self._attempts[name]}) " if self._attempts[name] > 1 else ""
        self._say(name, "started", again + _phrase(self._store.read_config(name)["drawn"]))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keeps the epoch's row and says when the search has a new best."""
        if result.get("outcome") not in (None, Outcome.COMPLETED):
            return  # an ending, not an epoch
        name = trial.config["trial_id"]
        row = pick("epochs", result, trial_id=name)
        self._epochs.setdefault(name, {})[result["epoch"]] = row
        if time.monotonic() - self._flushed.get(name, 0.0) > FLUSH_SECONDS:
            self._store.write_part("epochs", name, self._epochs[name].values())
            self._flushed[name] = time.monotonic()
        if self._best is None or result["objective"] < self._best:
            self._best = result["objective"]
            self._say(name, "improved", f"{self._best:.3f} at epoch {result['epoch']}")

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Writes what became of the trial."""
        self._end(trial, error=None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray lost the worker and has run out of retries."""
        file = trial.error_file
        text = Path(file).read_text() if file else "the worker vanished without a word"
        self._end(trial, error=text)

    def close(self) -> None:
        """Ends the bar and leaves the epochs of unfinished trials readable."""
        for name, rows in self._epochs.items():
            self._store.write_part("epochs", name, rows.values())
        if self._bar is not None:
            self._bar.close()

    def _end(self, trial: Any, error: str | None) -> None:
        name, last = trial.config["trial_id"], dict(trial.last_result or {})
        record = self._store.read_config(name)
        outcome = classify(last, error)
        failures = []
        if outcome not in (Outcome.COMPLETED, Outcome.STOPPED):
            failures = [
                failure_row(
                    record,
                    last,
                    outcome,
                    run=str(self._store.path),
                    attempt=self._attempts[name],
                    error=error,
                )
            ]
        self._store.write_config(
            name, record | {"outcome": outcome.value, "failure": next(iter(failures), None)}
        )
        checkpoint = trial.checkpoint
        self._store.write_trial(
            trial_row(
                record,
                last,
                outcome,
                gpus=trial.placement_group_factory.required_resources.get("GPU", 0.0),
                checkpoint=_relative(checkpoint.path, self._store.path) if checkpoint else None,
                error=error,
            ),
            epochs=self._epochs.pop(name, {}).values(),
            evaluations=scored_rows(
                last.get("evaluations", []),
                "evaluations",
                record,
                record["params"]["evaluation.test_seed"],
            ),
            failures=failures,
        )
        self._tally[outcome.value] += 1
        self._say(name, *_ending(last, outcome))
        self._advance()

    def _advance(self) -> None:
        tally = ", ".join(f"{n} {o}" for o, n in sorted(self._tally.items()))
        if self._bar is not None:
            self._bar.set_postfix_str(tally, refresh=False)
            self._bar.update(1)
            return
        meter = tqdm.format_meter(
            n=sum(self._tally.values()),
            total=self._plan.trials,
            initial=self._before,
            elapsed=time.monotonic() - self._started,
            bar_format=BAR,
            postfix=tally,
        )
        print(meter, flush=True)

    def _say(self, name: str, event: str, detail: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {name}  {event:<17} {detail}"
        if self._bar is not None:
            self._bar.write(line, file=sys.stdout)
        else:
            print(line, flush=True)


class EndSearch(tune.Stopper):
    """Ends a trial that has said how it ended, and the search on a bug that repeats itself.

    Attributes:
        reason: the traceback that ended the search, or None.
    """

    def __init__(self) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self.reason: str | None = None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this trial must end."""
        word = result.get("outcome")
        if not word:
            return False
        limit = RULES[Outcome(word)].ends_search_at
        signature = (word, str(result.get("cause")))
        self._seen[signature] += 1
        if limit is not None and self._seen[signature] >= limit:
            self.reason = str(result.get("failure_traceback") or result.get("cause"))
        return True

    def stop_all(self) -> bool:
        """Whether the search must end."""
        return self.reason is not None


def _ending(last: dict[str, Any], outcome: Outcome) -> tuple[str, str]:
    """What to call the ending, and its detail."""
    if outcome is Outcome.STOPPED:
        return f"stopped at rung {last['epoch']}", f"{last['objective']:.3f}"
    if outcome is Outcome.COMPLETED:
        return "completed", f"{last['objective']:.3f}"
    cause = last.get("cause") or RULES[outcome].about
    where = f" in `{last['failure_term']}`" if last.get("failure_term") else ""
    when = f", step {last['failure_step']}" if "failure_step" in last else ""
    return outcome.value, f"{cause}{where}{when}"


def _phrase(drawn: dict[str, Any]) -> str:
    """A drawn configuration on one line: short names, three digits."""
    words = []
    for name, value in drawn.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(f"{name.partition('.')[2] or name}={text}")
    return " ".join(words)


def _relative(path: str, run: Path) -> str:
    return str(Path(path).relative_to(run.absolute()))
