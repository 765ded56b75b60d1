"""The picture of error against SNR draws the rows and their intervals."""

import numpy as np
import pytest

from search import report
from search.report.figures.plots import draw_errors, error_vs_snr
from tests.scored_run import SNRS_DB, capped, evaluation_rows


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


def test_refined_estimates_have_a_line_of_their_own(refined):
    axes = draw_errors(report.load(refined.path)).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    for label, shift in (("refined by likelihood", 9), ("MUSIC alone", 4)):
        line = lines[f"best network, t001, {label}"]
        np.testing.assert_allclose(line.get_ydata(), [capped(snr, 1, shift) for snr in SNRS_DB])


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
