"""The leaderboard says what the tables hold, and pairs scenes."""

import numpy as np
import pandas as pd
import pytest

from search import report
from search.report.analysis.leaderboard import board, distance_to_limit, paired_with, tally, text
from search.report.page.sections import leaderboard_section
from tests.scored_run import REFINED, SCENES, SEED, add_trial, capped, evaluation_rows, scene_rows
from trainer.intervals import bootstrap_mean


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
