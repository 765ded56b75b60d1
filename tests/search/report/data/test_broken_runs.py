"""Broken and partial runs: what is missing is named, and the rest is shown."""

import subprocess
import sys
from pathlib import Path

import pytest

from search import report
from search.plan.outcome import Outcome
from search.records.schema import TABLES
from search.records.store import RunStore
from search.report.analysis.leaderboard import text
from search.report.figures.plots import draw_errors, error_vs_snr
from tests.scored_run import add_trial


def text_and_picture(path):
    run = report.load(path)
    return text(run), draw_errors(run)


def test_a_run_that_has_just_begun(empty):
    shown, figure = text_and_picture(empty.path)
    assert "No trial has ended." in shown
    assert "The classical methods and the bound have not been scored." in shown
    assert figure == "Nothing has been scored on held-out scenes yet."
    assert error_vs_snr(report.load(empty.path)) is None


@pytest.mark.parametrize("outcome", [o for o in Outcome if o is not Outcome.COMPLETED])
def test_a_run_without_a_completed_trial(baselines, outcome):
    add_trial(baselines, 0, outcome, row={"cause": "some_cause"})
    shown, figure = text_and_picture(baselines.path)
    assert "No trial completed, so there is no best one." in shown
    assert f"1 {outcome}: some_cause" in shown or f"1 {outcome}: 1 some_cause" in shown
    assert "No paired comparison: no trial completed." in shown
    assert "lmmse_music" in shown
    assert not isinstance(figure, str)


def test_a_best_trial_whose_scenes_are_not_written_yet(full):
    full.write_part("scenes", "t001", [])
    assert "`scenes` has no rows of trial t001" in text(report.load(full.path))


@pytest.mark.parametrize("missing", TABLES)
def test_a_missing_table_is_named_and_the_rest_is_shown(full, missing):
    (full.path / missing).rename(full.path / "away")
    shown, _ = text_and_picture(full.path)
    assert f"The table `{missing}` is missing." in shown
    assert ("lmmse_music" in shown) or missing == "evaluations"


def test_rows_that_are_there_twice_count_once(full):
    part = full.path / "trials" / "t001.parquet"
    part.with_name("t001-copy.parquet").write_bytes(part.read_bytes())
    run = report.load(full.path)
    assert not run.trials["trial_id"].duplicated().any()
    assert "1 rows of `trials` are there twice and count once." in run.notes


@pytest.mark.parametrize("where", ["trials", "evaluations", "scenes"])
@pytest.mark.parametrize("size", [0, 200])
def test_a_truncated_part_is_named_and_left_out(full, where, size):
    part = full.path / where / "t001.parquet"
    part.write_bytes(part.read_bytes()[:size])
    shown, _ = text_and_picture(full.path)
    assert f"{where}/t001.parquet is damaged and left out." in shown
    assert report.load(full.path).best == ("t002" if where == "trials" else "t001")


def test_a_part_of_another_run_is_named_and_left_out(full, tmp_path):
    parameters = {"eigengap.weight": ("str", "", "a word")}
    other = RunStore.create(tmp_path / "y", parameters=parameters, plan={})
    add_trial(other, 9, objective=0.01)
    foreign = full.path / "trials" / "t009.parquet"
    foreign.write_bytes((other.path / "trials" / "t009.parquet").read_bytes())
    shown, _ = text_and_picture(full.path)
    assert "trials/t009.parquet is of another run" in shown
    assert report.load(full.path).best == "t001"


def test_a_lost_run_json_costs_the_plan_only(full):
    (full.path / "run.json").write_text("{")
    run = report.load(full.path)
    assert "run.json must be readable JSON" in text(run)
    assert run.best == "t001"
    assert "params.eigengap.weight" in run.trials


def test_a_report_loads_neither_ray_nor_torch_and_matplotlib_only_to_draw():
    code = (
        "import sys, search.report;"
        "print(sorted({'torch', 'ray', 'optuna', 'matplotlib'} & set(sys.modules)))"
    )
    root = Path(report.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
