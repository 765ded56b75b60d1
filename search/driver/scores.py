"""The scores that a search makes beside its trials: of the bound and the classical methods, and of
the best trial's network scene by scene, which becomes a model folder.

The slowest method begins when no trial waits for a worker any more, then the best network is
measured, then come the other methods: the longest jobs first, so that no worker waits long for the
last one. One job that fails leaves the results of the others alone.
"""

import shutil
from pathlib import Path
from typing import Any

from search.cluster import (
    as_completed,
    export_best,
    measure_best,
    result_of,
    score_baselines,
    score_state,
    submit,
)
from search.plan import Resources, SearchConfig, SearchFailed
from search.records import (
    BASELINE_PART,
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
from trainer.config import REFINED_NAMES
from trainer.intervals import mean_errors
from trainer.limits import kept_limits

BEST_FOLDER = "best"
"""The folder of the best trial's network; `trainer.training.model` describes it."""


class Baselines:
    """The bound and the classical methods, scored on workers where the run lacks their scores;
    `missing` if it lacked some."""

    def __init__(self, plan: SearchConfig, store: RunStore, resources: Resources) -> None:
        self._store = store
        self._template = plan.template
        self._seed = plan.template.evaluation.test_seed
        self._resources = resources
        # read here: the limits that are kept on this machine may be on no worker's
        self._limits = kept_limits(plan.template)
        self._left = unscored(store, plan.template.evaluation, self._limits)
        self.missing = bool(self._left)
        self._jobs: dict[Any, str] = {}

    def start(self) -> None:
        """Start scoring the slowest method that is left; call once no trial is queued."""
        while self._left:
            name = self._left.pop(0)
            if name not in self._limits:
                job = submit(self._resources, score_baselines, self._template, [name])
                self._jobs[job] = name
                return
            add_baseline(self._store, name, self._limits[name], self._seed)

    def collect(self) -> list[str]:
        """Write the rows of each method as they come; return what failed, a sentence each."""
        while self._left:
            self.start()
        total, failures = len(self._jobs), []
        for name, done in as_completed(self._jobs):
            try:
                tables = result_of(done, name)
            except SearchFailed as error:
                failures.append(str(error))
                continue
            add_baseline(self._store, name, tables, self._seed)
            print(f"scored {total - len(self._jobs)} of {total} methods: {name}", flush=True)
        return failures


def score_best(
    plan: SearchConfig, store: RunStore, resources: Resources, baselines: Baselines
) -> None:
    """Score the best network of a search whose trials have ended, and keep it.

    Raises:
        SearchFailed: if something cannot be scored or kept; everything else is.
    """
    trials = store.read("trials")
    best = best_trial(trials)
    if best is None or not (baselines.missing or lacks_scores(store, best)):
        failures = baselines.collect()
    else:
        checkpoint = store.path / str(trials.set_index("trial_id")["checkpoint"][best])
        measured = submit(resources, measure_best, uri_of(checkpoint))
        scored = submit(resources, score_state, uri_of(checkpoint / STATE_FILE))
        failures = baselines.collect()  # the model card has them too, so it is made anew
        try:
            found = result_of(measured, best)
            _export(plan, store, resources, checkpoint, found)
            tables = result_of(scored, best)
            record, seed = store.read_config(best), plan.template.evaluation.test_seed
            refined, by_scene = (
                [row for row in found[name] if row["estimator"] in REFINED_NAMES]
                for name in ("rows", "scenes")
            )
            rows = scored_rows(refined, "evaluations", record, seed)
            store.write_part("evaluations", f"{best}-refined", rows)
            tables["scenes"] += by_scene
            for table in BEST_TABLES:  # once the network is kept: a run with these is complete
                store.write_part(table, best, scored_rows(tables[table], table, record, seed))
        except SearchFailed as error:
            failures.append(str(error))
    if failures:
        raise SearchFailed("; ".join(failures))


def _export(
    plan: SearchConfig,
    store: RunStore,
    resources: Resources,
    checkpoint: Path,
    measured: dict[str, Any],
) -> None:
    """Write the best trial's network of its best epoch to the run's folder `best`."""
    scenes = store.read("scenes", BASELINE_PART).to_dict("records")
    others = mean_errors(scenes, plan.template.evaluation.objective_snr_db)
    about = store.plan.get("provenance", {})
    folder = uri_of(store.path / BEST_FOLDER)
    kept = submit(resources, export_best, uri_of(checkpoint), folder, measured, about, others)
    result_of(kept, "keeping the best network")
    with downloaded(folder) as model:  # from the bucket into the working copy
        if str(model) != folder:
            shutil.copytree(model, store.path / BEST_FOLDER, dirs_exist_ok=True)
