"""A driver may die at any moment: what it left is continued, and nothing is lost or done twice."""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import spaces
from search.driver.driver import restored_stopper
from search.plan.config import SearchConfig
from search.plan.errors import RunError
from search.plan.outcome import Outcome
from search.records.best import best_trial
from search.records.checkpoints import BEST_FILE, STATE_FILE, checkpoints_of, read_reports
from search.records.schema import KEYS
from search.records.store import RunStore
from search.remote.mirror import lock_run
from search.run import main
from search.suggest.history import History, UnfinishedTrial, compatible_trials, read_history
from search.suggest.study import EndedTrial
from tests.stored import ended_trial
from trainer.config import TrainConfig
from trainer.training.loop import train

DRILL = Path(__file__).parents[2] / "benchmarks" / "drill.py"
EPOCHS = 18
FREE = ("--scheduler", "none", "--sampler", "random", "--max-concurrent", "2", "--no-preflight")


def drive(out: Path, *flags: str) -> subprocess.Popen[bytes]:
    """A driver in a process of its own, to be killed."""
    command = [sys.executable, str(DRILL), "--out", str(out), *flags]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ)


def wait_for_epochs(store: Path, count: int, driver: subprocess.Popen[bytes]) -> None:
    """Until the checkpoints of unfinished trials hold so many epochs."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver has ended by itself"
        reports = [len(read_reports(p)) for p in checkpoints_of(store, "t0001")]
        if max(reports, default=0) >= count:
            return
        time.sleep(0.05)
    pytest.fail("no epochs within four minutes")


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_interrupted_and_then_killed_equals_an_undisturbed_one(
    tmp_path, address, monkeypatch
):
    """Ctrl-C ends it in seconds, on a Ray of its own, too; then it goes on elsewhere, and is
    scored by a driver that finds all trials ended."""
    run = tmp_path / "x"
    first = drive(tmp_path, "--preset", "drill", "--trials", "2", "--name", "x", *FREE)
    wait_for_epochs(run, 3, first)
    began = time.monotonic()
    first.send_signal(signal.SIGINT)
    assert first.wait(60) == 130
    assert time.monotonic() - began < 10
    reached = {
        trial.name: len(trial.reports) for trial in read_history(RunStore.open(run)).unfinished
    }

    assert reached["t0001"] >= 3  # its state was kept

    again = ("--resume", "x", "--no-preflight", "--address", address)
    second = drive(tmp_path, *again)
    wait_for_epochs(run, 9, second)
    second.kill()
    second.wait()
    later = {
        trial.name: len(trial.reports) for trial in read_history(RunStore.open(run)).unfinished
    }
    assert all(later.get(name, EPOCHS) >= epochs for name, epochs in reached.items())
    assert later["t0001"] >= 9 or "t0001" in RunStore.open(run).ended()

    # what has begun keeps its threads; the new trial takes as many as it is given
    more = ("--trials", "3", "--cpus-per-trial", "2", "--max-concurrent", "1")
    with monkeypatch.context() as patch:  # as if killed before anything was scored
        patch.setattr("search.driver.Baselines", lambda *_: SimpleNamespace(start=lambda: None))
        patch.setattr("search.driver.score_best", lambda *_: None)
        patch.setitem(spaces.PRESETS, "drill", None)
        runpy.run_path(str(DRILL))  # makes the preset
        assert main([*again, *more, "--out", str(tmp_path)]) == 0
    best = best_trial(RunStore.open(run).read("trials"))
    scenes, model = (run / name for name in (f"scenes/{best}.parquet", "best"))
    assert not scenes.exists()
    assert drive(tmp_path, *again).wait(900) == 0
    assert scenes.exists()
    assert (model / "state.pt").exists()
    store = RunStore.open(run)
    assert [store.read_config(n)["threads"] for n in store.started()] == [1, 1, 2]
    trials, epochs = store.read("trials"), store.read("epochs")
    assert list(trials["trial_id"]) == ["t0000", "t0001", "t0002"]
    for table in ("trials", "epochs", "evaluations", "scenes"):
        assert not store.read(table).duplicated(list(KEYS[table])).any()
    assert epochs.groupby("trial_id")["epoch"].apply(list).to_dict() == {
        name: list(range(1, EPOCHS + 1)) for name in trials["trial_id"]
    }
    pd.testing.assert_frame_equal(undisturbed(store), epochs[list(undisturbed(store))])
    # only the newest checkpoint of each trial is left, and it is whole
    for trial in trials.itertuples():
        assert (run / trial.checkpoint / STATE_FILE).exists()
        assert {p.parent for p in checkpoints_of(run, trial.trial_id)} == {
            (run / trial.checkpoint).parent
        }

    drivers = store.plan["resumed"]
    assert [one["argv"][-5:-3] for one in drivers[::2]] == [["--resume", "x"]] * 2


def undisturbed(store: RunStore) -> pd.DataFrame:
    """The loss and the objective that the recorded configurations have without interruption."""
    rows = []
    for name in sorted(store.ended()):
        errors = []
        record = store.read_config(name)
        torch.set_num_threads(record["threads"])
        for report in train(TrainConfig.from_params(record["params"])):
            errors.append(report.capped_error)
            mean = sum(errors[-3:]) / len(errors[-3:])
            rows.append((name, report.losses["total"], report.gradient_norm, mean))
    torch.set_num_threads(1)
    columns = ["trial_id", "loss_total", "gradient_norm", "objective"]
    return pd.DataFrame(rows, columns=columns)


def planned(tmp_path: Path) -> RunStore:
    plan = SearchConfig("smoke", 4, "x", out=str(tmp_path))
    described = {"space": plan.space.describe(), "fixed": {"epochs": 3}}
    return RunStore.create(
        tmp_path / "x", parameters={}, plan={"search": plan.as_dict(), **described}
    )


def test_a_changed_space_is_refused_and_the_change_is_named(tmp_path, capsys):
    planned(tmp_path)
    assert main(["--resume", "x", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "network.width was absent, is 16" in said
    assert "--accept-space-change" in said


def test_a_run_is_extended_but_not_shortened(tmp_path, capsys):
    store = planned(tmp_path)
    for number in range(3):
        store.write_config(f"t{number:04d}", {"trial_id": f"t{number:04d}", "number": number})
    assert main(["--resume", "x", "--trials", "2", "--out", str(tmp_path)]) == 2
    assert "at least the 3 that have started" in capsys.readouterr().err


def test_a_run_keeps_its_guard(tmp_path, capsys):
    planned(tmp_path)
    assert main(["--resume", "x", "--guard", "off", "--out", str(tmp_path)]) == 2
    assert "takes the plan from the run, but got --guard off too" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"{}", b"[]"])
def test_a_damaged_record_of_an_unfinished_trial_is_named_with_what_to_delete(
    content, tmp_path, capsys
):
    store = planned(tmp_path)
    store.write_config("t0000", {"trial_id": "t0000", "number": 0})
    (store.path / "configs" / "t0000.json").write_bytes(content)
    flags = ("--accept-space-change", "--no-preflight", "--out", str(tmp_path))
    assert main(["--resume", "x", *flags]) == 2
    said = capsys.readouterr().err
    assert "t0000.json must " in said
    assert "delete configs/t0000.json and ray/t0000* in the run's folder" in said
    assert not (store.path / ".driver").exists()  # nothing was begun


def test_a_run_has_one_driver(tmp_path):
    store = planned(tmp_path)
    with lock_run(store.path):
        refused = pytest.raises(RunError, match="one driver at a time")
        with refused, lock_run(store.path):
            pass
    with lock_run(store.path):
        pass  # it was given back


@pytest.mark.parametrize("flag", [("--trials", "9"), ("--accept-space-change",)])
def test_a_driver_that_is_refused_has_changed_nothing(tmp_path, capsys, flag):
    store = planned(tmp_path)
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    with lock_run(store.path):
        flags = ("--accept-space-change", "--no-preflight", *flag)
        assert main(["--resume", "x", "--out", str(tmp_path), *flags]) == 2
    assert "one driver at a time" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.ray
@pytest.mark.parametrize(
    ("word", "begun"),
    [
        (signal.SIGINT, False),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, True, marks=pytest.mark.slow),
    ],
)
def test_a_search_can_be_stopped_while_ray_starts(tmp_path, word, begun):
    """Before and after Ray has begun its part of the driver, which takes a second."""
    driver = drive(tmp_path, "--preset", "drill", "--name", "x", *FREE)
    logs = Path(tempfile.gettempdir(), "ray")
    while not (tmp_path / "x" / ".driver").exists() or (
        begun and not list(logs.glob(f"session_*_{driver.pid}/logs/python-core-driver*"))
    ):
        assert driver.poll() is None
        time.sleep(0.02)
    time.sleep(0.2 if begun else 1.0)
    began = time.monotonic()
    driver.send_signal(word)
    assert driver.wait(60) == 130
    assert time.monotonic() - began < 10
    assert json.loads((tmp_path / "x" / ".driver").read_text())["exit_code"] == 130


def test_a_new_parameter_adds_its_column_to_what_was_written(tmp_path):
    old = ("float", "1", "a")
    store = RunStore.create(tmp_path / "x", parameters={"eps_psd": old}, plan={"search": {}})
    row = {"trial_id": "t0000", "number": 0, "outcome": "completed"}
    store.write_config("t0000", {})
    ended_trial(store, row | {"params.eps_psd": 0.5}, epochs=[{"trial_id": "t0000", "epoch": 1}])
    untouched = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    wider = RunStore.open(tmp_path / "x", more={"eps_psd": old, "seed": ("int", "", "b")})
    assert len(wider.read("trials")) == 1
    assert untouched == {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    wider.write_run(wider.plan)
    reopened = RunStore.open(tmp_path / "x")
    assert set(reopened.parameters) == {"eps_psd", "seed"}
    (trial,) = reopened.read("trials").to_dict("records")
    assert trial["params.eps_psd"] == 0.5
    assert pd.isna(trial["params.seed"])


def test_a_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    store = planned(tmp_path)
    store.write_config("t0000", {"trial_id": "t0000", "number": 0})
    for number, epochs in enumerate((1, 2, 3)):
        folder = store.path / "ray" / "t0000" / f"checkpoint_00000{number}"
        folder.mkdir(parents=True)
        for name in (STATE_FILE, BEST_FILE):
            torch.save({"weights": torch.zeros(1000)}, folder / name)
        reports = [{"epoch": e, "objective": 0.5} for e in range(1, epochs + 1)]
        (folder / "epochs.json").write_text(json.dumps(reports))
    whole = folder.parent / "checkpoint_000001"
    content = (folder / STATE_FILE).read_bytes()
    for name in (BEST_FILE, STATE_FILE):
        for cut in (0, 100, len(content) // 2, len(content) - 1):
            (folder / name).write_bytes(content[:cut])
            (trial,) = read_history(store).unfinished
            assert (trial.checkpoint, len(trial.reports)) == (whole, 2)
            assert trial.folder not in {"t0000"}
        (folder / name).write_bytes(content)
    (folder / STATE_FILE).unlink()
    assert read_history(store).unfinished[0].checkpoint == whole


def of_plan(number: int, plan: SearchConfig, **changed: object) -> EndedTrial:
    """A trial that has ended, of that plan but for what is changed."""
    params = plan.template.to_params() | changed
    values = dict.fromkeys(range(1, 4), 0.1 * number)
    return EndedTrial(
        f"t{number:04d}", number, {}, Outcome.COMPLETED, values=values, params=params
    )


def test_the_last_report_before_a_kill_is_judged_by_the_next_driver():
    """It is made again, and nobody knows whether it had been judged; those before it had."""
    plan = SearchConfig("smoke", 8, "x")
    ended = tuple(of_plan(n, plan) for n in range(3))
    record = {"trial_id": "t0009", "number": 9, "params": {}}
    reports = tuple({"epoch": epoch, "objective": 0.9} for epoch in (1, 2))
    for reported in (1, 2):
        old = UnfinishedTrial(record, "t0009.1", reports=reports[:reported])
        judged = restored_stopper(plan, History(ended, (old,)))
        assert judged.should_stop("t0009", 9, 1, 0.9) == (reported == 1)
        assert judged.should_stop("t0010", 10, 1, 0.9)  # one that comes new


def test_values_of_another_budget_or_evaluation_are_told_to_nobody():
    """As after --accept-space-change; the seed may differ."""
    plan = SearchConfig("smoke", 8, "x")
    same, other = of_plan(0, plan, seed=7), of_plan(1, plan, epochs=17)
    moved = of_plan(2, plan, **{"evaluation.num_scenes": 5})
    assert compatible_trials((same, other, moved), plan) == [same]
    assert not restored_stopper(plan, History((other, moved))).should_stop("t0003", 3, 1, 0.9)
    assert restored_stopper(plan, History((same,))).should_stop("t0003", 3, 1, 0.9)
    reports = ({"epoch": 1, "objective": 0.1}, {"epoch": 2, "objective": 0.1})
    left = [
        UnfinishedTrial(
            {"trial_id": f"t000{past.number}", "params": past.params}, "", reports=reports
        )
        for past in (same, other)
    ]
    assert History((), tuple(left)).incompatible_trials(plan) == {"t0001"}
    assert not restored_stopper(plan, History((), (left[1],))).should_stop("t0003", 3, 1, 0.9)
