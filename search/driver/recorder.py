"""The rows of a driver's trials, and what they add up to; plain data in and out, no Ray."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from search.plan import RULES, Outcome, SearchConfig, classify, crash_signature
from search.records import (
    GUARD_COLUMNS,
    RunStore,
    SessionTables,
    best_trial,
    failure_row,
    pick,
    rank,
    reached,
    scored_rows,
    trial_row,
)
from search.suggest import EndedTrial, Record, read_history, read_warm_trials


class Recorder:
    """Keeps what happens to trials, in the tables of their run and as totals.

    Attributes:
        threads: number of threads that new trials train with.
        tables: the rows of this driver's session, which its owner flushes.
        history: what earlier drivers of the run have left.
        records: configurations of the trials that have not ended, by trial.
        attempts: how often this driver has started each trial.
        running: last reports of running trials.
        ended: ids of all trials that have ended.
        tally: number of ended trials by outcome.
        aborts: number of diverged trials by spectral backend.
        epochs: number of epochs reported to this driver.
        gpu_seconds: training time times the reserved share of a GPU [s].
        best: row of `trials` and rows of `evaluations` of the best completed trial.
    """

    def __init__(self, plan: SearchConfig, store: RunStore, threads: int) -> None:
        self.plan = plan
        self.store = store
        self.threads = threads
        self.tables = SessionTables(store)
        self.history = read_history(store, read_warm_trials(store))
        self.records = {trial.name: dict(trial.record) for trial in self.history.unfinished}
        for trial in self.history.unfinished:
            for report in trial.reports:
                self.tables.report(trial.name, pick("epochs", report, trial_id=trial.name))
        self._resumed = set(self.records)
        past = self.history.ended
        self.attempts: Counter[str] = Counter()
        self.running: dict[str, Record] = {}
        self.ended = {trial.trial_id for trial in past}
        self.tally = Counter(trial.outcome for trial in past)
        self.aborts = Counter(_backend(t.params) for t in past if t.outcome is Outcome.DIVERGED)
        self.epochs = 0
        trials = store.read("trials")
        self.gpu_seconds = float(trials["gpu_seconds"].sum())
        self.best: tuple[Mapping[Any, Any], list[dict[Any, Any]]] | None = None
        if (name := best_trial(trials)) is not None:
            rows = store.read("evaluations")
            (row,) = trials[trials["trial_id"] == name].to_dict("records")
            self.best = row, rows[rows["trial_id"] == name].to_dict("records")
        self._lowest = math.inf if self.best is None else self.best[0]["objective"]

    def register(self, suggested: Record) -> Record:
        """Write what a trial is to be, before it starts, and return all that a replay needs."""
        record = {**suggested, "threads": self.threads}
        self.store.write_config(record["trial_id"], record)
        self.records[record["trial_id"]] = record
        return record

    def start(self, name: str) -> int | None:
        """Count an attempt at a trial; return the epoch it goes on from, None if it is new."""
        self.attempts[name] += 1
        epochs = self.tables.epochs(name)
        if not epochs and name not in self._resumed:
            return None
        return max(epochs, default=0)

    def report(self, name: str, report: Record, gpus: float) -> bool:
        """Keep the row of an epoch; return whether its objective is the lowest so far."""
        self.running[name] = report
        if report["epoch"] not in self.tables.epochs(name):  # a resumed trial repeats its last
            self.epochs += 1
            self.gpu_seconds += gpus * report["seconds"]
        self.tables.report(name, pick("epochs", report, trial_id=name))
        before, self._lowest = self._lowest, min(self._lowest, report["objective"])
        return self._lowest < before

    def end(
        self,
        name: str,
        last: Record,
        *,
        gpus: float,
        checkpoint: str | None,
        error: str | None = None,
        timed_out: bool = False,
    ) -> EndedTrial:
        """Keep all rows of a trial that has ended, and return what became of it.

        Args:
            last: its last report; empty if there was none.
            gpus: share of a GPU it had reserved.
            checkpoint: checkpoint of its last epoch, relative to the run.
            error: text of the error it ended with, if the training did not report it.
            timed_out: whether its worker was killed because it reported nothing for too long.
        """
        record, epochs = self.records[name], dict(self.tables.epochs(name))
        outcome, cause = self._classify(last, error, timed_out)
        last = last | {"cause": cause}
        if self.plan.guard == "off":
            last |= dict.fromkeys(GUARD_COLUMNS)
        row = trial_row(
            record, last, outcome, epochs=epochs, gpus=gpus, checkpoint=checkpoint, error=error
        )
        failure = None
        if RULES[outcome].failed:
            run, attempt = str(self.store.path), self.attempts[name]
            failure = failure_row(record, last, outcome, run=run, attempt=attempt, error=error)
        ending = {"outcome": outcome.value, "failure": failure, "reached": reached(epochs)}
        scored = last.get("evaluations", [])  # of our trainer's, which has the seed
        seed = record["params"]["evaluation.test_seed"] if scored else 0
        evaluations = scored_rows(scored, "evaluations", record, seed)
        self.tables.end(
            row,
            ending,
            epochs=list(epochs.values()),
            evaluations=evaluations,
            failures=[] if failure is None else [failure],
        )
        del self.records[name]
        self.running.pop(name, None)
        self.ended.add(name)
        self.tally[outcome] += 1
        if outcome is Outcome.DIVERGED:
            self.aborts[_backend(record["params"])] += 1
        if outcome is Outcome.COMPLETED:
            known = [] if self.best is None else [self.best]
            self.best = min([*known, (row, evaluations)], key=lambda trial: rank(trial[0]))
        return EndedTrial(
            trial_id=name,
            number=record["number"],
            sampler=record["sampler"],
            outcome=outcome,
            cause=cause,
            values={epoch: row["objective"] for epoch, row in sorted(epochs.items())},
            cost=row["seconds_per_epoch"],
            attributes=record.get("sampler_attributes", {}),
            params=record["params"],
            span=(last["started"], last["ended"]) if "ended" in last else None,
        )

    def _classify(
        self, last: Mapping[str, Any], error: str | None, timed_out: bool
    ) -> tuple[Outcome, str | None]:
        outcome = classify(last, error)
        if timed_out and outcome is Outcome.LOST:
            return Outcome.TIMED_OUT, f"no report for {self.plan.trial_timeout_s:g} s"
        if error and RULES[outcome].ends_search_at and not last.get("outcome"):
            return outcome, crash_signature(error)  # a bug where the trial could not report it
        return outcome, last.get("cause")


def _backend(params: Mapping[str, Any]) -> str:
    return str(params.get("spectral.backend", "unknown"))
