"""Intervals agree with outside references, cover what they promise, and respect their units."""

import numpy as np
import pytest
from scipy import stats

from search.report.analysis.statistics import (
    crossed_interval,
    detectable,
    mean_interval,
)
from tests.simulated import RATIOS, ends, trainings


@pytest.fixture
def values():
    return np.random.default_rng(5).normal(0.3, 0.2, size=40)


def test_the_t_interval_is_scipys(values):
    ours = mean_interval(values, level=0.9)
    theirs = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-12)
    assert ours.mean == pytest.approx(values.mean(), rel=1e-14)
    assert ours.n == 40


def test_the_paired_interval_is_scipys_and_pairing_pays(values):
    noise = np.random.default_rng(6).normal(0.05, 0.02, size=40)
    ours = mean_interval((values + noise) - values)
    theirs = stats.ttest_rel(values + noise, values).confidence_interval(0.95)
    np.testing.assert_allclose([ours.low, ours.high], theirs, rtol=1e-10)
    unpaired = stats.ttest_ind(values + noise, values).confidence_interval(0.95)
    assert ours.excludes_zero
    assert unpaired.low < 0 < unpaired.high


def test_intervals_move_with_the_values(values):
    one, moved = mean_interval(values), mean_interval(3 * values + 7)
    np.testing.assert_allclose([moved.low, moved.high], [3 * one.low + 7, 3 * one.high + 7])
    mirrored = mean_interval(-values)
    t = mean_interval(values)
    np.testing.assert_allclose([mirrored.low, mirrored.high], [-t.high, -t.low])


def test_equal_values_have_an_interval_without_width():
    found = mean_interval([0.5] * 8)
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)
    assert found.excludes_zero


@pytest.mark.parametrize(
    ("values", "how", "says"),
    [
        ([1.0], {}, "two or more"),
        ([1.0, float("nan")], {}, "1 that are not finite"),
        ([[1.0, 2.0]], {}, "one-dimensional"),
        ([1.0, 2.0], {"level": 95}, "0 < level < 1"),
    ],
)
def test_what_has_no_interval_is_refused(values, how, says):
    with pytest.raises(ValueError, match=says):
        mean_interval(values, **how)


def test_an_interval_reads_as_a_sentence_part():
    assert str(mean_interval([-0.1, -0.3])) == "-0.200 [-1.471, +1.071]"


# --------------------------------------------------- configurations x seeds, on common scenes


@pytest.mark.parametrize("ratio", RATIOS)
def test_five_by_five_covers_what_it_promises_and_seldom_helps_by_chance(ratio):
    """Of 4,000 repetitions a coverage has a standard error of .0034: .02 are six of them."""
    low, high = ends(trainings(*ratio))
    assert abs(((low <= 0) & (high >= 0)).mean() - 0.95) < 0.02
    assert (high < 0).mean() < 0.05  # false "helps"
    assert (low > 0).mean() < 0.05


def test_five_by_five_is_never_too_sure_where_nothing_but_noise_is_left():
    low, high = ends(trainings(0, 0, 0, 0.01))
    assert ((low <= 0) & (high >= 0)).mean() > 0.95


@pytest.mark.parametrize(("axis", "ratio"), [(1, RATIOS[0]), (2, RATIOS[3])])
def test_either_unit_alone_promises_too_much(axis, ratio):
    """Reason for the crossed interval: scenes alone (1) do not see that seeds differ, and
    configurations alone (2) not that all were scored on the same scenes."""
    means = trainings(*ratio, repetitions=1000).mean(axis)
    reach = stats.sem(means, axis=1) * stats.t.ppf(0.975, means.shape[1] - 1)
    assert (np.abs(means.mean(1)) <= reach).mean() < 0.9


def test_units_without_scenes_doubt_are_the_t_interval():
    x = np.random.default_rng(12).normal(size=5)
    crossed, t = crossed_interval(np.tile(x[:, None], 50)), mean_interval(x)
    np.testing.assert_allclose([crossed.low, crossed.high], [t.low, t.high], rtol=1e-10)
    assert crossed.n == 5


def test_units_that_agree_leave_the_doubt_of_the_scenes():
    x = np.random.default_rng(13).normal(size=200)
    crossed, t = crossed_interval(np.tile(x, (5, 1))), mean_interval(x)
    np.testing.assert_allclose([crossed.low, crossed.high], [t.low, t.high], rtol=1e-10)


def test_the_smallest_detectable_effect_is_detected_four_times_in_five():
    """Power .8 by design; .02 are two and a half standard errors of 2,000 repetitions, and .03
    more for a d that is estimated from each repetition itself."""
    values = trainings(0.004, 0.010, 0.002, 0.004, repetitions=2000)
    effect = np.mean([detectable(one) for one in values])
    low, _ = ends(values + effect)
    assert abs((low > 0).mean() - 0.8) < 0.05


@pytest.mark.parametrize("values", [[[1.0, 2.0]], [[1.0], [2.0]], [1.0, 2.0], [[1.0, np.nan]] * 2])
def test_what_cannot_be_crossed_is_refused(values):
    with pytest.raises(ValueError, match="Add configurations, seeds or scenes"):
        crossed_interval(values)
