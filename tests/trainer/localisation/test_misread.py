"""A recording that is misread vouches for no scene, nor a model for data unlike its training."""

from dataclasses import replace

import numpy as np

from tests.small_model import scenes_of
from trainer.localisation import localise
from trainer.localisation.vouching import MISREAD, UNCALIBRATED, withhold_misread


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
