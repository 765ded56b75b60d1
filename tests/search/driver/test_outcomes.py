"""Every outcome, injected once into one search on a real Ray: Optuna, Parquet, the end.

Only the trainer is scripted; what hangs hangs, what dies is killed, what is too large for memory
is asked of the allocator.
"""

import optuna
import pandas as pd
import pytest

import spaces
from search.driver import driver
from search.plan.config import SearchConfig
from search.plan.errors import SearchFailed
from search.plan.outcome import RULES, Outcome
from search.records.best import best_trial
from search.records.store import RunStore
from search.run import run_locked
from tests import scripted

pytestmark = pytest.mark.ray

INJECTED = {
    0.008: Outcome.COMPLETED,
    0.002: Outcome.STOPPED,
    0.015: Outcome.CRASHED,  # from here on each is better than those before, and passes its rung
    0.025: Outcome.DIVERGED,
    0.026: Outcome.OUT_OF_MEMORY,
    0.027: Outcome.LOST,
    0.028: Outcome.TIMED_OUT,
    0.030: Outcome.INVALID,
}
TIMEOUT_S = 12.0
RETRIES = 1


def suggest(trial: spaces.Trial) -> dict[str, float]:
    """A learning rate, of which the highest comes with a loading that no training takes."""
    rate = trial.suggest_float("optimizer.learning_rate", 1e-3, 3e-2)
    return {"optimizer.learning_rate": rate, "eps_psd": -1.0 if rate == 0.03 else 1e-4}


@pytest.fixture(scope="module")
def ended(tmp_path_factory, address):
    """What ended the one search, and its store."""
    anchors = tuple({"optimizer.learning_rate": rate} for rate in INJECTED)
    fixed = spaces.get("smoke").fixed | {"epochs": 3}
    space = spaces.Space("outcomes", "for tests", suggest, anchors, fixed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(spaces.PRESETS, "outcomes", space)
        patch.setattr(driver, "LOST_RETRIES", RETRIES)  # each takes seconds
        plan = SearchConfig(
            "outcomes",
            trials=len(INJECTED) + 2,
            name="run",
            out=str(tmp_path_factory.mktemp("outcomes")),
            max_concurrent=1,
            trial_timeout_s=TIMEOUT_S,
            address=address,
        )
        kinds = {"optimizer.learning_rate": ("float", "1", ""), "eps_psd": ("float", "1", "")}
        record = {"search": plan.as_dict(), "fixed": dict(fixed)}
        store = RunStore.create(f"{plan.out}/run", parameters=kinds, plan=record)
        with pytest.raises(SearchFailed) as failed:
            run_locked(plan, store, checked=False, train=scripted.train)
    return str(failed.value), store


@pytest.fixture(scope="module")
def trials(ended):
    return ended[1].read("trials").set_index("params.optimizer.learning_rate")


@pytest.fixture(scope="module")
def told(ended):
    """Return the states in Optuna's storage, by learning rate."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(ended[1].path / "optuna.log"))
    )
    study = optuna.load_study(study_name="run", storage=storage)
    return {t.params["optimizer.learning_rate"]: t for t in study.trials}


def test_an_invalid_configuration_ends_the_search(ended, trials):
    assert f"--resume {ended[1].path}" in ended[0]
    assert len(trials) == len(INJECTED)  # two more were planned


@pytest.mark.parametrize(("rate", "outcome"), INJECTED.items())
def test_parquet_and_optuna_have_the_outcome(rate, outcome, trials, told):
    rule = RULES[outcome]
    assert trials.loc[rate, "outcome"] == outcome.value
    assert told[rate].state.name == rule.optuna_state
    assert told[rate].constraints == {"aborted": float(rule.constraint)}
    assert told[rate].user_attrs["outcome"] == outcome.value
    good = outcome in (Outcome.COMPLETED, Outcome.STOPPED)
    assert pd.notna(trials.loc[rate, "objective"]) == good
    assert pd.isna(trials.loc[rate, "cause"]) == (good or outcome is Outcome.LOST)


def test_every_bad_ending_has_its_evidence(ended):
    store = ended[1]
    rates = store.read("trials").set_index("trial_id")["params.optimizer.learning_rate"]
    rows = store.read("failures").set_index("trial_id")
    found = {INJECTED[rates[name]]: rows.loc[name] for name in rows.index}
    bad = set(INJECTED.values()) - {Outcome.COMPLETED, Outcome.STOPPED}
    assert set(found) == bad
    assert found[Outcome.DIVERGED]["term"] == "eigengap"
    assert found[Outcome.OUT_OF_MEMORY]["peak_bytes"] > 2**20
    assert "a bug, met at rate 0.015" in found[Outcome.CRASHED]["traceback"]
    assert found[Outcome.CRASHED]["cause"].startswith("RuntimeError at scripted.py:")
    assert found[Outcome.LOST]["attempt"] == 1 + RETRIES
    assert found[Outcome.TIMED_OUT]["attempt"] == 1
    assert found[Outcome.TIMED_OUT]["cause"] == f"no report for {TIMEOUT_S:g} s"
    assert "eps_psd" in found[Outcome.INVALID]["message"]


def test_an_ending_takes_no_epoch_with_it(ended):
    epochs = ended[1].read("epochs").groupby("trial_id")["epoch"].apply(list)
    outcomes = ended[1].read("trials").set_index("trial_id")["outcome"]
    for name, outcome in outcomes.items():
        if outcome == Outcome.COMPLETED:
            assert epochs[name] == [1, 2, 3]
        elif outcome != Outcome.INVALID:
            assert epochs[name] == [1]  # all the others end in the second


def test_only_the_completed_trial_can_be_best(ended, trials):
    assert best_trial(ended[1].read("trials")) == trials.loc[0.008, "trial_id"]
