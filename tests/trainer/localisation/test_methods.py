"""Classical methods on recordings, without a network."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from search import localise as search_localise
from tests.small_model import scenes_of
from trainer.__main__ import main
from trainer.config import ConfigError, SceneConfig
from trainer.covariance import lmmse, sample_covariance
from trainer.estimation import estimate_num_sources
from trainer.estimation.registry import build_localiser
from trainer.localisation import localise
from trainer.localisation.methods import METHODS, default_scene, locate_by_method
from trainer.scenes import EvalScenes, save_scenes, steering_vector
from trainer.scenes.geometry import planar_steering_vector


@pytest.mark.parametrize("method", ["sml", "lmmse_mvdr+scoring", "pinv_music", "sparse_music"])
def test_a_method_finds_what_its_localiser_finds_in_the_region_by_default(method):
    scenes = scenes_of(size=4)
    found = localise(scenes=scenes, method=method)
    scene = replace(default_scene(scenes), max_sources=1, num_horizontal=5, num_vertical=4)
    # the same in single precision only in the same units
    given = scenes.in_usual_units()
    alone = build_localiser(method, scene)(given, scenes.sources.num_sources)
    for name in ("azimuth", "elevation", "range_m"):
        np.testing.assert_allclose(getattr(found, name), getattr(alone, name).numpy(), rtol=1e-5)
    assert found.azimuth.shape == (4, 1)


def test_its_estimates_have_no_confidence_and_say_why():
    found = localise(scenes=scenes_of(size=2), method="sml")
    assert np.isnan(found.confidence).all()
    assert (found.reason == "no network calibrated for such data made the estimate").all()


def test_k_is_known_or_estimated():
    scenes = scenes_of(size=1, count=2)
    assert localise(scenes=scenes, method="lmmse_music").num_sources == 2
    unknown = replace(scenes, truth=None)
    for each, asked in ((unknown, "known"), (scenes, "estimated")):
        found = localise(scenes=each, method="lmmse_music", num_sources=asked)
        scene = replace(default_scene(scenes), num_horizontal=5, num_vertical=4)
        counted = locate_by_method("lmmse_music", scenes, None, scene).num_sources
        np.testing.assert_array_equal(found.num_sources, counted)


@pytest.mark.parametrize("count", [1, 2])
def test_the_likelihood_counts_sources_that_are_strong(count):
    scenes = scenes_of(size=4, snr_db=15.0, count=count)
    scene = replace(default_scene(scenes), num_horizontal=5, num_vertical=4, range_max_m=10.0)
    found = locate_by_method("sml", scenes, None, scene)
    assert (found.num_sources == count).sum() >= 3


def test_a_covariance_counts_by_its_widest_relative_eigengap():
    scenes = scenes_of(size=8, count=2)
    scene = replace(default_scene(scenes), num_horizontal=5, num_vertical=4)
    found = locate_by_method("lmmse_mvdr", scenes, None, scene)
    covariance = sample_covariance(lmmse(scenes))
    assert torch.equal(found.num_sources, estimate_num_sources(covariance, 12, 5))


def test_the_region_by_default_follows_the_panel():
    """A quarter of the diagonal to where curvature is a tenth of what the Fraunhofer limit allows.

    At the far end the spherical wave is the planar one to a hundredth of a cycle.
    """
    scenes = scenes_of(size=1)
    scene = default_scene(scenes)
    assert scene.range_min_m == pytest.approx(0.25 * 0.15 * 5)
    far = torch.tensor([scene.range_max_m], dtype=torch.float64)
    angle = torch.zeros(1, dtype=torch.float64)
    spherical = steering_vector(scenes.panel, angle, angle, far)
    planar = planar_steering_vector(scenes.panel, angle, angle)
    assert (spherical * planar.conj()).angle().abs().max() < 0.01 * 2 * torch.pi


def test_other_panels_and_wavelengths_need_no_flags():
    """At 28 GHz everything is thirty times smaller, and the angles are the same."""
    scenes = scenes_of(size=2)
    panel = replace(scenes.panel, spacing_m=0.005, wavelength_m=0.01)
    small, large = (
        localise(scenes=each, method="sml") for each in (replace(scenes, panel=panel), scenes)
    )
    np.testing.assert_allclose(small.azimuth, large.azimuth, atol=1e-4)
    np.testing.assert_allclose(30 * small.range_m, large.range_m, rtol=1e-3)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either a model or a method"),
        ({"method": "sml", "model": "runs"}, "either a model or a method.*model and method"),
        ({"method": "lmmse_musik"}, "Did you mean `lmmse_music`"),
        ({"method": "exact_music"}, "`method` must be one of sml, "),
        ({"method": "crb"}, "`method` must be one of sml, "),
        ({"method": "sml", "scenes": None}, "`scenes` must be given"),
        ({"method": "sml", "range_m": (3.0, 1.0)}, "range_min_m < range_max_m"),
        ({"method": "sml", "readout": "posterior"}, "readout is music unless a model is given"),
        ({"method": "posterior", "num_sources": 3}, "num_sources <= 2 for the posterior"),
        ({"method": "sml", "num_sources": 20}, "num_sources < num_antennas"),
    ],
)
def test_what_cannot_be_is_refused(given, says):
    with pytest.raises(ConfigError, match=says):
        localise(**{"scenes": scenes_of(size=1)} | given)


def test_every_method_but_the_oracle_is_offered():
    assert {name.partition("_")[0] for name in METHODS} == {"sml", "sml+scoring", "pinv"} | {
        "posterior",
        "lmmse",
        "sparse",
    }


def test_the_commands_take_a_method_in_place_of_a_model(tmp_path, capsys):
    recording, npz, parquet = (tmp_path / n for n in ("in.npz", "out.npz", "out.parquet"))
    save_scenes(scenes_of(size=1), recording)
    asked = ["--method", "lmmse_music", "--scenes", str(recording)]
    assert main(["localise", *asked, "--out", str(npz)]) == 0
    assert search_localise.main([*asked, "--out", str(parquet)]) == 0
    assert "no network calibrated for such data made the estimate" in capsys.readouterr().out
    found = localise(method="lmmse_music", scenes=recording)
    with np.load(npz) as file:
        np.testing.assert_array_equal(file["azimuth"], found.azimuth)
    rows = pd.read_parquet(parquet)
    np.testing.assert_array_equal(rows["azimuth"], found.azimuth[:, 0])
    assert rows["confidence"].isna().all()
    for wrong, says in (
        (["--scenes", str(recording)], "--model --method"),
        ([*asked, "--model", "x"], "not allowed with"),
        (["--method", "smll", "--scenes", str(recording)], "Did you mean `sml`"),
    ):
        assert main(["localise", *wrong, "--out", str(npz)]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_the_posterior_tells_noise_from_a_source_with_probabilities(tmp_path, capsys):
    count = torch.tensor([0, 1])
    scenes = EvalScenes(SceneConfig(), 3).batch(range(2), snr_db=5.0, num_sources=count)
    recording, out = tmp_path / "in.npz", tmp_path / "out.npz"
    save_scenes(replace(scenes, truth=None), recording)
    asked = ["--method", "posterior", "--scenes", str(recording), "--range-m", "0.5", "3"]
    assert main(["localise", *asked, "--out", str(out)]) == 0
    with np.load(out) as found:
        assert found["num_sources"].tolist() == [0, 1]
        assert found["probabilities"].argmax(-1).tolist() == [0, 1]
        assert found["confidence"][1, 0] > 0.9
        assert 0 < found["credible_radius"][1, 0] < 0.2
        assert np.isnan(found["effective_points"][0])
    assert search_localise.main([*asked, "--out", str(tmp_path / "out.parquet")]) == 0
    rows = pd.read_parquet(tmp_path / "out.parquet")
    assert len(rows) == 1
    assert rows["credible_radius"].notna().all()
    assert rows["num_sources_probability"].item() > 0.9
    assert not rows["resampled"].any()
    assert "sampled again" not in capsys.readouterr().out


def test_scenes_whose_posterior_is_sampled_again_are_counted_for_the_user(monkeypatch, tmp_path):
    monkeypatch.setattr("trainer.posterior.readout.LEAST_WORTH", 1e4)
    scenes = EvalScenes(SceneConfig(), 3).batch(range(2), snr_db=5.0, num_sources=1)
    found = localise(scenes=scenes, method="posterior", range_m=(0.5, 3.0))
    assert found.resampled.all()
    assert found.sampling_line() == (
        "posterior sampled again with more points: 2 of 2 scenes, 2 of them still too poorly"
    )
