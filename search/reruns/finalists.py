"""What `confirm` and `ablate` are asked: which trials, how many seeds, which scenes; and the plan.

The plan is printed before anything is spent, with what is done already.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.plan import (
    MAX_SEEDS,
    RESOURCE_FLAGS,
    RUNS,
    FreshScenes,
    Rerun,
    add_resource_flags,
    given,
    training_seeds,
)
from search.records import RERUNS
from trainer.cli import OneLineParser, UsageError
from trainer.config import TrainConfig, did_you_mean

if TYPE_CHECKING:
    from search.plan import SearchConfig
    from search.records import RunStore

SCENE_SEED = 3_000_003
NUM_SCENES = 2048
SCORING_MS = 1.5
"""Per scene, as measured on one core; for plans only."""


def add_flags(p: argparse.ArgumentParser) -> None:
    """The flags that both commands have."""
    p.add_argument("run", metavar="RUN", help="name under --out, or path")
    p.add_argument("--out", metavar="DIR", default=RUNS, help=f"folder of runs; default {RUNS}")
    p.add_argument("--top", type=int, default=5, metavar="N", help="best N trials; default 5")
    p.add_argument(
        "--trials", metavar="ID,ID,...", help="these trials instead, whatever became of them"
    )
    p.add_argument("--seeds", type=int, default=5, metavar="N", help="per trial; default 5")
    p.add_argument(
        "--scenes",
        type=int,
        default=NUM_SCENES,
        metavar="N",
        help=f"fresh scenes for each SNR and K; default {NUM_SCENES}",
    )
    p.add_argument(
        "--snr", metavar="DB,DB,...", help="SNRs in dB (--snr=-5,0); default: those of the run"
    )
    p.add_argument(
        "--scene-seed",
        type=int,
        default=SCENE_SEED,
        metavar="INT",
        help=f"of the fresh scenes; default {SCENE_SEED}",
    )
    add_resource_flags(p, default="as the run")
    p.add_argument("--dry-run", action="store_true", help="print the plan; start nothing")


@dataclass(frozen=True)
class RerunRequest:
    """A command line, checked against its run.

    Attributes:
        store: of the run.
        plan: of the reruns.
        trials: the ids of the trials to choose from, the best first.
        top: how many of them.
        seeds: per trial.
        fresh: the scenes.
    """

    store: RunStore
    plan: SearchConfig
    trials: tuple[str, ...]
    top: int
    seeds: int
    fresh: FreshScenes

    @classmethod
    def of(cls, args: argparse.Namespace) -> RerunRequest:
        """Reads the run and finds what is asked for in it.

        Raises:
            ConfigError, RunError: if it cannot be.
        """
        from dataclasses import replace

        from search.records import RunStore, best_trials, planned
        from search.remote import resolve_run

        for name in ("top", "seeds"):
            if getattr(args, name) < 1:
                raise UsageError(f"`--{name} >= 1` must hold, but got {getattr(args, name)}.")
        if args.seeds > MAX_SEEDS:
            raise UsageError(f"`--seeds <= {MAX_SEEDS}` must hold, but got {args.seeds}.")
        store = RunStore.open(resolve_run(args.run, args.out))
        plan = replace(
            planned(store.path, store.plan, given(args, RESOURCE_FLAGS)),
            name="reruns",
            out=str(store.path),
            scheduler="none",
            warm_start=None,
        )
        ended = store.read("trials")
        if args.trials is None:
            chosen, top = best_trials(ended), args.top
            if not chosen:
                raise UsageError(
                    f"finalists are completed trials, but {store.path} has none. Extend it with "
                    "`python -m search.run --resume RUN --trials N`."
                )
        else:
            chosen = args.trials.split(",")
            top = len(chosen)
            known = [str(name) for name in ended["trial_id"]]
            for name in chosen:
                if name not in known:
                    raise UsageError(
                        f"--trials names trials that have ended, but {store.path} has no "
                        f"{name!r}.{did_you_mean(name, known)}"
                    )
        fresh = FreshScenes(args.scene_seed, args.scenes, _decibels(args.snr))
        asked = cls(store, plan, tuple(chosen), top, args.seeds, fresh)
        fresh.evaluation(asked.config(chosen[0]))  # refuses what cannot be scored
        return asked

    def params(self, trial: str) -> dict[str, Any]:
        """The configuration of a trial."""
        return dict(self.store.read_config(trial)["params"])

    def config(self, trial: str) -> TrainConfig:
        """The same, checked."""
        return TrainConfig.from_params(self.params(trial))

    def trainings(self, trial: str, changed: dict[str, Any]) -> list[Rerun]:
        """A trial's reruns, with that changed: one for each seed."""
        number = int(self.store.read_config(trial)["number"])
        params = self.params(trial)
        return [
            Rerun.of(trial, params, seed, **changed) for seed in training_seeds(number, self.seeds)
        ]

    def describe(self, trainings: Iterable[Rerun]) -> str:
        """The plan, for a person: what is to be trained and scored, and what that takes."""
        from search.records import RunStore

        from .sessions import covered

        wanted = {one.name: one for one in trainings}
        folder = self.store.path / RERUNS
        ended = RunStore.open(folder).ended() if folder.exists() else set()
        left = [one for name, one in wanted.items() if name not in ended]
        took = self.store.read("trials").set_index("trial_id")
        each = (took["seconds"] / took["epochs"]).fillna(0.0).to_dict()
        minutes = sum(each[one.trial_id] * one.config.epochs for one in left) / 60
        names = list(dict.fromkeys(one.trial_id for one in wanted.values()))
        config = self.config(names[0])
        evaluation = self.fresh.evaluation(config)
        points = len(evaluation.report_snr_db) * config.scene.max_sources
        unscored = [
            one
            for one in wanted.values()
            if not covered(self.store, one.name, self.fresh.evaluation(one.config))
        ]
        scoring = len(unscored) * points * self.fresh.num_scenes * SCORING_MS / 60e3
        snrs = ", ".join(f"{snr:g}" for snr in evaluation.report_snr_db)
        facts = {
            "run": str(self.store.path),
            "trials": f"{', '.join(names)}; {self.seeds} fresh training seeds each",
            "trainings": f"{len(wanted)}, of which {len(wanted) - len(left)} are done; "
            f"about {minutes:.1f} min of one worker for the rest",
            "scenes": f"{self.fresh.num_scenes} fresh ones (seed {self.fresh.seed}) for each of "
            f"SNR {snrs} dB and K in 1..{config.scene.max_sources}; about {scoring:.1f} min of "
            f"one worker for the {len(unscored)} that are not scored",
        }
        lines = [f"{name:<10} {text}" for name, text in facts.items()]
        if self.fresh.num_scenes < 2000:
            lines.append("note: fewer than 2,000 scenes leave an error of 0.002 and more")
        return "\n".join([*lines, *self._versions()])

    def _versions(self) -> list[str]:
        """What differs between the code of the search and this one."""
        from search.suggest import version_changes
        from trainer.provenance import provenance

        return version_changes(self.store.plan, provenance())


def parser(prog: str, about: str) -> argparse.ArgumentParser:
    """A command line with the common flags."""
    p = OneLineParser(
        prog=f"python -m {prog}",
        description=about,
        epilog="Exit codes: 0 done, 1 it failed, 2 bad usage, 130 "
        "interrupted: the same command goes on.",
        allow_abbrev=False,
    )
    add_flags(p)
    return p


def _decibels(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(
            f"--snr is numbers in dB with commas between, but got {text!r}. Try --snr=-5,0."
        ) from None
