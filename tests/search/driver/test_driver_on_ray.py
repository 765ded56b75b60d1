"""The driver on a real Ray: what depends on its workers, retries or storage."""

from functools import partial

import pytest

from search.cluster.checks import check_backends
from search.driver import driver
from search.driver.scores import Baselines
from search.plan.config import SearchConfig
from search.plan.errors import Refused, SearchFailed
from search.plan.resources import Cluster, Node, Resources
from search.records.schema import BASELINE_PART
from search.records.store import RunStore
from tests import broken_eigh, scripted
from tests.scripted_search import (
    ONE,
    RATES,
    Run,
    blocked_and_resumed,
    crashed_alike,
    scripted_search,
)


@pytest.fixture
def run_on_ray(connected, tmp_path, monkeypatch) -> Run:
    """Runs scripted trials on the shared Ray, one at a time, with the given rates as anchors."""
    return partial(scripted_search, tmp_path / "run", monkeypatch)


@pytest.mark.ray
@pytest.mark.slow
def test_no_trial_is_dropped_behind_a_stopped_one_that_takes_its_time_to_end(run_on_ray):
    """Ray gives a reused worker two seconds to end what it does, and drops the trial otherwise."""
    store = run_on_ray(0.008, 0.001, 0.009, scheduler="asha", train=scripted.train_and_linger)
    assert list(store.read("trials")["outcome"]) == ["completed", "stopped", "completed"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_trainer_that_no_worker_can_unpack_ends_the_search(run_on_ray, tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "LOST_RETRIES", 0)  # each takes seconds
    with pytest.raises(SearchFailed, match=r"(?s)the same failure 3 times.*cannot be unpacked"):
        run_on_ray(*[RATES["good"]] * 5, train=scripted.Unpackable())
    crashed_alike(RunStore.open(tmp_path / "run"))


@pytest.mark.ray
def test_the_classical_methods_are_scored_once_and_belong_to_no_trial(smoke):
    path, _ = smoke
    store = RunStore.open(path)
    rows = store.read("evaluations")
    rows = rows[rows["trial_id"].isna()]
    assert {"sml", "crb", "lmmse_music", "pinv_music"} <= set(rows["estimator"])
    assert not rows.duplicated(["estimator", "snr_db", "num_sources"]).any()
    part = path / "evaluations" / f"{BASELINE_PART}.parquet"
    before = part.stat().st_mtime_ns
    Baselines(SearchConfig(**store.plan["search"]), store, ONE).collect()  # nothing
    assert part.stat().st_mtime_ns == before


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_cannot_keep_its_checkpoint_ends_the_search(run_on_ray, tmp_path):
    """The trial goes on from the checkpoint before, on another worker."""
    store = blocked_and_resumed(run_on_ray, tmp_path / "run", "ray/t0001")
    trials = store.read("trials").set_index("trial_id")
    assert trials.loc["t0001", "checkpoint"].startswith("ray/t0001.")


@pytest.mark.ray
def test_a_worker_whose_eigensolver_is_wrong_is_refused(connected, monkeypatch):
    plan = SearchConfig(preset="eigengap", trials=1, name="refused")
    resources = Resources(cpus=1.0, gpus=0.0, concurrent=1)
    monkeypatch.setattr("search.cluster.checks.measure_backends", broken_eigh.measure_backends)
    with pytest.raises(Refused, match=r"auto at 36 elements: .*exceeds.*use another backend"):
        check_backends(plan, resources, Cluster((Node(2, 0),)))
