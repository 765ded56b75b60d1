"""`python -m search.run`: plan a search, check it, run it on Ray and print the results.

Exit codes: 0 the search ended as planned; 1 it failed (no trial completed, or a bug ended it);
2 the request is impossible, and nothing was touched; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import spaces
from search.plan import (
    CHANGES,
    CONFIG_FILE,
    INTERRUPTED,
    RESOURCE_FLAGS,
    RUNS,
    Refused,
    RunError,
    SearchConfig,
    SearchFailed,
    check_address,
    check_loggers,
    check_writable,
    flag_of,
    given,
    parser,
    require_space,
    run_command,
    set_ray_environment,
    with_config_file,
)
from trainer.cli import UsageError
from trainer.config import require
from trainer.record import START_FILE, STATE_FILE
from trainer.user_code import load

from .console import describe_plan, dry_run, print_results

if TYPE_CHECKING:
    from search.cluster import Train
    from search.records import RunStore

PLAN_FLAGS = tuple(
    field.name for field in fields(SearchConfig) if field.name not in ("code", "references")
)
RESUME_FLAGS = ("trials", "out", "log", *RESOURCE_FLAGS)
"""Flags of a plan that a resumed run takes; it has the others in its plan already."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    return run_command(parser(), run, argv, again="continue with --resume")


def run(args: argparse.Namespace) -> int:
    """Start, resume, follow or print a search, as the flags ask."""
    args = with_config_file(args)
    if args.attach is not None:
        return follow(args)
    if args.dry_run and args.resume is None:
        return dry_run(plan_from_flags(args))
    start_or_resume(args)
    return 0


def start_or_resume(args: argparse.Namespace) -> RunStore:
    """Run the search of these flags to its end and print its results; return its store.

    Raises:
        ConfigError, Refused, RunError: if the request is impossible; nothing was touched.
        SearchFailed: if the search ended itself or no trial completed.
        KeyboardInterrupt: if it was interrupted; it can be resumed.
    """
    return start(plan_from_flags(args), args) if args.resume is None else resume(args)


def plan_from_flags(args: argparse.Namespace) -> SearchConfig:
    """Return the plan of a new search, each default filled in."""
    if args.space_from is not None:
        require(args.preset is None, "a search has one space", "--preset, --space", "Choose.")
        require(args.budget is None, "presets have budgets", f"--budget {args.budget}", "Drop it.")
        own = args.trainable is not None
        space = require_space(load(args.space_from), args.space_from, own=own)
    else:
        try:
            preset = "local" if args.preset is None else args.preset
            space = spaces.get(preset, "whole" if args.budget is None else args.budget)
        except ValueError as error:
            raise UsageError(str(error)) from None
    name = f"{space.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    flags: dict[str, Any] = {"trials": space.trials, "name": name} | given(args, PLAN_FLAGS)
    flags |= {"preset": space.name, "out": args.out or RUNS}
    if args.name is not None and os.sep in args.name:  # RUN may be a path
        if args.out is not None:
            raise UsageError(
                f"--name may be a path, and then says where the run is, but got --name {args.name}"
                f" and --out {args.out}. Give the last part alone, or leave --out out."
            )
        flags["out"], flags["name"] = os.path.split(args.name.rstrip(os.sep))
    if args.warm_start is not None:
        from search.remote import resolve_run

        flags["warm_start"] = str(resolve_run(args.warm_start, args.out))
    return SearchConfig(**flags if args.start_from is None else begun(flags))


def begun(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of a plan whose trials begin with the weights of the model `start_from`:
    with the settings of its network and of the checkpoint's SHA-256.

    Raises:
        ConfigError: if there is no such model, or its network is changed.
    """
    from trainer.training import find_model, start_params

    scene = SearchConfig(**flags).template.scene
    params = start_params(find_model(flags["start_from"]) / STATE_FILE, scene)
    changed = {one.partition("=")[0] for kind in CHANGES for one in flags.get(kind, ())}
    require(
        changed.isdisjoint(params),
        "with --start-from, all trials have the model's network",
        f"{', '.join(sorted(changed & params.keys()))} changed",
        "Leave it out, or search without --start-from.",
    )
    settings = (
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in params.items()
    )
    return {**flags, "settings": (*flags.get("settings", ()), *settings)}


def start(plan: SearchConfig, args: argparse.Namespace) -> RunStore:
    """Run a new search; return its store."""
    from search.records import RunStore, declared
    from search.remote import check_new_run, remove_run, runs_folder
    from search.suggest import warm_file, warm_start
    from trainer.provenance import provenance

    folder = runs_folder(plan.out)
    check_writable(folder)
    check_new_run(folder / plan.name)
    check_address(plan.address)
    check_loggers(plan.log)
    code = provenance()
    warm, notes = warm_start(plan, code)
    names, field_of = plan.space.parameters(), plan.names.field_of
    store = RunStore.create(
        folder / plan.name,
        parameters=declared(plan),
        plan={
            "search": plan.as_dict(),
            **plan.space_json,
            "no_effect": {n: f.no_effect for n in names if (f := field_of(n)).no_effect},
            "provenance": code,
        },
        files=warm_file(plan, warm)
        | ({CONFIG_FILE: args.config_text} if args.config else {})
        | {f"code/{Path(one.path).name}": one.text for one in plan.sources.values()}
        | {f"code/{n}": text for one in plan.sources.values() for n, text in one.modules}
        | start_file(plan),
    )
    print(describe_plan(plan), *notes, sep="\n", flush=True)
    try:
        run_locked(plan, store, checked=not args.no_preflight)
    except Refused:
        remove_run(store.path)  # made a moment ago, and nothing has run
        raise
    return store


def start_file(plan: SearchConfig) -> dict[str, bytes]:
    """Return the file of a new run with the weights that its trials begin with, if they do."""
    if plan.start_from is None:
        return {}
    from trainer.training import find_model

    return {START_FILE: (find_model(plan.start_from) / STATE_FILE).read_bytes()}


def follow(args: argparse.Namespace) -> int:
    """Follow a run that another process drives."""
    from search.remote import attach

    if args.resume is not None or args.dry_run:
        raise UsageError("--attach only watches, but got --resume or --dry-run too. Leave it out.")
    try:
        return attach(args.attach, args.out)
    except KeyboardInterrupt:
        print("\nleft; the search goes on", file=sys.stderr)
        return INTERRUPTED


def resume(args: argparse.Namespace) -> RunStore:
    """Continue or extend a run, or print its results if it has ended; return its store."""
    from search.records import best_trial, lacks_scores, unscored
    from search.suggest import compatible_trials, read_history, version_changes
    from trainer.limits import kept_limits
    from trainer.provenance import provenance

    plan, store = _resumed_plan(args)
    started, ended = len(store.started()), len(store.ended())
    if plan.trials < started:
        raise UsageError(
            f"--trials must be at least the {started} that have started, but got {plan.trials}. "
            "A run can be extended, not shortened."
        )
    best = best_trial(store.read("trials"))
    lacking = False
    if plan.trainable is None:
        lacking = bool(unscored(store, plan.template.evaluation, kept_limits(plan.template)))
        lacking |= best is not None and lacks_scores(store, best)
    if ended >= plan.trials and not lacking:
        print_results(plan, store)
        return store
    check_space(plan, store, accept=args.accept_space_change)
    check_writable(store.path, "Make room there, or make it writable.")
    check_address(plan.address)
    check_loggers(plan.log)
    trials = read_history(store).ended  # refuses a damaged record before Ray is started for it
    code = provenance()
    notes = version_changes(store.plan, code)
    if apart := len(trials) - len(compatible_trials(trials, plan)):
        notes.append(
            f"  note: {apart} ended trials had another budget, scene or validation; neither "
            "sampler nor scheduler is told of them"
        )
    notes.insert(0, f"resuming {store.path}: {ended} of {plan.trials} trials have ended")
    print(*notes, sep="\n", flush=True)
    run_locked(plan, store, checked=not args.no_preflight, resumed=code)
    return store


def _resumed_plan(args: argparse.Namespace) -> tuple[SearchConfig, RunStore]:
    """Return the plan of the run to resume, with the flags given now, and its store."""
    from search.records import RunStore, declared, planned, read_run
    from search.remote import resolve_run

    if args.dry_run:
        raise UsageError("--dry-run shows a new search, but got --resume too. Leave one out.")
    path = resolve_run(args.resume, args.out, to_drive=True)
    more = None
    changes: dict[str, Any] = {}
    if args.accept_space_change:
        stored = read_run(path)
        trainable = stored["search"].get("trainable")  # trials of another one do not compare
        code = stored["search"].get("code", {})
        changes["code"] = {name: code[name] for name in code if name == trainable}
        more = declared(planned(path, stored, changes))
    store = RunStore.open(path, more=more)
    if "design" in store.plan:
        raise UsageError(
            f"--resume continues a search, but {path} holds the trainings of a design. Give "
            "`python -m search.ablate --design FILE` again, as it was."
        )
    kept = planned(path, store.plan, changes)
    flags = given(args, PLAN_FLAGS)
    flags.pop("out", None)
    for name in flags.keys() - set(RESUME_FLAGS):
        theirs, ours = getattr(kept, name), flags.pop(name)
        if ours != theirs and not (name in CHANGES and {*ours} <= {*theirs}):
            raise UsageError(
                f"--resume takes the plan from the run, but got {flag_of(name, ours)} too, where "
                f"it has {flag_of(name, theirs)}. Leave it out, or start a new run."
            )
    return planned(path, store.plan, flags | changes), store


def check_space(plan: SearchConfig, store: RunStore, *, accept: bool) -> None:
    """Raise UsageError instead of mixing trials of two spaces in one run, unless `accept`."""
    from search.suggest import default_changes, space_changes

    changed = space_changes(store.plan, plan.space_json) or default_changes(store, plan)
    if changed and not accept:
        raise UsageError(
            f"a run has one space, but `{plan.preset}` is not what this run began with: "
            f"{'; '.join(changed)}. Start a new run, or mix them with --accept-space-change."
        )


def run_locked(
    plan: SearchConfig,
    store: RunStore,
    *,
    checked: bool,
    resumed: Mapping[str, Any] | None = None,
    train: Train | None = None,
) -> None:
    """Lock the run, run the rest of its search, after a check of the machines if `checked`, and
    print the results; raise SearchFailed if it fails. `resumed` is the provenance of a
    resumption."""
    set_ray_environment(plan.address)
    from search.remote import lock_run, uri_of

    with lock_run(store.path) as driver:  # nothing has changed yet where it refuses
        plans = {
            "search": store.plan["search"] | {"trials": plan.trials, "code": dict(plan.code)},
            "resumed": store.plan.get("resumed", []) + ([] if resumed is None else [resumed]),
        }
        store.write_run(store.plan | plan.space_json | plans)
        _run_on_cluster(plan, store, checked=checked, train=train)
    if driver.exit_code:  # the bucket was out of reach at the end
        raise SearchFailed(f"{uri_of(store.path)} lacks the last results")


def _run_on_cluster(
    plan: SearchConfig, store: RunStore, *, checked: bool, train: Train | None
) -> None:
    from search.cluster import connect, preflight_checks, wait_for_resources
    from search.driver import Baselines, score_best, search
    from search.records import read_start
    from search.remote import uri_of

    started = time.monotonic()
    start = read_start(store.path, plan)
    with connect(plan) as cluster:
        if cluster.dashboard:
            file = os.environ.get("RAY_AUTH_TOKEN_PATH")
            how = f"cat {file}" if file else "ray get-auth-token"
            print(f"Ray dashboard: {cluster.dashboard}  (token, if asked: {how})")
        resources = replace(wait_for_resources(plan, cluster), start=start)
        print(
            f"{resources.concurrent} trials at a time, each with {resources.cpus:g} CPUs and "
            f"{resources.gpus:g} GPUs",
            flush=True,
        )
        if checked:
            resources = preflight_checks(plan, store, resources, cluster)
        print(flush=True)
        try:
            if plan.trainable is not None:  # nothing else to score
                search(plan, store, resources)
            else:
                baselines = Baselines(plan, store, resources)
                search(plan, store, resources, exhausted=baselines.start, train=train)
                score_best(plan, store, resources, baselines)
        except (SearchFailed, OSError) as error:  # OSError: of the folder, after the last trial
            if not (store.path / "run.json").exists():
                gone = f"{error}; the run has gone: somebody took {store.path} away"
                raise SearchFailed(gone) from error
            with suppress(RunError, OSError, SearchFailed):  # of a damaged folder, or no result
                print_results(plan, store)
            said = str(error).rstrip(".")
            hint = f"{said}; continue with --resume {uri_of(store.path)}"
            if plan.trainable is not None:
                hint += (
                    "; if you change its code, search again with the same flags, "
                    f"--warm-start {uri_of(store.path)} and --name NEW"
                )
            raise SearchFailed(hint) from error
    print(f"searched for {time.monotonic() - started:.0f} s, Ray's start included\n")
    print_results(plan, store)


if __name__ == "__main__":
    sys.exit(main())
