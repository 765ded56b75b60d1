"""Trainings of a run once more: other seeds, other settings, fresh scenes; by the same driver.

    runs/<name>/reruns/         a run of its own, whose trials are the rerun trainings
    runs/<name>/confirmations/  their scores on fresh scenes
    runs/<name>/scenes/         the same scene by scene

`confirm` and `ablate` are lists of trainings and nothing more. A training is named by the trial
whose configuration it has, its seed and its configuration, so that whoever asks for one that has
been trained and scored already finds it: a command that was killed goes on, and two ablations
share the trainings that they share.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import spaces
from search.plan import FreshScenes, Outcome, Rerun, SearchConfig
from search.records import BASELINE_PART, RERUNS, STATE_FILE, RunStore, scored_rows
from search.remote import uri_of
from trainer.config import EvaluationConfig, TrainConfig
from trainer.provenance import provenance

if TYPE_CHECKING:
    from search.cluster import Train
    from search.plan import Resources

FRESH_BASELINES = "baselines-fresh"
"""The part of what belongs to no training, on the fresh scenes."""

CLASSICAL = ("sml", "crb", "lmmse_music", "pinv_music", "lmmse_mvdr", "lmmse_beamformer")
"""What finalists are held against: as in a search, and stochastic maximum likelihood, which takes
longest and so goes first."""

HINGE_SCENES = 256
"""On how many scenes, of each SNR and K, the eigengap term is looked at."""


class Session:
    """Trains and scores, with the workers of one cluster, and writes what came of it.

    Args:
        store: of the run.
        trained: of its reruns.
        plan: of the reruns.
        resources: of one training.
    """

    def __init__(
        self, store: RunStore, trained: RunStore, plan: SearchConfig, resources: "Resources"
    ) -> None:
        self._store = store
        self._trained = trained
        self._plan = plan
        self._resources = resources

    def train(self, trainings: Iterable[Rerun], train: "Train | None" = None) -> dict[str, str]:
        """Trains what has not been trained yet; names of what did not complete, with outcomes.

        Raises:
            SearchFailed: if Ray gave up; what had finished is kept.
        """
        from search.driver import rerun

        wanted = {one.name: one for one in trainings}
        started = self._trained.started()
        records = [self._record(one, len(started) + i) for i, one in enumerate(wanted.values())]
        many = len({*self._trained.ended(), *wanted})
        plan = replace(self._plan, trials=many)
        rerun(plan, self._trained, self._resources, records, train=train)
        outcomes = self._trained.read("trials").set_index("trial_id")["outcome"]
        return {n: str(outcomes[n]) for n in wanted if outcomes[n] != Outcome.COMPLETED}

    def score(
        self, trainings: Iterable[Rerun], fresh: FreshScenes, beside: TrainConfig | None = None
    ) -> None:
        """Scores on fresh scenes what has not been scored there yet.

        What was scored on other scenes stays.

        Args:
            beside: for a confirmation: whose scenes the bound and the classical methods are
                scored on, too.
        """
        from search.cluster import as_ready, baselines_task, state_task

        trainings = list(trainings)
        threads = self._resources.threads
        jobs: dict[str, tuple[Any, ...]] = {}
        if beside is not None:
            asked = replace(beside, evaluation=fresh.evaluation(beside))
            if not covered(self._store, FRESH_BASELINES, asked.evaluation):
                jobs = {n: (baselines_task, asked, threads, [n]) for n in CLASSICAL}
        left: dict[str, Rerun] = {}
        for one in trainings:
            evaluation = fresh.evaluation(one.config)
            if not covered(self._store, one.name, evaluation):
                left[one.name] = one
                jobs[one.name] = (state_task, self._state(one.name), threads, evaluation)
        shared: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for count, (name, tables) in enumerate(as_ready(jobs, self._resources), 1):
            if name in left:
                self._write(name, left[name], tables, fresh.seed)
            else:
                shared[name] = tables
                if len(shared) == len(CLASSICAL):
                    every = {t: [r for n in CLASSICAL for r in shared[n][t]] for t in tables}
                    self._write(FRESH_BASELINES, None, every, fresh.seed)
            about = left[name].about if name in left else name
            print(f"scored {count}/{len(jobs)}: {about}", flush=True)
        if beside is not None:
            for one in trainings:
                self._mark(one, fresh)

    def hinges(
        self, pairs: Mapping[str, TrainConfig], fresh: FreshScenes
    ) -> dict[str, list[dict[str, float]]]:
        """The eigengap term on fresh scenes: for a training's name, the configuration that
        weighs it, which need not be its own."""
        from search.cluster import as_ready, hinges_task

        many = min(HINGE_SCENES, fresh.num_scenes)
        jobs = {
            name: (
                hinges_task,
                self._state(name),
                self._resources.threads,
                replace(config, evaluation=fresh.evaluation(config)).to_params(),
                many,
            )
            for name, config in pairs.items()
        }
        found = {}
        for count, (name, rows) in enumerate(as_ready(jobs, self._resources), 1):
            found[name] = rows
            print(f"term looked at {count}/{len(jobs)}: {name}", flush=True)
        return found

    def _record(self, one: Rerun, number: int) -> dict[str, Any]:
        """What a replay needs; as it was written, where the training has begun."""
        if one.name in self._trained.started():
            return self._trained.read_config(one.name)
        params = one.config.to_params()
        return {
            "trial_id": one.name,
            "number": number,
            "about": one.about,
            "source": one.trial_id,
            "changes": one.changes,
            "sampler": {},
            "drawn": {k: params[k] for k in self._trained.parameters if k in params},
            "params": params,
            "config_hash": one.config.digest,
        }

    def _state(self, name: str) -> str:
        trials = self._trained.read("trials").set_index("trial_id")
        return uri_of(self._trained.path / trials["checkpoint"][name] / STATE_FILE)

    def _write(
        self, part: str, one: Rerun | None, tables: Mapping[str, list[Any]], seed: int
    ) -> None:
        owner = one.trial_id if one else BASELINE_PART
        record = {"trial_id": one.trial_id, "params": one.config.to_params()} if one else None
        changes = {"changes": one.changes if one else None}
        known = {_cell(row): row for row in self._rows("confirmations", part)}
        new: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in scored_rows(tables["evaluations"], "confirmations", record, seed):
            old = known.get(_cell(row), {})
            if row["num_scenes"] >= old.get("num_scenes", 0):
                new[_cell(row)] = row | changes | {"confirmed": old.get("confirmed")}
        scenes = [
            row | changes
            for row in scored_rows(tables["scenes"], "scenes", record, seed)
            if _cell(row) in new
        ]
        # the confirmation last: a training is scored exactly if it is there
        for table, rows in (("scenes", scenes), ("confirmations", list(new.values()))):
            kept = [row for row in self._rows(table, part) if _cell(row) not in new]
            self._store.write_part(table, part, kept + rows, owner=owner)

    def _mark(self, one: Rerun, fresh: FreshScenes) -> None:
        """Notes of a training's scores that a confirmation asked for them."""
        rows = self._rows("confirmations", one.name)
        asked = [
            row | {"confirmed": max(row.get("confirmed") or 0, fresh.num_scenes)}
            if row["evaluation_seed"] == fresh.seed
            else row
            for row in rows
        ]
        if asked != rows:
            self._store.write_part("confirmations", one.name, asked, owner=one.trial_id)

    def _rows(self, table: str, part: str) -> list[dict[str, Any]]:
        """What a part holds; nothing where there is none."""
        return self._store.rows(table, part) if self._store.has_part(table, part) else []


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a row's scenes are scenes of, and whose score it is."""
    return tuple(row[n] for n in ("estimator", "evaluation_seed", "snr_db", "num_sources"))


@contextmanager
def session(store: RunStore, plan: SearchConfig) -> Iterator[Session]:
    """A Ray, and the folder of reruns, for as long as the context lasts.

    Raises:
        Refused: if no machine could hold a training.
        RunError: if the run has another driver now.
    """
    from search.plan import set_ray_environment

    set_ray_environment(plan.address)
    from search.cluster import check_nodes, connect, room_for
    from search.remote import lock_run

    with lock_run(store.path), connect(plan) as cluster:
        resources = room_for(plan, cluster)
        trained = open_reruns(store, plan)
        check_nodes(trained)
        print(f"{resources.concurrent} trainings at a time\n", flush=True)
        yield Session(store, trained, plan, resources)


def open_reruns(store: RunStore, plan: SearchConfig) -> RunStore:
    """The run's reruns, made if there are none yet."""
    path = store.path / RERUNS
    if path.exists():
        return RunStore.open(path)
    return RunStore.create(
        path,
        parameters={n: (p.kind, p.unit, p.about) for n, p in spaces.PARAMETERS.items()},
        plan={"search": plan.as_dict(), "provenance": provenance()},
    )


def covered(store: RunStore, part: str, evaluation: EvaluationConfig) -> bool:
    """Whether a part holds scores on all of these scenes."""
    if not store.has_part("confirmations", part):
        return False
    rows = store.read("confirmations", part)
    rows = rows[rows["evaluation_seed"] == evaluation.test_seed]
    rows = rows[rows["snr_db"].isin(evaluation.report_snr_db)]
    return set(evaluation.report_snr_db) <= set(rows["snr_db"]) and bool(
        rows["num_scenes"].min() >= evaluation.num_test_scenes
    )
