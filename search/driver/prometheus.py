"""The metrics of a search for the Ray dashboard's Prometheus: one number per idea, by run.

They are computed from the recorder, so they say what the tables say, and a resumed search goes on
where it was. Tags have few values (an outcome, a backend, an SNR, a host), never a trial's id:
Prometheus keeps a time series for every value. Ray puts `ray_` before each name; `deploy/grafana`
draws them.

Ray forgets a gauge that has not been set for some seconds, so all are set once a second; setting
them at every event would be a large part of what a short trial costs.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ray.util import metrics

from search.plan import Outcome

from .recorder import Recorder

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


class PrometheusMetrics:
    """Ray's gauges and counter for one search."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._metrics = {name: _metric(name, recorder.plan.name) for name in NAMES}
        self._hosts: set[str] = set()
        self._counted = 0
        self._refreshed = time.monotonic()

    def refresh(self, *, now: bool = False) -> None:
        """Set all metrics once a second, or at once."""
        if not now and time.monotonic() - self._refreshed < REFRESH_SECONDS:
            return
        self._refreshed = time.monotonic()
        running = Counter(str(report["host"]) for report in self._recorder.running.values())
        self._hosts |= running.keys()
        for host in self._hosts:  # also those where nothing runs any more
            self._metrics["ris_running_trials"].set(running[host], {"host": host})
        for name, value, tags in gauges(self._recorder):
            self._metrics[name].set(value, tags)
        if (new := self._recorder.epochs - self._counted) > 0:
            self._metrics["ris_epochs_total"].inc(new)
            self._counted += new


def gauges(recorder: Recorder) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Yield name, value and tags of all gauges but `ris_running_trials`."""
    yield "ris_trials_planned", recorder.plan.trials, {}
    yield "ris_gpu_seconds", recorder.gpu_seconds, {}
    for outcome in Outcome:
        yield "ris_trials", recorder.tally[outcome], {"outcome": outcome.value}
    for backend, count in recorder.aborts.items():
        yield "ris_nan_aborts", count, {"backend": backend}
    gaps = [report.get("min_eigengap") for report in recorder.running.values()]
    if known := [gap for gap in gaps if gap is not None]:
        yield "ris_smallest_eigengap", min(known), {}
    if recorder.best is not None:
        trial, evaluations = recorder.best
        yield "ris_best_objective", trial["objective"], {}
        for snr_db, error in errors_by_snr(evaluations).items():
            yield "ris_capped_error", error, {"snr_db": f"{snr_db:g}"}


def errors_by_snr(rows: Iterable[Mapping[Any, Any]]) -> dict[float, float]:
    """Return the mean capped error over all scenes of each SNR [dB], from evaluation rows."""
    sums: Counter[float] = Counter()
    scenes: Counter[float] = Counter()
    for row in rows:
        sums[row["snr_db"]] += row["capped_error"] * row["num_scenes"]
        scenes[row["snr_db"]] += row["num_scenes"]
    return {snr_db: sums[snr_db] / scenes[snr_db] for snr_db in sorted(scenes)}


def _metric(name: str, run: str) -> Any:
    about, tags = NAMES[name]
    kind = metrics.Counter if name.endswith("_total") else metrics.Gauge
    return kind(name, description=about, tag_keys=("run", *tags)).set_default_tags({"run": run})
