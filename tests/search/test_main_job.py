"""The main job as a user runs it: one command, four trainings, tables, a leaderboard, a plot."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pyarrow.compute as pc
import pytest

import spaces
from search import localise
from search import run as search_run
from search.driver.driver import search
from search.plan.config import SearchConfig, objective_window
from search.plan.resources import Resources
from search.records import best_trial
from search.records.schema import BASELINE_PART
from search.records.store import RunStore
from tests import poisoned
from trainer.__main__ import main as trainer_main
from trainer.config import SceneConfig
from trainer.evaluation import evaluate_network
from trainer.scenes import save_scenes
from trainer.scenes.simulation import EvalScenes
from trainer.training import load_model

pytestmark = pytest.mark.ray  # all but one read the real run
PARAMETERS = {
    "optimizer.learning_rate": ("float", "1", "initial step size"),
    "spectral.backend": ("str", "1", "derivative of the projector"),
}
TABLES = ("trials", "epochs", "evaluations", "scenes", "spectra", "pseudospectra", "failures")


def test_it_shows_the_dashboard_a_line_per_event_a_leaderboard_and_what_to_type_next(smoke):
    path, done = smoke
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert "Ray dashboard: http://" in said
    assert "auto is exact" in said  # the workers' eigensolvers were checked
    assert said.count("  started  ") == 4
    board = said[said.index("capped error") :]
    rows = [board.index(name) for name in ("crb ", "lmmse_music ", "sml ", "completed, best")]
    assert rows == sorted(rows)
    assert f"python -m trainer replay {path} t" in said
    assert (path / "report" / "error_vs_snr.png").stat().st_size > 10_000
    assert "Traceback" not in said + done.stderr


def test_pandas_reads_every_table_and_no_number_is_non_finite(smoke):
    path, _ = smoke
    tables = {name: pd.read_parquet(path / name) for name in TABLES}
    assert len(tables["trials"]) == 4
    for name, table in tables.items():
        numbers = table.select_dtypes("number").to_numpy(dtype=float, na_value=np.nan)
        assert not np.isinf(numbers).any(), name
    evaluations = tables["evaluations"]
    shared = evaluations[evaluations["trial_id"].isna()]
    assert set(shared["estimator"]) == {
        "crb",
        "lmmse_music",
        "sml",
        "pinv_music",
        "lmmse_mvdr",
        "lmmse_beamformer",
        "limit_shape",
        "limit_blind",
    }
    own = evaluations.dropna(subset=["trial_id"])
    assert set(own["estimator"]) == {"network", "network+scoring"}
    completed = tables["trials"].query("outcome == 'completed'")
    assert set(own["trial_id"]) == set(completed["trial_id"])


def test_the_refined_rows_are_those_of_the_model_that_localises(smoke):
    path, _ = smoke
    model = load_model(path)
    expected = evaluate_network(model.network, model.config, refine=True)
    said = pd.read_parquet(path / "scenes").query("estimator == 'network+scoring'")
    np.testing.assert_array_equal(said["source_number"], expected.scenes.source_number)
    for table, rows in (
        ("evaluations", [asdict(row) for row in expected.rows]),
        ("scenes", expected.scenes.rows()),
    ):
        found = pd.read_parquet(path / table).query("estimator == 'network+scoring'")
        shared = ["snr_db", "num_sources", "capped_error"]
        # another process, with as many threads
        np.testing.assert_allclose(found[shared], pd.DataFrame(rows)[shared], atol=1e-4)
        assert set(found["trial_id"]) == {best_trial(pd.read_parquet(path / "trials"))}


def test_a_search_value_lies_in_its_interval_which_is_that_of_the_judged_epochs(smoke):
    path, _ = smoke
    trials = pd.read_parquet(path / "trials").dropna(subset=["objective"])
    assert (trials["objective_low"] < trials["objective"]).all()
    assert (trials["objective"] < trials["objective_high"]).all()
    planned = json.loads((path / "configs" / "t0000.json").read_text())["params"]["epochs"]
    count = objective_window(planned)
    epochs = pd.read_parquet(path / "epochs").sort_values("epoch").groupby("trial_id").tail(count)
    means = epochs.groupby("trial_id").mean(numeric_only=True).loc[trials["trial_id"]]
    for end in ("", "_low", "_high"):
        of_epochs, of_trial = means[f"validation_capped_error{end}"], trials[f"objective{end}"]
        np.testing.assert_allclose(of_epochs, of_trial, rtol=1e-12)


def test_the_plan_was_written_and_optuna_reads_the_journal(smoke):
    path, _ = smoke
    plan = json.loads((path / "run.json").read_text())
    assert plan["search"]["preset"] == "smoke"
    assert "versions" in plan["provenance"]
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(path / "optuna.log"))
    )
    study = optuna.load_study(study_name="smoke", storage=storage)
    states = {t.user_attrs["trial_id"]: t.state.name for t in study.trials}
    outcomes = pd.read_parquet(path / "trials").set_index("trial_id")["outcome"]
    told = {"completed": "COMPLETE", "stopped": "PRUNED", "diverged": "PRUNED"}
    assert states == {name: told[outcome] for name, outcome in outcomes.items()}


def test_the_best_network_is_left_as_a_model_that_localises(smoke, tmp_path):
    path, done = smoke
    assert f"python -m trainer localise --model {path}" in done.stdout
    card = (path / "best" / "model_card.md").read_text()
    assert "tests.small_smoke --preset smoke" in card  # the command that made it
    assert "| lmmse_music | " in card
    assert "| crb | " in card
    best = RunStore.open(path).read("trials").query("outcome == 'completed'")
    winner = best.sort_values(["objective", "number"])["trial_id"].iloc[0]
    record = json.loads((path / "configs" / f"{winner}.json").read_text())
    assert json.loads((path / "best" / "config.json").read_text())["params"] == record["params"]
    scenes, out = tmp_path / "scenes.npz", tmp_path / "out.parquet"
    save_scenes(EvalScenes(SceneConfig(), 5).batch(range(8), snr_db=0.0), scenes)
    asked = ["--model", str(path), "--scenes", str(scenes), "--out", str(out)]
    assert localise.main(asked) == 0
    assert set(pd.read_parquet(out)["scene"]) == set(range(8))


def test_resuming_a_finished_run_prints_its_leaderboard_and_changes_nothing(smoke, capsys):
    path, _ = smoke
    before = {p: p.read_bytes() for p in sorted(path.rglob("*.parquet"))}
    assert search_run.main(["--resume", str(path)]) == 0
    assert "completed, best" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in sorted(path.rglob("*.parquet"))} == before


def test_a_finished_run_without_the_limit_that_is_kept_gets_it(smoke, tmp_path, monkeypatch):
    run = Path(shutil.copytree(smoke[0], tmp_path / "smoke"))
    store, resumed = RunStore.open(run), []
    for table in ("evaluations", "scenes"):
        rows = store.read_arrow(table, BASELINE_PART)
        store.write_part(
            table, BASELINE_PART, rows.filter(pc.not_equal(rows["estimator"], "limit_shape"))
        )
    monkeypatch.setattr(
        search_run, "run_locked", lambda *given, **more: resumed.append(given) or 0
    )
    assert search_run.main(["--resume", str(run), "--accept-space-change"]) == 0
    assert resumed


def test_a_trial_replays_from_its_configuration_alone(smoke, capsys):
    path, _ = smoke
    epochs = pd.read_parquet(path / "epochs").query("trial_id == 't0000'")
    assert trainer_main(["replay", str(path), "t0000"]) == 0
    said = capsys.readouterr().out
    assert "reproduced" in said
    last = epochs.sort_values("epoch").iloc[-1]
    assert f"capped error {last['validation_capped_error']:.3f}" in said


@pytest.mark.parametrize("held", ["run", "checkpoint", "best"])
def test_a_trained_network_is_evaluated_without_ray(held, smoke, capsys):
    path, _ = smoke
    trials = pd.read_parquet(path / "trials").set_index("trial_id")
    places = {"checkpoint": path / trials.loc["t0000", "checkpoint"], "best": path / "best"}
    asked = ["--num-scenes", "4", "--snr-db", "0", "10"]
    assert trainer_main(["evaluate", str(places.get(held, path)), *asked]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert {"network", "crb", "lmmse_music"} <= {row.split()[0] for row in rows if row}


def test_a_nan_in_the_data_or_the_gradient_of_one_trial_ends_that_trial_only(
    local_ray, tmp_path, monkeypatch, capsys
):
    """t0001 meets a NaN in its data; t0002 has a native projector derivative at exact ties."""
    tried = ((0.01, "gram"), (poisoned.POISONED_RATE, "gram"), (0.01, "eigh"), (0.009, "gram"))
    short = {"evaluation.num_scenes": 4, "epochs": 2}
    fixed = spaces.get("smoke").fixed | short | poisoned.EXACT_TIES

    def suggest(trial: spaces.Trial) -> dict[str, float | str]:
        return {
            "optimizer.learning_rate": trial.suggest_float("optimizer.learning_rate", 1e-3, 3e-2),
            "spectral.backend": trial.suggest_categorical("spectral.backend", ("gram", "eigh")),
        }

    anchors = tuple(dict(zip(PARAMETERS, values, strict=True)) for values in tried)
    space = spaces.Space("poisoned", "for tests", suggest, anchors, fixed)
    monkeypatch.setitem(spaces.PRESETS, "poisoned", space)
    plan = SearchConfig("poisoned", 4, "run", out=str(tmp_path), scheduler="none")
    store = RunStore.create(
        tmp_path / "run",
        parameters=PARAMETERS,
        plan={"search": plan.as_dict(), "fixed": dict(fixed)},
    )
    search(plan, store, Resources(cpus=1, gpus=0, concurrent=1), train=poisoned.train)
    trials = store.read("trials").set_index("trial_id")
    assert list(trials["outcome"]) == ["completed", "diverged", "diverged", "completed"]
    failures = store.read("failures").set_index("trial_id")
    assert list(failures["cause"]) == ["nonfinite_data", "nonfinite_gradient"]
    assert (failures.loc["t0001", "tensor"], failures.loc["t0001", "step"]) == ("snapshots", 2)
    assert failures.loc["t0002", "term"] == "eigengap"
    assert failures.loc["t0002", "tensor"]
    assert trainer_main(["replay", str(store.path), "t0002"]) == 0
    assert "nonfinite_gradient" in capsys.readouterr().out
