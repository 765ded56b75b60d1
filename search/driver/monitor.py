"""Watches a search: one line per event, a progress bar, and rows for everything that happened.

A Ray Tune callback on the driver and the only writer of the run's tables. Events: started,
improved, stopped at a rung, diverged with its cause, completed. Ray pickles its callbacks, so what
cannot travel (the bar) is left out of the state.
"""

import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import ray
from ray import tune
from tqdm import tqdm

from search.cluster import EndSearch
from search.plan import RULES, Outcome, SearchConfig, classify, crash_signature, may_be_best
from search.records import (
    Ended,
    RunStore,
    Waiting,
    failure_row,
    folders,
    pick,
    reached,
    scored_rows,
    trial_row,
)
from search.suggest import EndedTrial, History

from .metrics import Gauges
from .watchdog import Silence

BAR = "{n_fmt}/{total_fmt} trials |{bar:20}| {elapsed} < {remaining}{postfix}"

FLUSH_SECONDS = 2.0
"""Epoch rows of a running trial reach its Parquet part at most this late."""


class Monitor(tune.Callback):
    """Prints events, writes rows, and ends trials that hang.

    Args:
        plan: the search as planned.
        store: where the rows go.
        history: what earlier drivers of this run have left.
        records: what was written of each trial before it started, by its name; one that has ended
            is taken out.
        ending: told when the search must end.
        tell: called with every trial that has ended.
    """

    def __init__(
        self,
        plan: SearchConfig,
        store: RunStore,
        history: History,
        records: dict[str, dict[str, Any]],
        ending: EndSearch,
        tell: Callable[[EndedTrial], object],
    ) -> None:
        self._plan = plan
        self._store = store
        self._records = records
        self._ending = ending
        self._tell = tell
        self._tally = Counter(past.outcome.value for past in history.ended)
        completed = [p for p in history.ended if may_be_best(p.outcome) and p.values]
        self._best = min((p.values[max(p.values)] for p in completed), default=None)
        self._epochs: dict[str, dict[int, dict[str, Any]]] = {
            trial.name: {r["epoch"]: _epoch_row(trial.name, r) for r in trial.reports}
            for trial in history.unfinished
        }
        self._flushed: dict[str, float] = {}
        self._has_parts = set(self._epochs)
        self._waiting = Waiting(store)
        self._silence = Silence(plan.trial_timeout_s)
        self._hung: set[str] = set()
        self._attempts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._before = len(history.ended)
        self._gauges = Gauges(plan, store)
        # on a terminal the bar stays below the events; in a file it is a line per ended trial
        self._bar = (
            tqdm(total=plan.trials, initial=self._before, file=sys.stdout, bar_format=BAR)
            if sys.stdout.isatty()
            else None
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_bar": None, "_tell": None, "_waiting": None}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Says what is being tried."""
        name = trial.config["trial_id"]
        self._silence.hear(name)
        self._flushed[name] = time.monotonic()
        self._attempts[name] += 1
        again = f"again ({self._attempts[name]}) " if self._attempts[name] > 1 else ""
        if name in self._epochs:
            again = f"again, from epoch {max(self._epochs[name], default=0)} on: "
        record = self._records[name]
        self._say(name, "started", again + (record.get("about") or _phrase(record["drawn"])))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Keeps the epoch's row and says when the search has a new best."""
        name = trial.config["trial_id"]
        self._silence.hear(name)
        if result.get("outcome") not in (None, Outcome.COMPLETED) or not result["epoch"]:
            return  # an ending, not an epoch
        rows = self._epochs.setdefault(name, {})
        if result["epoch"] not in rows:  # a trial that goes on makes its last report again
            self._gauges.reported(name, result, _gpus(trial))
        rows[result["epoch"]] = _epoch_row(name, result)
        if time.monotonic() - self._flushed[name] > FLUSH_SECONDS:
            self._has_parts.add(name)
            with self._ending.on_storage_failure(self._store.path):
                self._store.write_part("epochs", name, self._epochs[name].values())
            self._flushed[name] = time.monotonic()
        if self._best is None or result["objective"] < self._best:
            self._best = result["objective"]
            self._say(name, "improved", f"{self._best:.3f} at epoch {result['epoch']}")

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Keeps the gauges alive, and ends every trial that has been silent for too long.

        Its worker is killed, since code that hangs does not listen; Ray then calls
        `on_trial_error`, without another try.
        """
        self._gauges.refresh()
        with self._ending.on_storage_failure(self._store.path):
            self._waiting.write()
        silent = self._silence.silent() - self._hung
        for trial in trials if silent else []:
            name, actor = trial.config["trial_id"], trial.temporary_state.ray_actor
            if name in silent and trial.status == "RUNNING" and actor is not None:
                self._hung.add(name)
                trial.max_failures = 0
                ray.kill(actor)

    def on_trial_complete(
        self, iteration: int, trials: list[Any], trial: Any, **info: Any
    ) -> None:
        """Writes what became of the trial."""
        self._end(trial, error=None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray lost the worker and has run out of retries, or it hung and was killed.

        Ray may also hear twice of one dead worker, and takes the second time for the end: such a
        trial is unfinished, and goes on when the others have ended.
        """
        if trial.run_metadata.num_failures <= trial.max_failures:
            self._silence.forget(trial.config["trial_id"])
            self._say(trial.config["trial_id"], "lost", "its worker; it goes on later")
            return
        file = trial.error_file
        text = Path(file).read_text() if file else "the worker vanished without a word"
        self._end(trial, error=text)

    def close(self) -> None:
        """Ends the bar and leaves all that has happened readable, unfinished trials included."""
        with self._ending.on_storage_failure(self._store.path):
            self._waiting.write(now=True)
        for name, rows in self._epochs.items():
            with self._ending.on_storage_failure(self._store.path):
                self._store.write_part("epochs", name, rows.values())
        self._gauges.close()
        if self._bar is not None:
            self._bar.close()

    def _end(self, trial: Any, error: str | None) -> None:
        name, last = trial.config["trial_id"], dict(trial.last_result or {})
        record = self._records.pop(name)
        self._silence.forget(name)
        self._flushed.pop(name, None)
        if self._ending.reason is not None and not last.get("outcome"):
            return  # it ends with the search, and goes on when that is resumed
        outcome = classify(last, error)
        if error and RULES[outcome].ends_search_at and not last.get("outcome"):
            # a bug where the trial could not report it
            last["cause"] = crash_signature(error)
            self._ending.count(outcome, last["cause"], error)
        if name in self._hung and outcome is Outcome.LOST:
            outcome = Outcome.TIMED_OUT
            last["cause"] = f"no report for {self._plan.trial_timeout_s:g} s"
        with self._ending.on_storage_failure(self._store.path):
            per_epoch = self._write_end(trial, record, last, outcome, error)
            self._tally[outcome.value] += 1
            self._say(name, *_ending(last, outcome, per_epoch))
            self._gauges.ended(record, outcome, last)
            self._advance()

    def _write_end(
        self,
        trial: Any,
        record: dict[str, Any],
        last: dict[str, Any],
        outcome: Outcome,
        error: str | None,
    ) -> float | None:
        """Everything of a trial that has ended; its mean seconds per epoch."""
        name = record["trial_id"]
        failures = []
        if RULES[outcome].failed:
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
        epochs = self._epochs.pop(name, {})
        checkpoint = trial.checkpoint
        row = trial_row(
            record,
            last,
            outcome,
            epochs=epochs,
            gpus=_gpus(trial),
            checkpoint="/".join(checkpoint.path.split("/")[-3:]) if checkpoint else None,
            error=error,
        )
        evaluations = scored_rows(
            last.get("evaluations", []),
            "evaluations",
            record,
            record["params"]["evaluation.test_seed"],
        )
        ending = {
            "outcome": outcome.value,
            "failure": next(iter(failures), None),
            "reached": reached(epochs),
        }
        if name in self._has_parts:
            self._store.write_endings(name, {name: ending})
            self._store.write_trial(
                row, epochs=epochs.values(), evaluations=evaluations, failures=failures
            )
        else:
            each = list(epochs.values())
            self._waiting.add(Ended(ending, row, each, evaluations, failures))
        self._waiting.write()
        self._tell(
            EndedTrial(
                trial_id=name,
                number=record["number"],
                sampler=record["sampler"],
                outcome=outcome,
                cause=last.get("cause"),
                values={epoch: row["objective"] for epoch, row in sorted(epochs.items())},
                cost=row["seconds_per_epoch"],
                attributes=record.get("sampler_attributes", {}),
                params=record["params"],
            )
        )
        if checkpoint and trial.config["checkpoint"]:  # it went on from one that is of no use now
            for folder in folders(self._store.path, name):
                if folder.name != trial.config["folder"]:
                    shutil.rmtree(folder, ignore_errors=True)
        return cast("float | None", row["seconds_per_epoch"])

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


def _ending(last: dict[str, Any], outcome: Outcome, per_epoch: float | None) -> tuple[str, str]:
    """What to call the ending, and its detail."""
    if outcome is Outcome.STOPPED:
        return f"stopped at rung {last['epoch']}", f"{last['objective']:.3f}"
    if outcome is Outcome.COMPLETED:
        return "completed", f"{last['objective']:.3f}, {per_epoch:.2g} s per epoch"
    cause = last.get("cause") or RULES[outcome].about
    where = f" in `{last['failure_term']}`" if last.get("failure_term") else ""
    when = f", step {last['failure_step']}" if "failure_step" in last else ""
    return outcome.value, f"{cause}{where}{when}"


def _gpus(trial: Any) -> float:
    return float(trial.placement_group_factory.required_resources.get("GPU", 0.0))


def _epoch_row(name: str, report: dict[str, Any]) -> dict[str, Any]:
    return pick("epochs", report, trial_id=name)


def _phrase(drawn: dict[str, Any]) -> str:
    """A drawn configuration on one line: short names, three digits."""
    words = []
    for name, value in drawn.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        words.append(f"{name.partition('.')[2] or name}={text}")
    return " ".join(words)
