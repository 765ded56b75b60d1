"""What a search keeps of its trials, tells Optuna and goes on with; Ray's loop is a stand-in."""

import shutil
from functools import partial

import pandas as pd
import pytest
import torch

from search.driver import driver
from search.plan.errors import SearchFailed
from search.plan.outcome import Outcome
from search.records import session
from search.records.best import best_trial
from search.records.checkpoints import folders
from search.records.schema import KEYS
from search.records.store import RunStore
from search.suggest.samplers import STARTUP_TRIALS
from tests import scripted, tune_loop
from tests.scripted_search import RATES, searching, suggest_two, told, unfinished
from trainer.record import read_trial
from trainer.training.checkpoint import TrainState

loop = pytest.fixture(tune_loop.standing_in, autouse=True)
GOOD, BETTER, DIVERGES, CRASHES = RATES.values()
TIMING = ["started", "seconds", "checkpoint"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    return searching(tmp_path, monkeypatch)


def test_every_ending_is_told_kept_and_told_apart(run):
    store = run(GOOD, DIVERGES, CRASHES, BETTER)
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
    parts = {p.stem for p in store.path.glob("*/*.parquet")}
    assert parts == {"empty", "session-0001"}


def test_events_are_a_line_each_and_every_ending_has_its_progress(run, capsys):
    run(0.008, 0.001, DIVERGES, scheduler="asha")
    said = capsys.readouterr().out.splitlines()
    events = [line.split()[1:3] for line in said if line[2:3] == ":"]
    assert events[:3] == [["t0000", "started"], ["t0000", "improved"], ["t0000", "improved"]]
    assert [e for e in events if e[1] not in ("started", "improved")] == [
        ["t0000", "completed"],
        ["t0001", "stopped"],
        ["t0002", "diverged"],
    ]
    assert any("nonfinite_gradient in `eigengap`, step 7" in line for line in said)
    assert said[-1].startswith("3/3 trials |####################|")
    assert said[-1].endswith("1 completed, 1 diverged, 1 stopped")


def test_a_divergence_leaves_its_cause_and_a_replay_command(run):
    store = run(DIVERGES, GOOD)
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
    store = run(GOOD, BETTER, trials=2)
    before = store.read("trials")
    unfinished(store, "t0001")
    if left == "nothing":
        shutil.rmtree(store.path / "ray" / "t0001")
    (store.path / "optuna.log").write_text('{"torn": ')

    after = run(GOOD, BETTER, trials=3).read("trials")
    assert list(after["trial_id"]) == ["t0000", "t0001", "t0002"]
    assert list(after["outcome"][:2]) == ["completed", "completed"]
    assert after.iloc[0].equals(before.iloc[0])
    restarted, first = after.iloc[1], before.iloc[1]
    assert restarted["params.optimizer.learning_rate"] == first["params.optimizer.learning_rate"]
    assert restarted["objective"] == first["objective"]
    assert (restarted["started"] == first["started"]) == (left != "nothing")
    assert restarted["checkpoint"].startswith("ray/t0001" + "." * (left != "nothing"))
    assert [folder.name for folder in folders(store.path, "t0001")] == [
        "t0001.1" if left != "nothing" else "t0001"
    ]
    epochs = store.read("epochs")
    assert list(epochs[epochs["trial_id"] == "t0001"]["epoch"]) == [1, 2, 3]


def killing(driver_dies: float, trained: list[float], config, *, resume=None):
    """Trains, and kills the driver at the second epoch of one rate."""
    rate = config.optimizer.learning_rate
    trained.append(rate)
    for report in scripted.train(config, resume=resume):
        if report.epoch == 2 and rate == driver_dies:
            raise tune_loop.Killed
        yield report


@pytest.mark.parametrize("flush_seconds", [0.0, 1e9])
def test_a_killed_driver_s_last_trials_are_recorded_again_and_not_trained_again(
    run, monkeypatch, tmp_path, flush_seconds
):
    """Whatever the last flush had: all of it, or nothing."""
    monkeypatch.setattr(session, "FLUSH_SECONDS", flush_seconds)
    monkeypatch.setattr(session, "FLUSH_SHARE", 1e9)
    rates = (GOOD, 0.006, DIVERGES, BETTER)
    with pytest.raises(tune_loop.Killed):
        run(*rates, train=partial(killing, BETTER, []))
    killed = RunStore.open(tmp_path / "run")
    assert len(killed.ended()) == (3 if flush_seconds == 0.0 else 0)
    trained: list[float] = []
    store = run(*rates, train=partial(killing, 0.0, trained))
    assert trained == ([] if flush_seconds == 0.0 else [DIVERGES]) + [BETTER]

    shutil.move(tmp_path / "run", tmp_path / "killed")
    undisturbed = run(*rates)
    store = RunStore.open(tmp_path / "killed")
    for table in ("trials", "epochs", "failures"):
        rows, expected = (
            each.read(table).sort_values(list(KEYS[table])).reset_index(drop=True)
            for each in (store, undisturbed)
        )
        assert not rows.duplicated(list(KEYS[table])).any()
        aside = [*TIMING, "gpu_seconds", "traceback"]
        pd.testing.assert_frame_equal(
            rows.drop(columns=aside, errors="ignore"),
            expected.drop(columns=aside, errors="ignore"),
        )
    assert {name: t.state for name, t in told(store).items()} == {
        name: t.state for name, t in told(undisturbed).items()
    }


def test_a_checkpoint_of_other_code_ends_the_search_and_not_the_trial(run):
    store = run(GOOD, BETTER)
    unfinished(store, "t0001")
    (state,) = (store.path / "ray" / "t0001").glob("checkpoint_*/state.pt")
    torch.save(torch.load(state) | {"momentum": 0.9}, state)
    with pytest.raises(
        SearchFailed, match=r"t0001 cannot go on from its checkpoint .*delete ray/"
    ):
        run(GOOD, BETTER)
    assert store.ended() == {"t0000"}
    for folder in folders(store.path, "t0001"):
        shutil.rmtree(folder)
    assert list(run(GOOD, BETTER).read("trials")["outcome"]) == ["completed"] * 2


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
    run(*[GOOD] * 3, exhausted=lambda: suggested.append(len(list(configs.iterdir()))))
    assert suggested
    assert set(suggested) == {3}


def test_the_row_of_a_trial_holds_its_whole_configuration(run):
    store = run(GOOD)
    record = store.read_config("t0000")
    assert record["drawn"] == {"optimizer.learning_rate": GOOD}
    row = store.read("trials").iloc[0]
    assert row["config_hash"] == record["config_hash"]
    assert row["params.optimizer.learning_rate"] == GOOD
    assert (store.path / row["checkpoint"] / "state.pt").exists()


def test_a_checkpoint_keeps_the_best_epoch_beside_the_last_one(run):
    store = run(GOOD, train=scripted.train_past_its_best)
    folder = store.path / store.read("trials").iloc[0]["checkpoint"]
    kept = {name: TrainState.load(folder / name).epoch for name in ("state.pt", "best.pt")}
    assert kept == {"state.pt": 3, "best.pt": 2}


@pytest.mark.parametrize("folder", ["epochs", "trials", "ray/t0001"])
def test_a_folder_that_takes_no_files_ends_the_search_and_blames_no_trial(
    run, tmp_path, folder, monkeypatch
):
    monkeypatch.setattr(session, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(session, "FLUSH_SHARE", 1e9)
    blocked = tmp_path / "run" / folder
    rates = (GOOD, scripted.BLOCKS, BETTER)
    with pytest.raises(SearchFailed, match=r"takes no files|could not keep its checkpoint"):
        run(*rates, train=partial(scripted.train_and_block, blocked))
    blocked.unlink()
    blocked.with_name(blocked.name + ".away").rename(blocked)
    store = RunStore.open(tmp_path / "run")
    assert list(store.read("trials")["outcome"]) == ["completed"]

    store = run(*rates)
    assert list(store.read("trials")["outcome"]) == ["completed"] * 3
    assert list(store.read("epochs")["epoch"]) == [1, 2, 3] * 3


def test_trials_that_ray_drops_go_on_in_another_round_and_not_for_ever(run, monkeypatch):
    rounds = []

    def dropping(store, resources, ending, train, searcher, scheduler, callback):
        rounds.append(callback)
        if len(rounds) == 1:  # one trial is run, the other is suggested and forgotten
            suggested = searcher.suggest
            monkeypatch.setattr(searcher, "suggest", lambda _: suggested("") and suggested(""))
        if len(rounds) < 3:
            tune_loop.fit(store, resources, ending, train, searcher, scheduler, callback)

    monkeypatch.setattr(driver, "_fit", dropping)
    store = run(GOOD, BETTER)
    assert len(rounds) == 2
    assert list(store.read("trials").sort_values("number")["outcome"]) == ["completed"] * 2
    with pytest.raises(SearchFailed, match="gave up with 1 trials not ended"):
        run(GOOD, BETTER, trials=3)
