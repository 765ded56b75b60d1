"""A search of a user's own network and loss term: trained, replayed, confirmed, and not mixed up
with a changed file. Most runs in this process (`tests.local_ray`), one on a real Ray."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from search import ablate, confirm
from search.records import RunStore
from search.records.checkpoints import checkpoints_of, read_reports
from search.run import main
from tests.local_ray import install
from trainer import user_code
from trainer.__main__ import main as trainer_main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "free_gram.py"
POISONED = """

def poisoned(covariance, scenes, *, poison=0):
    zero = 0 * covariance.held.abs().sum((-2, -1))
    return count_entropy(covariance, scenes) + (zero.sqrt() if poison else zero)
"""
SMALL = (
    *("--preset", "smoke", "--scheduler", "none", "--sampler", "qmc", "--name", "x"),
    *("--set", "epochs=1", "steps_per_epoch=2", "batch_size=8", "eigengap.term=off"),
    *("evaluation.num_scenes=4", "evaluation.num_test_scenes=4"),
    *("evaluation.report_snr_db=-5,0",),
)

NAMES = ("t0000", "t0001", "t0002", "t0003")
UNSCORED = """
import sys
import search.driver, search.run
search.driver.Baselines = lambda *_: type("", (), {"start": lambda: None})
search.driver.score_best = lambda *_: None
sys.exit(search.run.main(sys.argv[1:]))
"""
"""`python -m search.run` without the scores beside the trials, which take long."""


def flags_of(code: Path) -> list[str]:
    """Flags of a search in which the loss has no derivative, sqrt'(0), where it is poisoned."""
    own = ["--network", f"{code}:FreeGram", "--range", "network.args.rank=2:4"]
    return [*own, "--loss", f"{code}:poisoned", "--choices", "loss.args.poison=0,1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Iterator[tuple[Path, Path]]:
    """A finished run of four trials, two of them poisoned, and the code that it ran."""
    folder = tmp_path_factory.mktemp("own")
    code = folder / "my_nets.py"
    code.write_text(EXAMPLE.read_text() + POISONED)
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        patch.setattr("search.driver.Baselines", lambda *_: SimpleNamespace(start=lambda: None))
        patch.setattr("search.driver.score_best", lambda *_: None)
        search = [*SMALL, *flags_of(code), "--out", str(folder), "--max-concurrent", "1"]
        assert main([*search, "--no-preflight"]) == 0
        yield folder / "x", code


def test_a_poisoned_trial_diverges_and_the_others_complete(run):
    store = RunStore.open(run[0])
    trials = store.read("trials")
    poisoned = trials["params.loss.args.poison"] == 1
    assert set(poisoned) == {True, False}
    assert set(trials.loc[poisoned, "outcome"]) == {"diverged"}
    assert set(trials.loc[~poisoned, "outcome"]) == {"completed"}
    assert trials["params.network.args.rank"].isin([2, 3, 4]).all()
    failures = store.read("failures")
    assert set(failures["term"]) == {"poisoned"}
    assert set(failures["cause"]) == {"nonfinite_gradient"}
    assert set(failures["tensor"]) == {"weights.0.weight"}
    epochs = store.read("epochs")
    total = epochs["loss_covariance"] + epochs["loss_own"]
    pd.testing.assert_series_equal(epochs["loss_total"], total, check_names=False)


def test_every_trial_is_replayed_bit_for_bit(run, capsys):
    trials = RunStore.open(run[0]).read("trials").drop_duplicates("outcome")
    assert len(trials) == 2
    for name in trials["trial_id"]:
        assert trainer_main(["replay", str(run[0]), name]) == 0
        assert "reproduced, bit for bit" in capsys.readouterr().out


def test_an_ablation_knows_the_term(run, capsys):
    few = ("--scenes", "4", "--seeds", "1", "--dry-run")
    assert ablate.main([str(run[0]), "--term", "loss", "--top", "2", *few]) == 0
    said = capsys.readouterr().out
    assert "without    loss.args.poison=none loss.term=none loss.weight=none" in said
    assert "with       as found" in said


def test_what_goes_on_with_a_run_refuses_a_changed_file_by_name(run, capsys, monkeypatch):
    path, code = run
    monkeypatch.setattr(user_code, "_given", {})  # the texts of the workers in this process
    text = code.read_text()
    trial = RunStore.open(path).read("trials")["trial_id"][0]
    few = ("--scenes", "4", "--seeds", "1", "--dry-run")
    try:
        code.write_text(text + "# changed\n")
        for command in (
            lambda: main(["--resume", str(path), "--trials", "9"]),
            lambda: confirm.main([str(path), *few]),
            lambda: ablate.main([str(path), "--term", "loss", *few]),
            lambda: trainer_main(["replay", str(path), trial]),
        ):
            assert command() == 2
            (said,) = capsys.readouterr().err.strip().splitlines()
            assert f"{code} has changed: its SHA-256 is" in said
        shutil.copy(path / "code" / code.name, code)  # the remedy
        assert confirm.main([str(path), *few]) == 0
    finally:
        code.write_text(text)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("return covariance", "must return one real number for each of 8 scenes|must return a"),
        pytest.param("raise KeyError('mine')", "mine", marks=pytest.mark.slow),
    ],
)
def test_a_term_that_lies_on_the_worker_is_told_and_costs_no_other_row(
    line, says, run, tmp_path, capsys
):
    code = tmp_path / "my_nets.py"
    code.write_text(f"def lies(covariance, scenes):\n    {line}\n")
    search = [*SMALL, "--loss", f"{code}:lies", "--out", str(tmp_path), "--max-concurrent", "1"]
    assert main([*search, "--no-preflight"]) == 1
    trials = RunStore.open(tmp_path / "x").read("trials")
    assert set(trials["outcome"]) <= {"invalid", "crashed"}
    assert trials["error"].str.contains(says, regex=True).all()
    said = capsys.readouterr().err
    assert ("Traceback" in said) == ("raise" in line)  # three crashes; a broken contract is told
    assert re.search(says, said)


def drive(folder: Path, *argv: str, path: str = str(ROOT)) -> subprocess.Popen[str]:
    """Start a driver in a folder, which may be killed, with this `PYTHONPATH`."""
    return subprocess.Popen(
        [sys.executable, "-c", UNSCORED, *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
    )


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_search_of_ones_own_code_loses_and_doubles_nothing_on_a_real_ray(
    tmp_path, address, monkeypatch, capsys
):
    """Its preflight takes a step on a worker; the trials run where the file is not."""
    code, run = tmp_path / "my_nets.py", tmp_path / "runs" / "x"
    code.write_text(EXAMPLE.read_text() + POISONED)
    where = ("--out", "runs", "--max-concurrent", "1", "--address", address)
    search = ["epochs=12" if word == "epochs=1" else word for word in SMALL]
    first = drive(tmp_path, *search, *flags_of(Path(code.name)), *where)
    deadline = time.monotonic() + 300
    while not any(len(read_reports(p)) >= 3 for n in NAMES for p in checkpoints_of(run, n)):
        assert first.poll() is None, first.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    assert "FreeGram network: one step diverges (nonfinite_gradient)" in first.communicate()[0]
    monkeypatch.chdir(tmp_path)
    code.write_text(code.read_text() + "# changed\n")
    assert main(["--resume", "runs/x"]) == 2
    assert "my_nets.py has changed" in capsys.readouterr().err
    shutil.copy(run / "code" / code.name, code)
    again = drive(tmp_path, "--resume", "runs/x", "--no-preflight")
    said = again.communicate(timeout=600)[0]
    assert again.returncode == 0, said
    store = RunStore.open(run)
    trials, epochs = store.read("trials"), store.read("epochs")
    assert list(trials["trial_id"]) == list(NAMES)
    completed = trials.query("outcome == 'completed'")["trial_id"]
    assert 0 < len(completed) < len(NAMES)
    assert epochs.groupby("trial_id")["epoch"].apply(list).to_dict() == {
        name: list(range(1, 13)) for name in completed
    }
    failures = store.read("failures")
    assert set(failures["trial_id"]) == set(NAMES) - set(completed)
    assert set(failures["tensor"]) == {"weights.0.weight"}


@pytest.mark.ray
@pytest.mark.slow
def test_a_module_that_workers_lack_is_told_and_leaves_nothing(tmp_path, address):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("")
    (tmp_path / "my_nets.py").write_text(EXAMPLE.read_text() + "import only_here\n")
    own = ("--network", "my_nets.py:FreeGram", "--out", "runs", "--address", address)
    driver = drive(tmp_path, *SMALL, *own, path=f"{ROOT}{os.pathsep}{tmp_path / 'here'}")
    *_, said = driver.communicate(timeout=600)[0].strip().splitlines()
    assert driver.returncode == 2
    assert "No module named 'only_here', line" in said
    assert "of my_nets.py. Try it alone" in said
    assert list((tmp_path / "runs").iterdir()) == []
