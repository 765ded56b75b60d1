"""Whoever follows a search sees every ending, and leaves with the search's exit code."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from search.records.store import RunStore
from search.remote import follow as following
from search.remote.lock import is_locked
from search.remote.mirror import lock_run
from search.run import main
from tests.stored import ended_trial


def new_run(out: Path) -> RunStore:
    return RunStore.create(out / "x", parameters={}, plan={"search": {"trials": 2}})


def end_trial(store: RunStore, number: int, outcome: str = "completed") -> None:
    name = f"t{number:04d}"
    store.write_config(name, {"trial_id": name, "number": number})
    row = {"trial_id": name, "number": number, "outcome": outcome, "host": "here"}
    epochs = [{"trial_id": name, "epoch": 1}]
    if outcome == "completed":
        ended_trial(store, row | {"objective": 0.25}, epochs=epochs)
    else:
        ended_trial(store, row | {"cause": "nonfinite_gradient"})


def drive(out: str, code: int | None) -> None:
    """Another process that drives the run for a while."""
    store = RunStore.open(Path(out) / "x")
    with lock_run(store.path) as driver:
        store.write_config("t0000", {"trial_id": "t0000", "number": 0})
        time.sleep(0.3)
        end_trial(store, 0)
        end_trial(store, 1, "diverged")
        time.sleep(0.3)
        if code is None:
            os.kill(os.getpid(), signal.SIGKILL)
        driver.exit_code = code


@pytest.mark.parametrize("code", [1, None])
def test_a_follower_sees_all_and_ends_as_the_search_does(code, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(following, "POLL_SECONDS", 0.1)
    store = new_run(tmp_path)
    process = multiprocessing.get_context("spawn").Process(
        target=drive, args=(str(tmp_path), code)
    )
    process.start()
    while not is_locked(store.path):
        time.sleep(0.05)
    assert main(["--attach", "x", "--out", str(tmp_path)]) == (1 if code is None else code)
    process.join()
    said = capsys.readouterr()
    assert "t0000  started" in said.out
    assert "t0000  completed: 0.250 on here  (" in said.out  # 1 or 2 of 2: it may look between
    assert "t0001  diverged: nonfinite_gradient  (2 of 2 trials)" in said.out
    if code is None:
        assert "has gone without a word: 2 of 2 trials. Continue with --resume" in said.err
    else:
        assert f"ended with exit code {code}" in said.out


def test_a_run_that_has_ended_is_told_at_once(tmp_path, capsys):
    store = new_run(tmp_path)
    with lock_run(store.path) as driver:
        driver.exit_code = 1
    assert main(["--attach", "x", "--out", str(tmp_path)]) == 1
    assert "exit code 1: 0 of 2 trials" in capsys.readouterr().out


def test_a_run_that_nobody_has_driven_is_refused(tmp_path, capsys):
    new_run(tmp_path)
    assert main(["--attach", "x", "--out", str(tmp_path)]) == 2
    assert "never been" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(KeyboardInterrupt, 130), (RuntimeError, 1), (None, 0)]
)
def test_the_way_a_driver_ends_is_noted(error, code, tmp_path, capsys):
    store = new_run(tmp_path)
    try:
        with lock_run(store.path):
            if error is not None:
                raise error
    except (KeyboardInterrupt, RuntimeError):
        pass
    assert main(["--attach", "x", "--out", str(tmp_path)]) == code
    capsys.readouterr()
