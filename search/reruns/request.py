"""The request of `confirm` and `ablate`: trials, seeds and scenes, checked against the run.

It is printed before anything is spent, with the amount that is done already.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from search.plan import (
    MAX_SEEDS,
    RESOURCE_FLAGS,
    RUNS,
    FreshScenes,
    Rerun,
    SearchConfig,
    add_flags,
    given,
    resource_flags,
    training_seeds,
)
from search.records import RERUNS, RunStore, best_trials, planned
from search.remote import resolve_run
from search.suggest import version_changes
from trainer.cli import OneLineParser, UsageError
from trainer.config import EvaluationConfig, TrainConfig, did_you_mean
from trainer.provenance import provenance

SCENE_SEED = 3_000_003
NUM_SCENES = 2048
DEFAULTS = {"top": 5, "seeds": 5, "scenes": NUM_SCENES, "scene_seed": SCENE_SEED}
SCORING_MS = 1.5
"""Duration of scoring one scene, as measured on one core; for plans only."""


def parser(prog: str, about: str, runs: str | None = None) -> argparse.ArgumentParser:
    """Return a command line with the flags that `confirm` and `ablate` share; `runs` is `?` where
    a run need not be given."""
    p = OneLineParser(
        prog=f"python -m {prog}",
        description=about,
        epilog="Exit codes: 0 done, 1 it failed, 2 bad usage, 130 "
        "interrupted: the same command goes on.",
        allow_abbrev=False,
    )
    p.add_argument("run", metavar="RUN", nargs=runs, help="name under --out, or path")
    flags = {
        "--out DIR": f"folder of runs; default {RUNS}",
        "--top N": "best N trials; default 5",
        "--trials ID,ID,...": "these trials instead, whatever became of them",
        "--seeds N": "per trial; default 5",
        "--scenes N": f"fresh scenes for each SNR and K; default {NUM_SCENES}",
        "--snr DB,DB,...": "SNRs in dB (--snr=-5,0); default: those of the run",
        "--scene-seed INT": f"of the fresh scenes; default {SCENE_SEED}",
        **resource_flags(default="as the run"),
        "--dry-run": "print the plan; start nothing",
    }
    add_flags(p, flags)
    p.set_defaults(out=RUNS, **DEFAULTS)
    return p


@dataclass(frozen=True)
class RerunRequest:
    """A command line, checked against its run: rerun the `top` of the trials (ids, the best
    first), each with `seeds` training seeds, by the plan, and score them on fresh scenes; those of
    a user's trainer, `own`, know none."""

    store: RunStore
    plan: SearchConfig
    trials: tuple[str, ...]
    top: int
    seeds: int
    fresh: FreshScenes

    @classmethod
    def from_flags(cls, args: argparse.Namespace, *, own: bool = False) -> RerunRequest:
        """Read the run and find the requested trials in it; those of a user's trainer only if
        `own`."""
        for name in ("top", "seeds"):
            if getattr(args, name) < 1:
                raise UsageError(f"`--{name} >= 1` must hold, but got {getattr(args, name)}.")
        if args.seeds > MAX_SEEDS:
            raise UsageError(f"`--seeds <= {MAX_SEEDS}` must hold, but got {args.seeds}.")
        store = RunStore.open(resolve_run(args.run, args.out))
        searched = planned(store.path, store.plan, given(args, RESOURCE_FLAGS))
        if searched.trainable is not None:
            _check_own(args, searched.trainable, own)
        plan = replace(
            searched,
            name="reruns",
            out=str(store.path),
            scheduler="none",
            warm_start=None,
        )
        named = None if args.trials is None else args.trials.split(",")
        chosen = candidates(store, named)
        top = args.top if named is None else len(chosen)
        fresh = FreshScenes(args.scene_seed, args.scenes, _decibels(args.snr))
        request = cls(store, plan, tuple(chosen), top, args.seeds, fresh)
        if not request.own:
            fresh.evaluation(request.config(chosen[0]))  # refuses scenes that cannot be scored
        return request

    @property
    def own(self) -> bool:
        """True if a user's trainer has trained the trials."""
        return self.plan.trainable is not None

    def params(self, trial: str) -> dict[str, Any]:
        """Return the configuration of a trial as dotted names."""
        return dict(self.store.read_config(trial)["params"])

    def config(self, trial: str) -> TrainConfig:
        """Return the configuration of a trial, checked."""
        return TrainConfig.from_params(self.params(trial))

    def reruns(self, trial: str, changed: Mapping[str, Any]) -> list[Rerun]:
        """Return a trial's reruns with the given changes: one for each seed."""
        number, params = int(self.store.read_config(trial)["number"]), self.params(trial)
        seeds = training_seeds(number, self.seeds)
        if self.own:
            return [Rerun.of_own(trial, params, seed) for seed in seeds]
        return [Rerun.of(trial, params, seed, **changed) for seed in seeds]

    def describe(self, reruns: Iterable[Rerun]) -> str:
        """Return the plan as text: the trainings, the scenes and their estimated durations."""
        facts = self._trainings(reruns) | ({} if self.own else self._scenes(reruns))
        lines = [f"{name:<10} {text}" for name, text in facts.items()]
        if not self.own and self.fresh.num_scenes < 2000:
            lines.append("note: fewer than 2,000 scenes leave an error of 0.002 and more")
        return "\n".join([*lines, *version_changes(self.store.plan, provenance())])

    def _trainings(self, reruns: Iterable[Rerun]) -> dict[str, str]:
        wanted = {one.name: one for one in reruns}
        folder = self.store.path / RERUNS
        ended = RunStore.open(folder).ended() if folder.exists() else set()
        left = [one for name, one in wanted.items() if name not in ended]
        trials = self.store.read("trials").set_index("trial_id")
        per_epoch = (trials["seconds"] / trials["epochs"]).fillna(0.0).to_dict()
        minutes = sum(per_epoch[one.trial_id] * one.config.epochs for one in left) / 60
        names = list(dict.fromkeys(one.trial_id for one in wanted.values()))
        return {
            "run": str(self.store.path),
            "trials": f"{', '.join(names)}; {self.seeds} fresh training seeds each",
            "trainings": f"{len(wanted)}, of which {len(wanted) - len(left)} are done; "
            f"about {minutes:.1f} min of one worker for the rest",
        }

    def _scenes(self, reruns: Iterable[Rerun]) -> dict[str, str]:
        wanted = {one.name: one for one in reruns}
        config = next(iter(wanted.values())).config
        snr_db = self.fresh.evaluation(config).report_snr_db
        sources, scenes = config.scene.max_sources, self.fresh.num_scenes
        unscored = sum(
            not has_scores(self.store, name, self.fresh.evaluation(one.config))
            for name, one in wanted.items()
        )
        scoring = unscored * len(snr_db) * sources * scenes * SCORING_MS / 60e3
        return {
            "scenes": f"{scenes} fresh ones (seed {self.fresh.seed}) for each of SNR "
            f"{', '.join(f'{snr:g}' for snr in snr_db)} dB and K in 1..{sources}; about "
            f"{scoring:.1f} min of one worker for the {unscored} that are not scored",
        }


def _check_own(args: argparse.Namespace, trainable: str, own: bool) -> None:
    """Raise UsageError for what a run of a user's trainer has not."""
    if not own:
        raise UsageError(
            f"an ablation compares terms of our loss, but {trainable} has trained these trials. "
            "Fix one value with --set in a second search, and `search.confirm` both."
        )
    given = (args.scenes, args.snr, args.scene_seed)
    if given != (NUM_SCENES, None, SCENE_SEED):
        raise UsageError(
            f"--scenes, --snr and --scene-seed are of our scenes, but {trainable} has trained "
            "these trials. Leave them out: its objective on fresh training seeds is compared."
        )


def has_scores(
    store: RunStore, part: str, evaluation: EvaluationConfig, estimator: str | None = None
) -> bool:
    """Return whether a part of `confirmations` has scores (of that estimator, unless None) on all
    of these scenes."""
    rows = store.read("confirmations", part)
    rows = rows[rows["evaluation_seed"] == evaluation.test_seed]
    rows = rows[rows["snr_db"].isin(evaluation.report_snr_db)]
    if estimator is not None:
        rows = rows[rows["estimator"] == estimator]
    return set(evaluation.report_snr_db) <= set(rows["snr_db"]) and bool(
        rows["num_scenes"].min() >= evaluation.num_test_scenes
    )


def candidates(store: RunStore, named: list[str] | None) -> list[str]:
    """Return the named trials of a run, or its best ones."""
    trials = store.read("trials")
    if named is None and not (named := best_trials(trials)):
        raise UsageError(
            f"finalists are completed trials, but {store.path} has none. Extend it with "
            "`python -m search.run --resume RUN --trials N`."
        )
    known = [str(name) for name in trials["trial_id"]]
    if missing := [name for name in named if name not in known]:
        raise UsageError(
            f"--trials names trials that have ended, but {store.path} has no "
            f"{missing[0]!r}.{did_you_mean(missing[0], known)}"
        )
    return named


def _decibels(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(
            f"--snr is numbers in dB with commas between, but got {text!r}. Try --snr=-5,0."
        ) from None
