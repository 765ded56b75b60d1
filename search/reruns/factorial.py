"""A design on a Ray cluster: in every network and regime, a search of each term, then trainings.

    runs/<name>/            a run whose trials are the trainings
    runs/<name>/scenes/     their scores on validation and test scenes, a part per training
    runs/<name>/ablations/  means of these: a row per training, scenes, SNR, K and rule for K

The value of `none` is found first, then that of every other term at this value of `none`, each by
one training of equal seed; then all arms are trained on fresh seeds, seed by seed. What has been
trained or scored is found again, so a command that was killed goes on.
"""

import argparse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from search.plan import (
    RESOURCE_FLAGS,
    Rerun,
    RunNotFound,
    SearchConfig,
    check_address,
    check_writable,
    given,
)
from search.records import Row, RunStore, checked_name, planned
from search.remote import check_new_run, resolve_run, runs_folder
from trainer.cli import UsageError
from trainer.config import COUNT_RULES
from trainer.provenance import provenance

from .design import NONE, Arm, Design
from .request import SCORING_MS, RerunRequest
from .session import Session, open_session

SELECTION_SEED = 0
"""Training seed of searches; those of the trainings that are compared follow it."""
DESIGN_FILE = "design.toml"
TOLD = {"capped_error": "capped_error", "success": "success_rate"}
"""Columns of `scenes` with K told, and of `ablations` for their means."""

Changes = Mapping[str, Any]


def design_request(args: argparse.Namespace, design: Design) -> RerunRequest:
    """Return the request of a design, whose run is made by `create_run` if there is none.

    Raises:
        ConfigError, RunError: if a run of that name is of another design, or cannot be read.
    """
    name = args.name or Path(args.design).stem
    try:
        checked_name(name)
    except ValueError as error:
        raise UsageError(f"--name: {error}") from None
    flags = given(args, RESOURCE_FLAGS)
    try:
        path = resolve_run(name, args.out, to_drive=True)
    except RunNotFound:
        path = runs_folder(args.out) / name
        plan = SearchConfig(
            design.preset,
            design.num_trainings,
            name,
            out=str(args.out),
            scheduler="none",
            guard="off",
            references=design.references,
            **flags,
        )
        return RerunRequest(RunStore(path, {}, {}), plan, (), 0, design.seeds, design.test)
    store = RunStore.open(path)
    kept = store.plan.get("design", {}).get("sha256")
    if kept != design.sha256:
        was = "a search" if kept is None else f"a design of SHA-256 {kept[:12]}..."
        raise UsageError(
            f"a run has one design, but {path} is of {was}, and {args.design} has "
            f"{design.sha256[:12]}... Give another --name, or the file as it was "
            f"({path / DESIGN_FILE})."
        )
    plan = planned(path, store.plan, flags)
    return RerunRequest(store, plan, (), 0, design.seeds, design.test)


def create_run(request: RerunRequest, design: Design) -> RerunRequest:
    """Make the run of a design, unless it is there; return the request with its store."""
    plan, path = request.plan, request.store.path
    check_address(plan.address)
    check_writable(path.parent)
    if path.exists():
        return request
    check_new_run(path)
    sources = plan.sources.values()
    store = RunStore.create(
        path,
        parameters={},
        plan={
            "search": plan.as_dict(),
            "space": {},
            "fixed": design.base,
            "design": design.as_dict(),
            "provenance": provenance(),
        },
        files={DESIGN_FILE: design.text}
        | {f"code/{Path(one.path).name}": one.text for one in sources}
        | {f"code/{name}": text for one in sources for name, text in one.modules},
    )
    return replace(request, store=store)


def describe_design(request: RerunRequest, design: Design) -> str:
    """Return the plan as text: the trainings, the scenes and what they cost."""
    store, total, tries = request.store, design.num_trainings, len(design.values(NONE))
    trials = store.read("trials") if store.path.exists() else pd.DataFrame()
    left = total - len(trials)
    each, how = _seconds(trials, request.plan, design)
    plain = [design.rerun(arm, {}, 0).config for arm in design.arms([NONE])]
    # every scene of every K is located with each K
    points = sum(one.scene.max_sources**2 for one in plain) * len(design.snr_db)
    scenes = (tries + design.seeds) * design.validation_scenes + design.seeds * design.scenes
    scoring = points * len(design.terms) * scenes * SCORING_MS / 60e3
    facts = {
        "run": str(store.path),
        "design": f"SHA-256 {design.sha256[:12]}..., {len(design.arms(design.terms))} arms",
        "networks": ", ".join(design.networks),
        "regimes": ", ".join(design.regimes),
        "terms": ", ".join(design.terms),
        "trainings": f"{total}: for each arm {tries} of its search and {design.seeds} seeds; "
        f"{total - left} are done; about {left * each / 60:.1f} min of one worker for the rest "
        f"({how})",
        "scenes": f"for each of SNR {', '.join(f'{snr:g}' for snr in design.snr_db)} dB and K "
        f"{design.validation_scenes} to choose by and {design.scenes} to test on; about "
        f"{scoring:.1f} min of one worker for all",
    }
    return "\n".join(f"{name:<10} {text}" for name, text in facts.items())


def _seconds(trials: pd.DataFrame, plan: SearchConfig, design: Design) -> tuple[float, str]:
    """Return the seconds of a training, and where they are from."""
    if len(trials):
        return float(trials["seconds"].mean()), "as the others took"
    work, preset = plan.names.work, plan.space
    configs = [design.rerun(arm, design.values(NONE)[0], 0).config for arm in design.arms([NONE])]
    ours = sum(map(work, configs)) / len(configs)
    theirs = work(plan.config({}))
    return 60 * preset.minutes / preset.trials * ours / theirs, f"as {plan.preset} takes"


def carry_out(request: RerunRequest, design: Design) -> list[str]:
    """Run what is left of a design; return notes on what was left out."""
    with open_session(request, request.store) as work:
        return Experiment(design, work, Path(request.store.path).name).run()


class Experiment:
    """A design in a session; `name` is that of its ablation."""

    def __init__(self, design: Design, work: Session, name: str) -> None:
        self._design, self._work, self._name = design, work, name
        self._store = work.request.store
        self._rows: list[Row] = []
        self._notes: list[str] = []

    def run(self) -> list[str]:
        """Search, train and score; return notes."""
        design = self._design
        chosen: dict[Arm, Changes] = {}
        for step, terms in enumerate(([NONE], [t for t in design.terms if t != NONE]), 1):
            candidates: dict[Arm, list[Changes]] = {
                arm: [
                    {**chosen.get(arm.baseline, {}), **value} for value in design.values(arm.term)
                ]
                for arm in design.arms(terms)
                if arm.term == NONE or arm.baseline in chosen
            }
            print(f"step {step} of {2 + design.seeds}: search of {', '.join(terms)}", flush=True)
            chosen |= self._selected(candidates)
        for seed in range(SELECTION_SEED + 1, SELECTION_SEED + 1 + design.seeds):
            print(f"step {seed + 2} of {2 + design.seeds}: all arms, seed {seed}", flush=True)
            reruns = {arm: design.rerun(arm, own, seed) for arm, own in chosen.items()}
            failed = self._trained(reruns.items())
            self._work.count(
                [one for one in reruns.values() if one.name not in failed],
                [design.validation, design.test],
            )
            self._write(reruns.items(), failed)
        return self._notes

    def _selected(self, candidates: Mapping[Arm, list[Changes]]) -> dict[Arm, Changes]:
        """Return the best candidate of each arm, by the validation scenes."""
        design = self._design
        reruns = [
            (arm, design.rerun(arm, value, SELECTION_SEED))
            for arm, values in candidates.items()
            for value in values
        ]
        failed = self._trained(reruns)
        self._work.count([one for _, one in reruns if one.name not in failed], [design.validation])
        self._write(reruns, failed)
        best: dict[Arm, Changes] = {}
        for arm, values in candidates.items():
            of = {design.rerun(arm, value, SELECTION_SEED).name: value for value in values}
            losses = {name: self._loss(name) for name in of if name not in failed}
            if not losses:
                self._notes.append(
                    f"{arm}: no training of its search completed, so it is left out"
                )
                continue
            name = min(losses, key=lambda one: losses[one])
            best[arm] = of[name]
            value = " ".join(f"{n}={v}" for n, v in best[arm].items())
            print(f"chosen     {arm}: {value}, {design.select} {losses[name]:.3f}", flush=True)
        return best

    def _loss(self, name: str) -> float:
        """Return what the search of an arm minimises, of one training."""
        scenes = self._store.read("scenes", name)
        own = scenes[scenes["evaluation_seed"] == self._design.validation.seed]
        if self._design.select == "capped_error":
            return float(own["capped_error"].mean())
        return min(float(own[f"gospa_{rule}"].mean()) for rule in COUNT_RULES)

    def _trained(self, reruns: Iterable[tuple[Arm, Rerun]]) -> dict[str, str]:
        return self._work.train([one for _, one in reruns], self._design.num_trainings)

    def _write(self, reruns: Iterable[tuple[Arm, Rerun]], failed: Mapping[str, str]) -> None:
        """Add the rows of these trainings to `ablations`."""
        for arm, one in reruns:
            make = self._incomplete if one.name in failed else self._means
            self._rows += make(arm, one)
            if one.name in failed:
                self._notes.append(f"{failed[one.name]}: {one.name} ({arm})")
        self._store.write_part("ablations", self._name, self._rows)

    def _key(self, arm: Arm, one: Rerun) -> Row:
        own = {"ablation": self._name, "arm": arm.term, "trial_id": one.name, "seed": one.seed}
        return own | {"network": arm.network, "regime": arm.regime, "changes": one.changes}

    def _incomplete(self, arm: Arm, one: Rerun) -> Iterator[Row]:
        for snr_db in self._design.snr_db:
            for count in range(1, one.config.scene.max_sources + 1):
                at = {"evaluation_seed": self._design.test.seed, "num_scenes": 0}
                yield self._key(arm, one) | at | {"snr_db": snr_db, "num_sources": count}

    def _means(self, arm: Arm, one: Rerun) -> Iterator[Row]:
        scenes = self._store.read("scenes", one.name)
        keys = ["evaluation_seed", "snr_db", "num_sources"]
        for values, own in scenes.groupby(keys):
            at = dict(zip(keys, values, strict=True)) | {"num_scenes": len(own)}
            row = self._key(arm, one) | at
            yield row | {column: float(own[name].mean()) for name, column in TOLD.items()}
            for rule in COUNT_RULES:
                right = own[f"source_number_{rule}"] == own["num_sources"]
                yield row | {
                    "rule": rule,
                    "source_number_accuracy": float(right.mean()),
                    "gospa": float(own[f"gospa_{rule}"].mean()),
                }
