"""Intervals of bounded means: exact for two values, for any law of the values. Intervals of means
over SNRs and K: what the points share widens them, and nothing else."""

import numpy as np
import pytest
from scipy import stats

from trainer.intervals import bootstrap_mean, bootstrap_over_points, bounded_means


@pytest.mark.parametrize(("size", "hits"), [(16, 0), (16, 3), (128, 127), (128, 40)])
def test_two_extreme_values_give_the_interval_of_clopper_and_pearson(size, hits):
    (found,) = bounded_means([np.where(np.arange(size) < hits, 1.0, -1.0)], level=0.9)
    low = stats.beta.ppf(0.05, hits, size - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.95, hits + 1, size - hits)
    # an end is a quantile of 10,000 draws: 6 standard errors of its level, .05
    nearby = 6 * np.sqrt(0.05 * 0.95 / 10_000)
    if hits:
        reached = stats.beta.cdf((1 + found.low) / 2, hits, size - hits + 1)
        assert reached == pytest.approx(0.05, abs=nearby)
    else:
        assert found.low == pytest.approx(2 * low - 1)
    reached = stats.beta.cdf((1 + found.high) / 2, hits + 1, size - hits)
    assert reached == pytest.approx(0.95, abs=nearby)
    assert found.mean == pytest.approx(2 * hits / size - 1)
    assert found.low <= 2 * high - 1


def test_a_loss_too_rare_to_be_seen_is_allowed_for_where_a_t_interval_excludes_the_truth():
    """One scene in 50 is better by .8, the others worse by as much together: in 7 % of samples
    of 128 none is, and the sample is of one sign and hardly scatters."""
    rng = np.random.default_rng(0)
    hit = rng.random((400, 128)) < 0.02
    values = np.where(hit, -0.8, 0.8 * 0.02 / 0.98) + rng.normal(0, 0.01, hit.shape)
    marked = np.mean([each.low > 0 for each in bounded_means(values, level=0.95)])
    t_marked = np.mean(stats.ttest_1samp(values, 0, axis=1, alternative="greater").pvalue < 0.025)
    assert marked <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 400)
    assert t_marked > 0.06


def test_large_samples_have_the_interval_of_the_central_limit_theorem():
    values = np.random.default_rng(0).uniform(-0.5, 0.5, 600)
    (found,) = bounded_means([values])
    half = 1.96 * values.std() / np.sqrt(600)
    # the value in addition moves each end by 1/601 at most, and widens the interval; the quantile
    # of 10,000 draws is known to 5 % of the half width
    assert found.low == pytest.approx(found.mean - half, abs=0.1 * half + 1 / 601)
    assert found.high == pytest.approx(found.mean + half, abs=0.1 * half + 1 / 601)


@pytest.mark.parametrize("values", [[[]], [0.1, 0.2], [[0.1, 1.5]], [[0.1, float("nan")]]])
def test_values_out_of_bounds_are_refused(values):
    with pytest.raises(ValueError, match=r"\[means, scenes\] in \[-1, 1\]"):
        bounded_means(values)


def over_points(table):
    """The interval of [scenes, points]; what is NaN was not scored."""
    scenes, points = np.nonzero(np.isfinite(table))
    return bootstrap_over_points(scenes, points.tolist(), table[scenes, points])


def test_a_mean_over_points_of_the_same_scenes_is_that_of_their_means():
    table = np.random.default_rng(0).random((40, 4))
    found, expected = over_points(table), bootstrap_mean(table.mean(axis=1))
    for end in ("mean", "low", "high", "n"):
        assert getattr(found, end) == pytest.approx(getattr(expected, end), rel=1e-12)


def test_points_narrow_the_interval_by_what_they_do_not_share():
    """Standard errors: 1/sqrt(2) of one point's for two independent ones, none for opposite."""
    x, y = np.random.default_rng(0).normal(size=(2, 400))
    tables = {"one": [x], "same": [x, x], "free": [x, y], "opposite": [x, -x]}
    found = {name: over_points(np.array(table).T) for name, table in tables.items()}
    width = {name: each.high - each.low for name, each in found.items()}
    assert width["same"] == pytest.approx(width["one"], rel=1e-12)
    # standard deviations of 400 draws differ by 1/sqrt(800), ends of 1000 resamples by 5 %
    assert width["free"] == pytest.approx(width["one"] / np.sqrt(2), rel=0.15)
    assert width["opposite"] == pytest.approx(0, abs=1e-12)


def test_a_point_of_fewer_scenes_weighs_as_much_as_the_others():
    table = np.full((20, 2), 0.25)
    table[:, 1] = np.where(np.arange(20) < 5, 0.75, np.nan)
    assert over_points(table).mean == pytest.approx(0.5)
