"""Reruns of trials on a Ray cluster: trained with fresh seeds, scored on fresh scenes.

    runs/<name>/reruns/         a run of its own, whose trials are the reruns
    runs/<name>/confirmations/  their scores on fresh scenes
    runs/<name>/scenes/         the same scene by scene

A rerun is named by its trial, seed and configuration, so that one that has been trained and scored
is found again: a command that was killed goes on, and two ablations share their common reruns.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from search.plan import FreshScenes, Outcome, Rerun, Resources, set_ray_environment
from search.records import RERUNS, STATE_FILE, Row, RunStore, read_start, scored_rows
from search.remote import lock_run, uri_of
from trainer.config import TrainConfig
from trainer.provenance import provenance
from trainer.record import START_FILE

from .request import RerunRequest, has_scores

FRESH_BASELINES = "baselines-fresh"
"""The part of the bound and of the classical methods, on the fresh scenes."""

CLASSICAL = ("sml", "crb", "lmmse_music", "pinv_music", "lmmse_mvdr", "lmmse_beamformer")
"""The references of finalists: those of a search, and stochastic maximum likelihood, which takes
longest and so goes first."""

HINGE_SCENES = 256
"""Scenes of each SNR and K on which the eigengap term is evaluated."""


@dataclass(frozen=True)
class Session:
    """Trains and scores reruns with the workers of one cluster, and writes the results; `trained`
    is the store of the reruns."""

    request: RerunRequest
    trained: RunStore
    resources: Resources

    def train(self, reruns: Iterable[Rerun], total: int = 0) -> dict[str, str]:
        """Train the reruns that have not ended yet; return the outcomes of those that did not
        complete, by name. Finished ones are kept if SearchFailed is raised. Progress is shown of
        the `total`, where there are more to come."""
        from search.driver import rerun

        wanted = {one.name: one for one in reruns}
        started = self.trained.started()
        records = [self._record(one, len(started) + i) for i, one in enumerate(wanted.values())]
        known = len({*self.trained.ended(), *wanted})
        plan = replace(self.request.plan, trials=max(total, known))
        rerun(plan, self.trained, self.resources, records)
        outcomes = self.trained.read("trials").set_index("trial_id")["outcome"]
        return {n: str(outcomes[n]) for n in wanted if outcomes[n] != Outcome.COMPLETED}

    def score(self, reruns: Iterable[Rerun], confirmed: TrainConfig | None = None) -> None:
        """Score on the fresh scenes what has no scores there yet; scores on others stay.

        For a confirmation, the bound and the classical methods are scored too, on the scenes of
        the configuration `confirmed`, and the reruns are marked as confirmed.
        """
        from search.cluster import score_baselines, score_state

        store, fresh = self.request.store, self.request.fresh
        jobs: dict[str, Any] = {}
        if confirmed is not None:
            config = replace(confirmed, evaluation=fresh.evaluation(confirmed))
            for name in CLASSICAL:
                if not has_scores(store, FRESH_BASELINES, config.evaluation, name):
                    jobs[name] = (score_baselines, config, [name])
        wanted = {one.name: one for one in reruns}
        for name, one in wanted.items():
            evaluation = fresh.evaluation(one.config)
            if not has_scores(store, name, evaluation):
                jobs[name] = (score_state, self._state(name), evaluation)
        about = {name: one.about for name, one in wanted.items()}
        for name, tables in self._finished("scored", jobs, about):
            self._write(wanted.get(name), tables)
        if confirmed is not None:
            for one in wanted.values():
                self._mark(one)

    def count(self, reruns: Iterable[Rerun], scenes: Iterable[FreshScenes]) -> None:
        """Score on `scenes`, K told and K by rules, what has no scores there yet; write a part of
        `scenes` for each rerun."""
        from search.cluster import score_counts

        wanted, parts = {one.name: one for one in reruns}, list(scenes)
        jobs: dict[str, Any] = {}
        for name, one in wanted.items():
            known = {row["evaluation_seed"] for row in self._rows("scenes", name)}
            left = [each.evaluation(one.config) for each in parts if each.seed not in known]
            if left:
                jobs[name] = (score_counts, self._state(name), left)
        about = {name: one.about for name, one in wanted.items()}
        for name, scored in self._finished("scored", jobs, about):
            one = wanted[name]
            record = {"trial_id": name, "params": one.config.to_params()}
            rows = [
                row | {"changes": one.changes}
                for seed, found in scored
                for row in scored_rows(found, "scenes", record, seed)
            ]
            self.request.store.write_part("scenes", name, self._rows("scenes", name) + rows)

    def hinges(self, configs: Mapping[str, TrainConfig]) -> dict[str, list[dict[str, float]]]:
        """Return rows of the eigengap term on fresh scenes, by the name of the rerun, weighed by
        the configuration given for it, perhaps not its own."""
        from search.cluster import score_hinges

        fresh = self.request.fresh
        many = min(HINGE_SCENES, fresh.num_scenes)
        jobs: dict[str, Any] = {}
        for name, config in configs.items():
            params = replace(config, evaluation=fresh.evaluation(config)).to_params()
            jobs[name] = (score_hinges, self._state(name), params, many)
        return dict(self._finished("term evaluated", jobs))

    def _finished(
        self, done: str, jobs: Mapping[str, Any], about: Mapping[str, str] | None = None
    ) -> Iterator[tuple[str, Any]]:
        """Yield the name and result of each job as it ends; print it once it has been used."""
        from search.cluster import as_completed, result_of, submit

        running = {submit(self.resources, *job): name for name, job in jobs.items()}
        for count, (name, reference) in enumerate(as_completed(running), 1):
            yield name, result_of(reference, name)
            print(f"{done} {count}/{len(jobs)}: {(about or {}).get(name, name)}", flush=True)

    def _record(self, one: Rerun, number: int) -> Row:
        """Return the record that a replay needs; that on the disk, if the training has begun."""
        if one.name in self.trained.started():
            return self.trained.read_config(one.name)
        params, own = one.config.to_params(), self.request.plan.own_trainer
        return {
            "trial_id": one.name,
            "number": number,
            "about": one.about,
            "source": one.trial_id,
            "changes": one.changes,
            "sampler": {},
            "drawn": {k: params[k] for k in self.trained.parameters if k in params},
            "params": params,
            "config_hash": one.config.digest,
        } | ({} if own is None else {"trainable": asdict(own)})

    def _state(self, name: str) -> str:
        trials = self.trained.read("trials").set_index("trial_id")
        return uri_of(self.trained.path / trials["checkpoint"][name] / STATE_FILE)

    def _write(self, one: Rerun | None, tables: Mapping[str, list[Any]]) -> None:
        """Write the scores of a rerun, or of a classical method, in place of those on fewer of the
        same scenes."""
        part, record, seed = FRESH_BASELINES, None, self.request.fresh.seed
        changes = {"changes": one.changes if one else None}
        if one is not None:
            part = one.name
            record = {"trial_id": one.trial_id, "params": one.config.to_params()}
        known = {_cell(row): row for row in self._rows("confirmations", part)}
        new: dict[tuple[Any, ...], Row] = {}
        for row in scored_rows(tables["evaluations"], "confirmations", record, seed):
            old = known.get(_cell(row), {})
            if row["num_scenes"] >= old.get("num_scenes", 0):
                new[_cell(row)] = row | changes | {"confirmed": old.get("confirmed")}
        scenes = [
            row | changes
            for row in scored_rows(tables["scenes"], "scenes", record, seed)
            if _cell(row) in new
        ]
        # the confirmation last: a rerun is scored exactly if it is there
        for table, rows in (("scenes", scenes), ("confirmations", list(new.values()))):
            kept = [row for row in self._rows(table, part) if _cell(row) not in new]
            self.request.store.write_part(table, part, kept + rows)

    def _mark(self, one: Rerun) -> None:
        """Note on a rerun's scores the number of scenes that a confirmation requested."""
        rows = self._rows("confirmations", one.name)
        marked = [
            row | {"confirmed": max(row.get("confirmed") or 0, self.request.fresh.num_scenes)}
            if row["evaluation_seed"] == self.request.fresh.seed
            else row
            for row in rows
        ]
        if marked != rows:
            self.request.store.write_part("confirmations", one.name, marked)

    def _rows(self, table: str, part: str) -> list[Row]:
        rows: list[Row] = self.request.store.read_arrow(table, part).to_pylist()
        return rows


def _cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key of a score: its estimator and the scenes it was scored on."""
    return tuple(row[n] for n in ("estimator", "evaluation_seed", "snr_db", "num_sources"))


@contextmanager
def open_session(request: RerunRequest, trained: RunStore | None = None) -> Iterator[Session]:
    """Lock the run, connect to Ray and open the folder of reruns, or take the store `trained`, for
    the time of the context; raise Refused if no machine could hold a training, RunError if another
    driver has the run."""
    plan, path = request.plan, request.store.path / RERUNS
    set_ray_environment(plan.address)
    from search.cluster import check_nodes, connect, wait_for_resources

    start = read_start(request.store.path, plan)
    with lock_run(request.store.path), connect(plan) as cluster:
        resources = replace(wait_for_resources(plan, cluster), start=start)
        if trained is not None:
            pass
        elif path.exists():
            trained = RunStore.open(path)
        else:
            trained = RunStore.create(
                path,
                parameters=request.store.parameters,
                plan={"search": plan.as_dict(), "provenance": provenance()},
                files={START_FILE: start} if start else {},
            )
        check_nodes(trained)
        print(f"{resources.concurrent} trainings at a time\n", flush=True)
        yield Session(request, trained, resources)
