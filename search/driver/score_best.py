"""What a search leaves beside its trials: scores of the classical methods, the best trial's
network as a model folder, and its scores scene by scene.

The classical methods begin when no trial waits for a worker any more, and the best network is
measured beside them.
"""

import shutil
from typing import Any

import ray

from search.cluster import (
    baselines_task,
    export_task,
    measure_task,
    on_worker,
    result_of,
    state_task,
)
from search.plan import Resources, SearchConfig, SearchFailed
from search.records import (
    BEST_TABLES,
    STATE_FILE,
    RunStore,
    add_baseline,
    best_trial,
    lacks_scores,
    scored_rows,
    unscored,
)
from search.remote import downloaded, uri_of
from trainer.config import ConfigError

BEST_FOLDER = "best"
"""The best trial's network, as `trainer.training.model` keeps one."""


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
        self._left = unscored(store, plan.template.evaluation)
        self._jobs: dict[Any, str] = {}

    def begin(self) -> None:
        """Begins, once: not while trials wait for a worker."""
        task = on_worker(baselines_task, self._resources)
        while self._left:
            name = self._left.pop(0)
            self._jobs[task.remote(self._template, self._resources.threads, [name])] = name

    def keep(self) -> None:
        """Writes the rows of each method as soon as they are there.

        Raises:
            SearchFailed: if a worker failed.
        """
        self.begin()
        many = len(self._jobs)
        while self._jobs:
            (done,), _ = ray.wait(list(self._jobs))
            name = self._jobs.pop(done)
            seed = self._template.evaluation.test_seed
            add_baseline(self._store, name, result_of(done, name), seed)
            print(f"scored {many - len(self._jobs)} of {many} methods: {name}", flush=True)


def finish(
    plan: SearchConfig, store: RunStore, resources: Resources, classical: Classical
) -> None:
    """Keeps what came of a search whose trials have ended.

    Raises:
        SearchFailed: if something cannot be scored or kept.
    """
    classical.begin()
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or not lacks_scores(store, best):
        classical.keep()
        return
    kept = store.path / str(trials.set_index("trial_id")["checkpoint"][best])
    checkpoint, state = uri_of(kept), uri_of(kept / STATE_FILE)
    measured = on_worker(measure_task, resources).remote(checkpoint, resources.threads)
    scored = on_worker(state_task, resources).remote(state, resources.threads)
    classical.keep()  # the model card has them too
    _export(store, resources, checkpoint, result_of(measured, best))
    record, seed = store.read_config(best), plan.template.evaluation.test_seed
    tables = result_of(scored, best)  # its `evaluations` the trial has brought itself
    for table in BEST_TABLES:  # once the network is there: a run that has these is through
        store.write_part(table, best, scored_rows(tables[table], table, record, seed))


def _export(
    store: RunStore, resources: Resources, checkpoint: str, measured: dict[str, Any]
) -> None:
    """Leaves the best trial's network of its best epoch in the run's folder `best`."""
    rows = store.read("evaluations")
    others = rows[rows["trial_id"].isna()].to_dict("records")
    about = store.plan.get("provenance", {})
    folder = uri_of(store.path / BEST_FOLDER)
    task = on_worker(export_task, resources)
    job = task.remote(checkpoint, folder, measured, about, others, resources.threads)
    try:
        ray.get(job)
        with downloaded(folder) as model:  # from the bucket into the working copy
            if str(model) != folder:
                shutil.copytree(model, store.path / BEST_FOLDER, dirs_exist_ok=True)
    except (ConfigError, ray.exceptions.RayError) as error:
        raise SearchFailed(f"the best network could not be kept: {error}") from error
