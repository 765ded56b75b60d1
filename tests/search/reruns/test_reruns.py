"""Finalists are confirmed and terms ablated, paired, and nothing is done twice.

Most commands here train and score in this process (`tests.local_ray`); one, in processes of its
own, on a real Ray.
"""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

import spaces
from search import ablate, confirm
from search.plan import SearchConfig
from search.records.schema import KEYS
from search.records.store import RunStore
from search.report.analysis import ablation, confirmed
from search.report.data import load
from search.run import main as search
from tests.local_ray import install
from tests.stored import unfinished

FINISHED = Path(__file__).parents[2] / "data" / "runs_before_rooms.tar.xz"
"""A run of the `smoke` preset, as `tests/search/test_earlier_runs.py` has it."""
TINY = {"epochs": 1, "steps_per_epoch": 2, "batch_size": 8, "network.width": 8}
JUDGED = {
    "evaluation.num_scenes": 4,
    "evaluation.num_test_scenes": 4,
    "evaluation.report_snr_db": (-5.0, 0.0),
}


def on_fresh_scenes(scenes: int = 4, seeds: int = 2) -> tuple[str, ...]:
    """Flags of a small rerun."""
    return ("--scenes", f"{scenes}", "--seeds", f"{seeds}", "--max-concurrent", "1")


def suggest(trial):
    """A learning rate, and the eigengap term or not."""
    return spaces.blocks.optimizer(trial) | spaces.blocks.eigengap(trial)


@pytest.fixture(scope="module")
def here() -> Iterator[pytest.MonkeyPatch]:
    """Train and score in this process."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        patch.setattr("search.driver.Baselines", lambda *_: SimpleNamespace(start=lambda: None))
        patch.setattr("search.driver.score_best", lambda *_: None)
        patch.setattr("search.reruns.session.CLASSICAL", ("sml", "crb", "lmmse_music"))
        yield patch


@pytest.fixture(scope="module")
def run(here, tmp_path_factory):
    """A search of three short trials: two that differ in their rate, one with a term."""
    off = {"eigengap.term": "off"}
    on = {"eigengap.term": "on", "eigengap.definition": "subspace"}
    on |= {"eigengap.weight": 0.3, "eigengap.margin_subspace": 0.1}
    rates = ({"optimizer.learning_rate": rate} for rate in (0.01, 0.02, 0.02))
    anchors = tuple(term | rate for term, rate in zip((off, off, on), rates, strict=True))
    fixed = dict(spaces.get("smoke").fixed) | TINY | JUDGED
    here.setitem(spaces.PRESETS, "tiny", spaces.Space("tiny", "x", suggest, anchors, fixed))
    out = tmp_path_factory.mktemp("runs")
    flags = ["--preset", "tiny", "--trials", "3", "--name", "x", "--scheduler", "none"]
    assert search([*flags, "--out", str(out), "--no-preflight"]) == 0
    return out / "x"


@pytest.fixture(scope="module")
def confirmed_run(run):
    assert confirm.main([str(run), "--top", "3", *on_fresh_scenes()]) == 0
    return run


def written(run: Path) -> dict[str, object]:
    """Return when the scores of every rerun were written, and in which session it was trained."""
    parts = [p for t in ("confirmations", "scenes") for p in (run / t).glob("t*.parquet")]
    return {f"{p.parent.name}/{p.stem}": p.stat().st_mtime_ns for p in parts} | trained(run)


def trained(run: Path) -> dict[str, object]:
    """The part of `trials` that has the row of each rerun."""
    if not (run / "reruns").exists():
        return {}
    reruns = RunStore.open(run / "reruns")
    rows = reruns.read("trials", columns=["trial_id", "__filename"])
    return {f"trials/{name}": part for name, part in rows.itertuples(index=False)}


def test_finalists_are_scored_in_pairs_on_scenes_that_nobody_has_seen(confirmed_run):
    rows = pd.read_parquet(confirmed_run / "confirmations")
    network = rows[rows["estimator"] == "network"]
    # a row per trial, seed, SNR and K, of the configuration as the search had it
    assert len(network) == 3 * 2 * 2 * 2
    assert set(network["changes"]) == {""}
    assert (network["capped_error_low"] <= network["capped_error_high"]).all()
    assert {"crb", "sml", "lmmse_music"} <= set(rows[rows["trial_id"].isna()]["estimator"])
    store = RunStore.open(confirmed_run)
    own = store.read_config("t0000")["params"]
    seen = {own["evaluation.seed"], own["evaluation.test_seed"]}
    assert not seen & set(rows["evaluation_seed"])
    assert own["seed"] not in set(network["seed"])
    scenes = pd.read_parquet(confirmed_run / "scenes")
    scenes = scenes[scenes["evaluation_seed"].isin(rows["evaluation_seed"])]
    key = ["evaluation_seed", "scene_id", "snr_db", "num_sources"]
    sizes = scenes.groupby(["estimator", "trial_id", "seed"], dropna=False)
    wanted = set(map(tuple, scenes[scenes["estimator"] == "sml"][key].to_numpy()))
    assert all(set(map(tuple, g[key].to_numpy())) == wanted for _, g in sizes)
    mean = scenes[scenes["trial_id"] == "t0000"]["capped_error"].mean()
    assert mean == pytest.approx(network[network["trial_id"] == "t0000"]["capped_error"].mean())


def test_the_confirmed_leaderboard_has_both_values_and_the_curse(confirmed_run):
    board = confirmed.confirmed_values(load(confirmed_run)).set_index("name")
    assert list(board["kind"].iloc[:2]) == ["bound", "classical"]
    trials = board[board["kind"] == "trial"]
    assert len(trials) == 3
    assert (trials["curse"] - (trials["confirmed"] - trials["search"])).abs().max() < 1e-12
    assert trials["confirmed"].is_monotonic_increasing
    said = confirmed.text(load(confirmed_run))
    assert "winner's curse" in said
    assert " - sml: " in said


@pytest.mark.slow
def test_other_scenes_later_take_nothing_away(confirmed_run, tmp_path):
    """More scenes for an arm that is a finalist too, and a second draw of scenes for another."""
    run = tmp_path / "x"
    shutil.copytree(confirmed_run, run)
    before = confirmed.confirmed_values(load(run))
    flags = ("--term", "eigengap", "--definition", "subspace", "--trials", "t0000,t0001")
    assert ablate.main([str(run), *flags, *on_fresh_scenes(6), "--name", "on"]) == 0
    # 32-bit networks round as their batches are cut
    pd.testing.assert_frame_equal(confirmed.confirmed_values(load(run)), before, atol=1e-5)
    effects = ablation.effects(load(run), "on")
    for seed in ("5", "6"):
        flags = ["--trials", "t0000", "--scene-seed", seed, *on_fresh_scenes()]
        assert confirm.main([str(run), *flags]) == 0
    pd.testing.assert_frame_equal(confirmed.confirmed_values(load(run)), before, atol=1e-5)
    assert ablation.effects(load(run), "on") == effects
    scenes = pd.read_parquet(run / "scenes")
    assert not scenes.duplicated(list(KEYS["scenes"])).any()


def test_what_is_done_is_not_done_again_and_what_is_missing_is(confirmed_run, capsys):
    before = written(confirmed_run)
    (lost, *_) = (confirmed_run / "confirmations").glob("t0001-*.parquet")
    (unscored, *_) = (confirmed_run / "confirmations").glob("t0002-*.parquet")
    unfinished(RunStore.open(confirmed_run / "reruns"), lost.stem)
    for part in (lost, unscored):
        part.unlink()
    assert confirm.main([str(confirmed_run), "--top", "3", *on_fresh_scenes()]) == 0
    assert "6, of which 5 are done" in capsys.readouterr().out
    after = written(confirmed_run)
    assert set(after) == set(before)
    redone = {p for p in after if after[p] != before[p]}
    scored = {f"{t}/{p.stem}" for t in ("confirmations", "scenes") for p in (lost, unscored)}
    assert redone == {f"trials/{lost.stem}"} | scored


def test_an_ablation_pairs_the_same_configurations_seeds_and_scenes(confirmed_run, capsys):
    before = written(confirmed_run)
    flags = ("--term", "eigengap", "--definition", "subspace", "--top", "3")
    fewer = on_fresh_scenes(3)  # than were confirmed
    assert ablate.main([str(confirmed_run), *flags, *fewer]) == 0
    said = capsys.readouterr().out
    # t0001 and t0002 differ in the term alone: without it they are one configuration
    assert "is left out: without what is examined it is" in said
    rows = pd.read_parquet(confirmed_run / "ablations")
    arms = dict(iter(rows.groupby("arm")))
    key = ["trial_id", "seed", "evaluation_seed", "snr_db", "num_sources"]
    without, with_ = (arms[arm].sort_values(key) for arm in ("without", "with"))
    assert without[key].to_numpy().tolist() == with_[key].to_numpy().tolist()
    assert without["trial_id"].nunique() == 2
    assert (with_["hinge"] >= 0).all()
    assert without["hinge"].notna().all()
    # the arm without the term is what had been confirmed of the trials that had none
    assert set(before.items()) <= set(written(confirmed_run).items())

    (effect, *_) = ablation.effects(load(confirmed_run), "eigengap-subspace")
    scenes = pd.read_parquet(confirmed_run / "scenes").query("scene_id < 3")
    assert set(rows["num_scenes"]) == {3}
    of = {
        arm: scenes.merge(own[["trial_id", "seed", "changes"]].drop_duplicates())
        for arm, own in arms.items()
    }
    by_hand = of["with"]["capped_error"].mean() - of["without"]["capped_error"].mean()
    assert effect.difference.mean == pytest.approx(by_hand, abs=1e-12)
    of_table = with_["capped_error"].mean() - without["capped_error"].mean()
    assert of_table == pytest.approx(by_hand, abs=1e-12)
    assert effect.difference.low <= by_hand <= effect.difference.high
    assert effect.difference.n == 2
    summary = json.loads((confirmed_run / "report/ablation-eigengap-subspace.json").read_text())
    assert summary["sentence"] in said
    assert (confirmed_run / "report/ablation-eigengap-subspace.png").stat().st_size > 10_000


def test_trainings_that_diverge_are_named_and_leave_nothing_to_compare(confirmed_run, capsys):
    flags = ("--set", "optimizer.learning_rate=1e30", "--name", "wild", "--top", "2")
    assert ablate.main([str(confirmed_run), *flags, *on_fresh_scenes(4, 1)]) == 0
    said = capsys.readouterr().out
    assert said.count("diverged: t") == 2
    assert "nothing to compare" in said
    assert "did not complete: 0 of 2 without, 2 of 2 with" in said
    rows = pd.read_parquet(confirmed_run / "ablations").query("ablation == 'wild'")
    assert set(rows["arm"]) == {"with"}
    assert (rows["num_scenes"] == 0).all()
    assert rows["capped_error"].isna().all()


def test_reruns_leave_the_search_as_it_was(confirmed_run):
    loaded = load(confirmed_run)
    assert loaded.notes == ()
    assert len(loaded.trials) == 3
    assert RunStore.open(confirmed_run).ended() == {"t0000", "t0001", "t0002"}
    outcomes = RunStore.open(confirmed_run / "reruns").read("trials")["outcome"]
    assert set(outcomes) <= {"completed", "diverged"}


@pytest.mark.parametrize(
    ("command", "flags", "says"),
    [
        (confirm, ["--top", "0"], "--top >= 1"),
        (confirm, ["--trials", "t0009"], "has no 't0009'"),
        (confirm, ["--scenes", "1"], "--scenes >= 2"),
        (confirm, ["--snr", "five"], "numbers in dB"),
        (confirm, ["--snr", "10"], "has the SNRs of the objective"),
        (confirm, ["--scene-seed", "2000003"], "no scenes seen before"),
        (confirm, ["--sceens", "9"], "Did you mean `--scenes`"),
        (ablate, [], "one of the arguments --term --design --set is required"),
        (ablate, ["--term", "eigngap"], "Did you mean `eigengap`"),
        (ablate, ["--term", "eigengap", "--definition", "leek"], "Did you mean `leak`"),
        (ablate, ["--set", "spectral.backend"], "NAME=VALUE"),
        (ablate, ["--set", "spectral.backend=sdv"], "Did you mean `svd`"),
        (ablate, ["--set", "batch_size=8"], "the arms must differ"),
        (ablate, ["--set", "spectral.backend=svd", "--trials", "t0000,t0001"], "arms must differ"),
        (ablate, ["--set", "seed=3"], "anything but the seed"),
        (ablate, ["--set", "batch_size=4", "--name", "my test"], "--name: a part or trial name"),
        (confirm, ["--seeds", "1000000000"], "--seeds <= 1000"),
        (ablate, ["--term", "eigengap", "--top", "1"], "two configurations or more"),
    ],
)
def test_bad_usage_is_refused_in_one_line(run, command, flags, says, capsys):
    before = written(run)
    assert command.main([str(run), *flags]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert written(run) == before


def test_a_dry_run_prints_the_plan_and_starts_nothing(run, capsys):
    before = written(run)
    flags = ("--set", "optimizer.learning_rate=0.005", "--dry-run")
    assert ablate.main([str(run), *flags]) == 0
    said = capsys.readouterr().out
    assert "trainings  30, of which" in said  # three trials, five seeds, two arms
    assert "optimizer.learning_rate=0.005" in said
    assert written(run) == before


def test_a_run_without_finalists_is_refused(tmp_path, capsys):
    plan = SearchConfig("smoke", 4, "x", out=str(tmp_path))
    RunStore.create(tmp_path / "x", parameters={}, plan={"search": plan.as_dict()})
    assert confirm.main([str(tmp_path / "x")]) == 2
    assert "finalists are completed trials" in capsys.readouterr().err
    assert confirm.main(["y", "--out", str(tmp_path)]) == 2
    assert "RUN is a name" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
def test_a_confirmation_that_was_killed_goes_on(address, tmp_path):
    """On a real Ray, in processes of their own: this one has the stand-in."""
    with tarfile.open(FINISHED) as archive:
        archive.extractall(tmp_path, filter="data")
    run = tmp_path / "finished"
    flags = ("--top", "1", *on_fresh_scenes(seeds=4), "--address", address)
    words = [sys.executable, "-m", "search.confirm", str(run), *flags]
    first = subprocess.Popen(words)
    deadline = time.monotonic() + 240
    while not trained(run) and time.monotonic() < deadline:
        assert first.poll() is None, "it has ended by itself"
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = written(run)
    assert 0 < len(trained(run)) < 4
    subprocess.run(words, check=True)
    trials = RunStore.open(run / "reruns").read("trials")
    assert list(trials["outcome"]) == ["completed"] * 4
    done = {p: t for p, t in before.items() if p.startswith("trials/")}
    assert done.items() <= written(run).items()
    rows = pd.read_parquet(run / "confirmations")
    network = rows[rows["estimator"] == "network"]
    assert len(network) == 4 * 4 * 2  # seeds, SNRs and K
    assert len(network.groupby(["trial_id", "seed"])) == 4
    assert {"crb", "sml"} <= set(rows["estimator"])
