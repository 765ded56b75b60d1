"""Variances of estimates: the bound, limited by the region; nothing unidentifiable is resolved."""

import math
from dataclasses import replace

import pytest
import torch

from trainer.config import SceneConfig
from trainer.covariance import whiten
from trainer.estimation import build_localiser, music, uncertainty
from trainer.estimation.likelihood import Likelihood
from trainer.estimation.uncertainty import invert_information, region_limited
from trainer.evaluation import stochastic_crb
from trainer.scenes import EvalScenes, search_grid, steering_vector

SCENE = SceneConfig(num_antennas=8, num_snapshots=8)
LINES = {"row": {"num_vertical": 1}, "column": {"num_horizontal": 1}}


def at_truth(scenes):
    """Return whitened data, the sources' positions, and which are active."""
    truth = scenes.sources
    place = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)
    return whiten(scenes), place, truth.active


def batch(scene, snr_db, num_sources, count=16):
    scenes = EvalScenes(scene, 3).batch(range(count), snr_db=snr_db, num_sources=num_sources)
    return scenes.to(dtype=torch.complex128), search_grid(scene, torch.float64)


@pytest.mark.parametrize("num_sources", [1, 2])
def test_variances_are_the_stochastic_bound_where_the_data_outweigh_the_region(num_sources):
    scenes, search = batch(SCENE, 20.0, num_sources)
    truth = scenes.sources
    data, positions, active = at_truth(scenes)
    noise = scenes.noise_variance.log().unsqueeze(-1)
    powers = truth.power.where(active, 1.0).log()
    unknowns = torch.cat([positions.flatten(1), powers, noise], dim=-1)
    information = Likelihood(data, search, active).local_model(unknowns).curvature
    found = region_limited(information, search, active.shape[1])
    bound = stochastic_crb(scenes)
    expected = torch.stack([bound.azimuth, bound.elevation, bound.inverse_range], dim=-1)[active]
    # "measured" still knows the region of the other coordinates, and "variance" its own as well
    assert bool((found.measured[active] <= expected * (1 + 1e-9)).all())
    assert bool((found.variance <= found.measured).all())
    largest = (expected / found.region[active]).amax(-1, keepdim=True)
    near = (found.variance[active] / expected - 1).abs() / largest
    assert near.max() < 5  # J⁻¹ = F⁻¹ - F⁻¹ D F⁻¹ + ...: off by the order of bound / region
    assert bool(found.identifiable[active].all())


def test_observed_information_is_the_hessian_that_automatic_differentiation_gives():
    scenes, search = batch(SCENE, 5.0, 2, count=1)
    data, positions, active = at_truth(scenes)
    unknowns = torch.cat([positions.flatten(1), torch.zeros(1, 3)], dim=-1).double()
    likelihood = Likelihood(data, search, active)
    found = likelihood.observed_information(unknowns)[0]

    def gradient(x):
        return likelihood.local_model(x.unsqueeze(0)).gradient[0]

    expected = torch.autograd.functional.jacobian(gradient, unknowns[0])
    # forward differences err by half the third derivative times the step
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_observed_information_counts_where_it_is_positive_definite():
    _, search = batch(SCENE, 10.0, 1, count=2)
    eye = torch.eye(9, dtype=torch.float64).expand(2, -1, -1)
    observed = torch.stack([4 * eye[0], -eye[0]]) * 1e6
    given = region_limited(1e6 * eye, search, 2)
    found = region_limited(1e6 * eye, search, 2, observed)
    torch.testing.assert_close(found.measured[0], given.measured[0] / 4)
    torch.testing.assert_close(found.measured[1], given.measured[1])


def test_variances_never_exceed_those_of_the_uniform_law_over_the_region():
    scenes, search = batch(SCENE, -30.0, 2)
    found = uncertainty(*at_truth(scenes), search)
    assert bool((found.variance <= found.region).all())
    width = 2 * math.radians(SCENE.azimuth_max_deg)
    torch.testing.assert_close(found.region[0, 0, 0].item(), width**2 / 12)
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    found = uncertainty(*at_truth(silent), search)
    torch.testing.assert_close(found.variance, found.region.clone())
    assert not bool(found.identifiable.any())


def test_standard_deviations_scatter_about_the_root_bound():
    scenes, search = batch(SCENE, 10.0, 1, count=64)
    found = uncertainty(*at_truth(scenes), search)
    bound = stochastic_crb(scenes)
    expected = torch.stack([bound.azimuth, bound.elevation, bound.inverse_range], dim=-1)
    # powers and noise are of these snapshots: |s|² of 8 snapshots has 1/sqrt(8) of relative error,
    # its root half as much; the median over 64 scenes a tenth of that
    ratio = (found.measured / expected)[:, 0].sqrt().median(0).values
    assert bool((ratio.log().abs() < 0.15).all())


def test_a_singular_matrix_bounds_only_what_lies_outside_its_null_space():
    information = torch.tensor([[[4.0, 0, 0], [0, 1, -1], [0, -1, 1]]], dtype=torch.float64)
    variance, known = invert_information(information, information.diagonal(dim1=1, dim2=2))
    assert known.tolist() == [[True, False, False]]
    assert variance.tolist() == [[0.25, math.inf, math.inf]]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("method", ["lmmse_music", "exact_mvdr", "sml", "lmmse_music+scoring"])
def test_no_method_resolves_what_a_line_of_elements_cannot_tell(line, method):
    scene = SceneConfig(
        **({"num_horizontal": 8, "num_vertical": 8} | LINES[line]), num_antennas=6, max_sources=1
    )
    scenes = EvalScenes(scene, 1).batch(range(8), snr_db=20.0, num_sources=1)
    bound = stochastic_crb(scenes)
    assert not bool(bound.identifiable.any())
    found = build_localiser(method, scene)(scenes, scenes.sources.num_sources)
    assert bool(found.scored.all())
    assert not bool(found.resolved.any())


def test_music_on_an_exact_covariance_of_a_line_resolves_nothing():
    scene = SceneConfig(num_horizontal=8, num_vertical=1, max_sources=1)
    search = search_grid(scene, torch.float64)
    place = (torch.tensor([x], dtype=torch.float64) for x in (math.radians(-40), 0.0, 1.0))
    steering = steering_vector(search.panel, *place)
    covariance = (steering.mT @ steering.conj()).unsqueeze(0) / 8
    assert not bool(music(covariance, torch.tensor([1]), search).resolved.any())


def test_sml_and_scoring_resolve_nothing_with_fewer_measurements_than_unknowns():
    # one antenna: every snapshot has one variance, and K = 1 has five unknowns
    scene = SceneConfig(num_antennas=1, num_snapshots=4, max_sources=1)
    scenes = EvalScenes(scene, 1).batch(range(8), snr_db=40.0, num_sources=1)
    assert not bool(stochastic_crb(scenes).identifiable.any())
    for method in ("sml", "lmmse_music+scoring"):
        found = build_localiser(method, scene)(scenes, scenes.sources.num_sources)
        assert not bool(found.resolved.any()), method
    more = EvalScenes(SCENE, 1).batch(range(8), snr_db=40.0, num_sources=1)
    found = build_localiser("sml", SCENE)(more, more.sources.num_sources)
    assert found.resolved[:, 0].float().mean() > 0.9
