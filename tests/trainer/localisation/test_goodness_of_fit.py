"""Goodness of fit: the law's own scenes fit, misread ones do not, and confidence is withheld."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tests.small_model import SCENE, scenes_of
from trainer.config import SceneConfig
from trainer.estimation import build_localiser
from trainer.localisation import localise
from trainer.localisation.best_places import (
    FARTHEST,
    LEAST_EVIDENCE,
    LEVEL,
    NEAR,
    OPEN,
    reverse_phase,
    sign_evidence,
)
from trainer.localisation.conventions import conventions, likely_convention
from trainer.localisation.goodness_of_fit import goodness_of_fit, wavefront_polynomials
from trainer.localisation.localisation import Localisation
from trainer.localisation.vouching import (
    MISFIT,
    OTHER_PLACE,
    REVERSED,
    UNTESTED,
    vouch,
    withhold_reversed,
)
from trainer.posterior import log_evidence
from trainer.posterior.sampler import BLIND_SNR_DB
from trainer.scenes import EvalScenes, Scenes, search_grid

SEARCH = search_grid(SCENE, torch.float32)


def unscored(scenes: Scenes) -> Scenes:
    """Return scenes as recorded ones often are: σ² is not known."""
    return replace(scenes, noise_variance=torch.full_like(scenes.noise_variance, torch.nan))


def at_truth(scenes: Scenes):
    """Return the fit at the true places."""
    truth = scenes.sources
    places = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)
    return goodness_of_fit(scenes, places, truth.active, SEARCH)


@pytest.mark.parametrize("known", [True, False], ids=["noise known", "noise unknown"])
def test_p_values_of_the_law_are_no_smaller_than_uniform(known):
    """Bonferroni's p values stand above the uniform's: a one-sided Kolmogorov-Smirnov test."""
    scenes = scenes_of(count=None, snr_db=5.0, size=200)
    p_values = at_truth(scenes if known else unscored(scenes)).p_value
    assert stats.kstest(p_values.numpy(), "uniform", alternative="greater").pvalue > 1e-3
    assert p_values.min() < 0.1


def test_wavefront_polynomials_are_orthonormal_and_none_is_a_change_of_amplitude():
    shapes = wavefront_polynomials(SEARCH, most=30)
    assert len(shapes) == 9  # of degree 1, 2 and 3 in two coordinates
    torch.testing.assert_close(shapes @ shapes.mT, torch.eye(9, dtype=torch.float64))
    assert shapes.sum(-1).abs().max() < 1e-12


def test_residuals_of_a_perfect_fit_leave_the_noise():
    """Explained at 20 dB: 1 - share of noise in the residual, (M - K) / M of σ² / (1 + SNR)."""
    scenes = scenes_of(snr_db=20.0, size=32)
    left = 1 - at_truth(scenes).explained.mean()
    expected = (SCENE.num_antennas - 1) / SCENE.num_antennas / 101
    assert left == pytest.approx(expected, rel=0.25)  # signals vary by 1/sqrt(L) in power


def test_data_without_noise_fit():
    assert (at_truth(scenes_of(snr_db=140.0)).p_value == 1).all()


def test_one_antenna_cannot_be_tested_and_resolves_nothing():
    """One amplitude explains all that one antenna receives, at any place."""
    scenes = unscored(scenes_of(replace(SCENE, num_antennas=1), snr_db=20.0, size=8))
    found = localise(method="sml", scenes=scenes, num_sources=1)
    np.testing.assert_allclose(found.explained, 1, rtol=1e-6)
    assert np.isnan(found.p_value).all()
    assert not found.fits.any()
    assert not found.resolved.any()
    assert (found.reason != "").all()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda s: replace(s, codes=s.codes.flip(1)), id="order of snapshots"),
        pytest.param(lambda s: replace(s, channel=s.channel.conj()), id="sign of the channel"),
        pytest.param(lambda s: replace(s, codes=s.codes.flip(2)), id="order of elements"),
    ],
)
def test_most_misread_scenes_do_not_fit(spoil):
    fit = at_truth(unscored(spoil(scenes_of(snr_db=15.0, size=12))))
    assert (fit.p_value < 0.01).float().mean() > 0.75


def test_a_larger_noise_than_known_does_not_fit():
    scenes = scenes_of(snr_db=5.0, size=12)
    wrong = replace(scenes, noise_variance=scenes.noise_variance / 2)
    assert (at_truth(wrong).p_value < 0.01).all()


def by_ml(scenes: Scenes) -> Localisation:
    """Return what places of highest likelihood are worth."""
    count = scenes.sources.num_sources
    return vouch(scenes, build_localiser("sml", SCENE)(scenes, count), count, SCENE)


@pytest.mark.parametrize("count", [1, 2])
def test_a_reversed_phase_sign_does_not_fit(count):
    """Fault 1: the places were 68 degrees off, and vouched for with confidence .93."""
    scenes = scenes_of(count=count, snr_db=15.0, size=5)
    right, wrong = by_ml(scenes), by_ml(reverse_phase(scenes))
    assert right.fits.mean() > 0.9
    assert wrong.fits.mean() < 0.1
    assert (wrong.explained < right.explained).all()
    assert np.median(wrong.reversed_gain) > 20 > -20 > np.median(right.reversed_gain)


@pytest.mark.slow
def test_the_gain_of_one_sign_is_the_loss_of_the_other():
    """Both signs are searched alike, so each finds what the other does."""
    scenes = scenes_of(count=2, snr_db=0.0, size=12)
    given, reversed_ = (by_ml(x).reversed_gain for x in (scenes, reverse_phase(scenes)))
    assert (np.abs(given + reversed_) < 0.1).sum() >= 11


def drawn(count: int, size: int) -> Scenes:
    """Return scenes of the law, SNR as evidence has it: uniform over -25 ... 29 dB."""
    snr_db = BLIND_SNR_DB[0] - 1 + 2 * len(BLIND_SNR_DB) * (torch.arange(size) + 0.5) / size
    return unscored(EvalScenes(SCENE, 23).batch(range(size), snr_db=snr_db, num_sources=count))


def sign_told(scenes: Scenes, count: int) -> torch.Tensor:
    """Return Δ of every scene, [B]."""
    given, other = (log_evidence(x, SCENE, count)[0] for x in (scenes, reverse_phase(scenes)))
    return given - other


@pytest.mark.parametrize(
    ("count", "size"),
    [
        (1, 32),
        pytest.param(1, 192, marks=pytest.mark.slow),
        pytest.param(2, 64, marks=pytest.mark.slow),
    ],
)
def test_the_evidence_for_the_wrong_sign_averages_at_most_one_over_the_law(count, size):
    """E exp(-Δ) = 1: an e value; its tail is heavy, so that a sample's mean is mostly less."""
    ratio = (-sign_told(drawn(count, size), count)).nan_to_num(0).exp()
    assert ratio.mean() <= 1 + 3 * ratio.std() / size**0.5
    for least in (2.0, 5.0):  # Markov
        chance = 1 / least
        assert (ratio > least).float().mean() <= chance + 3 * (chance / size) ** 0.5


def test_the_evidence_of_one_sign_is_that_against_the_other():
    scenes = scenes_of(count=2, snr_db=0.0, size=3)
    gain, count = torch.zeros(3, dtype=torch.float64), torch.full((3,), 2)
    given, other = (sign_evidence(x, count, gain, SCENE) for x in (scenes, reverse_phase(scenes)))
    both = given.isfinite() & other.isfinite()
    assert both.any()
    torch.testing.assert_close(given[both], -other[both], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_evidence_beyond_the_bound_rejects_and_less_does_not():
    """p is below `LEVEL` exactly where the evidence against the sign exceeds the bound."""
    scenes = unscored(scenes_of(count=1, snr_db=-1.0, size=24))
    found = [by_ml(x) for x in (scenes, reverse_phase(scenes))]
    told = np.concatenate([each.sign_evidence for each in found])
    p_value = np.concatenate([each.p_value for each in found])
    asked, against = np.isfinite(told), -told > LEAST_EVIDENCE
    assert against.sum() >= 4
    assert (p_value[asked & against] < LEVEL).all()
    assert (p_value[asked & ~against] >= LEVEL).mean() > 0.8  # the residual rejects few


def test_the_gain_judges_the_sign_where_the_posterior_has_no_law():
    """Of unequal powers, and of three sources."""
    scenes = scenes_of(count=1, snr_db=0.0, size=4)
    gain, count = torch.zeros(4), torch.ones(4, dtype=torch.long)
    assert sign_evidence(scenes, 3 * count, gain, SCENE).isnan().all()
    assert sign_evidence(scenes, count, gain, replace(SCENE, power_spread_db=6.0)).isnan().all()
    assert sign_evidence(scenes, count, gain + 2 * OPEN, SCENE).isnan().all()
    assert not sign_evidence(scenes, count, gain, SCENE).isnan().all()


def signs_in(region: SceneConfig, scenes: Scenes) -> torch.Tensor:
    """Return Δ of scenes with one source, and of the same with the phase sign reversed, [2, B]."""
    gain, one = torch.zeros(scenes.batch_size), torch.ones(scenes.batch_size, dtype=torch.long)
    both = (sign_evidence(x, one, gain, region) for x in (scenes, reverse_phase(scenes)))
    return torch.stack(list(both))


def test_plane_waves_leave_the_sign_open_and_curved_ones_tell_it():
    """In a region open to plane waves; of sources up to `NEAR` alone plane waves have one."""
    reach = SCENE.fraunhofer_m
    region = replace(SCENE, range_max_m=1000 * reach)
    far = replace(SCENE, range_min_m=100 * reach, range_max_m=500 * reach)
    plane = signs_in(region, scenes_of(far, snr_db=5.0, size=4))
    assert plane.abs().max() < LEAST_EVIDENCE / 2
    curved = signs_in(region, scenes_of(snr_db=5.0, size=3))
    assert (curved[0] > LEAST_EVIDENCE).all()
    assert (curved[1] < -LEAST_EVIDENCE).all()


def test_no_sign_is_told_where_all_waves_of_the_region_are_plane():
    reach = SCENE.fraunhofer_m
    region = replace(SCENE, range_min_m=NEAR * reach, range_max_m=1.1 * FARTHEST * reach)
    assert signs_in(region, scenes_of(snr_db=5.0, size=1)).isnan().all()


def test_weak_hints_of_a_reversed_sign_in_all_scenes_are_one_strong_one():
    scenes = scenes_of(snr_db=0.0, size=12)
    right, wrong = by_ml(scenes), by_ml(reverse_phase(scenes))
    assert withhold_reversed(right) is right
    withheld = withhold_reversed(wrong)
    assert not withheld.fits.any()
    assert set(withheld.reason[withheld.active]) <= {MISFIT, REVERSED}


def test_an_estimate_far_from_the_place_that_explains_the_scene_is_not_vouched_for():
    scenes = scenes_of(snr_db=15.0, size=8)
    count = scenes.sources.num_sources
    found = build_localiser("sml", SCENE)(scenes, count)
    off = replace(found, azimuth=-found.azimuth, elevation=-found.elevation)
    certain = torch.ones_like(found.azimuth)
    good, bad = (vouch(scenes, f, count, SCENE, certain) for f in (found, off))
    far = found.azimuth.abs().maximum(found.elevation.abs())[:, 0].numpy() > np.radians(8)
    assert far.sum() >= 4
    assert (good.reason[:, 0] == "").sum() >= 7
    # reasons of the place itself, such as an edge of the region, come before
    assert (bad.reason[far, 0] != "").sum() >= far.sum() - 1
    assert bad.fits.sum() >= 7
    assert np.isnan(bad.confidence[bad.reason != ""]).all()
    assert good.resolved[:, 0].sum() >= 7
    assert not bad.resolved[bad.reason == OTHER_PLACE].any()


def test_localise_vouches_for_nothing_with_a_reversed_sign_and_says_so(trained):
    scenes = replace(scenes_of(size=3), truth=None)
    wrong = localise(trained, reverse_phase(scenes), num_sources=1, diagnosed=True)
    assert not np.isfinite(wrong.confidence[wrong.active]).any()
    assert "phase sign reversed 3 of 3" in wrong.diagnosis
    assert "conjugate snapshots, channel and codes" in wrong.diagnosis
    right = localise(trained, scenes, num_sources=1, diagnosed=True)
    assert "fit" not in right.diagnosis


@pytest.mark.parametrize(
    ("misread", "name"),
    [
        pytest.param(
            lambda s: replace(s, snapshots=s.snapshots.conj()),
            "snapshots conj",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda s: replace(s, panel=replace(s.panel, spacing_m=0.075)), "half as large"
        ),
        pytest.param(
            lambda s: replace(s, snapshots=s.snapshots.conj(), channel=s.channel.conj()),
            "snapshots and channel conj",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda s: replace(s, codes=s.codes.roll(1, 1)),
            "one snapshot late",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_usual_misreadings_are_named(misread, name):
    scenes = misread(scenes_of(snr_db=15.0, size=2))
    count = torch.ones(2, dtype=torch.long)
    likely = likely_convention(conventions(scenes, count, SCENE))
    assert likely is not None
    assert name in likely.name
    assert likely.fitting == likely.of == 2


def test_a_channel_with_one_mode_tells_no_place_of_a_source():
    """A line of sight alone leaves one number a snapshot: one amplitude explains it anywhere."""
    scene = replace(SCENE, rician_db=60.0)
    found = localise(method="sml", scenes=scenes_of(scene, size=4), num_sources=1)
    assert (found.reason[found.active] == UNTESTED).all()
    assert not found.resolved.any()
    assert not (found.azimuth_std[found.active] < 0.3).any()  # 17°, half of the region's own
    assert localise(method="sml", scenes=scenes_of(size=4), num_sources=1).resolved.all()
