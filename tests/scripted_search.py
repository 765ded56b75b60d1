"""Searches of scripted trials, one at a time, with given learning rates."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pyarrow.compute as pc
import pytest
from search.plan.preflight import Resources

import spaces
from search.driver.driver import search
from search.plan.config import SearchConfig
from search.records.store import RunStore
from tests import scripted

ONE = Resources(cpus=1, gpus=0, concurrent=1)
RATES = {"good": 0.005, "better": 0.008, "diverges": 0.025, "crashes": 0.015}
PARAMETERS = {
    "optimizer.learning_rate": ("float", "1", "decides how the trial ends"),
    "eps_psd": ("float", "1", "decides nothing"),
}


def suggest(trial: spaces.Trial) -> dict[str, float]:
    """One parameter, over which the scripted trainer has every ending."""
    rate = trial.suggest_float("optimizer.learning_rate", 1e-3, 3e-2)
    return {"optimizer.learning_rate": rate}


def suggest_two(trial: spaces.Trial) -> dict[str, float]:
    """Two parameters, where every trial ends well."""
    rate = trial.suggest_float("optimizer.learning_rate", 1e-3, 1e-2)
    return {
        "optimizer.learning_rate": rate,
        "eps_psd": trial.suggest_float("eps_psd", 1e-6, 1e-2, log=True),
    }


def searching(out: Path, patch: pytest.MonkeyPatch) -> Callable[..., RunStore]:
    """For a fixture `run`: runs or resumes the search `run`, with the given rates as anchors."""

    def go(
        *rates: float,
        trials: int | None = None,
        scheduler: str = "none",
        sampler: str = "tpe",
        suggest: Any = suggest,
        train: Any = scripted.train,
        exhausted: Callable[[], object] = lambda: None,
    ) -> RunStore:
        anchors = tuple({"optimizer.learning_rate": rate} for rate in rates)
        fixed = spaces.get("smoke").fixed | {"epochs": 3, "evaluation.num_test_scenes": 4}
        space = spaces.Space("scripted", "for tests", suggest, anchors, fixed)
        patch.setitem(spaces.PRESETS, "scripted", space)
        plan = SearchConfig(
            "scripted",
            trials or len(rates),
            "run",
            out=str(out),
            scheduler=scheduler,
            sampler=sampler,
        )
        path = out / "run"
        if path.exists():
            store = RunStore.open(path)
        else:
            record = {"search": plan.as_dict(), "fixed": dict(fixed)}
            store = RunStore.create(path, parameters=PARAMETERS, plan=record)
        search(plan, store, ONE, exhausted=exhausted, train=train)
        return store

    return go


def told(store: RunStore) -> dict[str, optuna.trial.FrozenTrial]:
    """What the journal says, by trial_id."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(store.path / "optuna.log"))
    )
    trials = optuna.load_study(study_name="run", storage=storage).trials
    return {t.user_attrs["trial_id"]: t for t in trials}


def unfinished(store: RunStore, name: str, **changed: object) -> None:
    """What a driver leaves behind that is killed just before it writes the trial's last row."""
    store.write_config(name, store.read_config(name) | changed)
    for file in store.path.glob("trials/session-*.parquet"):
        rows = store.read_arrow("trials", file.stem)
        store.write_part("trials", file.stem, rows.filter(pc.field("trial_id") != name))
