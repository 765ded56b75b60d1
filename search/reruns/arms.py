"""The two arms of an ablation: what each changes of a trial, and which trainings pair up."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from search.plan import Rerun
from spaces.blocks import ACTING
from trainer.cli import UsageError, parse_settings
from trainer.config import TrainConfig, require_choice

from .finalists import RerunRequest

if TYPE_CHECKING:
    from search.records import RunStore

TERMS = tuple(
    field.name
    for field in fields(TrainConfig)
    if is_dataclass(field.default_factory) and hasattr(field.default_factory(), "weight")
)
"""Groups of the configuration that are loss terms with a weight."""

Changes = Mapping[str, Any]


@dataclass(frozen=True)
class Pair:
    """One configuration and seed, in both arms."""

    without: Rerun
    with_: Rerun

    def arms(self) -> Iterator[tuple[str, Rerun]]:
        """Name and training of each."""
        yield "without", self.without
        yield "with", self.with_


def paired(asked: RerunRequest, args: argparse.Namespace) -> tuple[list[Pair], list[str]]:
    """Both arms of the best trials, and what to say of those left out.

    A trial that differs from a better one in nothing but what is examined would be the same
    evidence twice, and the next one takes its place.

    Raises:
        ConfigError: for what cannot be examined, or trained.
    """
    if args.term is not None:
        require_choice("--term", args.term, TERMS)
    if args.definition is not None:
        require_choice("--definition", args.definition, tuple(ACTING))
    pairs: list[Pair] = []
    notes: list[str] = []
    seen: dict[str, str] = {}
    same: list[str] = []
    for trial in asked.trials:
        if len(seen) == asked.top:
            break
        without, with_ = arms(asked, args, trial)
        own = asked.params(trial)
        base, other = (
            Rerun.of(trial, own, 0, **changes).config.digest for changes in (without, with_)
        )
        if base == other:
            same.append(trial)
            continue
        if base in seen:
            notes.append(f"{trial} is left out: without what is examined it is {seen[base]}")
            continue
        seen[base] = trial
        both = (asked.trainings(trial, dict(changes)) for changes in (without, with_))
        pairs += [Pair(a, b) for a, b in zip(*both, strict=True)]
    if same and len(seen) < min(asked.top, 2):
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
    if len(seen) < asked.top:
        notes.append(f"note: {asked.top} configurations were asked for, but there are {len(seen)}")
    return pairs, notes


def arms(asked: RerunRequest, args: argparse.Namespace, trial: str) -> tuple[Changes, Changes]:
    """What the two arms change of a trial."""
    own = asked.params(trial)
    chosen = {} if args.definition is None else as_defined(own, args.definition)
    if args.set is not None:
        changes = parse_settings(args.set)
        if "seed" in changes:
            raise UsageError(
                "--set changes anything but the seed, which the arms share, but got "
                f"seed={changes['seed']}. Ask for more seeds with --seeds."
            )
        return chosen, chosen | _read({**own, **chosen}, changes)
    if args.definition is not None:
        return switched_off(own, "eigengap"), chosen
    if own.get(f"{args.term}.weight", 0) > 0:
        return switched_off(own, args.term), {}
    return {}, of_best(asked.store, args.term)


def _read(params: Changes, changes: Changes) -> dict[str, Any]:
    """Those of the changes that a training reads: how the eigengap is defined and differentiated
    is of no account where it has no weight."""
    if ({**params, **changes}.get("eigengap.weight") or 0) > 0:
        return dict(changes)
    return {n: v for n, v in changes.items() if not n.startswith(("eigengap.", "spectral."))}


def switched_off(params: Changes, term: str) -> dict[str, Any]:
    """Without a term: its weight is 0, and what only it had is gone."""
    groups = (f"{term}.", "spectral.") if term == "eigengap" else (f"{term}.",)
    gone = {name: None for name in params if name.startswith(groups)}
    return gone | {f"{term}.weight": 0.0}


def as_defined(params: Changes, definition: str) -> dict[str, Any]:
    """With the eigengap of that definition, at the weight and margin where it acts."""
    return switched_off(params, "eigengap") | ACTING[definition]


def of_best(store: RunStore, term: str) -> dict[str, Any]:
    """The term as the run's best trial that has it.

    Raises:
        UsageError: if none of its completed trials has it.
    """
    from search.records import best_trials

    for trial in best_trials(store.read("trials")):
        params = store.read_config(trial)["params"]
        if params.get(f"{term}.weight", 0) > 0:
            return {k: v for k, v in params.items() if k.startswith(f"{term}.")}
    raise UsageError(
        f"--term needs a completed trial with the term, but none of {store.path} has {term}. "
        "Say how it is to be, with --definition."
    )


def arm_changes(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    """Arm and changes, each once, for the plan."""
    found = [(arm, t.changes or "as found") for pair in pairs for arm, t in pair.arms()]
    return sorted(set(found), reverse=True)
