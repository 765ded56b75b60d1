"""The two arms of an ablation: the changes of each to a trial, and the pairs of reruns."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from search.plan import Rerun
from search.records import RunStore, best_trials
from spaces.blocks import ACTING
from trainer.cli import UsageError, parse_settings
from trainer.config import TrainConfig, require_choice

from .request import RerunRequest

TERMS = tuple(
    field.name
    for field in fields(TrainConfig)
    if is_dataclass(field.default_factory) and hasattr(field.default_factory(), "weight")
)
"""Groups of the configuration that are loss terms with a weight."""

Changes = Mapping[str, Any]
Pair = dict[str, Rerun]
"""One configuration and seed in both arms, `without` and `with`."""


def paired(request: RerunRequest, args: argparse.Namespace) -> tuple[list[Pair], list[str]]:
    """Return both arms of the best trials, and notes about the trials left out.

    A trial that differs from a better one in nothing but the examined setting would count the same
    evidence twice; the next one takes its place.
    """
    if args.term is not None:
        require_choice("--term", args.term, TERMS)
    if args.definition is not None:
        require_choice("--definition", args.definition, tuple(ACTING))
    pairs: list[Pair] = []
    notes: list[str] = []
    same: list[str] = []
    seen: dict[str, str] = {}  # trials by the digest of their arm without
    for trial in request.trials:
        if len(seen) == request.top:
            break
        changes = arms(request, args, trial)
        without, with_ = (
            Rerun.of(trial, request.params(trial), 0, **arm).config.digest for arm in changes
        )
        if without == with_:
            same.append(trial)
        elif without in seen:
            notes.append(f"{trial} is left out: without what is examined it is {seen[without]}")
        else:
            seen[without] = trial
            both = (request.reruns(trial, arm) for arm in changes)
            pairs += [{"without": a, "with": b} for a, b in zip(*both, strict=True)]
    if same and len(seen) < min(request.top, 2):
        raise UsageError(
            f"the arms must differ, but those of {', '.join(same)} do not: nothing that is set "
            "changes their training. A backend, say, has nothing to do without the eigengap term: "
            "give both arms one with --definition, or set something else."
        )
    if same:
        notes.append(f"{', '.join(same)} left out: what is set does not change their training")
    if len(seen) < 2:
        raise UsageError(
            f"an ablation compares two configurations or more, but got {len(seen)}. Ask for more "
            "with --top, or extend the run with `python -m search.run --resume RUN --trials N`."
        )
    if len(seen) < request.top:
        notes.append(
            f"note: {request.top} configurations were asked for, but there are {len(seen)}"
        )
    return pairs, notes


def arms(request: RerunRequest, args: argparse.Namespace, trial: str) -> tuple[Changes, Changes]:
    """Return the changes of a trial in the arm without and in the arm with."""
    own = request.params(trial)
    chosen = {} if args.definition is None else as_defined(own, args.definition)
    if args.set is not None:
        changes = parse_settings(args.set)
        if "seed" in changes:
            raise UsageError(
                "--set changes anything but the seed, which the arms share, but got "
                f"seed={changes['seed']}. Ask for more seeds with --seeds."
            )
        if ({**own, **chosen, **changes}.get("eigengap.weight") or 0) <= 0:
            # without a weight, the eigengap's definition and derivative have no effect
            unread = ("eigengap.", "spectral.")
            changes = {n: v for n, v in changes.items() if not n.startswith(unread)}
        return chosen, chosen | changes
    if args.definition is not None:
        return switched_off(own, "eigengap"), chosen
    if own.get(f"{args.term}.weight", 0) > 0:
        return switched_off(own, args.term), {}
    return {}, term_of_best(request.store, args.term)


def switched_off(params: Changes, term: str) -> dict[str, Any]:
    """Return the changes that set a term's weight to 0 and remove its other fields."""
    groups = (f"{term}.", "spectral.") if term == "eigengap" else (f"{term}.",)
    removed = {name: None for name in params if name.startswith(groups)}
    return removed | {f"{term}.weight": 0.0}


def as_defined(params: Changes, definition: str) -> dict[str, Any]:
    """Return the changes to the eigengap of that definition, at the setting where it acts."""
    return switched_off(params, "eigengap") | ACTING[definition]


def term_of_best(store: RunStore, term: str) -> dict[str, Any]:
    """Return the settings of a term in the run's best trial that has it."""
    for trial in best_trials(store.read("trials")):
        params = store.read_config(trial)["params"]
        if params.get(f"{term}.weight", 0) > 0:
            return {k: v for k, v in params.items() if k.startswith(f"{term}.")}
    raise UsageError(
        f"--term needs a completed trial with the term, but none of {store.path} has {term}. "
        "Say how it is to be, with --definition."
    )
