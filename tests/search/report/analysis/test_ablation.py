"""An ablation is read from tables alone, finds the difference that is there, and says so."""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from search.records.store import RunStore
from search.report.analysis import ablation, confirmed
from search.report.data import load
from search.report.figures import ablation_plot
from search.report.page import sections
from tests.ablated_run import SCENES, SNRS, plain

BENCHMARK = Path(__file__).parents[4] / "benchmarks" / "eigengap_ablation.py"


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


def test_a_summary_has_plain_numbers(run_with, copy_of):
    from search.ablate import print_verdict

    run = load(copy_of(run_with(0.1)).path)
    assert print_verdict(RunStore.open(run.path), "eigengap", ["a note"]) == 0
    summary = json.loads((run.path / "report" / "ablation-eigengap.json").read_text())
    assert summary["verdict"] == "hurts"
    assert summary["effects"][0]["difference"]["n"] == 5
    assert "a note" in (run.path / "report" / "ablation-eigengap.md").read_text()
