"""Searches of scripted trials (`tests.scripted`), and what several tests ask of them."""

from collections.abc import Callable
from functools import partial

import pytest

import spaces
from search.driver.driver import search
from search.plan.config import SearchConfig
from search.plan.errors import SearchFailed
from search.plan.resources import Resources
from search.records import session_tables
from search.records.store import RunStore
from tests import scripted

ONE = Resources(cpus=1, gpus=0, concurrent=1)
RATES = {"good": 0.005, "better": 0.008, "diverges": 0.025, "crashes": 0.015}
PARAMETERS = {
    "optimizer.learning_rate": ("float", "1", "decides how the trial ends"),
    "eps_psd": ("float", "1", "decides nothing"),
}
Run = Callable[..., RunStore]


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


def scripted_search(
    path,
    monkeypatch,
    *rates: float,
    trials: int | None = None,
    scheduler: str = "none",
    sampler: str = "tpe",
    guard: str = "on",
    log: tuple[str, ...] = (),
    suggest=suggest,
    train=scripted.train,
    exhausted=lambda: None,
) -> RunStore:
    """Begin or resume a search of scripted trials in `path`; return its store."""
    anchors = tuple({"optimizer.learning_rate": rate} for rate in rates)
    fixed = spaces.get("smoke").fixed | {"epochs": 3}
    space = spaces.Space("scripted", "for tests", suggest, anchors, fixed)
    monkeypatch.setitem(spaces.PRESETS, "scripted", space)
    plan = SearchConfig(
        "scripted",
        trials or len(rates),
        path.name,
        out=str(path.parent),
        scheduler=scheduler,
        sampler=sampler,
        guard=guard,
        log=log,
    )
    if path.exists():
        store = RunStore.open(path)
    else:
        record = {"search": plan.as_dict(), "fixed": dict(fixed)}
        store = RunStore.create(path, parameters=PARAMETERS, plan=record)
    search(plan, store, ONE, exhausted=exhausted, train=train)
    return store


def crashed_alike(store: RunStore) -> None:
    """Assert that three trials have crashed, of one cause."""
    trials = store.read("trials")
    assert list(trials["outcome"]) == ["crashed"] * 3
    assert trials["cause"].nunique() == 1


def blocked_and_resumed(run: Run, path, folder: str) -> RunStore:
    """Run three trials, of which the second loses a folder of the run; give it back and resume."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_tables, "FLUSH_SECONDS", 0.0)
        patch.setattr(session_tables, "FLUSH_SHARE", 1e9)
        return _blocked_and_resumed(run, path, folder)


def _blocked_and_resumed(run: Run, path, folder: str) -> RunStore:
    blocked = path / folder
    rates = (RATES["good"], scripted.BLOCKS, RATES["better"])
    with pytest.raises(SearchFailed, match=r"takes no files|could not keep its checkpoint"):
        run(*rates, train=partial(scripted.train_and_block, blocked))
    blocked.unlink()
    blocked.with_name(blocked.name + ".away").rename(blocked)
    assert list(RunStore.open(path).read("trials")["outcome"]) == ["completed"]

    store = run(*rates)
    assert list(store.read("trials")["outcome"]) == ["completed"] * 3
    assert list(store.read("epochs")["epoch"]) == [1, 2, 3] * 3
    return store
