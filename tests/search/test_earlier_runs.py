"""Runs that were made before the code moved into rooms: they open, resume, report and replay.

`finished` has three trials of the `smoke` preset, with the best network scored; `killed` has two
of four, and one that was killed between two checkpoints (commit f8fc698).
"""

import re
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from search import run as search_run
from search.records import RunStore
from search.report import load
from search.report.figures.plots import draw_errors
from tests.commands import ASCII, command
from trainer.__main__ import main as trainer_main
from trainer.config import SceneConfig
from trainer.scenes import EvalScenes, save_scenes

RUNS = Path(__file__).parents[1] / "data" / "runs_before_rooms.tar.xz"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(RUNS) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_they_open(runs):
    store = RunStore.open(runs / "finished")
    assert store.ended() == {"t0000", "t0001", "t0002"}
    assert RunStore.open(runs / "killed").ended() == {"t0000", "t0001"}


def test_they_are_drawn_without_the_refined_estimates_that_they_lack(runs):
    (legend,) = draw_errors(load(runs / "finished")).legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert "best network, t0000, MUSIC alone" in shown
    assert not any("refined" in label for label in shown)


@pytest.mark.slow
def test_they_are_reported_on_an_ascii_terminal_too_and_shown(
    runs, local_ray, monkeypatch, capsys
):
    monkeypatch.setattr("search.driver.scores.unscored", lambda *_: [])  # they take long
    done = command("search.report", str(runs / "finished"), **ASCII)
    assert done.returncode == 0, done.stderr
    assert "note:" not in done.stdout
    report = runs / "finished" / "report"
    for name in ("error_vs_snr_k1", "above_crb", "history", "spectra", "pseudospectra"):
        assert (report / f"{name}.png").stat().st_size > 10_000, name
    summary = pd.read_parquet(report / "summary.parquet")
    assert summary.loc[summary["best"], "trial_id"].tolist() == ["t0000"]
    assert search_run.main(["--resume", str(runs / "finished")]) == 0
    assert "t0000 beats lmmse_music" in capsys.readouterr().out


@pytest.mark.slow
def test_they_replay_to_the_digits_that_versions_share(runs, capsys):
    """MUSIC's refinement has become more precise since, and CPUs round differently."""
    trainer_main(["replay", str(runs / "finished"), "t0001"])
    printed = capsys.readouterr().out
    assert "replayed: trained 3 epochs" in printed
    differing = re.findall(r"(\w+) of epoch 3 was ([\d.e-]+), is (\d[\d.e-]*\d)", printed)
    assert len(differing) == printed.count(" was ")
    for _, recorded, replayed in differing:
        assert float(replayed) == pytest.approx(float(recorded), rel=1e-3)


def test_their_network_localises(runs, tmp_path):
    save_scenes(EvalScenes(SceneConfig(), 5).batch(range(4), snr_db=0.0), tmp_path / "a.npz")
    out = ["--scenes", str(tmp_path / "a.npz"), "--out", str(tmp_path / "b.npz")]
    assert trainer_main(["localise", "--model", str(runs / "finished"), *out]) == 0


@pytest.mark.slow
def test_they_resume(runs, local_ray, monkeypatch):
    monkeypatch.setattr("search.driver.scores.unscored", lambda *_: [])  # they take long
    monkeypatch.setattr("trainer.evaluation.confidence.SCENES", 256)
    before = pd.read_parquet(runs / "killed" / "trials").set_index("trial_id")
    assert search_run.main(["--resume", str(runs / "killed"), "--no-preflight"]) == 0
    trials = pd.read_parquet(runs / "killed" / "trials").set_index("trial_id")
    assert sorted(trials.index) == ["t0000", "t0001", "t0002", "t0003"]
    assert trials.loc[before.index, before.columns].equals(before)
    epochs = pd.read_parquet(runs / "killed" / "epochs")
    assert not epochs.duplicated(["trial_id", "epoch"]).any()
    ended = trials[trials["outcome"].isin(["completed", "stopped"])]
    assert (epochs.groupby("trial_id").size()[ended.index] == ended["epochs"]).all()
