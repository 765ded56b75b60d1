"""Confirmed values: of unchanged reruns, with the doubt of seeds and scenes, and their pairs."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from search.records.store import RunStore
from search.report.analysis import ablation, confirmed
from search.report.analysis.leaderboard import paired_with
from search.report.analysis.winner import noise
from search.report.data import load
from search.report.page import sections
from tests import drawn_run
from tests.ablated_run import FRESH, SCENES, plain
from tests.stored import ended_trial


def test_confirmed_values_are_of_unchanged_reruns_only(run_with):
    """The arm `with` errs by 0.1 more: none of it is in the confirmed value."""
    board = confirmed.confirmed_values(run_with(0.1)).set_index("name")
    assert len(board) == 5
    assert (board["confirmed"] - 0.5).abs().max() < 0.03
    assert (board["confirmed_low"] < board["confirmed_high"]).all()
    assert list(board["seeds"]) == [5] * 5


def test_a_single_seed_has_a_value_and_no_interval(run_with):
    board = confirmed.confirmed_values(run_with(0.1, seeds=1))
    assert board["confirmed"].notna().all()
    assert board["confirmed_low"].isna().all()


def test_a_rerun_on_fewer_scenes_confirms_nothing(run_with, copy_of):
    """An ablation's arm may be the unchanged configuration, under more seeds, on fewer scenes."""
    run = load(copy_of(run_with(0.1)).path)
    before = confirmed.confirmed_values(run)
    store = RunStore.open(run.path)
    few = store.read("scenes", "t0000-0-without").query("scene_id < 3")
    few = few.assign(seed=77, capped_error=0.0)
    store.write_part("scenes", "t0000-77", plain(few))
    pd.testing.assert_frame_equal(confirmed.confirmed_values(load(run.path)), before)


def test_a_finalist_whose_seeds_saw_different_scenes_has_no_value_and_comes_last(
    run_with, copy_of
):
    """Means over other scenes do not compare."""
    store = copy_of(run_with(0.0))
    for seed in range(5):
        name = f"t0000-{seed}-without"
        rows = store.read("scenes", name)
        kept = rows[(rows["scene_id"] < SCENES / 2) == (seed == 0)]
        store.write_part("scenes", name, plain(kept))
    run = load(store.path)
    board = confirmed.confirmed_values(run)
    assert board["name"].iloc[-1] == "t0000"
    assert board["confirmed"].isna().to_list() == [False] * 4 + [True]
    assert "t0000" in confirmed.text(run)
    assert set(confirmed.behind(run)) == set(board["name"].iloc[1:4])


def test_confirming_on_other_scenes_later_changes_nothing_but_a_sentence(run_with, copy_of):
    """As after a second `--scene-seed` for one trial, which has both."""
    store = copy_of(run_with(0.0))
    before = confirmed.confirmed_values(run_with(0.0))
    for table in ("scenes", "confirmations"):
        rows = store.read(table, "t0000-0-without").assign(evaluation_seed=FRESH + 1)
        store.write_part(table, "again", plain(rows))
        other = plain(rows.assign(trial_id="t0009"))
        store.write_part(table, "other", other)
    run = load(store.path)
    pd.testing.assert_frame_equal(confirmed.confirmed_values(run), before)
    (said,) = confirmed.on_other_scenes(run)
    assert "so not compared: t0009." in said
    assert f"--scene-seed {FRESH}" in said


def test_the_curse_knows_that_scenes_were_drawn_too(run_with):
    """The search's values are .50 ... .54 and the confirmed ones .5: -.02, within the doubt of 16
    fresh and 128 validation scenes."""
    found = confirmed.curse(run_with(0.0))
    assert found.n == 5
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(-0.02, abs=0.01)


def test_finalists_that_agree_leave_the_curse_the_doubt_of_both_draws_of_scenes(tmp_path):
    """128 scenes of the search and 8 fresh ones."""
    store = RunStore.create(tmp_path / "x", parameters={}, plan={"search": {}})
    luck = 0.4 + 0.01 * np.arange(8.0)
    for trial in ("t0000", "t0001"):
        row = {"trial_id": trial, "number": 0, "outcome": "completed", "objective": 0.4}
        ended_trial(store, row, epochs=[])
        about = {"trial_id": trial, "evaluation_seed": FRESH, "changes": "", "num_sources": 1}
        about |= {"estimator": "network"}
        rows = [
            about | {"seed": seed, "scene_id": i, "snr_db": snr, "capped_error": error}
            for seed in (1, 2)
            for i, error in enumerate(luck)
            for snr in (-5.0, 0.0)
        ]
        store.write_part("scenes", trial, rows)
        cells = [about | {"seed": s, "snr_db": -5.0, "confirmed": 8} for s in (1, 2)]
        store.write_part("confirmations", trial, cells)
    found = confirmed.curse(load(store.path))
    assert found.mean == pytest.approx(luck.mean() - 0.4)
    shares = np.array([luck.var(ddof=1) / n for n in (8, 128)])
    freedom = shares.sum() ** 2 / (shares**2 / 7).sum()
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(shares.sum())
    assert found.high - found.mean == pytest.approx(reach)


def test_finalists_are_told_apart_in_pairs_of_equal_scenes(tmp_path):
    """The scenes differ by far more than the finalists; what they share cancels."""
    rng = np.random.default_rng(3)
    store = RunStore.create(tmp_path / "x", parameters={}, plan={"search": {}})
    hard = rng.uniform(0.2, 0.8, SCENES)
    for number, worse in enumerate((0.0, 0.0, 0.05)):
        trial = f"t000{number}"
        row = {"trial_id": trial, "number": number, "outcome": "completed", "objective": 0.4}
        ended_trial(store, row, epochs=[])
        about = {"trial_id": trial, "evaluation_seed": FRESH, "changes": "", "num_sources": 1}
        rows = [
            about
            | {"estimator": "network", "seed": 10 * number + seed, "scene_id": i, "snr_db": snr}
            | {"capped_error": hard[i] + worse + 0.005 * rng.standard_normal()}
            for seed in range(5)
            for i in range(SCENES)
            for snr in (-5.0, 0.0)
        ]
        store.write_part("scenes", trial, rows)
        cell = about | {"estimator": "network", "snr_db": -5.0, "confirmed": SCENES}
        cells = [cell | {"seed": 10 * number + seed} for seed in range(5)]
        store.write_part("confirmations", trial, cells)
    run = load(store.path)
    found = confirmed.behind(run)
    behind = found.pop("t0002")
    assert 0 < behind.low < 0.05 < behind.high
    assert behind.level == pytest.approx(1 - 0.05 / 3)  # three pairs
    ((name, none),) = found.items()
    assert none.low < 0 < none.high
    (first,) = {"t0000", "t0001"} - {name}
    said = " ".join(noise(run))
    assert f"{first} is ahead of t0002 and is not told from {name} (+0.00" in said


def test_the_winner_is_held_against_the_classical_with_its_sign(drawn):
    """Negative where the network errs less; also what it loses to is in the lead."""
    run = drawn
    best, *_ = confirmed.finalists(run)
    fresh = run.tables["scenes"].query(
        "evaluation_seed == @drawn_run.FRESH and snr_db in (-5, 0) and changes.fillna('') == ''"
    )
    own = fresh[fresh["trial_id"] == best]["capped_error"].mean()
    for name in confirmed.REFERENCES:
        classical = fresh[fresh["estimator"] == name]["capped_error"].mean()
        found = confirmed.against(run, best, name)
        assert found.mean == pytest.approx(own - classical, abs=1e-12)
        assert found.n == 3
    (*_, lead) = sections.lead(run)
    assert f"{best} beats LMMSE-MUSIC (-" in lead
    assert "and loses to stochastic ML (+" in lead


def test_reruns_do_not_enter_the_pairs_of_the_search(drawn):
    scenes = drawn.tables["scenes"]
    searched = scenes[scenes["evaluation_seed"] != drawn_run.FRESH]
    assert len(searched) < len(scenes)
    without = replace(drawn, tables=drawn.tables | {"scenes": searched})
    assert paired_with(drawn) == paired_with(without)
    assert paired_with(drawn).n == drawn_run.SCENES


def test_a_run_that_has_none_says_so(tmp_path):
    run = load(RunStore.create(tmp_path / "x", parameters={}, plan={"search": {}}).path)
    assert ablation.names(run) == []
    assert "Nothing is confirmed yet" in confirmed.text(run)
    assert confirmed.curse(run) is None
