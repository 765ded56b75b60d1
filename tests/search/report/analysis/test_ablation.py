"""An ablation is read from tables alone, finds the difference that is there, and says so."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from search.records.store import RunStore
from search.report.analysis import ablation, confirmed
from search.report.analysis.leaderboard import paired_with
from search.report.analysis.winner import noise
from search.report.data import Run, load
from search.report.figures import ablation_plot
from search.report.page import sections
from tests import drawn_run
from tests.stored import ended_trial

BENCHMARK = Path(__file__).parents[4] / "benchmarks" / "eigengap_ablation.py"
SNRS = (-5.0, 0.0, 10.0)
SCENES, FRESH = 16, 3_000_003


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    """Makes runs whose arm `with` errs by `effect` more at every SNR of the objective; each is
    made once, so no test may change them."""

    @cache
    def made(effect: float, *, trials: int = 5, seeds: int = 5, acts: float = 0.8) -> Run:
        return make(tmp_path_factory.mktemp("runs") / "x", effect, trials, seeds, acts)

    return made


@pytest.fixture
def copy_of(tmp_path):
    """Copies runs, for a test to change."""
    return lambda run: RunStore.open(shutil.copytree(run.path, tmp_path / "x"))


def make(path: Path, effect: float, trials: int, seeds: int, acts: float) -> Run:
    """A run with an ablation; errors differ by seed and scene as those of networks do."""
    rng = np.random.default_rng(4)
    store = RunStore.create(path, parameters={}, plan={"search": {}})
    rows = []
    common = 0.05 * rng.standard_normal((len(SNRS), SCENES))
    for number in range(trials):
        trial = f"t{number:04d}"
        store.write_config(trial, {})
        row = {"trial_id": trial, "number": number, "outcome": "completed"}
        ended_trial(
            store,
            row | {"objective": 0.5 + 0.01 * number, "epochs": 1},
            epochs=[{"trial_id": trial, "epoch": 1}],
        )
        for seed in range(seeds):
            for arm, changes in (("without", ""), ("with", "eigengap.weight=0.3")):
                about = {"trial_id": trial, "seed": seed, "evaluation_seed": FRESH}
                about |= {"changes": changes, "num_sources": 1}
                luck = 0.01 * rng.standard_normal()
                scored = [
                    about
                    | {
                        "estimator": "network",
                        "snr_db": snr,
                        "scene_id": scene,
                        "capped_error": 0.5
                        + (arm == "with") * (effect * (snr < 5) + common[s, scene])
                        + luck,
                        "success": 0.5,
                        "source_number_found": float(rng.integers(2)),
                    }
                    for s, snr in enumerate(SNRS)
                    for scene in range(SCENES)
                ]
                name = f"{trial}-{seed}-{arm}"
                store.write_part("scenes", name, scored)
                totals = [
                    about
                    | {"estimator": "network", "snr_db": snr, "capped_error": 0.5}
                    | {"confirmed": None if changes else SCENES}
                    for snr in SNRS
                ]
                store.write_part("confirmations", name, totals)
                hinge = {"hinge": 0.2 if arm == "with" else 0.3}
                hinge |= {"hinge_active": 0.6 if arm == "with" else acts}
                rows += [
                    about
                    | hinge
                    | {"ablation": "eigengap", "arm": arm, "snr_db": snr, "num_scenes": SCENES}
                    for snr in SNRS
                ]
    store.write_part("ablations", "eigengap", rows)
    return load(path)


@pytest.mark.parametrize(
    ("effect", "says"),
    [(-0.1, "helps"), (0.1, "hurts"), (0.0, r"no effect larger than 0\.0\d+ at 95%")],
)
def test_the_verdict_is_of_the_sign_and_size_of_what_is_there(run_with, effect, says):
    run = run_with(effect)
    (overall, *rest) = ablation.effects(run, "eigengap")
    assert overall.measure == "capped_error"
    assert overall.snr_db is None
    assert overall.difference.low <= effect <= overall.difference.high
    assert overall.difference.n == 5
    assert (overall.seeds, overall.scenes) == (25, SCENES)
    assert re.fullmatch(says, ablation.verdict(overall))
    at = {e.snr_db: e for e in rest if e.measure == "capped_error"}
    assert list(at) == list(SNRS)
    assert at[10.0].difference.low <= 0 <= at[10.0].difference.high
    said = ablation.text(run, "eigengap")
    assert said.startswith("eigengap: ")
    assert "5 configurations x 5 seeds x 16 scenes" in said
    assert "| 0.300 (80%), 0.200 (60%) |" in said


@pytest.mark.parametrize(("acts", "hardly"), [(0.8, False), (0.02, True)])
def test_a_term_that_hardly_acts_is_said_to(run_with, acts, hardly):
    run = run_with(0.0, acts=acts)
    said = ablation.sentence(run, "eigengap")
    assert f"The term acts in {acts:.1%} of the scenes" in said
    assert ("hardly ever" in said) is hardly


def test_the_arms_differ_by_the_difference_and_the_objective_is_the_mean_of_its_snrs(run_with):
    """At 10 dB, which is none of the objective's, the arms are alike."""
    found = ablation.effects(run_with(0.1), "eigengap")
    for effect in found:
        assert effect.with_ - effect.without == pytest.approx(effect.difference.mean, abs=1e-12)
    error = {e.snr_db: e.difference.mean for e in found if e.measure == "capped_error"}
    assert error[None] == pytest.approx((error[-5.0] + error[0.0]) / 2, abs=1e-12)
    assert abs(error[10.0]) < 0.05 < error[None]


def test_what_is_detectable_is_more_than_the_interval_reaches(run_with):
    """An effect on the edge of the interval is missed every second time, not every fifth: the
    reach is t(.975) standard errors, the detectable effect t(.975) + t(.8), of 4 degrees of
    freedom or more."""
    for effect in ablation.effects(run_with(0.0), "eigengap"):
        reach = (effect.difference.high - effect.difference.low) / 2
        if reach > 0:  # the success rate is the same everywhere
            assert 1.3 < effect.detectable / reach < 1.45


def test_what_is_said_to_be_excluded_is_outside_of_the_interval(run_with):
    (overall, *_) = ablation.effects(run_with(0.0), "eigengap")
    most = max(abs(overall.difference.low), abs(overall.difference.high))
    assert ablation.verdict(overall) == f"no effect larger than {most:.2g} at 95%"
    assert overall.detectable > 0


def test_trainings_without_their_pair_are_left_out(run_with, copy_of):
    run = load(copy_of(run_with(0.1)).path)
    before = ablation.effects(run, "eigengap")[0]
    for name in ("t0000-0-with", "t0001-3-without"):
        (run.path / "scenes" / f"{name}.parquet").unlink()
    after = ablation.effects(load(run.path), "eigengap")[0]
    assert (before.seeds, after.seeds) == (25, 23)
    assert after.difference.n == 5
    assert after.difference.low <= 0.1 <= after.difference.high


def test_trainings_that_did_not_complete_are_part_of_the_answer(run_with, copy_of):
    """Two of 25 came to nothing with the term: the difference is over the other 23, and it says
    so. Without it none did."""
    store = copy_of(run_with(0.1))
    rows = store.read("ablations", "eigengap")
    lost = rows["trial_id"].isin(["t0000", "t0001"]) & (rows["seed"] == 3)
    failed = rows[lost & (rows["arm"] == "with")].assign(
        num_scenes=0, capped_error=np.nan, hinge=np.nan, hinge_active=np.nan
    )
    kept = pd.concat([rows[~lost], failed])
    store.write_part("ablations", "eigengap", plain(kept))
    run = load(store.path)
    (overall, *_) = ablation.effects(run, "eigengap")
    assert overall.seeds == 23
    assert overall.difference.low <= 0.1 <= overall.difference.high
    assert asdict(ablation.incomplete(run, "eigengap")) == {"without": 0, "with_": 2, "asked": 25}
    said = ablation.text(run, "eigengap")
    assert "did not complete: 0 of 25 without, 2 of 25 with." in said
    assert "over 23 pairs of trainings of 5 configurations x 16 scenes" in said
    assert said.splitlines()[0] in " ".join(sections.confirmations(run).text)


def test_pairs_that_divide_evenly_are_no_design_of_seeds(run_with, copy_of):
    """Two configurations with one and five seeds are not two with three."""
    run = load(copy_of(run_with(0.1, trials=2)).path)
    rows = run.tables["ablations"]
    kept = rows[(rows["trial_id"] == "t0001") | (rows["seed"] == rows["seed"].min())]
    RunStore.open(run.path).write_part("ablations", "eigengap", plain(kept))
    said = ablation.text(load(run.path), "eigengap")
    assert "over 6 pairs of trainings of 2 configurations x " in said


def test_results_whose_scenes_or_trials_are_gone_are_not_called_undone(run_with, copy_of):
    run = load(copy_of(run_with(0.1)).path)
    (run.path / "scenes").rename(run.path / "away")
    without = load(run.path)
    assert "the table `scenes` lacks" in ablation.text(without, "eigengap")
    assert "trials were confirmed, but the table `scenes` lacks" in confirmed.text(without)
    (run.path / "away").rename(run.path / "scenes")
    for part in (run.path / "trials").glob("t*.parquet"):
        part.unlink()
    without = load(run.path)
    assert "trials were confirmed, but the table `trials` lacks" in confirmed.text(without)
    assert any("trained again have no row in `trials`" in note for note in without.notes)


def plain(rows):
    """As a store takes them: nothing where there is no number."""
    return [{k: v for k, v in row.items() if pd.notna(v)} for row in rows.to_dict("records")]


def test_one_configuration_has_no_verdict(run_with, tmp_path):
    run = run_with(0.1, trials=1)
    assert ablation.effects(run, "eigengap") == []
    assert "nothing to compare" in ablation.text(run, "eigengap")
    assert ablation_plot.write(run, ["eigengap"], tmp_path / "x.png") is None


def test_the_figure_has_a_panel_for_each_ablation(run_with):
    run = run_with(0.1)
    figure = ablation_plot.draw_ablations(run)
    (axes,) = figure.axes
    assert axes.get_title() == "eigengap: hurts"
    found = ablation.effects(run, "eigengap")
    for drawn, measure in zip(axes.containers, ablation_plot.SHOWN, strict=True):
        own = [e.difference for e in found if e.measure == measure and e.snr_db is not None]
        line, _, (bars,) = drawn
        np.testing.assert_allclose(line.get_ydata(orig=False), [d.mean for d in own])
        ends = [(bar[0, 1], bar[1, 1]) for bar in bars.get_segments()]
        np.testing.assert_allclose(ends, [(d.low, d.high) for d in own])


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
    store.write_part("scenes", "t0000-77", few.to_dict("records"))
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
        store.write_part("scenes", name, kept.to_dict("records"))
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


@pytest.mark.slow
def test_the_benchmark_writes_what_the_tables_say(run_with, copy_of):
    run = load(copy_of(run_with(-0.1)).path)
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), str(run.path), "--no-write"],
        capture_output=True,
        text=True,
        check=True,
        cwd=BENCHMARK.parents[1],
    )
    assert "| eigengap | 0, 0 of 25 | 25 pairs of 5 configurations | helps | " in done.stdout
    assert (run.path / "report" / "eigengap_ablation.png").stat().st_size > 10_000


def test_a_run_that_has_none_says_so(tmp_path):
    run = load(RunStore.create(tmp_path / "x", parameters={}, plan={"search": {}}).path)
    assert ablation.names(run) == []
    assert "Nothing is confirmed yet" in confirmed.text(run)
    assert confirmed.curse(run) is None


def test_a_summary_has_plain_numbers(run_with, copy_of):
    from search.ablate import print_verdict

    run = load(copy_of(run_with(0.1)).path)
    assert print_verdict(RunStore.open(run.path), "eigengap", ["a note"]) == 0
    summary = json.loads((run.path / "report" / "ablation-eigengap.json").read_text())
    assert summary["verdict"] == "hurts"
    assert summary["effects"][0]["difference"]["n"] == 5
    assert "a note" in (run.path / "report" / "ablation-eigengap.md").read_text()
