"""Importances find what was planted, at one fidelity, and do not find what is not there."""

import numpy as np
import pandas as pd
import pytest

from search.records.schema import TABLES, columns
from search.report.analysis import importance
from search.report.analysis.importance import LEAST_TRIALS, importances, same_fidelity
from search.report.data.ranges import parameters
from search.report.data.runs import Run

SPACE = {
    "optimizer.learning_rate": "float [0.001, 0.03] log",
    "network.kind": "one of dictionary, factor",
    "eps_psd": "float [1e-06, 0.1] log",
    "spectral.backend@dictionary.values": "one of exact, svd",
    "spectral.backend@factor.values": "one of exact, gram, svd",
    "eigengap.weight": "float [0.01, 1.0] log",
}


def run_of(count, objective, seed=0, epochs=1):
    """A run of random draws; `objective(row, random)` gives the value at the first epoch."""
    random = np.random.default_rng(seed)
    rows, reports = [], []
    for number in range(count):
        row = {
            "params.optimizer.learning_rate": 10 ** random.uniform(-3, np.log10(0.03)),
            "params.network.kind": random.choice(["dictionary", "factor"]),
            "params.eps_psd": 10 ** random.uniform(-6, -1),
            "params.eigengap.weight": 10 ** random.uniform(-2, 0) * (random.random() < 0.6),
        }
        name = f"t{number:03d}"
        value = objective(row, random)
        rows.append(row | {"trial_id": name, "number": number, "outcome": "completed"})
        last = epochs if number % 3 == 0 else 1
        reports += [
            {"trial_id": name, "epoch": e, "objective": value if e == 1 else -100.0 * number}
            for e in range(1, last + 1)
        ]
    tables = {t: pd.DataFrame(columns=[c.name for c in columns(t, {})]) for t in TABLES}
    tables |= {"trials": pd.DataFrame(rows), "epochs": pd.DataFrame(reports)}
    return Run(path=None, plan={"space": SPACE}, tables=tables)


def by_rate(row, random):
    return (np.log10(row["params.optimizer.learning_rate"]) + 2) ** 2 + random.normal(0, 0.02)


def chance(row, random):
    return random.normal()


def test_a_planted_effect_comes_first_and_passes_chance():
    found = importances(run_of(60, by_rate)).shares
    assert found["name"].iloc[0] == "optimizer.learning_rate"
    assert found["beyond_chance"].iloc[0]
    assert found["share"].sum() == pytest.approx(1)
    assert (found["low"] <= found["share"]).all()
    assert (found["share"] <= found["high"]).all()


@pytest.fixture
def few_shuffles(monkeypatch):
    """A fifth of the shuffles: of 80, four and a bit make the quantile."""
    monkeypatch.setattr(importance, "HALVES", 4)
    monkeypatch.setattr(importance, "SHUFFLES", 80)


@pytest.mark.usefixtures("few_shuffles")
def test_without_effect_few_parameters_pass_chance():
    """6 % each: of 5 parameters in 6 runs of noise 1.9 pass; 7 or more would have p = .002."""
    passed = [
        int(importances(run_of(24, chance, s)).shares["beyond_chance"].sum()) for s in range(6)
    ]
    assert sum(passed) < 7


@pytest.mark.usefixtures("few_shuffles")
def test_only_values_of_one_epoch_are_compared():
    """Two thirds end after epoch 1; what the others reached later must not matter."""
    short, long = (importances(run_of(30, by_rate, epochs=e)) for e in (1, 4))
    assert short.epoch == long.epoch == 1
    pd.testing.assert_frame_equal(short.shares, long.shares)


def test_the_epoch_is_the_latest_that_half_of_the_trials_reached():
    run = run_of(30, by_rate, epochs=4)
    assert same_fidelity(run)[0] == 1
    reports = run.tables["epochs"]
    more = [{"trial_id": f"t{i:03d}", "epoch": 2, "objective": 0.5} for i in range(1, 12, 3)]
    more += [{"trial_id": f"t{i:03d}", "epoch": 2, "objective": 0.5} for i in range(2, 6, 3)]
    run.tables["epochs"] = pd.concat([reports, pd.DataFrame(more)])
    epoch, values = same_fidelity(run)
    assert (epoch, len(values)) == (2, 16)


def test_too_few_trials_are_said_not_ranked():
    said = importances(run_of(LEAST_TRIALS - 1, by_rate))
    assert f"they need {LEAST_TRIALS} ended trials" in said
    assert "at most 9" in said


def test_what_was_searched_is_read_back_from_the_plan():
    found = {p.name: p for p in parameters(run_of(20, by_rate))}
    rate = found["optimizer.learning_rate"]
    assert (rate.low, rate.high, rate.log) == (0.001, 0.03, True)
    values = rate.values.to_numpy(dtype=float)
    np.testing.assert_allclose(rate.places(), np.log10(values / 0.001) / np.log10(30), rtol=1e-12)
    assert found["network.kind"].choices == ("dictionary", "factor")
    assert set(found["eigengap.term"].values) == {"on", "off"}
    weight = found["eigengap.weight"]
    assert (weight.values.isna() == (found["eigengap.term"].values == "off")).all()
