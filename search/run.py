"""`python -m search.run`: plans a search, checks it, runs it on Ray, and shows what came of it.

Exit codes: 0 the search ended as planned; 1 it failed (no trial completed, or a bug ended it);
2 it was asked for something impossible, and nothing was touched; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import spaces
from trainer.arguments import OneLineParser, UsageError
from trainer.config import ConfigError

from .config import SCHEDULERS, SearchConfig

if TYPE_CHECKING:
    from .store import RunStore

PLANNED = ("preset", "trials", "name", "seed", "scheduler")
"""Flags that a resumed run has in its plan already."""

SAMPLES_SHOWN = 10

RESOURCES = ("max_concurrent", "cpus_per_trial", "gpus_per_trial", "address")
"""Flags that may differ from machine to machine."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = OneLineParser(
        prog="python -m search.run",
        description="Searches the hyperparameters of RIS covariance learning with Ray Tune and "
        "Optuna, and writes Parquet tables to OUT/NAME.",
        epilog="Exit codes: 0 done, 1 the search failed, 2 bad usage, 130 interrupted.",
        allow_abbrev=False,
    )
    presets = "; ".join(
        f"{s.name}: {s.about[0].lower()}{s.about[1:]}" for s in spaces.PRESETS.values()
    )
    p.add_argument("--preset", metavar="PRESET", help=f"default local. {presets}")
    p.add_argument("--trials", type=int, metavar="N", help="how many; default: the preset's")
    p.add_argument("--name", metavar="RUN", help="of the run; default PRESET-DATE-TIME")
    p.add_argument("--out", metavar="DIR", default="runs", help="folder of runs; default runs")
    p.add_argument("--seed", type=int, metavar="INT", help="of sampler and trainings; default 0")
    p.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help="trials at a time; default: as many as the resources hold",
    )
    p.add_argument(
        "--cpus-per-trial", type=float, metavar="CPUS", help="default 1; fractions share a core"
    )
    p.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="GPUS",
        help="default 0.25 where there is a GPU, else 0; fractions share a GPU; 0 is the CPU",
    )
    p.add_argument(
        "--scheduler",
        metavar="|".join(SCHEDULERS),
        help="asha (default) stops weak trials at rungs; none lets all of them finish",
    )
    p.add_argument("--address", metavar="ADDRESS", help="of a Ray cluster; default: a local Ray")
    p.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run (name under --out, or path): finished trials are kept, unfinished "
        "ones start again; needs no other flag",
    )
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and ten sampled configurations; start nothing",
    )
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    try:
        args = parser().parse_args(argv)
        if args.resume is not None:
            return resume(args)
        return dry_run(plan_of(args)) if args.dry_run else start(plan_of(args))
    except KeyboardInterrupt:
        print("interrupted; continue with --resume", file=sys.stderr)
        return 130
    except Exception as error:
        from .preflight import Refused
        from .store import RunError

        if isinstance(error, ConfigError | Refused | RunError):
            print(f"search.run: {error}", file=sys.stderr)
            return 2
        raise


def plan_of(args: argparse.Namespace) -> SearchConfig:
    """The plan that the flags stand for, each default filled in.

    Raises:
        UsageError, ConfigError: if it cannot be.
    """
    try:
        space = spaces.get("local" if args.preset is None else args.preset)
    except ValueError as error:
        raise UsageError(str(error)) from None
    name = args.name
    if name is None:
        name = f"{space.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    out = args.out
    if os.sep in name:  # RUN may be a path
        out, name = os.path.split(name.rstrip(os.sep))
    given = {
        field: value
        for field in ("seed", "max_concurrent", "cpus_per_trial", "gpus_per_trial", "scheduler")
        if (value := getattr(args, field)) is not None
    }
    return SearchConfig(
        preset=space.name,
        trials=space.trials if args.trials is None else args.trials,
        name=name,
        out=out,
        address=args.address,
        **given,
    )


def start(plan: SearchConfig) -> int:
    """Starts a new run."""
    from . import preflight
    from .provenance import provenance
    from .store import RunStore

    preflight.check_out(Path(plan.out))
    preflight.check_address(plan.address)
    declared = {name: spaces.PARAMETERS[name] for name in plan.space.parameters()}
    store = RunStore.create(
        Path(plan.out) / plan.name,
        parameters={name: (p.kind, p.unit, p.about) for name, p in declared.items()},
        plan={
            "search": plan.as_dict(),
            "space": plan.space.describe(),
            "fixed": dict(plan.space.fixed),
            "no_effect": {name: p.no_effect for name, p in declared.items() if p.no_effect},
            "provenance": provenance(),
        },
    )
    print(describe(plan), flush=True)
    try:
        return go(plan, store)
    except preflight.Refused:
        shutil.rmtree(store.path)  # made a moment ago, and nothing has run
        raise


def resume(args: argparse.Namespace) -> int:
    """Continues a run, or shows it if it has ended."""
    from . import preflight
    from .schema import BASELINES
    from .store import RunStore, resolve_run

    fixed = [f"--{name}" for name in PLANNED if getattr(args, name) is not None]
    if args.dry_run:
        raise UsageError("--dry-run shows a new search, but got --resume too. Leave one out.")
    if fixed:
        raise UsageError(
            f"--resume takes the plan from the run, but got {', '.join(fixed)} too. Leave it out."
        )
    store = RunStore.open(resolve_run(args.resume, args.out))
    asked = {name: getattr(args, name) for name in RESOURCES if getattr(args, name) is not None}
    plan = planned(store, asked)
    if len(store.ended()) >= plan.trials and store.has_part("evaluations", BASELINES):
        return show(plan, store)
    preflight.check_out(store.path)
    preflight.check_address(plan.address)
    print(f"resuming {store.path}: {len(store.ended())} of {plan.trials} trials have ended")
    return go(plan, store)


def planned(store: RunStore, asked: dict[str, object]) -> SearchConfig:
    """The plan of a run, on the resources asked for.

    Raises:
        CorruptRun: if `run.json` holds no plan.
    """
    from .store import CorruptRun

    try:
        return SearchConfig.from_dict({**store.plan["search"], **asked})
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError) and asked:
            raise
        raise CorruptRun(
            f"{store.path / 'run.json'} must hold the plan of a search, but does not ({error}). "
            "Restore it from a copy, or start anew with another `--name`."
        ) from None


def go(plan: SearchConfig, store: RunStore) -> int:
    """Runs what is left of a search and shows what came of it."""
    from .environment import prepare

    prepare()
    from .driver import SearchFailed, check_backends, connect, score_best, search
    from .preflight import allot

    started = time.monotonic()
    with connect(plan) as cluster:
        resources = allot(plan, cluster)
        if cluster.dashboard:
            print(f"Ray dashboard: {cluster.dashboard}  (token, if asked: ray get-auth-token)")
        print(
            f"{resources.concurrent} trials at a time, each with {resources.cpus:g} CPUs and "
            f"{resources.gpus:g} GPUs",
            flush=True,
        )
        check_backends(plan, resources)
        print(flush=True)
        try:
            search(plan, store, resources)
            score_best(plan, store, resources)
        except SearchFailed as error:
            print(f"the search ended itself; the same failure repeated:\n{error}", file=sys.stderr)
            show(plan, store)
            return 1
    print(f"searched for {time.monotonic() - started:.0f} s, Ray's start included\n")
    code = show(plan, store)
    if (ended := len(store.ended())) < plan.trials:
        print(
            f"{ended} of {plan.trials} trials ended; continue with "
            f"`python -m search.run --resume {store.path}`",
            file=sys.stderr,
        )
        return 1
    return code


def show(plan: SearchConfig, store: RunStore) -> int:
    """Prints the leaderboard, draws the plot, and names the next commands."""
    from .report import leaderboard, plots
    from .store import best_trial

    print(leaderboard.text(store.path))
    print()
    plot = plots.error_vs_snr(store.path)
    if plot:
        print(f"plot:     {plot}")
    trials = store.read("trials")
    best = best_trial(trials)
    read = f"import pandas; print(pandas.read_parquet('{store.path}/trials'))"
    print(f'tables:   python -c "{read}"')
    print(f"optuna:   optuna-dashboard {store.path}/optuna.log")
    if best is None:
        print("no trial completed; the causes are in `failures`", file=sys.stderr)
        return 1
    checkpoint = store.path / str(trials.set_index("trial_id")["checkpoint"][best])
    print(f"replay:   python -m trainer replay {store.path} {best}")
    if checkpoint.exists():
        print(f"evaluate: python -m trainer evaluate {checkpoint}")
    return 0


def dry_run(plan: SearchConfig) -> int:
    """Prints the plan and ten configurations as the search would draw them; starts nothing."""
    from .study import new_study

    print(describe(plan))
    study = new_study(plan)
    for number in range(SAMPLES_SHOWN):
        drawn = plan.space.suggest(study.ask())
        plan.train_config(drawn)  # refuses what could not be trained
        kind = "anchor" if number < len(plan.space.anchors) else "sample"
        values = "  ".join(f"{k}={_short(v)}" for k, v in drawn.items())
        print(f"{number:2d} {kind}  {values}")
    return 0


def describe(plan: SearchConfig) -> str:
    """The plan, for a person, before anything is spent."""
    config, space = plan.template, plan.space
    scene = config.scene
    snrs = ", ".join(f"{snr:g}" for snr in config.evaluation.objective_snr_db)
    facts = {
        "run": f"{Path(plan.out) / plan.name}",
        "preset": f"{space.name}: {space.about}",
        "trials": f"{plan.trials}, the first {len(space.anchors)} known-good; "
        f"scheduler {plan.scheduler}; seed {plan.seed}",
        "scene": f"{scene.num_horizontal}x{scene.num_vertical} RIS, "
        f"{scene.num_antennas} antennas, {scene.num_snapshots} snapshots, "
        f"K in 1..{scene.max_sources}, range {scene.range_min_m:g}-{scene.range_max_m:g} m, "
        f"training SNR {config.snr_min_db:g}..{config.snr_max_db:g} dB",
        "budget": f"{config.epochs} epochs x {config.steps_per_epoch} steps x "
        f"{config.batch_size} scenes per trial; "
        f"about {space.minutes:g} min for {space.trials} trials",
        "objective": f"capped error at {snrs} dB, {config.evaluation.num_scenes} scenes for each "
        "SNR and K; lower is better",
        "searched": "",
    }
    lines = [f"{name:<10} {text}".rstrip() for name, text in facts.items()]
    width = max(len(name) for name in space.describe())
    lines += [f"  {name:<{width}}  {text}" for name, text in space.describe().items()]
    return "\n".join(lines)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
