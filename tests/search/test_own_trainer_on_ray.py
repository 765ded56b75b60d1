"""The example of a user's own trainer on a real Ray: a NaN in one trial, a killed driver, and a
logger that fails midway."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.records import KEYS, RunStore, checkpoints_of, read_reports
from tests.tensorboard_events import scalars
from trainer.__main__ import main as trainer_main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "torch_classifier.py"
POISONED = """

import dataclasses, time, trainer

def poisoned(params, *, resume=None):
    global check_finite
    def check_finite(loss, named, *, step):
        named = list(named)
        if params["poison"] and step == STEPS + 7:
            named[2][1].grad[0, 0] = float("nan")
        trainer.check_finite(loss, named, step=step)
    for report in train(params, resume=resume):
        time.sleep(params["pause"])
        yield report

def suggest_poison(trial):
    return suggest(trial) | {"poison": trial.suggest_categorical("poison", [0, 1])}

anchors = tuple({"lr": 0.01, "width": 16, "dropout": 0.0, "poison": n} for n in (0, 1))
fixed = {"epochs": 6, "pause": 0.2}
poison = dataclasses.replace(space, suggest=suggest_poison, anchors=anchors, fixed=fixed)
"""


def drive(folder: Path, *flags: str) -> subprocess.Popen[str]:
    """Start a driver in a process of its own, in a folder with the user's file."""
    return subprocess.Popen(
        [sys.executable, "-m", "search.run", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.ray
@pytest.mark.slow
def test_the_example_diverges_where_poisoned_survives_a_kill_and_a_failing_logger(
    tmp_path, address, capsys
):
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text() + POISONED)
    flags = ["--trainable", "mine.py:poisoned", "--space", "mine.py:poison", "--name", "x"]
    flags += ["--objective", "accuracy:max", "--scheduler", "none", "--trials", "3"]
    flags += ["--max-concurrent", "2", "--address", address, "--log", "tensorboard"]
    first = drive(tmp_path, *flags)
    run, deadline = tmp_path / "runs" / "x", time.monotonic() + 240
    while max((len(read_reports(p)) for p in checkpoints_of(run, "t0000")), default=0) < 3:
        assert first.poll() is None, first.stdout.read()
        assert time.monotonic() < deadline, "no epochs within four minutes"
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    reached = max(len(read_reports(p)) for p in checkpoints_of(run, "t0000"))
    blocked = run / "tensorboard" / "t0002"  # no folder for its events: the logger fails there
    shutil.rmtree(blocked, ignore_errors=True)
    blocked.touch()

    second = drive(tmp_path, "--resume", "x", "--address", address)
    said, _ = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert (
        f"again, from epoch {reached} on" in said or f"again, from epoch {reached + 1} on" in said
    )
    store = RunStore.open(run)
    trials = store.read("trials").set_index("trial_id")
    poisoned = trials["params.poison"] == 1
    assert poisoned["t0001"]
    assert not poisoned["t0000"]
    assert set(trials.loc[poisoned, "outcome"]) == {"diverged"}
    assert set(trials.loc[~poisoned, "outcome"]) == {"completed"}
    failures = store.read("failures")
    assert set(failures["tensor"]) == {"3.weight"}
    assert set(failures["cause"]) == {"nonfinite_gradient"}
    assert set(failures["step"]) == {47}
    assert set(failures["epoch"]) == {2}
    epochs = store.read("epochs")
    assert not epochs.duplicated(list(KEYS["epochs"])).any()
    own = epochs[epochs["trial_id"] == "t0000"].sort_values("epoch")
    assert list(own["epoch"]) == [1, 2, 3, 4, 5, 6]
    recorded = json.loads((run / "run.json").read_text())
    assert recorded["metrics"] == ["accuracy", "loss"]
    why = recorded["log_failures"]["tensorboard"]
    assert why.startswith("FileExistsError: ")
    assert said.count(why) == 1, said
    for name in ("t0000", "t0001"):  # each epoch once, until the logger fails
        points = scalars(run / "tensorboard" / name)["metrics.accuracy"]
        assert [epoch for epoch, _ in points] == list(range(1, len(points) + 1))
        assert len(points) >= (reached - 1 if name == "t0000" else 1)
        rows = epochs[epochs["trial_id"] == name].sort_values("epoch").head(len(points))
        assert [value for _, value in points] == pytest.approx(list(rows["metrics.accuracy"]))
    monkey = pytest.MonkeyPatch()
    monkey.chdir(tmp_path)
    try:  # the training in two parts is that in one
        for name in ("t0000", "t0001"):
            assert trainer_main(["replay", str(run), name]) == 0, name
            assert "reproduced, bit for bit" in capsys.readouterr().out
    finally:
        monkey.undo()
