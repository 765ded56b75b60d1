"""What the Ray dashboard's Prometheus sees of a search: one number per idea, by run.

The driver sets them, so they say what the tables say, and a resumed search goes on where it was.
Tags have few values (an outcome, a backend, an SNR, a host), never a trial's id: every value is a
time series that Prometheus keeps. Ray puts `ray_` before each name; `deploy/grafana` draws them.

Ray forgets a gauge that has not been set for some seconds, so all are set once a second, and only
then: at every event it would be a part of what a short trial costs.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ray.util import metrics

from search.plan import Outcome, SearchConfig, may_be_best
from search.records import RunStore, best_trial

NAMES: dict[str, tuple[str, tuple[str, ...]]] = {
    "ris_trials": ("trials that have ended, by outcome", ("outcome",)),
    "ris_trials_planned": ("trials that the search is to have", ()),
    "ris_running_trials": ("trials that train, by host", ("host",)),
    "ris_nan_aborts": ("trials that diverged, by spectral backend", ("backend",)),
    "ris_best_objective": ("smallest objective of a completed trial", ()),
    "ris_capped_error": ("capped error of the best trial on held-out scenes", ("snr_db",)),
    "ris_smallest_eigengap": ("smallest l_K - l_(K+1) among running trials' last epochs", ()),
    "ris_gpu_seconds": ("seconds of training times the reserved share of a GPU [s]", ()),
    "ris_epochs_total": ("epochs reported to this driver; its rate is epochs/s", ()),
}
"""Name, meaning, and tags beside `run`."""

REFRESH_SECONDS = 1.0
"""Ray exports every ten seconds unless told otherwise, and forgets after a few exports."""


class Gauges:
    """The metrics of one search, as far as its run has got already.

    Args:
        plan: the search as planned.
        store: of the run.
    """

    def __init__(self, plan: SearchConfig, store: RunStore) -> None:
        self._metrics = {name: _metric(name, plan.name) for name in NAMES}
        self._shown: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._refreshed = time.monotonic()
        self._hosts: dict[str, str] = {}
        self._gaps: dict[str, float] = {}
        trials = store.read("trials")
        diverged = trials["trial_id"][trials["outcome"] == Outcome.DIVERGED.value]
        self._tally = Counter(trials["outcome"])
        self._aborts = Counter(backend_of(store.read_config(name)) for name in diverged)
        self._gpu_seconds = float(trials["gpu_seconds"].sum())
        self._best: float | None = None
        for outcome in Outcome:
            self._set("ris_trials", self._tally[outcome.value], outcome=outcome.value)
        for backend, count in self._aborts.items():
            self._set("ris_nan_aborts", count, backend=backend)
        self._set("ris_trials_planned", plan.trials)
        self._set("ris_gpu_seconds", self._gpu_seconds)
        best = best_trial(trials)
        if best is not None:
            scored = store.read("evaluations")
            objective = trials.set_index("trial_id")["objective"][best]
            rows = scored[scored["trial_id"] == best].to_dict("records")
            self._improved(float(objective), rows)

    def reported(self, trial: str, report: Mapping[str, Any], gpus: float) -> None:
        """A trial has ended an epoch."""
        self._metrics["ris_epochs_total"].inc()
        self._gpu_seconds += gpus * report["seconds"]
        self._set("ris_gpu_seconds", self._gpu_seconds)
        if report["min_eigengap"] is not None:
            self._gaps[trial] = report["min_eigengap"]
        self._show_gaps()
        self._moved(trial, report["host"])

    def ended(self, record: Mapping[str, Any], outcome: Outcome, last: Mapping[str, Any]) -> None:
        """A trial has ended; its record is what `configs` holds, `last` its last report."""
        self._gaps.pop(record["trial_id"], None)
        self._show_gaps()
        self._moved(record["trial_id"], None)
        self._tally[outcome.value] += 1
        self._set("ris_trials", self._tally[outcome.value], outcome=outcome.value)
        if outcome is Outcome.DIVERGED:
            backend = backend_of(record)
            self._aborts[backend] += 1
            self._set("ris_nan_aborts", self._aborts[backend], backend=backend)
        if may_be_best(outcome) and (self._best is None or last["objective"] < self._best):
            self._improved(last["objective"], last.get("evaluations", []))

    def refresh(self) -> None:
        """Keeps Ray from forgetting; to be called often."""
        if time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            for (name, tags), value in self._shown.items():
                self._metrics[name].set(value, dict(tags))

    def close(self) -> None:
        """The search has ended: nothing runs any more."""
        for trial in list(self._hosts):
            self._moved(trial, None)
        self._refreshed = 0.0
        self.refresh()

    def _improved(self, objective: float, evaluations: Iterable[Mapping[Any, Any]]) -> None:
        self._best = objective
        self._set("ris_best_objective", objective)
        for snr_db, error in errors_by_snr(evaluations).items():
            self._set("ris_capped_error", error, snr_db=f"{snr_db:g}")

    def _show_gaps(self) -> None:
        self._set("ris_smallest_eigengap", min(self._gaps.values(), default=None))

    def _moved(self, trial: str, host: str | None) -> None:
        before = self._hosts.pop(trial, None)
        if host is not None:
            self._hosts[trial] = host
        for each in {before, host} - {None}:
            count = sum(other == each for other in self._hosts.values())
            self._set("ris_running_trials", count, host=str(each))

    def _set(self, name: str, value: float | None, **tags: str) -> None:
        if value is not None:
            self._shown[name, tuple(tags.items())] = value


def backend_of(record: Mapping[str, Any]) -> str:
    """The spectral backend of a trial, from its record."""
    return str(record["params"].get("spectral.backend", "unknown"))


def errors_by_snr(rows: Iterable[Mapping[Any, Any]]) -> dict[float, float]:
    """Mean capped error over all scenes of one SNR [dB], from a network's evaluation rows."""
    sums: dict[float, float] = {}
    scenes: dict[float, float] = {}
    for row in rows:
        snr_db, weight = float(row["snr_db"]), float(row["num_scenes"])
        sums[snr_db] = sums.get(snr_db, 0.0) + float(row["capped_error"]) * weight
        scenes[snr_db] = scenes.get(snr_db, 0.0) + weight
    return {snr_db: sums[snr_db] / scenes[snr_db] for snr_db in sorted(scenes)}


def _metric(name: str, run: str) -> Any:
    about, tags = NAMES[name]
    kind = metrics.Counter if name.endswith("_total") else metrics.Gauge
    return kind(name, description=about, tag_keys=("run", *tags)).set_default_tags({"run": run})
