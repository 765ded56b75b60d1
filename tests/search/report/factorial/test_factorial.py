"""The map of a design is that of its tables: pairs, rules, verdicts of the family, a page."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from search.report.analysis import ablation, crossed_interval, crossed_moments
from search.report.data import load
from search.report.factorial import effects, judge, lower_end, map_text, sentences, verdict
from search.report.figures import factorial_map
from search.report.page import write_report
from search.reruns.design import SCENE_SEED
from tests.designed_run import EFFECTS, NETWORKS, REGIMES, SEEDS, SNRS, made


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made(tmp_path_factory.mktemp("design") / "x")


def scored(run):
    scenes = run.tables["scenes"]
    return scenes[scenes["evaluation_seed"] == SCENE_SEED]


def at(run, outcome, term, network="gram", regime="local"):
    (found,) = [
        one
        for one in effects(run)
        if (one.outcome, one.term, one.network, one.regime) == (outcome, term, network, regime)
    ]
    return found


@pytest.mark.parametrize(
    ("term", "error", "right"),
    [
        ("good", "helps", "helps"),
        ("bad", "hurts", "hurts"),
        ("same", "equivalent", "equivalent"),
    ],
)
def test_the_verdict_is_what_was_planted(run, term, error, right):
    for network in NETWORKS:
        for regime in REGIMES:
            where = {"network": network, "regime": regime}
            assert at(run, "capped_error", term, **where).verdict == error
            assert at(run, "source_number_accuracy", term, **where).verdict == right


def test_effects_are_paired_by_seed_and_scene(run):
    scenes = scored(run)
    means = scenes.groupby("trial_id")["capped_error"].mean()
    ids = [[f"gram-local-{s}-{term}" for s in range(1, SEEDS + 1)] for term in ("good", "none")]
    found = at(run, "capped_error", "good")
    assert found.difference.mean == pytest.approx(means[ids[0]].mean() - means[ids[1]].mean())
    assert found.without == pytest.approx(means[ids[1]].mean())
    # scenes differ by .1: a mean over 200 of them by .007, which pairing takes away
    assert found.difference.high - found.difference.low < 0.01
    assert found.difference.n == SEEDS
    assert set(found.by_snr) == set(SNRS)
    assert found.interaction.low < 0 < found.interaction.high


def test_the_rule_for_k_is_the_best_on_the_validation_scenes(run):
    found = at(run, "source_number_accuracy", "good")
    assert found.rules == ("mdl", "mdl")
    assert found.with_ == pytest.approx(0.8, abs=0.06)  # 400 scenes: 3 standard errors
    mdl = at(run, "source_number_accuracy_mdl", "good")
    assert mdl.difference.mean == pytest.approx(found.difference.mean)
    assert mdl.verdict == ""


def test_a_lost_training_takes_its_pair_along_and_is_counted(tmp_path):
    run = made(tmp_path / "x", lost={("none", 2), ("good", 4)})
    assert at(run, "capped_error", "good").difference.n == 2
    assert at(run, "capped_error", "bad").difference.n == 3
    table = next(
        line for line in map_text(run).splitlines() if line.startswith("| gram       | good")
    )
    assert "| gram" in table
    said = map_text(run)
    # 2 of 8, Clopper and Pearson (1934)
    assert "0.250 [0.032, 0.651]" in said
    assert "0.000 [0.000, 0.369]" in said


def test_the_page_the_text_and_the_picture_show_the_map(run, tmp_path):
    said = " ".join(sentences(run))
    assert "24 of 24 cells" in said
    assert "8 equivalent, 8 helps, 8 hurts" in said
    assert "One family of 48 tests" in said
    assert "Control, a gain of 0.1 in P(K right), best rule: seen." in said
    figure = factorial_map.draw_map(run)
    texts = [text.get_text() for text in figure.axes[0].texts]
    d = at(run, "capped_error", "good").difference
    assert f"{d.mean:+.3f}\n[{d.low:+.3f}, {d.high:+.3f}]" in texts
    assert len(texts) == 12
    page = write_report(run, tmp_path).read_text()
    assert "Effects by SNR" in page
    assert "Leaderboard" not in page
    assert ablation.names(run) == []


def test_a_control_that_is_not_there_is_told(tmp_path):
    run = made(tmp_path / "x", terms={"none": (0, 0), "good": (0.0, 0.05)})
    assert "Control, a gain of 0.1 in P(K right), best rule: not seen." in " ".join(sentences(run))


@pytest.mark.parametrize("looks", [1, 10])
def test_the_control_of_many_looks_has_the_t_interval_of_scipy(run, looks):
    """Trainings alone differ, so that the interval is Student's of their means."""
    seeds = 0.1 + 0.02 * np.random.default_rng(1).standard_normal(5)
    values = np.repeat(seeds[:, None], 30, axis=1)
    cell = at(run, "source_number_accuracy", "good")
    cell = replace(
        cell, difference=crossed_interval(values), freedom=float(crossed_moments(values)[2])
    )
    by_scipy = stats.ttest_1samp(seeds, 0).confidence_interval(1 - 0.05 / looks)
    assert lower_end(cell, looks) == pytest.approx(by_scipy.low, rel=1e-9)


def test_cells_have_the_degrees_of_freedom_of_their_intervals(run):
    scenes = scored(run)
    keys = ["seed", "scene_id"]
    with_, without = (
        scenes[scenes["trial_id"].str.fullmatch(f"gram-local-.-{term}")]
        .assign(right=lambda rows: rows["source_number_mdl"] == rows["num_sources"])
        .groupby(keys)["right"]
        .mean()
        .unstack()
        for term in ("good", "none")
    )
    _, _, freedom = crossed_moments((with_ - without).to_numpy())
    described = at(run, "source_number_accuracy_mdl", "good")
    assert described.freedom == pytest.approx(float(freedom))


def test_cells_without_like_ones_are_judged_alone_and_order_does_not_matter():
    rng = np.random.default_rng(2)
    cells = [0.01 * rng.standard_normal((4, 30)) + mean for mean in (0.0, 0.02, -0.05)]
    judged = judge(cells, [0.02] * 3, ["a", "b", "c"])
    for i, cell in enumerate(cells):
        ours, alone = judged.interval(i), crossed_interval(cell)
        np.testing.assert_allclose([ours.low, ours.high], [alone.low, alone.high], rtol=1e-9)
    back = judge(cells[::-1], [0.02] * 3, ["c", "b", "a"])
    np.testing.assert_allclose(back.difference[::-1], judged.difference)
    told = [verdict(judged, i, better=-1) for i in range(3)]
    assert told == ["equivalent", "hurts", "helps"]
    assert verdict(judged, 2, better=+1) == "hurts"


def test_a_design_that_has_just_begun_has_an_empty_map(tmp_path):
    everything = {(term, seed) for term in EFFECTS for seed in range(1, SEEDS + 1)}
    run = made(tmp_path / "x", lost=everything)
    assert effects(run) == []
    assert "0 of 24 cells" in map_text(run)
    assert "have two pairs of trainings yet" in factorial_map.draw_map(run)
    (tmp_path / "x" / "ablations" / "x.parquet").unlink()
    page = write_report(load(run.path), tmp_path / "page").read_text()
    assert "0 of 24 cells" in page
