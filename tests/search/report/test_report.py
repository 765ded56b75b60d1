"""The leaderboard says what the tables hold, pairs scenes, and never trips over a broken run."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from search import report
from search.plan.outcome import Outcome
from search.records.schema import TABLES
from search.records.store import RunStore
from search.report.analysis.leaderboard import (
    board,
    distance_to_limit,
    paired_with,
    tally,
    text,
)
from search.report.figures.plots import draw_errors, error_vs_snr
from search.report.page.sections import leaderboard_section
from tests.stored import ended_trial
from trainer.intervals import bootstrap_mean

SNRS_DB = (-10.0, -5.0, 0.0, 10.0)
SEED = 2_000_003
SCENES = 24
REFINED = "network+judged"


def capped(snr_db, num_sources, shift):
    return 1 / (1 + np.exp((snr_db + shift - 3 * num_sources) / 4))


def evaluation_rows(trial_id, estimator, shift, snrs=SNRS_DB):
    for num_sources in (1, 2):
        for snr_db in snrs:
            error = capped(snr_db, num_sources, shift)
            yield {
                "trial_id": trial_id,
                "estimator": estimator,
                "evaluation_seed": SEED,
                "snr_db": snr_db,
                "num_sources": num_sources,
                "num_scenes": SCENES,
                "capped_error": error,
                "capped_error_low": error - 0.04,
                "capped_error_high": error + 0.02,
                "rmspe_deg": 20 * error,
                "success_rate": 1 - error,
            }


def scene_rows(trial_id, estimator, shift, noise=0.0, scenes=range(SCENES)):
    hard = np.random.default_rng(1).uniform(0.3, 0.8, size=SCENES)
    jitter = np.random.default_rng(2).normal(0, noise, size=(SCENES, 2, len(SNRS_DB)))
    for scene in scenes:
        for i, num_sources in enumerate((1, 2)):
            for j, snr_db in enumerate(SNRS_DB):
                yield {
                    "trial_id": trial_id,
                    "estimator": estimator,
                    "evaluation_seed": SEED,
                    "scene_id": scene,
                    "snr_db": snr_db,
                    "num_sources": num_sources,
                    "capped_error": hard[scene] + shift + jitter[scene, i, j],
                }


def add_trial(store, number, outcome=Outcome.COMPLETED, objective=None, **more):
    name = f"t{number:03d}"
    row = {"trial_id": name, "number": number, "outcome": outcome, "objective": objective}
    ended_trial(store, row | {"epochs": 9} | more.pop("row", {}), **more)
    return name


@pytest.fixture
def empty(tmp_path):
    plan = {"fixed": {"evaluation.objective_snr_db": [-5.0, 0.0]}}
    parameters = {"eigengap.weight": ("float", "1", "factor of the term")}
    return RunStore.create(tmp_path / "x", parameters=parameters, plan=plan)


@pytest.fixture
def baselines(empty):
    rows = [
        *evaluation_rows(None, "pinv_music", 0),
        *evaluation_rows(None, "lmmse_music", 3),
        *evaluation_rows(None, "crb", 12),
    ]
    empty.write_part("evaluations", "baselines", rows)
    empty.write_part("scenes", "baselines", scene_rows(None, "lmmse_music", 0))
    return empty


@pytest.fixture
def full(baselines):
    """Three completed trials, t001 the best; a stopped one with a smaller objective."""
    for number, objective in enumerate((0.50, 0.40, 0.45)):
        name = f"t{number:03d}"
        add_trial(
            baselines,
            number,
            objective=objective,
            evaluations=evaluation_rows(name, "network", 5 - number),
            scenes=scene_rows(name, "network", -0.1, 0.02) if number == 1 else (),
        )
    add_trial(baselines, 3, Outcome.STOPPED, 0.30, row={"epochs": 3})
    add_trial(baselines, 4, Outcome.DIVERGED, row={"cause": "nonfinite_gradient"})
    add_trial(baselines, 5, Outcome.DIVERGED, row={"cause": "nonfinite_loss"})
    return baselines


# ---------------------------------------------------------------- the leaderboard


def test_the_bound_and_the_reference_lead_then_trials_by_objective(full):
    rows = board(report.load(full.path))
    assert rows["name"].tolist()[:6] == [
        *("crb", "lmmse_music", "pinv_music"),
        *("t001", "t002", "t000"),
    ]
    assert rows["name"].tolist()[6:] == ["t003", "t004", "t005"]
    assert rows["outcome"].tolist()[:2] == ["bound", "classical"]


def test_values_are_means_over_the_objectives_cells(full):
    rows = board(report.load(full.path)).set_index("name")
    cells = [capped(snr, k, 3) for snr in (-5, 0) for k in (1, 2)]
    row = rows.loc["lmmse_music"]
    assert row["capped_error"] == pytest.approx(np.mean(cells), rel=1e-12)
    assert row["capped_error_low"] == pytest.approx(np.mean(cells) - 0.04, rel=1e-12)
    assert row["capped_error_high"] == pytest.approx(np.mean(cells) + 0.02, rel=1e-12)
    assert row["rmspe_deg"] == pytest.approx(20 * np.sqrt(np.mean(np.square(cells))), rel=1e-12)
    for snr, name in ((-10, "success_-10_db"), (-5, "success_-5_db"), (0, "success_0_db")):
        expected = 1 - np.mean([capped(snr, k, 3) for k in (1, 2)])
        assert row[name] == pytest.approx(expected, rel=1e-12)


def test_the_interval_of_a_mean_is_that_of_its_scenes_where_they_are_kept(baselines):
    """Difficulty is shared by all points of a scene, jitter is not: the mean of the points' own
    ends is too wide."""
    scenes = pd.DataFrame(scene_rows(None, "sml", -0.1, 0.2))
    cells = scenes.groupby(["estimator", "snr_db", "num_sources"])["capped_error"]
    ends = {at: bootstrap_mean(errors) for at, errors in cells}
    rows = [
        dict(zip(("estimator", "snr_db", "num_sources"), at, strict=True))
        | {"evaluation_seed": SEED, "num_scenes": SCENES, "capped_error": of.mean}
        | {"capped_error_low": of.low, "capped_error_high": of.high}
        for at, of in ends.items()
    ]
    fresh = scenes.assign(evaluation_seed=7, capped_error=0.9)  # of a confirmation
    baselines.write_part("evaluations", "baselines", rows)
    baselines.write_part(
        "scenes", "baselines", [r for each in (scenes, fresh) for r in each.to_dict("records")]
    )
    row = board(report.load(baselines.path)).set_index("name").loc["sml"]
    at = scenes[scenes["snr_db"].isin((-5.0, 0.0))]
    expected = bootstrap_mean(at.groupby("scene_id")["capped_error"].mean())
    found = [row[end] for end in ("capped_error", "capped_error_low", "capped_error_high")]
    assert found == pytest.approx([expected.mean, expected.low, expected.high], rel=1e-12)
    of = [ends["sml", snr, k] for snr in (-5.0, 0.0) for k in (1, 2)]
    assert found[2] - found[1] < 0.9 * np.mean([each.high - each.low for each in of])


def test_a_mean_over_other_snrs_is_no_value(full):
    add_trial(
        full, 6, objective=0.2, evaluations=evaluation_rows("t006", "network", 5, snrs=(0.0, 10.0))
    )
    row = board(report.load(full.path)).set_index("name").loc["t006"]
    assert pd.isna(row["capped_error"])
    assert pd.notna(row["success_0_db"])


def test_only_a_completed_trial_is_best(full):
    run = report.load(full.path)
    rows = board(run)
    assert run.best == "t001"
    assert rows.loc[rows["best"], "name"].tolist() == ["t001"]
    assert tally(run) == {"completed": 3, "stopped": 1, "diverged": 2}


def test_the_console_shows_it_in_few_lines(full):
    for number in range(6, 40):
        add_trial(full, number, objective=0.5 + number / 100)
    shown = text(report.load(full.path))
    lines = shown.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120
    assert "t001" in lines[6]
    assert lines[6].endswith("completed, best")
    assert "and 24 more trials in `trials`" in shown
    assert "1 stopped: best objective 0.300 at epoch 3" in shown
    assert "2 diverged: 1 nonfinite_gradient, 1 nonfinite_loss" in shown
    assert "t001 beats lmmse_music: capped error -0.099 [" in shown


MARGIN = {
    "guard_above": 2,
    "guard_points": 8,
    "guard_scenes": 24,
    "guard_snr_db": 10.0,
    "guard_num_sources": 2,
    "guard_difference": 0.2,
    "guard_difference_low": 0.1,
    "guard_difference_high": 0.3,
}


def test_a_guarded_trial_comes_last_of_the_completed_and_says_why(full):
    add_trial(full, 6, objective=0.1, row=MARGIN)
    add_trial(full, 7, objective=0.6, row=MARGIN | {"guard_above": 0})
    run = report.load(full.path)
    assert run.best == "t001"
    assert board(run)["trial_id"].tolist()[3:8] == ["t001", "t002", "t000", "t007", "t006"]
    shown = text(run)
    assert "completed, guarded" in shown
    assert "1 of 2 completed trials guarded: above LMMSE-MUSIC" in shown
    says = "t006 at 2 of 8 points, most surely at 10 dB, K = 2: +0.200 [+0.100, +0.300]"
    assert says in shown
    assert "3 completed trials were not compared." in shown
    assert max(map(len, shown.splitlines())) <= 120
    assert any(says in sentence for sentence in leaderboard_section(run).text)


# ---------------------------------------------------------------- paired by scene


def test_the_paired_difference_is_that_of_the_scenes(full):
    found = paired_with(report.load(full.path))
    assert found.n == SCENES
    own = pd.DataFrame(scene_rows("t001", "network", -0.1, 0.02))
    reference = pd.DataFrame(scene_rows(None, "lmmse_music", 0))
    at = own["snr_db"].isin((-5.0, 0.0))  # same order on both sides
    difference = (own["capped_error"] - reference["capped_error"])[at]
    per_scene = difference.groupby(own["scene_id"][at]).mean()
    assert found.mean == pytest.approx(per_scene.mean(), rel=1e-12)
    assert found.excludes_zero
    # 24 scenes of which each averages four jitters of sd .02: .02/sqrt(96) = .002, times 2.07
    assert 0.0025 < found.high - found.mean < 0.0065


def test_pairing_does_not_depend_on_the_order_of_rows_and_skips_what_has_no_partner(full):
    before = paired_with(report.load(full.path))
    rows = list(scene_rows("t001", "network", -0.1, 0.02))
    full.write_part("scenes", "t001", rows[::-1])
    after = paired_with(report.load(full.path))
    assert (after.mean, after.low) == pytest.approx((before.mean, before.low), rel=1e-12)
    full.write_part("scenes", "baselines", scene_rows(None, "lmmse_music", 0, scenes=range(10)))
    assert paired_with(report.load(full.path)).n == 10


def test_other_scenes_do_not_pair(full):
    rows = [row | {"evaluation_seed": 7} for row in scene_rows("t001", "network", -0.1)]
    full.write_part("scenes", "t001", rows)
    assert "fewer than two scenes" in paired_with(report.load(full.path))


@pytest.mark.parametrize(("shift", "says"), [(0.1, "loses to"), (0.0, "is not shown to differ")])
def test_a_network_that_is_no_better_is_not_praised(full, shift, says):
    full.write_part("scenes", "t001", scene_rows("t001", "network", shift, 0.02))
    assert f"t001 {says}" in text(report.load(full.path))


@pytest.mark.parametrize("order", [1, -1])
def test_the_best_with_a_term_is_paired_with_the_best_without_by_validation_scene(empty, order):
    random = np.random.default_rng(3)
    hard = random.uniform(0.3, 0.8, size=SCENES)
    difference = random.normal(0.05, 0.02, size=SCENES)
    for number, weight, shift in ((0, 0.0, 0.1), (1, 0.3, difference), (2, 0.0, 0.0)):
        name = f"t{number:03d}"
        errors = hard + shift
        epochs = [
            {"trial_id": name, "epoch": 9, "objective_scenes": errors.tolist()},
            {"trial_id": name, "epoch": 1, "objective_scenes": [1.0] * SCENES},
            {"trial_id": name, "epoch": 2},
        ][::order]
        row = {"params.eigengap.weight": weight}
        add_trial(empty, number, objective=errors.mean(), row=row, epochs=epochs)
    shown = text(report.load(empty.path))
    expected = report.mean_interval(difference)
    assert (
        f"t001 is best with an eigengap term, t002 without: objective {expected}, {SCENES}"
        in shown
    )
    assert "the best of 1 and of 2; 95% over scenes alone:" in shown
    assert "search.ablate" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_a_term_that_no_completed_trial_has_is_not_judged(full):
    assert "No trial with an eigengap term completed" in text(report.load(full.path))


# ---------------------------------------------------------------- broken and partial runs


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


# ---------------------------------------------------------------- the picture


def test_the_lines_are_the_rows(full):
    run = report.load(full.path)
    figure = draw_errors(run)
    top, bottom = figure.axes[::2], figure.axes[1::2]
    assert [axes.get_title() for axes in top] == ["K = 1 source", "K = 2 sources"]
    for num_sources, axes in zip((1, 2), top, strict=True):
        lines = {line.get_label(): line for line in axes.get_lines()}
        best = lines["best network, t001, MUSIC alone"]
        np.testing.assert_array_equal(best.get_xdata(), SNRS_DB)
        expected = [capped(snr, num_sources, 4) for snr in SNRS_DB]
        np.testing.assert_allclose(best.get_ydata(), expected, rtol=1e-12)
        assert {"LMMSE-MUSIC", "√CRB (bounds unbiased estimators)"} <= set(lines)
    assert all(axes.get_yscale() == "log" for axes in bottom)
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == [  # the largest error first
        "pseudo-inverse MUSIC",
        "LMMSE-MUSIC",
        "best network, t001, MUSIC alone",
        "√CRB (bounds unbiased estimators)",
    ]


@pytest.fixture
def refined(full):
    """The same run, with the estimates of t001 refined, and the limit."""
    full.write_part("evaluations", "t001-refined", evaluation_rows("t001", REFINED, 9))
    mine = [*scene_rows("t001", "network", -0.1, 0.02), *scene_rows("t001", REFINED, -0.15)]
    full.write_part("scenes", "t001", mine)
    shared = [*scene_rows(None, "lmmse_music", 0), *scene_rows(None, "limit_shape", -0.2)]
    full.write_part("scenes", "baselines", shared)
    return full


def test_refined_estimates_have_a_line_of_their_own(refined):
    axes = draw_errors(report.load(refined.path)).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    for label, shift in (("refined by likelihood", 9), ("MUSIC alone", 4)):
        line = lines[f"best network, t001, {label}"]
        np.testing.assert_allclose(line.get_ydata(), [capped(snr, 1, shift) for snr in SNRS_DB])


def test_refined_estimates_stand_above_the_trials_and_are_no_trial(refined):
    run = report.load(refined.path)
    rows = board(run)
    assert rows["name"].tolist()[2:5] == ["pinv_music", REFINED, "t001"]
    row = rows.set_index("name").loc[REFINED]
    expected = np.mean([capped(snr, k, 9) for snr in (-5, 0) for k in (1, 2)])
    assert row["capped_error"] == pytest.approx(expected, rel=1e-12)
    assert rows["best"].sum() == 1
    assert rows["trial_id"].nunique() == len(run.trials)


def test_the_distance_to_the_limit_is_given_with_refining_and_without(refined):
    said = distance_to_limit(report.load(refined.path))
    assert "t001 is +0.1" in said
    assert "above the limit (refined as `localise` does: +0.050 [+0.050, +0.050])" in said
    assert "mean at -5, 0 dB" in said


def test_no_panel_has_more_lines_than_can_be_told_apart(refined):
    names = ("sml", "lmmse_beamformer", "lmmse_mvdr", "pinv_beamformer", "limit_shape", "crb")
    rows = [row for name in names for row in evaluation_rows(None, name, 1)]
    refined.write_part("evaluations", "baselines", rows)
    figure = draw_errors(report.load(refined.path))
    (legend,) = figure.legends
    shown = {t.get_text() for t in legend.get_texts()}
    assert len(shown) == 7
    own = ("refined by likelihood", "MUSIC alone")
    assert {f"best network, t001, {how}" for how in own} < shown


def test_the_intervals_are_drawn(full):
    axes = draw_errors(report.load(full.path)).axes[0]
    label = "best network, t001, MUSIC alone"
    (at,) = (i for i, line in enumerate(axes.get_lines()) if line.get_label() == label)
    band = axes.collections[at].get_paths()[0].vertices
    expected = [capped(snr, 1, 4) for snr in SNRS_DB]
    assert band[:, 1].min() == pytest.approx(min(expected) - 0.04)
    assert band[:, 1].max() == pytest.approx(max(expected) + 0.02)


@pytest.mark.slow
def test_the_picture_is_a_png_in_the_run(full, tmp_path):
    path = error_vs_snr(report.load(full.path))
    assert path == full.path / "report" / "error_vs_snr.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    elsewhere = tmp_path / "a" / "b.png"
    assert error_vs_snr(report.load(full.path), elsewhere) == elsewhere


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
