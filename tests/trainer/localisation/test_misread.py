"""A recording that is misread vouches for no scene, nor a model for data unlike its training."""

import re
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.config import ConfigError
from trainer.estimation import sml
from trainer.localisation import localise, reverse_phase
from trainer.localisation.best_places import LEVEL, fit_badly
from trainer.localisation.conventions import ALONE, better_reading, least_gain, readings
from trainer.localisation.diagnosis import find_fault
from trainer.localisation.vouching import (
    DOUBTFUL,
    MISFIT,
    MISREAD,
    REREAD,
    REVERSED,
    UNCALIBRATED,
    UNSEEN,
    vouch,
    withhold_misread,
)
from trainer.scenes import Scenes, search_grid


def test_one_misfit_in_a_recording_takes_no_other_scenes_confidence_and_many_take_all(trained):
    found = localise(trained, scenes_of(snr_db=15.0, size=24), num_sources=1)
    for misfits, kept in ((1, True), (6, False)):
        fits = np.arange(24) >= misfits
        spoilt = replace(found, fits=fits, reason=np.where(fits[:, None], "", found.reason))
        judged = withhold_misread(spoilt)
        vouched = np.isfinite(judged.confidence[judged.active])
        assert vouched.any() == kept
        assert (MISREAD in judged.reason) != kept


def test_confidence_of_fewer_snapshots_than_in_the_training_is_withheld(trained):
    scenes = scenes_of(snr_db=15.0, size=4)
    few = replace(scenes, snapshots=scenes.snapshots[:, :4], codes=scenes.codes[:, :4])
    found = localise(trained, few, num_sources=1)
    assert not np.isfinite(found.confidence[found.active]).any()
    assert UNCALIBRATED in found.reason


def test_noise_alone_is_vouched_for_by_nothing(trained):
    """Confidence was .30: of scenes without a source, it is given to about one in a hundred."""
    noise = replace(scenes_of(count=0, size=48), truth=None)
    found = localise(trained, noise, num_sources=1)
    assert (found.reason == UNSEEN).sum() >= 44
    assert np.isfinite(found.confidence[found.active]).sum() <= 4


@pytest.mark.parametrize(
    "factor", [0.1, *(pytest.param(f, marks=pytest.mark.slow) for f in (0.5, 2.0, 10.0))]
)
def test_a_wrong_noise_variance_does_not_fit_and_the_advice_leads_to_the_right_one(factor):
    scenes = scenes_of(snr_db=5.0, size=6)
    wrong = replace(scenes, noise_variance=factor * scenes.noise_variance)
    found = localise(method="sml", scenes=wrong, diagnosed=factor == 10)
    assert not found.fits.any()
    if factor == 10:
        assert "with noise_variance left out 6 of 6 tried fit" in found.diagnosis.lower()
        divisor = float(re.search(r"divide it by ([\d.]+)", found.diagnosis)[1])
        assert divisor == pytest.approx(factor, rel=0.1)
        right = replace(wrong, noise_variance=wrong.noise_variance / divisor)
        assert localise(method="sml", scenes=right).fits.all()


def test_a_reversed_sign_is_named_whether_or_not_each_scene_alone_tells_it(trained):
    scenes = replace(scenes_of(snr_db=0.0, size=12), truth=None)
    found = localise(trained, reverse_phase(scenes), num_sources=1, diagnosed=True)
    assert np.isin(found.reason[found.active], (REVERSED, MISFIT, UNSEEN)).all()
    assert "phase sign reversed" in found.diagnosis
    assert "None of the usual" not in found.diagnosis


def test_a_reversed_sign_is_no_remedy_where_most_scenes_do_not_fit_with_it():
    scenes = replace(scenes_of(snr_db=15.0, size=3), truth=None)
    found = localise(method="sml", scenes=scenes, num_sources=1)
    hinted = replace(found, reason=np.where(found.active, REVERSED, found.reason))
    assert find_fault(hinted, scenes, SCENE) is None


@pytest.mark.slow
def test_another_reading_is_named_where_scenes_together_hint_at_a_reversed_sign():
    scenes = replace(scenes_of(snr_db=15.0, size=8), truth=None)
    late = replace(scenes, codes=scenes.codes.roll(1, 1))
    found = localise(method="sml", scenes=late, num_sources=1)
    assert not found.fits.any()
    hinted = replace(found, reason=np.where(found.active, REVERSED, found.reason))
    fault = find_fault(hinted, late, SCENE)
    assert fault is not None
    assert fault.reading == "with codes one snapshot late 8 of 8 tried fit"
    assert localise(method="sml", scenes=fault.scenes, num_sources=1).fits.all()


def test_as_many_sources_as_antennas_are_refused_at_once():
    scenes = scenes_of(size=2)
    with pytest.raises(ConfigError, match=r"num_sources < num_antennas.*--num-sources 7"):
        localise(method="sml", scenes=scenes, num_sources=8)


def lone_misread_that_fits(name: str) -> Scenes:
    """Return scenes, each misread in this way, that fit by their own tests; no line of sight."""
    rayleigh = replace(SCENE, rician_db=-60.0)
    law = replace(scenes_of(rayleigh, snr_db=20.0, size=16), truth=None)
    unknown = replace(law, noise_variance=torch.full_like(law.noise_variance, torch.nan))
    misread = next(read for each, _, read in readings(unknown) if each == name)
    found = localise(method="sml", scenes=misread, num_sources=1)
    return misread.take(torch.from_numpy((found.p_value >= LEVEL).nonzero()[0]))


def test_scenes_read_with_wrong_codes_are_better_explained_by_the_right_ones():
    scenes = scenes_of(snr_db=15.0, size=2)
    wrong = replace(scenes, codes=scenes.codes.conj().resolve_conj())
    one = torch.ones(2, dtype=torch.long)
    assert better_reading(wrong, one, SCENE) == "codes conjugated"


def test_antennas_of_snapshots_in_another_order_than_the_channels_are_put_in_its_order():
    scenes, one = scenes_of(snr_db=15.0, size=2), torch.ones(2, dtype=torch.long)
    for name, order in (
        ("in reverse order", scenes.snapshots.flip(2)),
        ("starting with the last one", scenes.snapshots.roll(1, 2)),
        ("starting with the second one", scenes.snapshots.roll(-1, 2)),
    ):
        wrong = replace(scenes, snapshots=order)
        assert better_reading(wrong, one, SCENE) == f"antennas of snapshots {name}"


def test_codes_of_radians_that_were_turned_as_degrees_are_better_explained_by_the_radians():
    name = "codes made of phases in radians, not degrees"
    scenes, one = scenes_of(snr_db=15.0, size=1), torch.ones(1, dtype=torch.long)
    assert name not in [each for each, _, _ in readings(scenes)]
    moduli = torch.full_like(scenes.codes.real, 0.7)
    wrong = replace(scenes, codes=torch.polar(moduli, scenes.codes.angle().deg2rad()))
    assert better_reading(wrong, one, SCENE) == name
    read = next(read for each, _, read in readings(wrong) if each == name)
    torch.testing.assert_close(read.codes, 0.7 * scenes.codes, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_lone_misread_scene_that_fits_is_withheld_and_the_reading_is_named():
    """Wrong codes leave noise, and some place explains noise: the right codes explain more."""
    misread = lone_misread_that_fits("codes conjugated")
    assert misread.batch_size
    alone = localise(method="sml", scenes=misread.take(slice(0, 1)), num_sources=1, diagnosed=True)
    assert alone.p_value[0] >= LEVEL
    assert not alone.fits[0]
    assert alone.reason[0, 0] == f"{REREAD} codes conjugated"
    assert alone.better_reading.tolist() == ["codes conjugated"]
    assert "1 of 1 scenes fit better when they are read otherwise" in alone.diagnosis
    assert alone.diagnosis.endswith("conjugate codes.")


@pytest.mark.slow
def test_a_lone_scene_of_the_law_keeps_its_confidence(trained):
    found = localise(trained, scenes_of(snr_db=15.0, size=3), num_sources=1)
    assert found.fits.all()
    assert set(found.better_reading) == {""}
    assert np.isfinite(found.confidence[found.active]).all()


def test_the_bound_of_readings_is_bonferronis_of_sums_of_logistic_gains():
    for number in (1, 17):
        chance = 1 / (1 + np.exp(least_gain(number)))
        assert number * chance == pytest.approx(ALONE)
    drawn = np.random.default_rng(1).logistic(size=(200_000, 4)).sum(-1)
    share = (drawn > least_gain(1, 4)).mean()
    assert share == pytest.approx(ALONE, abs=4 * (ALONE / len(drawn)) ** 0.5)


@pytest.mark.slow
def test_many_weak_hints_at_another_reading_are_added():
    """At 0 dB each of eight scenes says too little of elements that were wired there and back."""
    name, scenes = (
        "the elements of codes ordered row by row, there and back",
        scenes_of(snr_db=-3.0, size=8),
    )
    given = next(read for each, _, read in readings(scenes) if each == name)  # its own inverse
    one = torch.ones(8, dtype=torch.long)
    alone = [better_reading(given.take([n]), one[:1], SCENE) for n in range(8)]
    assert alone.count(name) < 8
    assert better_reading(given, one, SCENE) == name


def test_a_misfit_that_no_scene_shows_is_seen_in_all_p_values_together():
    assert not fit_badly(np.full(8, 0.5, np.float32))
    assert not fit_badly(np.full(1, 0.001, np.float32))
    assert fit_badly(np.full(8, 0.05, np.float32))
    drawn = np.random.default_rng(1).uniform(size=(2000, 4))
    assert np.mean([fit_badly(each) for each in drawn]) <= LEVEL + 3 * (LEVEL / 2000) ** 0.5


def test_a_scene_that_fits_badly_is_not_vouched_for():
    """What nobody told of, from nothing to as strong as the source: the estimate is vouched for,
    then doubted, then withheld as the scene does not fit."""
    both = scenes_of(snr_db=10.0, size=2)
    amplitudes = torch.linspace(0, 1, 33).view(-1, 1, 1)
    mixed = both.take([0] * len(amplitudes))
    mixed = replace(mixed, snapshots=mixed.snapshots + amplitudes * both.snapshots[1])
    one = torch.ones(len(amplitudes), dtype=torch.long)
    found = vouch(mixed, sml(mixed, one, search_grid(SCENE)), one, SCENE)
    reasons = [reason for reason, _ in groupby(found.reason[:, 0].tolist())]
    assert reasons == [UNCALIBRATED, DOUBTFUL, MISFIT]
    assert found.fits[found.reason[:, 0] == DOUBTFUL].all()
