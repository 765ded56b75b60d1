"""The driver tells Optuna, Parquet and the tally of every ending.

Searches here run on a stand-in for Ray (`tests.local_ray`); `test_driver_on_ray` has what depends
on Ray's workers, retries or storage, and `test_outcomes` every outcome.
"""

import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
import torch

from search.cluster import trainable
from search.driver import callback, driver
from search.driver.prometheus import PrometheusMetrics, gauges
from search.driver.recorder import Recorder
from search.plan.errors import CorruptRun, SearchFailed
from search.plan.outcome import Outcome
from search.records import session_tables
from search.records.best import best_trial
from search.records.checkpoints import folders
from search.records.schema import KEYS
from search.records.store import RunStore
from search.suggest.samplers import STARTUP_TRIALS
from search.suggest.suggester import Suggester
from tests import scripted
from tests.local_ray import LocalTuner
from tests.scripted_search import (
    RATES,
    Run,
    blocked_and_resumed,
    crashed_alike,
    scripted_search,
    suggest_two,
)
from tests.stored import unfinished
from trainer.record import read_trial
from trainer.training.checkpoint import TrainState

TIMING = ("started", "ended", "seconds", "gpu_seconds", "checkpoint")


@pytest.fixture
def run(local_ray, tmp_path, monkeypatch) -> Run:
    """Runs them in this process."""
    return partial(scripted_search, tmp_path / "run", monkeypatch)


def told(store: RunStore) -> dict[str, optuna.trial.FrozenTrial]:
    """Return the states in Optuna's journal, by trial_id."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(store.path / "optuna.log"))
    )
    trials = optuna.load_study(study_name="run", storage=storage).trials
    return {t.user_attrs["trial_id"]: t for t in trials}


def test_every_ending_is_told_kept_and_told_apart(run):
    store = run(RATES["good"], RATES["diverges"], RATES["crashes"], RATES["better"])
    trials = store.read("trials").set_index("trial_id")
    assert list(trials["outcome"]) == ["completed", "diverged", "crashed", "completed"]

    states = {name: t.state.name for name, t in told(store).items()}
    assert states == {"t0000": "COMPLETE", "t0001": "PRUNED", "t0002": "FAIL", "t0003": "COMPLETE"}
    assert told(store)["t0001"].constraints == {"aborted": 1.0}
    assert told(store)["t0001"].user_attrs["cause"] == "nonfinite_gradient"
    assert told(store)["t0003"].value == pytest.approx(trials.loc["t0003", "objective"])

    assert best_trial(store.read("trials")) == "t0003"
    assert pd.isna(trials.loc["t0001", "objective"])
    epochs = pd.read_parquet(store.path / "epochs")
    assert epochs.groupby("trial_id")["epoch"].apply(list).to_dict() == {
        "t0000": [1, 2, 3],
        "t0001": [1],
        "t0002": [1],
        "t0003": [1, 2, 3],
    }
    assert {p.stem for p in store.path.glob("*/*.parquet")} == {"empty", "session-0001"}


def test_an_event_is_a_line_and_so_is_the_progress_after_every_ending(run, capsys):
    run(RATES["better"], 0.001, RATES["diverges"], scheduler="asha")
    said = capsys.readouterr().out.splitlines()
    events = [line.split()[1:3] for line in said if line[2:3] == ":"]
    assert events[:3] == [["t0000", "started"], ["t0000", "improved"], ["t0000", "improved"]]
    endings = [event for event in events if event[1] not in ("started", "improved")]
    assert endings == [["t0000", "completed"], ["t0001", "stopped"], ["t0002", "diverged"]]
    assert any("nonfinite_gradient in `eigengap`, step 7" in line for line in said)
    assert said[-1].startswith("3/3 trials |####################|")
    assert said[-1].endswith("1 completed, 1 diverged, 1 stopped")


def test_the_metrics_say_what_the_tables_say_also_after_a_resume(run, monkeypatch):
    recorders: list[Recorder] = []

    def watched(recorder: Recorder) -> PrometheusMetrics:
        recorders.append(recorder)
        return PrometheusMetrics(recorder)

    monkeypatch.setattr(driver, "PrometheusMetrics", watched)
    for rates in ([RATES["good"], RATES["diverges"]], [*RATES.values()]):
        store = run(*rates)
        found = {(name, *tags.values()): value for name, value, tags in gauges(recorders[-1])}
        trials = store.read("trials")
        for outcome, count in trials["outcome"].value_counts().items():
            assert found["ris_trials", outcome] == count
        assert sum(v for (name, *_), v in found.items() if name == "ris_trials") == len(trials)
        assert found["ris_best_objective",] == trials["objective"].min()
        (aborts,) = (v for (name, *_), v in found.items() if name == "ris_nan_aborts")
        assert aborts == (trials["outcome"] == "diverged").sum()
        assert "ris_smallest_eigengap" not in {name for name, *_ in found}  # nothing runs
    assert [recorder.epochs for recorder in recorders] == [3 + 1, 1 + 1]


def test_the_best_trial_of_the_metrics_is_that_of_the_tables_also_on_a_tie(run, monkeypatch):
    """Trials of equal objectives may end in any order; the one with the lowest number is best."""
    recorders: list[Recorder] = []

    def backwards(self, exhausted):
        yield from reversed(list(suggest_all(self, exhausted)))

    def watched(recorder: Recorder) -> PrometheusMetrics:
        recorders.append(recorder)
        return PrometheusMetrics(recorder)

    suggest_all = Suggester.trials
    monkeypatch.setattr(Suggester, "trials", backwards)
    monkeypatch.setattr(driver, "PrometheusMetrics", watched)
    trials = run(*[RATES["good"]] * 3).read("trials")
    assert trials["objective"].nunique() == 1
    best, _ = recorders[-1].best
    assert best["trial_id"] == best_trial(trials) == "t0000"


@pytest.mark.parametrize(("guard", "best"), [("on", "t0001"), ("off", "t0000")])
def test_the_guard_passes_over_a_trial_that_is_above_the_reference(run, monkeypatch, guard, best):
    """It does so in the tables and in the metrics, also when another driver goes on."""
    recorders: list[Recorder] = []
    original = driver.Recorder
    monkeypatch.setattr(
        driver, "Recorder", lambda *args: recorders.append(original(*args)) or recorders[-1]
    )
    for rates in ([RATES["better"]], [RATES["better"], RATES["good"]]):
        trials = run(*rates, guard=guard, train=scripted.train_above).read("trials")
    marked = [pd.NA, pd.NA] if guard == "off" else [3, 0]
    assert trials["guard_above"].astype("Int64").tolist() == marked
    assert recorders[-1].best[0]["trial_id"] == best_trial(trials) == best


def test_a_trial_whose_worker_is_lost_is_started_three_times_more(run, monkeypatch):
    given: list[int] = []

    class Noting(LocalTuner):
        def __init__(self, trainable, *, tune_config, run_config):
            given.append(run_config.failure_config.max_failures)
            super().__init__(trainable, tune_config=tune_config, run_config=run_config)

    monkeypatch.setattr(driver.tune, "Tuner", Noting)
    run(RATES["good"])
    assert given == [3]


def test_a_divergence_leaves_its_cause_and_a_replay_command(run):
    store = run(RATES["diverges"], RATES["good"])
    failure = store.read("failures").set_index("trial_id").loc["t0000"]
    assert failure["cause"] == "nonfinite_gradient"
    assert (failure["term"], failure["tensor"]) == ("eigengap", "trunk.0.weight")
    assert (failure["step"], failure["epoch"]) == (7, 2)
    assert failure["min_eigengap"] == 1e-9
    assert failure["replay"] == f"python -m trainer replay {store.path} t0000"
    record = read_trial(store.path, "t0000")
    assert record["failure"]["cause"] == "nonfinite_gradient"
    assert record["params"]["seed"] == 0


def test_a_trial_below_the_others_is_stopped_at_a_rung_and_pruned(run):
    store = run(0.008, 0.0075, 0.007, 0.001, scheduler="asha")
    last = store.read("trials").set_index("trial_id").loc["t0003"]
    assert last["outcome"] == Outcome.STOPPED
    assert last["rung"] == last["epochs"] < 3
    frozen = told(store)["t0003"]
    assert frozen.state.name == "PRUNED"
    assert frozen.constraints == {"aborted": 0.0}


def test_a_bug_that_repeats_itself_ends_the_search_with_its_traceback(run, tmp_path):
    with pytest.raises(SearchFailed, match="a bug, met at rate"):
        run(0.015, 0.016, 0.017, 0.018, 0.019)
    store = RunStore.open(tmp_path / "run")
    assert list(store.read("trials")["outcome"]) == ["crashed"] * 3


@pytest.mark.parametrize("left", ["nothing", "its last checkpoint"])
def test_a_resumed_search_keeps_what_has_ended_and_goes_on_with_the_rest(run, left):
    store = run(RATES["good"], RATES["better"], trials=2)
    before = store.read("trials")
    unfinished(store, "t0001")
    if left == "nothing":
        shutil.rmtree(store.path / "ray" / "t0001")
    (store.path / "optuna.log").write_text('{"torn": ')

    after = run(RATES["good"], RATES["better"], trials=3).read("trials")
    assert list(after["trial_id"]) == ["t0000", "t0001", "t0002"]
    assert list(after["outcome"][:2]) == ["completed", "completed"]
    assert after.iloc[0].equals(before.iloc[0])
    restarted, first = after.iloc[1], before.iloc[1]
    assert restarted["params.optimizer.learning_rate"] == first["params.optimizer.learning_rate"]
    assert restarted["objective"] == first["objective"]
    assert (restarted["started"] == first["started"]) == (left != "nothing")
    assert restarted["checkpoint"].startswith("ray/t0001" + "." * (left != "nothing"))
    epochs = store.read("epochs")
    assert list(epochs[epochs["trial_id"] == "t0001"]["epoch"]) == [1, 2, 3]


class Killed(BaseException):
    """The driver dies here."""


def killing(fatal_rate: float, trained: list[float], config, *, resume=None):
    """Train, note it, and kill the driver in the second epoch of one rate."""
    rate = config.optimizer.learning_rate
    trained.append(rate)
    for report in scripted.train(config, resume=resume):
        if report.epoch == 2 and rate == fatal_rate:
            raise Killed
        yield report


@pytest.mark.parametrize("flush_seconds", [0.0, 1e9])
def test_the_last_trials_of_a_killed_driver_are_recorded_once_and_not_trained_again(
    run, monkeypatch, tmp_path, flush_seconds
):
    """The last flush had all of it or nothing; a divergence leaves no checkpoint of its end, so it
    is met again."""
    monkeypatch.setattr(session_tables, "FLUSH_SECONDS", flush_seconds)
    monkeypatch.setattr(session_tables, "FLUSH_SHARE", 1e9)
    rates = (RATES["good"], 0.006, RATES["diverges"], RATES["better"])
    with monkeypatch.context() as patch:
        patch.setattr(callback.SearchCallback, "close", lambda self: None)
        with pytest.raises(Killed):
            run(*rates, train=partial(killing, RATES["better"], []))
    killed = RunStore.open(tmp_path / "run")
    assert len(killed.ended()) == (3 if flush_seconds == 0.0 else 0)
    trained: list[float] = []
    run(*rates, train=partial(killing, 0.0, trained))
    assert trained == ([] if flush_seconds == 0.0 else [RATES["diverges"]]) + [RATES["better"]]

    shutil.move(tmp_path / "run", tmp_path / "resumed")
    resumed = RunStore.open(tmp_path / "resumed")
    same_but_for_timing(resumed, run(*rates))
    epochs = resumed.read("epochs").query("epoch != 2")  # a rung and the last one
    by_scene = np.stack(epochs["objective_scenes"])
    np.testing.assert_allclose(by_scene[:, 1], epochs["objective"], atol=1e-4)  # rounded twice
    np.testing.assert_allclose(by_scene - by_scene[:, 1:2], [[-0.1, 0, 0.1]] * 7, atol=2e-4)


def same_but_for_timing(*stores: RunStore) -> None:
    """Assert that two runs have the same rows and told Optuna the same."""
    for table in ("trials", "epochs", "failures"):
        rows = [
            store.read(table)
            .drop(columns=[*TIMING, "traceback", "replay"], errors="ignore")
            .sort_values(list(KEYS[table]))
            .reset_index(drop=True)
            for store in stores
        ]
        pd.testing.assert_frame_equal(*rows)
    ends = [{name: trial.state for name, trial in told(store).items()} for store in stores]
    assert ends[0] == ends[1]


def test_a_damaged_session_is_made_again_from_checkpoints_as_its_error_says(run, tmp_path):
    rates = (RATES["good"], RATES["diverges"], RATES["better"])
    store = run(*rates)
    shutil.copytree(store.path, tmp_path / "whole")
    part = store.path / "epochs" / "session-0001.parquet"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CorruptRun, match=r"--resume") as caught:
        RunStore.open(store.path)
    for named in re.findall(r"/\S+\.parquet", str(caught.value)):
        Path(named).unlink()
    trained: list[float] = []
    run(*rates, train=partial(killing, 0.0, trained))
    assert trained == [RATES["diverges"]]
    same_but_for_timing(store, RunStore.open(tmp_path / "whole"))


def test_a_trial_that_ray_drops_goes_on_in_another_round_but_not_for_ever(run, monkeypatch):
    """Ray counts it as failed without telling anybody."""
    fit = LocalTuner.fit
    rounds: list[LocalTuner] = []

    def dropping(tuner: LocalTuner) -> None:
        rounds.append(tuner)
        if len(rounds) == 1:
            tuner._searcher.suggest("")
        if len(rounds) < 3:
            fit(tuner)

    monkeypatch.setattr(LocalTuner, "fit", dropping)
    store = run(RATES["good"], RATES["better"])
    assert len(rounds) == 2
    assert sorted(store.read("trials")["trial_id"]) == ["t0000", "t0001"]
    with pytest.raises(SearchFailed, match="gave up with 1 trials not ended"):
        run(RATES["good"], RATES["better"], trials=3)


def test_a_checkpoint_of_other_code_ends_the_search_and_not_the_trial(run):
    good, better = RATES["good"], RATES["better"]
    store = run(good, better)
    unfinished(store, "t0001")
    (state,) = (store.path / "ray" / "t0001").glob("checkpoint_*/state.pt")
    torch.save(torch.load(state) | {"momentum": 0.9}, state)
    with pytest.raises(
        SearchFailed, match=r"t0001 cannot go on from its checkpoint .*delete ray/"
    ):
        run(good, better)
    assert store.ended() == {"t0000"}
    for folder in folders(store.path, "t0001"):
        shutil.rmtree(folder)
    assert list(run(good, better).read("trials")["outcome"]) == ["completed"] * 2


def test_a_bug_that_no_trial_can_report_ends_the_search_too(run, tmp_path, monkeypatch):
    def cannot_start() -> None:
        raise RuntimeError("no trial begins here")

    monkeypatch.setattr(trainable, "own_versions", cannot_start)
    with pytest.raises(SearchFailed, match=r"(?s)the same failure 3 times.*no trial begins here"):
        run(*[RATES["good"]] * 5)
    crashed_alike(RunStore.open(tmp_path / "run"))


def test_cmaes_searches_and_finds_its_generation_again_after_a_restart(run):
    """Beyond the random start, a trial carries the evolution's state or its generation."""
    more = {"sampler": "cmaes", "suggest": suggest_two}
    store = run(trials=STARTUP_TRIALS + 2, **more)
    before = store.read("trials")
    store = run(trials=STARTUP_TRIALS + 5, **more)
    trials = store.read("trials")
    assert list(trials["outcome"]) == ["completed"] * (STARTUP_TRIALS + 5)
    assert trials.iloc[: len(before)].equals(before)
    noted = [store.read_config(name)["sampler_attributes"] for name in trials["trial_id"]]
    evolved = [any(key.startswith("cma") for key in each) for each in noted]
    assert evolved == [False] * STARTUP_TRIALS + [True] * 5


def test_it_says_when_the_last_trial_has_been_suggested(run, tmp_path):
    """The slow classical methods begin then: not while trials wait for a worker."""
    suggested = []
    configs = tmp_path / "run" / "configs"
    run(*[RATES["good"]] * 3, exhausted=lambda: suggested.append(len(list(configs.iterdir()))))
    assert suggested
    assert set(suggested) == {3}


def test_the_row_of_a_trial_holds_its_whole_configuration(run):
    store = run(RATES["good"])
    record = store.read_config("t0000")
    assert record["drawn"] == {"optimizer.learning_rate": RATES["good"]}
    row = store.read("trials").iloc[0]
    assert row["config_hash"] == record["config_hash"]
    assert row["params.optimizer.learning_rate"] == RATES["good"]
    assert (store.path / row["checkpoint"] / "state.pt").exists()


def test_a_checkpoint_keeps_the_best_epoch_beside_the_last_one(run):
    store = run(RATES["good"], train=scripted.train_past_its_best)
    folder = store.path / store.read("trials").iloc[0]["checkpoint"]
    kept = {name: TrainState.load(folder / name).epoch for name in ("state.pt", "best.pt")}
    assert kept == {"state.pt": 3, "best.pt": 2}


@pytest.mark.parametrize("folder", ["epochs", "trials", "ray/t0001"])
def test_a_folder_that_takes_no_files_ends_the_search_and_blames_no_trial(run, tmp_path, folder):
    blocked_and_resumed(run, tmp_path / "run", folder)
