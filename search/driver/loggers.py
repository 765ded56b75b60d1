"""Loggers of other tools beside a search: each is fed from a queue, by a thread of its own.

A server that hangs or a full disk then holds up neither Tune's loop nor a trial. Ray's own logger
callbacks run inside that loop, where an exception fails the trial, and begin a new log of a trial
that is resumed.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from search.plan import Outcome
from search.records import RunStore
from search.suggest import EndedTrial, Record

from .log_clients import CLIENTS, Ending, LogClient

CLOSE_SECONDS = 30.0
"""Longest wait, at the end of a search, for loggers that have not kept up."""

FAILURES = "log_failures"
"""Entry of `run.json` with the loggers that have failed, and why."""

Call = Callable[[LogClient], object]


@contextmanager
def open_loggers(names: Iterable[str], store: RunStore) -> Iterator["Loggers"]:
    """Yield the loggers of a run; let them finish after the context, and keep failures."""
    loggers = Loggers(names, store)
    try:
        yield loggers
    finally:
        loggers.close()
        for name, why in loggers.new_failures().items():
            print(f"{name} failed: {why}", flush=True)
        if loggers.failures:
            failures = store.plan.get(FAILURES, {}) | loggers.failures
            with suppress(OSError):  # said above; a full disk is no failure of the search here
                store.write_run(store.plan | {FAILURES: failures})


class Loggers:
    """The loggers `names` of a run; one that fails is left out until the search is resumed."""

    def __init__(self, names: Iterable[str], store: RunStore) -> None:
        self._feeds = [_Feed(name, partial(CLIENTS[name], store)) for name in names]
        self._last: dict[str, int] = {}
        self._said: set[str] = set()

    @property
    def failures(self) -> dict[str, str]:
        """The reason by the name of each logger that has failed."""
        return {feed.name: feed.failure for feed in self._feeds if feed.failure is not None}

    def new_failures(self) -> dict[str, str]:
        """Return the failures that an earlier call has not returned."""
        new = {name: why for name, why in self.failures.items() if name not in self._said}
        self._said |= new.keys()
        return new

    def begin(self, record: Record, epochs: Mapping[int, Mapping[str, Any]]) -> None:
        """Log what a trial tries, and its rows of `epochs` from earlier drivers; of a trial that
        this driver starts again, do nothing."""
        name = record["trial_id"]
        if name not in self._last:
            self._last[name] = max(epochs, default=0)
            earlier = {epoch: numbers(row) for epoch, row in sorted(epochs.items())}
            self._put(lambda client: client.begin(name, record["drawn"], earlier))

    def epoch(self, name: str, row: Mapping[str, Any]) -> None:
        """Log a row of `epochs`, unless that epoch is logged already."""
        epoch = row["epoch"]
        if epoch > self._last[name]:
            self._last[name] = epoch
            self._put(lambda client: client.epoch(name, epoch, numbers(row)))

    def end(self, record: Record, trial: EndedTrial) -> None:
        """Log how a trial has ended."""
        self.begin(record, {})  # no worker may have begun with it
        scored = trial.outcome in (Outcome.COMPLETED, Outcome.STOPPED) and trial.values
        objective = trial.values[max(trial.values)] if scored else None
        ending = Ending(trial.outcome.value, trial.cause, objective)
        self._put(lambda client: client.end(trial.trial_id, record["drawn"], ending))

    def close(self) -> None:
        """Let all loggers finish; one that takes too long has failed."""
        latest = time.monotonic() + CLOSE_SECONDS
        for feed in self._feeds:
            feed.calls.put(None)
        for feed in self._feeds:
            feed.thread.join(max(0.0, latest - time.monotonic()))
            if feed.thread.is_alive():
                feed.failure = f"{feed.calls.qsize()} records not taken in {CLOSE_SECONDS:.0f} s"

    def _put(self, call: Call) -> None:
        for feed in self._feeds:
            feed.calls.put(call)


class _Feed:
    """A logger, the calls that wait for it (None is the last), and the thread that makes them."""

    def __init__(self, name: str, make: Callable[[], LogClient]) -> None:
        self.name = name
        self.failure: str | None = None
        self.calls: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, args=(make,), name=name, daemon=True)
        self.thread.start()

    def _run(self, make: Callable[[], LogClient]) -> None:
        more = True
        try:
            client = make()
            while more:
                call = self.calls.get()
                more = call is not None
                if call is not None:
                    call(client)
            client.close()
        except Exception as error:  # noqa: BLE001 - whatever it is, the search goes on
            said = str(error).strip().partition("\n")[0]
            self.failure = f"{type(error).__name__}: {said}"[:300]
            while more:  # what comes is of no use any more
                more = self.calls.get() is not None


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers in a row of `epochs` by their columns, but for the epoch."""
    return {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and name != "epoch"
    }
