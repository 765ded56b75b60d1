"""The bootstrap-t interval that the coverage benchmark compares with the shipped t interval."""

import sys
from pathlib import Path

import numpy as np
import pytest

from search.report.analysis.statistics import mean_interval

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from coverage import bootstrap_t


def test_the_two_methods_meet_for_many_symmetric_values():
    x = np.random.default_rng(7).normal(size=4000)
    t, bootstrap = mean_interval(x), bootstrap_t(x, resamples=4000)
    width = t.high - t.low
    # an end is a 2.5 % quantile of 4,000 ratios: its standard error is .042 standard errors of
    # the mean, 1.1 % of the width; four of them
    assert abs(t.low - bootstrap.low) < 0.043 * width
    assert abs(t.high - bootstrap.high) < 0.043 * width


def test_the_bootstrap_leans_with_the_skew_and_is_reproducible():
    x = np.random.default_rng(8).exponential(size=30)
    one = bootstrap_t(x, seed=3)
    assert one == bootstrap_t(x, seed=3)
    assert one != bootstrap_t(x, seed=4)
    assert one.high - one.mean > one.mean - one.low


def test_it_moves_with_the_values():
    x = np.random.default_rng(5).normal(0.3, 0.2, size=40)
    one, moved = bootstrap_t(x), bootstrap_t(3 * x + 7)
    np.testing.assert_allclose([moved.low, moved.high], [3 * one.low + 7, 3 * one.high + 7])


@pytest.mark.slow
def test_coverage_of_skewed_values():
    """Mean of 20 exponentials, 2,000 repetitions: standard error of a coverage .005."""
    rng = np.random.default_rng(9)
    hits = {"t": 0, "bootstrap_t": 0}
    for _ in range(2000):
        x = rng.exponential(size=20)
        for method, found in (
            ("t", mean_interval(x)),
            ("bootstrap_t", bootstrap_t(x, resamples=500)),
        ):
            hits[method] += found.low <= 1.0 <= found.high
    assert hits["t"] / 2000 < 0.935  # known to fall short
    assert abs(hits["bootstrap_t"] / 2000 - 0.95) < 0.02


def test_values_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="Use the t interval"):
        bootstrap_t([1.0, 2.0])
