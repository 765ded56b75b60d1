"""Figures draw what the tables hold: every number that can be read off is one of the run's."""

import shutil

import numpy as np
import pytest

from search import report
from search.plan.outcome import Outcome
from search.report.analysis import WELL
from search.report.figures import atlas, choices, pictures, plots, progress
from search.report.figures.catalogue import pictures_of


@pytest.fixture
def run(drawn):
    return drawn


def lines_of(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_history_falls_to_the_best_completed_trial(run):
    (axes,) = progress.draw_history(run).axes
    done = run.trials[run.trials["outcome"] == Outcome.COMPLETED].sort_values("number")
    best = lines_of(axes)["best so far"]
    expected = [done["objective"].iloc[: i + 1].min() for i in range(len(done))]
    np.testing.assert_allclose(best.get_ydata(), expected)
    np.testing.assert_array_equal(best.get_xdata(), done["number"])


def test_learning_curves_are_the_epochs_and_are_cut_at_the_rungs(run):
    (axes,) = progress.draw_learning_curves(run).axes
    best = lines_of(axes)[f"best trial, {run.best}"]
    own = run.tables["epochs"].query("trial_id == @run.best").sort_values("epoch")
    np.testing.assert_allclose(best.get_ydata(), own["objective"])
    cuts = [line.get_xdata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert cuts == progress.rungs(run)
    stopped = run.trials.loc[run.trials["outcome"] == Outcome.STOPPED, "epochs"]
    assert len(stopped)
    assert set(stopped) <= set(cuts)


def test_a_search_without_rungs_is_drawn_without(run):
    search = run.plan["search"]
    plan = run.plan | {"search": search | {"scheduler": "none"}}
    free = report.Run(run.path, plan, run.tables)
    assert progress.rungs(free) == []
    assert progress.rungs(free, "asha") == progress.rungs(run) != []
    (caption,) = (p.caption for p in pictures_of(free) if p.name == "learning_curves")
    assert "The scheduler has no rungs" in caption


def test_stochastic_ml_has_its_line_once_it_was_scored_beside_confirmations(run):
    cells = run.tables["confirmations"].query("estimator == 'sml'")
    for count in plots.numbers_of_sources(run):
        own = cells[cells["num_sources"] == count].sort_values("snr_db")
        error, rmspe = plots.draw_errors(run, [count]).axes
        for axes, column in ((error, "capped_error"), (rmspe, "rmspe_deg")):
            line = lines_of(axes)["stochastic ML, fresh scenes"]
            np.testing.assert_allclose(line.get_ydata(), own[column])


def test_decibels_are_those_of_the_best_trial_and_of_music_above_the_bound(run):
    panels = plots.draw_above_crb(run).axes
    rows = run.tables["evaluations"]
    for count, axes in zip(plots.numbers_of_sources(run), panels, strict=True):
        here = rows[rows["num_sources"] == count].sort_values("snr_db")
        for label, own in (
            (f"best network, {run.best}, MUSIC alone", here[here["trial_id"] == run.best]),
            ("LMMSE-MUSIC", here[here["estimator"] == "lmmse_music"]),
        ):
            np.testing.assert_allclose(lines_of(axes)[label].get_ydata(), own["crb_db"])
        assert not any(label.startswith("√CRB") for label in lines_of(axes))


def test_backends_show_the_share_that_diverged(run):
    _, failing, _ = choices.draw_backends(run).axes
    names = [text.get_text() for text in failing.get_xticklabels()]
    backend = run.trials["params.spectral.backend"].fillna(choices.NO_TERM)
    bad = run.trials["outcome"] == Outcome.DIVERGED
    assert bad.any()
    expected = [bad[backend == name].mean() for name in names]
    np.testing.assert_allclose([bar.get_height() for bar in failing.patches], expected)
    said = [text.get_text() for text in failing.texts]
    assert said == [f"{bad[backend == n].sum()} / {(backend == n).sum()}" for n in names]


def test_the_atlas_counts_the_failures_and_shares_them_out(run):
    counts, *panels = atlas.draw_failure_atlas(run).axes
    bad = ~run.trials["outcome"].isin(WELL)
    assert sum(int(text.get_text()) for text in counts.texts) == bad.sum()
    (panel,) = (axes for axes in panels if axes.get_title() == "network.kind")
    kinds = [text.get_text() for text in panel.get_xticklabels()]
    own = run.trials["params.network.kind"]
    expected = [bad[own == kind].mean() for kind in kinds if (own == kind).any()]
    np.testing.assert_allclose([bar.get_height() for bar in panel.patches], expected)


def test_what_was_trained_again_has_figures_of_its_own(run, tmp_path):
    assert not [p.name for p in pictures_of(run) if p.name.endswith("_reruns")]
    shutil.copytree(run.path, tmp_path / "run")
    shutil.copytree(run.path, tmp_path / "run" / "reruns")
    for part in (tmp_path / "run" / "trials").glob("t*.parquet"):
        part.unlink()
    emptied = report.load(tmp_path / "run")
    drawn = {picture.name: picture.draw for picture in pictures_of(emptied)}
    assert isinstance(drawn["failure_atlas"](emptied), str)
    counts, *_ = drawn["failure_atlas_reruns"](emptied).axes
    bad = ~run.trials["outcome"].isin(WELL)
    assert sum(int(text.get_text()) for text in counts.texts) == bad.sum() > 0
    assert not isinstance(drawn["backends_reruns"](emptied), str)


def test_the_gap_is_marked_between_k_and_the_next_eigenvalue(run):
    figure = pictures.draw_spectra(run)
    rows = run.tables["spectra"]
    for axes in figure.axes:
        count = int(axes.get_title().rpartition("= ")[2])
        snr_db = float(axes.get_title().split()[1])
        (mark,) = axes.patches
        assert (mark.get_x(), mark.get_width()) == (count, 1)
        here = rows[(rows["snr_db"] == snr_db) & (rows["num_sources"] == count)]
        for stage, (label, *_) in pictures.STAGES.items():
            own = here[here["stage"] == stage].sort_values("index")
            values = own["eigenvalue"].to_numpy()
            drawn = lines_of(axes)[label].get_ydata()
            np.testing.assert_allclose(drawn, np.maximum(values[: len(drawn)], pictures.LEAST))


def test_circles_are_the_truth_and_crosses_what_was_found(run):
    rows = run.tables["pseudospectra"].query("kind == 'source'")
    panels = [axes for axes in pictures.draw_pseudospectra(run).axes if axes.get_title()]
    for axes, name in zip(panels, pictures.TITLES, strict=True):
        marks = {c.get_label(): c.get_offsets() for c in axes.collections if len(c.get_offsets())}
        for label, whose in (("true source", "truth"), ("found", name)):
            places = rows.loc[rows["estimator"] == whose, ["azimuth_deg", "elevation_deg"]]
            np.testing.assert_allclose(marks[label], places)
