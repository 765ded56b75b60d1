"""Fisher scoring from a start: it is efficient, and leaves what it cannot improve."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from trainer.config import SceneConfig
from trainer.covariance.covariance import normalise, true_factor
from trainer.estimation.estimates import Estimates
from trainer.estimation.fisher_scoring import refine_by_fisher_scoring
from trainer.estimation.pseudospectra import music
from trainer.estimation.registry import build_localiser
from trainer.evaluation.crb import stochastic_crb
from trainer.evaluation.metrics import match
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate

SCENE = SceneConfig(num_horizontal=6, num_vertical=6, num_antennas=10, num_snapshots=16)
SEARCH = search_grid(SCENE)


def scenes_of(snr_db: float, batch: int, count: int | None = None) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    return simulate(
        SCENE, batch, snr_db=snr_db, generator=generator, device="cpu", num_sources=count
    )


def near_the_truth(scenes: Scenes, off_rad: float) -> Estimates:
    """Return estimates with a random error of that standard deviation in both angles."""
    truth = scenes.sources
    generator = torch.Generator().manual_seed(1)
    azimuth, elevation = (
        x + off_rad * torch.randn(x.shape, generator=generator) * truth.active
        for x in (truth.azimuth, truth.elevation)
    )
    return Estimates(azimuth, elevation, truth.range_m, truth.active, truth.active)


@cache
def strong_scenes(count: int) -> tuple[Scenes, Estimates]:
    """Return scenes and the maximum of their likelihood."""
    scenes = scenes_of(15.0, 40, count)
    return scenes, build_localiser("sml", SCENE)(scenes, scenes.sources.num_sources)


@pytest.mark.parametrize("count", [1, 2])
def test_steps_from_nearby_lead_to_the_maximum(count):
    """Mean of squared error over CRB, cut at 9 so that no single ambiguous scene decides: two
    steps halve that of a start that is off by several root CRB, ten are within a tenth of ML."""
    scenes, maximum = strong_scenes(count)
    start = near_the_truth(scenes, off_rad=0.02)
    bound = stochastic_crb(scenes).angle[scenes.sources.active]
    two, ten = (refine_by_fisher_scoring(scenes, start, SEARCH, steps=steps) for steps in (2, 10))
    errors = [
        match(each, scenes.sources).angle_deg[scenes.sources.active].deg2rad().square() / bound
        for each in (start, two, ten, maximum)
    ]
    began, after_two, after_ten, best = (each.clamp(max=9).mean() for each in errors)
    assert after_two < began / 2
    assert after_ten < 1.1 * best


def test_the_maximum_of_the_likelihood_is_a_fixed_point():
    scenes, found = strong_scenes(2)
    again = refine_by_fisher_scoring(scenes, found, SEARCH, steps=6)
    for name in ("azimuth", "elevation"):
        torch.testing.assert_close(
            getattr(again, name)[found.active],
            getattr(found, name)[found.active],
            rtol=0,
            atol=1e-3,  # rad: ML stops after a fixed number of steps too
        )


def test_slots_without_a_source_stay_and_batches_are_their_members():
    scenes = scenes_of(0.0, 8)
    count = scenes.sources.num_sources
    exact = normalise(factor=true_factor(scenes), eps_psd=0.0)
    start = music(exact, count, SEARCH, slots=3)
    moved = refine_by_fisher_scoring(scenes, start, SEARCH)
    for name in ("azimuth", "elevation", "range_m"):
        before, after = getattr(start, name), getattr(moved, name)
        assert torch.equal(before[~start.active], after[~start.active])
        assert torch.isfinite(after).all()
    alone = refine_by_fisher_scoring(scenes.take(slice(3, 4)), _take(start, 3), SEARCH)
    torch.testing.assert_close(alone.azimuth[0], moved.azimuth[3], rtol=0, atol=1e-5)


def test_zero_snapshots_move_nothing_and_resolves_nothing():
    scenes = scenes_of(0.0, 4)
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    start = near_the_truth(scenes, 0.1)
    moved = refine_by_fisher_scoring(silent, start, SEARCH)
    for name in ("azimuth", "elevation", "range_m"):
        torch.testing.assert_close(getattr(moved, name), getattr(start, name))
    assert not moved.resolved.any()


def _take(estimates: Estimates, scene: int) -> Estimates:
    names = ("azimuth", "elevation", "range_m", "resolved", "active")
    part = {name: getattr(estimates, name)[scene : scene + 1] for name in names}
    return Estimates(**part)


def test_a_dead_channel_leaves_its_estimates_and_the_other_scenes_alone():
    scenes = scenes_of(0.0, 4)
    start = near_the_truth(scenes, 0.05)
    channel = scenes.channel.clone()
    channel[2] = 0
    whole, dead = (
        refine_by_fisher_scoring(s, start, SEARCH)
        for s in (scenes, replace(scenes, channel=channel))
    )
    for name in ("azimuth", "elevation", "range_m"):
        was, is_now = getattr(whole, name), getattr(dead, name)
        assert torch.equal(is_now[2], getattr(start, name)[2])
        torch.testing.assert_close(is_now[[0, 1, 3]], was[[0, 1, 3]], rtol=0, atol=1e-6)
