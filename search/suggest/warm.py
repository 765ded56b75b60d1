"""Warm starts: the sampler is told another run's trials before the first one is drawn.

They count for suggestions only: they are in no table of the new run and never its best. Values
compare only if space, budget, scenes and objectives are the same, so anything else is refused;
another version of the code or of a library is named and left to the reader.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from search.plan import Outcome, Refused, SearchConfig
from search.records import RunStore, read_json
from trainer.record import JOURNAL, read_journal

from .history import read_ended_trials
from .study import EndedTrial

WARM_FILE = "warm.json"


def warm_start(
    plan: SearchConfig, code: Mapping[str, Any]
) -> tuple[tuple[EndedTrial, ...], list[str]]:
    """Return the trials that a new run, of provenance `code`, starts with, and notes to print;
    raise Refused if their values do not compare with the plan's."""
    if plan.warm_start is None:
        return (), []
    store = RunStore.open(plan.warm_start)
    theirs = store.plan["search"]
    changed = space_changes(store.plan, plan.space_json)
    if tuple(theirs["objectives"]) != plan.objectives:
        were, are = ",".join(theirs["objectives"]), ",".join(plan.objectives)
        changed.append(f"objectives were {were}, are {are}")
    if changed := changed or default_changes(store, plan):
        raise Refused(
            f"--warm-start needs a run of the same space, scenes and objective, but in "
            f"{store.path} {'; '.join(changed)}. Start without it."
        )
    trials = read_ended_trials(store)
    notes = [f"warm start: {len(trials)} trials of {store.path}"]
    notes += version_changes(store.plan, code)
    ended = {one.trial_id for one in trials}
    journal = {each["trial"]["trial_id"] for each in read_journal(store.path / JOURNAL)} - ended
    if journal:
        notes.append(f"  note: {len(journal)} more wait in its journal until it is resumed")
    if (seed := theirs["seed"]) != plan.seed:
        notes.append(f"  note: they trained with seed {seed}, these train with {plan.seed}")
    return tuple(trials), notes


def warm_file(plan: SearchConfig, trials: Iterable[EndedTrial]) -> dict[str, str]:
    """Return `warm.json` with its text, as a new run keeps it; nothing without a warm start."""
    if plan.warm_start is None:
        return {}
    return {WARM_FILE: json.dumps({"trials": [asdict(one) for one in trials]})}


def read_warm_trials(store: RunStore) -> tuple[EndedTrial, ...]:
    """Return the trials that a run was started with; raise CorruptRun if they are lost."""
    if not store.plan.get("search", {}).get("warm_start"):
        return ()
    trials = []
    for one in read_json(store.path / WARM_FILE)["trials"]:
        values = {int(epoch): value for epoch, value in one["values"].items()}
        trials.append(EndedTrial(**one | {"outcome": Outcome(one["outcome"]), "values": values}))
    return tuple(trials)


def space_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the differences between two searches' `space` and `fixed`, as in `run.json`."""
    changed = []
    for part in ("space", "fixed"):
        before, after = old.get(part) or {}, new.get(part) or {}
        for name in sorted({*before, *after}):
            was, now = before.get(name, "absent"), after.get(name, "absent")
            if was != now:
                changed.append(f"{name} was {was}, is {now}")
    return changed


def default_changes(store: RunStore, plan: SearchConfig) -> list[str]:
    """Return the differences in settings that neither of two plans names and their trials share.

    A field's own default, such as the seed of the evaluation's scenes, may differ between
    versions. Of a run that was resumed through such a change, the last training counts.
    """
    name = max(store.ended(), default=None)
    if name is None:
        return []
    theirs = store.read_config(name).get("params", {})
    aside = {"seed", *plan.space.parameters()}
    ours = {n: v for n, v in plan.config({}).to_params().items() if n in theirs.keys() - aside}
    return space_changes({"fixed": {n: theirs[n] for n in ours}}, {"fixed": ours})


def version_changes(stored: Mapping[str, Any], code: Mapping[str, Any]) -> list[str]:
    """Return a note for each difference in commit and versions between the provenance in a run's
    `run.json` and that of this process, `code`."""

    def versions(provenance: Mapping[str, Any]) -> dict[str, Any]:
        code = provenance.get("code", {})
        commit = {"commit": code.get("sha"), "changes": code.get("diff_sha256")}
        return commit | provenance.get("versions", {})

    was, now = versions(stored.get("provenance", {})), versions(code)
    return [f"  note: {n} was {was.get(n)}, is {v}" for n, v in now.items() if was.get(n) != v]
