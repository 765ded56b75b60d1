"""The coverage benchmark: its bootstrap-t interval, and its simulated designs."""

import sys
from pathlib import Path

import numpy as np
import pytest

from search.report.analysis.statistics import mean_interval

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from coverage import MARGINS, SCENARIOS, SEEDS, SPREADS, Cells, Scenario, bootstrap_t, experiment


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


def test_differences_of_a_simulated_design_have_the_stated_variance():
    """Of five trainings: a fifth of the seeds' variance; half of the scenes' is shared by all."""
    rng = np.random.default_rng(1)
    found = [experiment(rng, Scenario()) for _ in range(40)]
    for outcome, (seed, scene) in SPREADS.items():
        means = [
            value.mean()
            for one in found
            for value, of in zip(one.values, one.outcomes, strict=True)
            if of == outcome
        ]
        expected = np.sqrt(seed**2 / SEEDS + scene**2 * (1 + 1 / SEEDS) / 2)
        # 4,000 means, six of which share an arm: about 1,300 independent ones, four errors of 2 %
        assert np.std(means) == pytest.approx(expected, rel=0.08)


def test_a_verdict_is_wrong_exactly_where_it_says_what_is_not():
    margins, gains = np.full(4, 0.01), np.array([0.0, 0.005, 0.01, -0.02])
    cells = Cells([], np.array([]), [], margins, gains)
    wrong = {
        word: cells.wrong(np.array([word] * 4)).tolist()
        for word in ("equivalent", "helps", "hurts", "not known")
    }
    assert wrong == {
        "equivalent": [False, False, True, True],
        "helps": [True, False, False, True],
        "hurts": [True, True, True, False],
        "not known": [False] * 4,
    }


def test_large_planted_gains_are_found_and_no_wrong_verdict_is_given():
    cells = experiment(np.random.default_rng(3), Scenario(gain=40.0, share=0.25))
    said = cells.verdicts(alone=False)
    assert (said[cells.gains > 0] == "helps").all()
    assert not cells.wrong(said).any()


@pytest.mark.slow
@pytest.mark.parametrize("truth", SCENARIOS, ids=lambda truth: truth.name)
def test_a_family_has_a_wrong_verdict_in_five_experiments_of_a_hundred_at_most(truth):
    rng = np.random.default_rng(4)
    found = [experiment(rng, truth) for _ in range(200)]
    hits = [one.wrong(one.verdicts(alone=False)).any() for one in found]
    assert np.mean(hits) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)  # three standard errors
    assert set(MARGINS) == set(found[0].outcomes)
