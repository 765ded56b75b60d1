"""Beginning with what another run has found: its trials, told to the sampler before the first one.

They count for suggestions only: they are in no table of the new run and never its best. Values
compare only if space, budget, scenes and objectives are the same, so anything else is refused;
another version of the code or of a library is named and left to the reader.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from search.plan import Outcome, Refused, SearchConfig
from search.records import RunStore, read_json
from trainer.record import JOURNAL, read_journal

from .history import read_ended_trials
from .study import EndedTrial

WARM_FILE = "warm.json"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two searches, by `run.json`'s `space` and `fixed`; empty if nothing."""
    changed = []
    for part in ("space", "fixed"):
        before, after = dict(old.get(part) or {}), dict(new.get(part) or {})
        for name in sorted({*before, *after}):
            was, now = before.get(name, "absent"), after.get(name, "absent")
            if was != now:
                changed.append(f"{name} was {was}, is {now}")
    return changed


def warm_start(plan: SearchConfig, code: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The trials that a plan starts with, as the text of `warm.json`; and what to tell a person.

    Args:
        code: provenance of the new run.

    Raises:
        Refused: if their values do not compare with the plan's.
    """
    if plan.warm_start is None:
        return "", []
    store = RunStore.open(plan.warm_start)
    changed = differences(store.plan, plan.space_json)
    ours, theirs = list(plan.objectives), list(store.plan["search"].get("objectives", ()))
    if theirs and theirs != ours:
        changed.append(f"objectives were {','.join(theirs)}, are {','.join(ours)}")
    if not changed:
        changed = default_changes(store, plan)
    if changed:
        raise Refused(
            f"--warm-start needs a run of the same space, scenes and objective, but in "
            f"{store.path} {'; '.join(changed)}. Start without it."
        )
    past = read_ended_trials(store)
    notes = [
        f"warm start: {len(past)} trials of {store.path}",
        *version_changes(store.plan, code),
    ]
    ended = {one.trial_id for one in past}
    journal = {each["trial"]["trial_id"] for each in read_journal(store.path / JOURNAL)} - ended
    if journal:
        notes.append(f"  note: {len(journal)} more wait in its journal until it is resumed")
    seed = store.plan["search"].get("seed", 0)
    if seed != plan.seed:
        notes.append(f"  note: they trained with seed {seed}, these train with {plan.seed}")
    return json.dumps({"trials": [asdict(one) for one in past]}), notes


def default_changes(store: RunStore, plan: SearchConfig) -> list[str]:
    """What neither of two equal plans names and their trainings share: a field's own default, such
    as the seed of the evaluation's scenes, may be another in another version. Of a run that was
    resumed through such a change, the last training counts."""
    name = max(store.ended(), default=None)
    if name is None:
        return []
    theirs = store.read_config(name).get("params", {})
    searched = {"seed", *plan.space.parameters()}
    ours = {n: v for n, v in plan.template.to_params().items() if n in theirs.keys() - searched}
    return differences({"fixed": {n: theirs[n] for n in ours}}, {"fixed": ours})


def read_warm_trials(store: RunStore) -> tuple[EndedTrial, ...]:
    """The trials that a run was started with.

    Raises:
        CorruptRun: if they are lost.
    """
    if not store.plan.get("search", {}).get("warm_start"):
        return ()
    return parse_warm_trials(read_json(store.path / WARM_FILE))


def parse_warm_trials(warm: Mapping[str, Any]) -> tuple[EndedTrial, ...]:
    """The trials in what `warm.json` holds."""
    return tuple(
        EndedTrial(
            **one
            | {
                "outcome": Outcome(one["outcome"]),
                "values": {int(epoch): value for epoch, value in one["values"].items()},
            }
        )
        for one in warm["trials"]
    )


def version_changes(stored: Mapping[str, Any], code: Mapping[str, Any]) -> list[str]:
    old = stored.get("provenance", {})
    pairs = [
        ("commit", old.get("code", {}).get("sha"), code["code"]["sha"]),
        ("changes", old.get("code", {}).get("diff_sha256"), code["code"].get("diff_sha256")),
        *(
            (name, old.get("versions", {}).get(name), version)
            for name, version in code["versions"].items()
        ),
    ]
    return [f"  note: {n} was {was}, is {now}" for n, was, now in pairs if was != now]
