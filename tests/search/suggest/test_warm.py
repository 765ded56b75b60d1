"""Warm starts: comparable trials are told to the sampler, others are refused and named."""

import json
from dataclasses import replace

import pytest

import spaces
from search.plan.config import SearchConfig
from search.plan.errors import CorruptRun, Refused
from search.plan.outcome import Outcome
from search.records.store import RunStore
from search.run import check_space
from search.suggest.history import History, read_ended_trials
from search.suggest.warm import read_warm_trials, space_changes, warm_file, warm_start
from tests.stored import ended_trial
from trainer.cli import UsageError
from trainer.record import JOURNAL

CODE = {"code": {"sha": "new"}, "versions": {"torch": "2.13"}}
DRAWN = {"optimizer.learning_rate": 5e-3, "eigengap.term": "off"}


@pytest.fixture
def old(tmp_path):
    """A finished run of the smoke preset: one completed and one diverged trial."""
    plan = SearchConfig("smoke", 2, "old", out=str(tmp_path), seed=3)
    store = RunStore.create(
        tmp_path / "old",
        parameters={"optimizer.learning_rate": ("float", "1", "")},
        plan={
            "search": plan.as_dict(),
            **plan.space_json,
            "provenance": {"code": {"sha": "old"}, "versions": {"torch": "2.12"}},
        },
    )
    for number, outcome in enumerate((Outcome.COMPLETED, Outcome.DIVERGED)):
        name = f"t{number:04d}"
        store.write_config(name, {"trial_id": name, "number": number, "sampler": DRAWN})
        epochs = [{"trial_id": name, "epoch": e, "objective": 0.5 / e} for e in (1, 2)]
        row = {"trial_id": name, "number": number, "outcome": outcome.value}
        ended_trial(store, row, epochs=epochs)
    return store


def plan(old, **more):
    given = {"preset": "smoke", "trials": 4, "name": "new", "warm_start": str(old.path)}
    return SearchConfig(**given | more)


def test_trials_of_the_old_run_are_told_as_they_ended_and_are_none_of_the_new_run(old, tmp_path):
    trials, notes = warm_start(plan(old), CODE)
    new = RunStore.create(
        tmp_path / "new",
        parameters={},
        plan={"search": plan(old).as_dict()},
        files=warm_file(plan(old), trials),
    )
    warm = read_warm_trials(new)
    assert list(warm) == read_ended_trials(old)
    assert [trial.outcome for trial in warm] == [Outcome.COMPLETED, Outcome.DIVERGED]
    assert warm[0].values == {1: 0.5, 2: 0.25}
    history = History(warm=warm)
    assert history.trials_for_sampler(plan(old)) == list(warm)
    assert not history.ended
    assert notes[0] == f"warm start: 2 trials of {old.path}"


def test_other_versions_and_seeds_are_named(old):
    notes = "\n".join(warm_start(plan(old), CODE)[1])
    assert "commit was old, is new" in notes
    assert "torch was 2.12, is 2.13" in notes
    assert "they trained with seed 3, these train with 0" in notes


def test_another_space_or_objective_is_refused_and_named(old, monkeypatch):
    with pytest.raises(Refused, match=r"objectives were capped_error, are capped_error,cost"):
        warm_start(plan(old, objectives=("capped_error", "cost")), CODE)
    smoke = spaces.get("smoke")
    scenes = dict(smoke.fixed) | {"evaluation.num_scenes": 7}
    monkeypatch.setitem(spaces.PRESETS, "smoke", replace(smoke, fixed=scenes))
    with pytest.raises(Refused, match=r"evaluation.num_scenes was 16, is 7"):
        warm_start(plan(old), CODE)
    monkeypatch.setitem(
        spaces.PRESETS, "smoke", replace(smoke, suggest=spaces.get("local").suggest)
    )
    with pytest.raises(Refused, match=r"network.kind was absent"):
        warm_start(plan(old), CODE)


def test_a_default_that_no_plan_names_is_compared_too(old):
    """The seed of the evaluation's scenes is fixed by no preset."""
    recorded = plan(old).template.to_params() | {"optimizer.learning_rate": 5e-3}
    old.write_config("t0001", old.read_config("t0001") | {"params": recorded})
    assert warm_start(plan(old), CODE)[0]
    recorded["evaluation.seed"] += 1
    old.write_config("t0001", old.read_config("t0001") | {"params": recorded})
    with pytest.raises(Refused, match=r"evaluation.seed was \d+, is \d+\. Start without it"):
        warm_start(plan(old), CODE)
    with pytest.raises(UsageError, match=r"evaluation.seed was .*--accept-space-change"):
        check_space(plan(old), old, accept=False)
    check_space(plan(old), old, accept=True)


def test_equal_searches_have_no_space_changes(old):
    assert space_changes(old.plan, plan(old).space_json) == []


def test_a_cold_start_says_nothing(tmp_path):
    assert warm_start(SearchConfig("smoke", 4, "new"), CODE) == ((), [])
    cold = {"search": SearchConfig("smoke", 4, "new").as_dict()}
    assert read_warm_trials(RunStore.create(tmp_path / "new", parameters={}, plan=cold)) == ()


def test_a_warm_start_that_was_lost_is_no_cold_one(old, tmp_path):
    lost = {"search": plan(old).as_dict()}
    with pytest.raises(CorruptRun, match=r"warm\.json"):
        read_warm_trials(RunStore.create(tmp_path / "new", parameters={}, plan=lost))


def test_trials_in_the_journal_are_counted(old):
    ended = {"ending": {}, "trial": {"trial_id": "t0007"}}
    (old.path / JOURNAL).write_text(json.dumps(ended) + "\n")
    assert "1 more wait in its journal" in "\n".join(warm_start(plan(old), CODE)[1])
