"""Intervals agree with outside references, cover what they promise, and respect their units."""

import numpy as np
import pytest
from scipy import special, stats

from search.report.analysis.statistics import (
    _inverse_trigamma,
    crossed_interval,
    detectable,
    difference_p,
    equivalence_p,
    holm,
    mean_interval,
    moderated,
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


def test_holms_adjustment_is_that_of_its_paper_and_of_a_single_test():
    """Holm 1979 by hand: 4 x .005, 3 x .01, 2 x .03, and no less for .04."""
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.3])) == [0.3]
    many = np.random.default_rng(3).uniform(size=50)
    adjusted = holm(many)
    assert (adjusted >= many).all()
    assert (np.diff(adjusted[np.argsort(many)]) >= 0).all()
    assert adjusted.min() == pytest.approx(min(1, 50 * many.min()))


def test_the_tests_of_a_mean_are_scipys_and_equivalence_is_an_interval_inside_the_margin(values):
    mean, error, freedom = (np.array([x]) for x in (values.mean(), stats.sem(values), 39.0))
    p = difference_p(mean, error, freedom)
    np.testing.assert_allclose(p, stats.ttest_1samp(values, 0).pvalue, rtol=1e-10)
    margin = np.array([0.34])
    p = equivalence_p(mean, error, freedom, margin)
    sides = [
        stats.ttest_1samp(values, at, alternative=side).pvalue
        for at, side in ((0.34, "less"), (-0.34, "greater"))
    ]
    np.testing.assert_allclose(p, max(sides), rtol=1e-10)
    # at the level p, the interval of 1 - 2 p touches the margin
    ends = mean_interval(values, level=1 - 2 * float(p[0]))
    assert max(abs(ends.low), abs(ends.high)) == pytest.approx(0.34, rel=1e-9)


@pytest.mark.parametrize("value", [1e-3, 0.1, 1.0, 30.0, 1e4])
def test_the_inverse_of_trigamma_is_one(value):
    assert special.polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-8)


def test_moderated_variances_find_the_law_that_they_are_drawn_from():
    """Smyth 2004: s0 d0 / chi2(d0) true variances, with 4 degrees of freedom each."""
    rng, count, freedom = np.random.default_rng(7), 20_000, np.full(20_000, 4.0)
    true = 0.01 * 6 / rng.chisquare(6, count)
    seen = true * rng.chisquare(4, count) / 4
    drawn, more = moderated(seen, freedom)
    np.testing.assert_allclose(more, 10, rtol=0.1)  # 6 + 4; the estimate of 6 errs by 3 %
    np.testing.assert_allclose(drawn, (more[0] - 4) / more[0] * 0.01 + 0.4 * seen, rtol=0.1)
    assert np.mean((drawn - true) ** 2) < np.mean((seen - true) ** 2)
    same, all_of_them = moderated(0.01 * rng.chisquare(4, 50) / 4, freedom[:50])
    assert (all_of_them > 20).all()  # equal variances: nearly all of the 200
    assert np.ptp(same) < 0.01


def test_moderation_goes_with_the_unit_and_needs_others():
    seen = np.random.default_rng(8).chisquare(4, 12)
    freedom = np.full(12, 4.0)
    once, thrice = moderated(seen, freedom), moderated(9 * seen, freedom)
    np.testing.assert_allclose(thrice[0], 9 * once[0], rtol=1e-9)
    np.testing.assert_allclose(thrice[1], once[1], rtol=1e-9)
    alone, own = moderated(seen[:2], freedom[:2])
    np.testing.assert_array_equal(alone, seen[:2])
    np.testing.assert_array_equal(own, freedom[:2])
    with_zero, _ = moderated(np.append(seen, 0.0), np.append(freedom, 4.0))
    assert 0 < with_zero[-1] < with_zero[:-1].min() + 1e-12
