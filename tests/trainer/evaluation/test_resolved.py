"""Strong sources are resolved; noise and silence are not."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import chi2

from trainer.config import SceneConfig
from trainer.estimation.estimates import LEAST_RATIO, make_estimates
from trainer.estimation.fisher_scoring import refine_by_fisher_scoring
from trainer.estimation.pseudospectra import ESTIMATORS
from trainer.estimation.registry import build_localiser
from trainer.evaluation.metrics import capped_error, match
from trainer.evaluation.protocol import posterior_readout
from trainer.posterior.places import cosines
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig()
SEARCH = search_grid(SCENE)
COUNT = 32


def scenes(snr_db: float, count: int) -> Scenes:
    return EvalScenes(SCENE, 9).batch(range(COUNT), snr_db=snr_db, num_sources=count)


def counts(count: int) -> torch.Tensor:
    return torch.full((COUNT,), count)


@pytest.mark.parametrize("deflation", [True, False])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_is_resolved_in_a_covariance_of_too_low_rank(name, deflation):
    size = SCENE.num_elements
    one = SEARCH.steering[100]
    matrices = torch.stack(
        [
            torch.zeros(size, size, dtype=torch.complex64),
            torch.eye(size, dtype=torch.complex64) / size,
            one.unsqueeze(-1) * one.conj() / size,
        ]
    )
    counts = torch.full((len(matrices),), 2)
    for loading in (0.0, 1 / size):
        found = ESTIMATORS[name](matrices, counts, SEARCH, deflation=deflation, loading=loading)
        assert not found.resolved.any()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", ["sml", "lmmse_music", "lmmse_mvdr", "lmmse_music+scoring"])
def test_noise_is_seldom_resolved_and_silence_never(name, count):
    locate, noise = build_localiser(name, SCENE), scenes(0.0, 0)
    assert locate(noise, counts(count)).resolved.double().mean() < 0.1
    silence = replace(noise, snapshots=torch.zeros_like(noise.snapshots)).take(slice(4))
    assert not locate(silence, counts(count)[:4]).resolved.any()


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", ["sml", "exact_music", "exact_beamformer", "lmmse_music+scoring"])
def test_strong_sources_inside_the_region_are_resolved(name, count):
    strong = scenes(40.0, count)
    truth = strong.sources
    found = build_localiser(name, SCENE)(strong, counts(count))
    errors = match(found, truth)
    # a source beside an edge may be estimated at it
    inside = (truth.azimuth.abs().rad2deg() < SCENE.azimuth_max_deg - 2) & (
        truth.elevation.abs().rad2deg() < SCENE.elevation_max_deg - 2
    )
    clear = (inside | ~truth.active).all(-1) & (errors.angle_deg * truth.active < 1).all(-1)
    assert clear.sum() > COUNT // 2
    assert found.resolved.equal(found.active) or found.resolved[clear].equal(found.active[clear])


def test_an_estimate_at_an_edge_of_the_region_is_not_resolved():
    strong = scenes(40.0, 1)
    narrow = replace(SCENE, azimuth_max_deg=5.0, elevation_max_deg=5.0)
    for name in ("exact_music", "sml"):
        found = build_localiser(name, narrow)(strong, counts(1))
        edge = (found.azimuth.abs().rad2deg() > 4.999) | (found.elevation.abs().rad2deg() > 4.999)
        assert edge[:, 0].any()
        assert not (found.resolved & edge).any()


def resolve(name: str, scenes: Scenes) -> torch.Tensor:
    """Return which of the two estimates of a method told K = 2 are resolved, [B, 2]."""
    two = counts(2)[: scenes.batch_size]
    if name == "posterior":
        return posterior_readout(scenes, two, SCENE).estimates(SCENE).resolved
    return build_localiser(name, SCENE)(scenes, two).resolved


@pytest.mark.parametrize(
    ("name", "size"), [("sml", 8), ("lmmse_music+scoring", COUNT), ("posterior", 2)]
)
def test_one_source_told_twice_is_not_resolved_twice(name, size):
    lone = scenes(5.0, 1).take(slice(size))
    assert not resolve(name, lone).all(-1).any()


def test_estimates_on_both_sides_of_a_source_are_not_both_resolved():
    lone = scenes(15.0, 1)
    sources = lone.sources
    azimuth = sources.azimuth[:, :1] + torch.tensor([-1.5, 1.5]).deg2rad()
    place = torch.stack(
        [azimuth, *(x[:, :1].expand(-1, 2) for x in (sources.elevation, 1 / sources.range_m))],
        dim=-1,
    ).clamp(SEARCH.lower, SEARCH.upper)
    yes = torch.ones(COUNT, 2, dtype=torch.bool)
    beside = make_estimates(place, yes, yes, yes, SEARCH, 2)
    found = refine_by_fisher_scoring(lone, beside, SEARCH)
    assert not found.resolved.all(-1).any()
    assert found.resolved.any(-1).double().mean() > 0.8


@pytest.mark.parametrize("name", ["sml", "lmmse_music+scoring", "posterior"])
def test_two_strong_sources_three_beams_apart_are_both_resolved(name):
    strong = scenes(20.0, 2)
    places = torch.stack([strong.sources.azimuth, strong.sources.elevation], dim=-1)
    first, second = (cosines(places) * torch.tensor(SCENE.beams) / 2).unbind(1)
    apart = ((first - second).norm(dim=-1) > 3).nonzero().flatten()[:4]
    assert len(apart) == 4
    assert resolve(name, strong.take(apart)).all()


def test_resolved_does_not_change_the_errors():
    weak = scenes(-5.0, 2)
    found = build_localiser("lmmse_music", SCENE)(weak, counts(2))
    none = replace(found, resolved=torch.zeros_like(found.resolved))
    assert not found.resolved.equal(found.scored)
    assert capped_error(match(found, weak.sources)).equal(capped_error(match(none, weak.sources)))


def test_the_likelihood_ratio_is_the_quantile_it_claims_to_be():
    assert pytest.approx(chi2.ppf(0.999, 4), abs=1e-3) == LEAST_RATIO
