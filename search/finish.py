"""What a search leaves beside its trials: scores of the classical methods, the best trial's
network as a model folder, and its scores scene by scene.

The slow methods begin when no trial waits for a worker any more, and the best network is measured
beside them.
"""

import shutil
from collections.abc import Mapping
from typing import Any

import ray

from trainer.config import ConfigError

from .bucket import brought, home_of
from .checkpoints import STATE_FILE
from .config import SearchConfig
from .connection import on_worker, result_of
from .ending import SearchFailed
from .preflight import Resources
from .rows import scored_rows
from .schema import BASELINES
from .store import RunStore, best_trial
from .tasks import baselines_task, export_task, measure_task, state_task

Tables = dict[str, list[Mapping[str, Any]]]

LEADING = ("crb", "lmmse_music", "sml")
"""What every leaderboard begins with, whatever else a network is held against."""

BEST_FOLDER = "best"
"""The best trial's network, as `trainer.model` keeps one."""


class Classical:
    """The bound and the classical methods, scored on workers; nothing where the run has them.

    Args:
        plan: the search, whose held-out scenes they are scored on.
        store: of the run.
        resources: what a worker takes.
    """

    def __init__(self, plan: SearchConfig, store: RunStore, resources: Resources) -> None:
        self._store = store
        self._template = plan.template
        self._resources = resources
        self._jobs: dict[str, Any] = {}
        self._slow: list[str] = []
        if not store.has_part("scenes", BASELINES):
            named = plan.template.evaluation.baselines
            self._slow = [name for name in LEADING if name not in named]
            if named:
                self._begin(list(named))

    def begin_slow(self) -> None:
        """Begins with those that take long, once: not while trials wait for a worker."""
        if self._slow:
            self._begin(self._slow)
            self._slow = []

    def keep(self) -> None:
        """Writes all rows, waited for; nothing where the run has them.

        Raises:
            SearchFailed: if a worker failed.
        """
        self.begin_slow()
        every: Tables = {}
        for names, job in self._jobs.items():
            for table, rows in result_of(job, names).items():
                every.setdefault(table, []).extend(rows)
        _write(self._store, every, None, self._template.evaluation.test_seed)

    def _begin(self, names: list[str]) -> None:
        task = on_worker(baselines_task, self._resources)
        self._jobs[", ".join(names)] = task.remote(self._template, self._resources.threads, names)


def finish(
    plan: SearchConfig, store: RunStore, resources: Resources, classical: Classical
) -> None:
    """Keeps what came of a search whose trials have ended; once, the best trial's scenes last: a
    search whose best trial has its scenes is through.

    Raises:
        SearchFailed: if something cannot be scored or kept.
    """
    classical.begin_slow()
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or store.has_part("scenes", best):
        classical.keep()
        return
    kept = store.path / str(trials.set_index("trial_id")["checkpoint"][best])
    checkpoint, state = home_of(kept), home_of(kept / STATE_FILE)
    measured = on_worker(measure_task, resources).remote(checkpoint, resources.threads)
    scored = on_worker(state_task, resources).remote(state, resources.threads)
    classical.keep()  # the model card has them too
    _export(store, resources, checkpoint, result_of(measured, best))
    record, seed = store.read_config(best), plan.template.evaluation.test_seed
    tables: Tables = result_of(scored, best)
    del tables["evaluations"]  # the trial has brought its own
    _write(store, tables, record, seed)


def _export(
    store: RunStore, resources: Resources, checkpoint: str, measured: dict[str, Any]
) -> None:
    """Leaves the best trial's network of its best epoch in the run's folder `best`."""
    rows = store.read("evaluations")
    others = rows[rows["trial_id"].isna()].to_dict("records")
    about = store.plan.get("provenance", {})
    folder = home_of(store.path / BEST_FOLDER)
    task = on_worker(export_task, resources)
    job = task.remote(checkpoint, folder, measured, about, others, resources.threads)
    try:
        ray.get(job)
        with brought(folder) as model:  # from the bucket into the working copy
            if str(model) != folder:
                shutil.copytree(model, store.path / BEST_FOLDER, dirs_exist_ok=True)
    except (ConfigError, ray.exceptions.RayError) as error:
        raise SearchFailed(f"the best network could not be kept: {error}") from error


def _write(store: RunStore, tables: Tables, record: dict[str, Any] | None, seed: int) -> None:
    part = record["trial_id"] if record else BASELINES
    for table, rows in tables.items():  # `scenes` is the last of them: where it is, all is
        store.write_part(table, part, scored_rows(rows, table, record, seed))
