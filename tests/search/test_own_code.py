"""A search of a user's own network and loss term: trained, replayed, confirmed, and not mixed up
with a changed file. Most runs in this process (`tests.local_ray`), one on a real Ray."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from search import ablate, confirm
from search.records import RunStore
from search.run import main
from tests.local_ray import install
from trainer import user_code
from trainer.__main__ import main as trainer_main

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "free_gram.py"
POISONED = """

def poisoned(covariance, scenes, *, poison=0):
    return count_entropy(covariance, scenes) * (float("nan") if poison else 1.0)
"""
SMALL = (
    *("--preset", "smoke", "--scheduler", "none", "--sampler", "qmc", "--name", "x"),
    *("--set", "epochs=1", "steps_per_epoch=2", "batch_size=8", "eigengap.term=off"),
    *("evaluation.num_scenes=4", "evaluation.num_test_scenes=4"),
    *("evaluation.report_snr_db=-5,0",),
)

UNSCORED = """
import sys
import search.driver, search.run
search.driver.Baselines = lambda *_: type("", (), {"start": lambda: None})
search.driver.score_best = lambda *_: None
sys.exit(search.run.main(sys.argv[1:]))
"""
"""`python -m search.run` without the scores beside the trials, which take long."""


def flags_of(code: Path) -> list[str]:
    """Flags of a search in which the loss is not a number where it is poisoned."""
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
    assert set(failures["cause"]) == {"nonfinite_loss"}
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
    assert "without    loss.args.poison=none loss.sha256=none loss.term=none" in said
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
    assert capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_code_of_ones_own_is_searched_on_a_real_ray_from_another_folder(tmp_path):
    """Its preflight takes a step on a worker; the trials run where the file is not."""
    (tmp_path / "my_nets.py").write_text(EXAMPLE.read_text() + POISONED)
    search = [*SMALL, *flags_of(Path("my_nets.py")), "--out", "runs", "--max-concurrent", "1"]
    done = subprocess.run(
        [sys.executable, "-c", UNSCORED, *search],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    trials = RunStore.open(tmp_path / "runs" / "x").read("trials")
    assert set(trials["outcome"]) == {"completed", "diverged"}
    assert "FreeGram network: one step diverges (nonfinite_loss)" in done.stdout
