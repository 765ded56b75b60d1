"""Matching against scipy, errors against their definitions, intervals against scipy and theory."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.optimize import linear_sum_assignment

from trainer.estimation.estimates import Estimates
from trainer.evaluation.metrics import (
    MAX_PERMUTED,
    assign,
    capped_error,
    gospa,
    match,
    median_error_deg,
    rmspe_deg,
    success,
    success_3d,
)
from trainer.intervals import bootstrap_mean, normal_mean, paired_difference, wilson_share
from trainer.scenes.measurement import Sources

Place = tuple[float, float, float]


def sources(*scenes: list[Place], slots: int = 3) -> Sources:
    """Scenes of sources at (azimuth, elevation) in degrees and range in metres."""
    place, active = _table(scenes, slots)
    return Sources(*place, active.double(), active)


def estimates(*scenes: list[Place], slots: int = 3, resolved: bool = True) -> Estimates:
    place, active = _table(scenes, slots)
    return Estimates(*place, active & resolved, active)


def _table(scenes: tuple[list[Place], ...], slots: int):
    table = torch.zeros(len(scenes), slots, 3, dtype=torch.float64)
    active = torch.zeros(len(scenes), slots, dtype=torch.bool)
    for row, places in enumerate(scenes):
        for slot, (azimuth, elevation, range_m) in enumerate(places):
            table[row, slot] = torch.tensor(
                [math.radians(azimuth), math.radians(elevation), range_m], dtype=torch.float64
            )
            active[row, slot] = True
    return table.unbind(-1), active


TRUTH = [(10.0, 5.0, 1.0), (-20.0, -5.0, 2.0), (40.0, 20.0, 3.0)]
GUESS = [(13.0, 1.0, 1.5), (-20.0, -5.0, 4.0), (80.0, 20.0, 3.0)]  # 5 deg, exact, 40 deg off


@pytest.mark.parametrize("slots", [1, 2, 3, MAX_PERMUTED, MAX_PERMUTED + 1, 8])
def test_assignment_is_as_cheap_as_scipys(slots):
    cost = torch.rand(50, slots, slots, dtype=torch.float64)
    chosen = assign(cost)
    assert chosen.sort(-1).values.equal(torch.arange(slots).expand(50, -1))
    for one, columns in zip(cost.numpy(), chosen.numpy(), strict=True):
        best = one[linear_sum_assignment(one)].sum()
        assert one[np.arange(slots), columns].sum() == pytest.approx(best, abs=1e-14)


def test_errors_do_not_depend_on_the_order_of_estimates_or_sources():
    reference = match(estimates(GUESS), sources(TRUTH))
    for order in itertools.permutations(range(3)):
        shuffled = [GUESS[i] for i in order]
        errors = match(estimates(shuffled), sources(TRUTH))
        assert torch.allclose(errors.angle_deg, reference.angle_deg, rtol=0, atol=1e-12)
        turned = match(estimates(GUESS), sources([TRUTH[i] for i in order]))
        assert capped_error(turned).item() == pytest.approx(capped_error(reference).item())


def test_each_error_is_what_its_definition_says():
    errors = match(estimates(GUESS), sources(TRUTH))
    assert capped_error(errors).item() == pytest.approx((0.5 + 0 + 1) / 3)
    assert success(errors).item() == pytest.approx(2 / 3)  # 3 and 4 deg are both within 5
    assert success_3d(errors).item() == pytest.approx(1 / 3)  # the exact one is 2 m too far
    assert rmspe_deg(errors) == pytest.approx(math.sqrt((25 + 0 + 1600) / 3))
    assert median_error_deg(errors) == pytest.approx(5)


def test_a_wild_estimate_does_not_drag_a_good_one_away():
    # uncapped, the crossed pairing would be cheaper: 7 + 60 < 2 + 69
    truth = [(0.0, 0.0, 1.0), (9.0, 0.0, 1.0)]
    guess = estimates([(2.0, 0.0, 1.0), (-60.0, 0.0, 1.0)], slots=2)
    errors = match(guess, sources(truth, slots=2))
    assert errors.angle_deg[0, 0].item() == pytest.approx(2)
    assert capped_error(errors).item() == pytest.approx(0.6)


def test_a_slot_without_a_source_takes_nothing_from_the_others():
    # the empty slots of the truth lie at (0, 0), nearer to the estimate than the source does
    errors = match(estimates([(1.0, 0.0, 1.0)], slots=1), sources([(5.0, 0.0, 1.0)]))
    assert capped_error(errors).item() == pytest.approx(0.4)


def test_an_unresolved_source_is_a_miss_wherever_the_guess_lies():
    errors = match(estimates(TRUTH, resolved=False), sources(TRUTH))
    assert capped_error(errors).item() == 1
    assert success(errors).item() == 0
    assert rmspe_deg(errors) == pytest.approx(0, abs=1e-12)  # the guesses were right


def test_scenes_with_different_numbers_of_sources_share_a_batch():
    truth = sources(TRUTH[:1], TRUTH, TRUTH[:2])
    guess = estimates(GUESS[:1], GUESS, GUESS[:2])
    together = match(guess, truth)
    for row in range(3):
        alone = match(_row(guess, row), _row(truth, row))
        assert capped_error(together)[row] == capped_error(alone)[0]
        assert gospa(together)[row] == gospa(alone)[0]


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        (TRUTH, 0.0),
        (TRUTH[:2], 0.5),  # a miss
        ([], 1.5),
        ([GUESS[0], *TRUTH[1:]], 0.5),  # five degrees
        ([GUESS[2], *TRUTH[:2]], 1.0),  # a wild one is a miss and a false alarm
    ],
)
def test_gospa_counts_misses_by_halves(guess, expected):
    errors = match(estimates(guess), sources(TRUTH))
    assert gospa(errors).item() == pytest.approx(expected, abs=1e-9)


def test_gospa_counts_false_alarms_also_where_there_is_no_source():
    errors = match(estimates(TRUTH, []), sources([], []))
    assert gospa(errors).tolist() == [1.5, 0.0]
    assert capped_error(errors).tolist() == [0.0, 0.0]


def test_more_estimates_than_sources_can_hold():
    errors = match(estimates(GUESS, slots=4), sources(TRUTH[:1], slots=1))
    assert errors.angle_deg.shape == (1, 1)
    assert errors.false_alarms.item() == 2
    assert capped_error(errors).item() == pytest.approx(0.5)


def test_fewer_estimates_than_sources_leave_misses_at_the_cap():
    errors = match(estimates(TRUTH[:1], slots=1), sources(TRUTH))
    assert sorted(errors.angle_deg[0].tolist()) == pytest.approx([0, 10, 10])
    assert capped_error(errors).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("hits", [0, 1, 63, 128])
def test_wilsons_interval_is_scipys(hits):
    ours = wilson_share(hits / 128, 128)
    theirs = scipy.stats.binomtest(hits, 128).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_bootstrap_and_normal_intervals_agree_on_many_scenes():
    values = np.random.default_rng(3).beta(0.4, 0.6, size=2000)
    bootstrap, normal = bootstrap_mean(values), normal_mean(values)
    width = normal.high - normal.low
    # quantiles of 1000 resamples have a standard error of 5 % of the half-width or less
    assert bootstrap.low == pytest.approx(normal.low, abs=0.1 * width)
    assert bootstrap.high == pytest.approx(normal.high, abs=0.1 * width)
    assert bootstrap_mean(values) == bootstrap


def test_bootstrap_intervals_cover_the_mean_as_often_as_they_promise():
    draws = np.random.default_rng(5).beta(0.4, 0.6, size=(400, 100))
    intervals = [bootstrap_mean(row) for row in draws]
    covered = np.mean([i.low <= 0.4 <= i.high for i in intervals])
    # 95 % in theory; four standard errors of 400 binary outcomes are 4.4 %
    assert 0.90 <= covered <= 0.99


def test_pairing_removes_what_the_scenes_have_in_common():
    generator = np.random.default_rng(7)
    hardness = generator.random(300)
    one = hardness + 0.01 * generator.standard_normal(300)
    paired = paired_difference(one, hardness - 0.01)
    assert paired.excludes_zero
    assert paired.mean == pytest.approx(0.01, abs=0.003)
    assert not paired_difference(one, one).excludes_zero


@pytest.mark.parametrize("bad", [[], [math.nan], [[1.0]]])
def test_what_has_no_mean_is_refused(bad):
    with pytest.raises(ValueError, match="at least one finite number"):
        bootstrap_mean(bad)


def test_pairs_must_be_of_the_same_scenes():
    with pytest.raises(ValueError, match="same scenes"):
        paired_difference([1.0, 2.0], [1.0])


def test_a_share_must_be_one():
    with pytest.raises(ValueError, match="share <= 1"):
        wilson_share(1.5, 10)


def _row(batch, row: int):
    changed = {
        name: value[row : row + 1]
        for name, value in vars(batch).items()
        if isinstance(value, torch.Tensor)
    }
    return replace(batch, **changed)
