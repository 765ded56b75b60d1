"""Localisers by name, also on recordings without truth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from trainer.config import COVARIANCE_NAMES, ESTIMATOR_NAMES, SceneConfig
from trainer.estimation.pseudospectra import ESTIMATORS
from trainer.estimation.registry import COVARIANCES, build_localiser
from trainer.estimation.source_number import estimate_num_sources
from trainer.evaluation.metrics import gospa, match
from trainer.scenes import load_scenes, save_scenes
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig()


def make(snr_db: float = 15.0, **options) -> Scenes:
    return EvalScenes(SCENE, 8).batch(range(12), snr_db=snr_db, **options)


@pytest.mark.parametrize(
    "name", [*(f"{kind}_music" for kind in COVARIANCES), "lmmse_mvdr", "lmmse_beamformer", "sml"]
)
def test_every_localiser_finds_strong_sources(name):
    scenes = make(num_sources=1)
    estimates = build_localiser(name, SCENE)(scenes, torch.ones(12, dtype=torch.long))
    errors = match(estimates, scenes.sources)
    assert errors.angle_deg[errors.active].median() < 2
    assert estimates.azimuth.shape == (12, SCENE.max_sources)


def test_a_recording_without_truth_is_localised(tmp_path):
    scenes = make()
    save_scenes(replace(scenes, truth=None), tmp_path / "measured.npz")
    recorded = load_scenes(tmp_path / "measured.npz")
    with pytest.raises(ValueError, match="recorded without truth"):
        _ = recorded.sources
    count = scenes.sources.num_sources
    estimates = build_localiser("sml", SCENE)(recorded, count)
    errors = match(estimates, scenes.sources)
    assert errors.angle_deg[errors.active].quantile(0.9) < 2


def test_an_unknown_number_of_sources_is_estimated_from_the_eigenvalues():
    scenes = make()
    told = scenes.sources.num_sources
    exact = COVARIANCES["exact"](scenes, None)
    suggested = estimate_num_sources(exact, scenes.num_snapshots, SCENE.max_sources)
    estimates = build_localiser("exact_music", SCENE)(scenes, suggested)
    # an exact covariance of equal powers shows K; close sources may look like one
    assert (suggested == told).double().mean() > 0.8
    errors = match(estimates, scenes.sources)
    right = suggested == told
    np.testing.assert_allclose(gospa(errors)[right].numpy(), 0, atol=0.02)
    assert (gospa(errors)[~right] >= 0.5).all()  # a miss or a false alarm costs a half


def test_configurations_list_every_covariance_and_estimator():
    assert set(COVARIANCE_NAMES) == set(COVARIANCES)
    assert set(ESTIMATOR_NAMES) == set(ESTIMATORS)


def test_unknown_names_and_more_sources_than_slots_are_refused():
    with pytest.raises(ValueError, match="lmmse_musik"):
        build_localiser("lmmse_musik", SCENE)
    with pytest.raises(ValueError, match="slots >= num_sources"):
        build_localiser("lmmse_music", SCENE)(make(), torch.full((12,), 5))


def test_loading_for_mvdr_does_not_enter_the_source_numbers():
    scenes = EvalScenes(SceneConfig(), 3).batch(range(8), snr_db=10.0, num_sources=2)
    count = torch.full((8,), 2)
    numbers = [
        build_localiser(f"lmmse_{name}", SceneConfig())(scenes, count).source_numbers
        for name in ("music", "mvdr")
    ]
    for rule in numbers[0]:
        assert numbers[0][rule].equal(numbers[1][rule])
