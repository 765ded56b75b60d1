"""Localisation with a model folder: in memory and from files, on its own panel and on others."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from search import localise as search_localise
from tests.small_model import SCENE, scenes_of
from trainer.__main__ import main
from trainer.evaluation import evaluate_network
from trainer.localisation import localise
from trainer.localisation.vouching import MISFIT
from trainer.scenes import EvalScenes, save_scenes
from trainer.scenes.measurement import Scenes
from trainer.training import load_model


def unknown(scenes: Scenes) -> Scenes:
    """Return the same scenes without their sources."""
    return replace(scenes, truth=None)


def off_deg(found, scenes: Scenes) -> np.ndarray:
    """Return the angle errors of single sources [deg]."""
    truth = scenes.sources
    azimuth = found.azimuth[:, 0] - truth.azimuth[:, 0].numpy()
    elevation = found.elevation[:, 0] - truth.elevation[:, 0].numpy()
    return np.degrees(np.hypot(azimuth, elevation))


def test_a_judged_model_says_where_places_are_from(trained):
    """Where scoring from MUSIC's peaks is trusted, it ends where scoring always ends."""
    plain = load_model(trained)
    evaluation = replace(plain.config.evaluation, refinement="judged")
    judged = replace(plain, config=replace(plain.config, evaluation=evaluation))
    scenes = scenes_of(count=1, snr_db=5.0, size=24)
    before, after = localise(plain, scenes), localise(judged, scenes)
    assert set(before.origin) == {""}
    assert set(after.origin) <= {"covariance", "scoring", "search"}
    counted = sum(int(n) for n in re.findall(r"\d+", after.origin_line()))
    assert (before.origin_line(), counted) == ("", 24)
    scored = after.origin == "scoring"
    assert scored.any()
    np.testing.assert_array_equal(after.azimuth[scored], before.azimuth[scored])
    (row, *_) = evaluate_network(judged.network, judged.config, refine=True).rows
    assert row.estimator == "network+judged"
    assert 0 <= row.scored_share <= 1 - row.searched_share <= 1


def test_estimates_are_finite_and_their_slots_match_num_sources(trained):
    found = localise(trained, unknown(scenes_of(count=None, snr_db=-5.0, size=40)))
    slots = np.arange(2) < found.num_sources[:, None]
    np.testing.assert_array_equal(found.active, slots)
    for name, array in found.arrays().items():
        assert len(array) == 40, name
        untold = ("range_m", "azimuth_std", "elevation_std", "range_std_m", "confidence")
        untold = (*untold, "range_low_m", "range_high_m")
        untold = (*untold, "scale", "scale_std")  # of scenes without a source
        untold = (*untold, "sign_evidence")  # of scenes whose sign is clear
        words = ("reason", "origin", "better_reading")
        unread = ("credible_radius", "expected_error", "effective_points", "probabilities")
        assert name in (*untold, *unread, *words) or np.isfinite(array).all(), name
    assert not np.isnan(found.range_m).all()
    assert np.isnan(found.azimuth_std[~found.active]).all()
    np.testing.assert_array_equal(np.isnan(found.confidence), found.reason != "")
    vouched = found.reason == ""
    assert ((found.confidence[vouched] >= 0) & (found.confidence[vouched] <= 1)).all()
    assert not found.confidence[~found.active].any()
    assert (found.confidence[vouched & found.active & found.resolved] > 0).all()
    assert np.abs(found.azimuth).max() <= np.radians(60.1)
    assert np.nanmin(found.range_m) >= 0.49
    assert set(found.num_sources) <= {0, 1, 2}


def test_k_is_given_or_known_or_estimated(trained):
    scenes = scenes_of(count=2, size=2)
    assert (localise(trained, scenes).num_sources == 2).all()
    assert (localise(trained, scenes, num_sources=1).num_sources == 1).all()
    three = localise(trained, scenes, num_sources=3)
    assert three.azimuth.shape == (2, 3)
    asked = localise(trained, scenes, num_sources="estimated")
    np.testing.assert_array_equal(
        asked.num_sources, localise(trained, unknown(scenes)).num_sources
    )


def test_a_scene_does_not_depend_on_the_others(trained):
    scenes = scenes_of(count=None, size=5)
    whole, alone = localise(trained, scenes), localise(trained, scenes.take(slice(3, 4)))
    np.testing.assert_allclose(whole.azimuth[3], alone.azimuth[0], atol=1e-4)
    np.testing.assert_allclose(whole.confidence[3], alone.confidence[0], atol=1e-3)


@pytest.mark.parametrize(
    "other",
    [
        {"num_horizontal": 4, "num_vertical": 5, "num_antennas": 6, "num_snapshots": 20},
        {"num_horizontal": 6, "num_vertical": 3, "spacing_m": 0.14},
        {"num_horizontal": 10, "num_vertical": 2, "range_min_m": 1.3, "num_antennas": 16},
        {"num_horizontal": 8, "num_vertical": 7, "num_antennas": 16},  # more range planes
        {"range_min_m": 2.9},  # fewer
    ],
)
def test_weights_serve_panels_they_were_not_trained_on(trained, other):
    """At 25 dB all lone sources are found within a degree, and without further training."""
    scene = replace(SCENE, **other)
    scenes = scenes_of(scene, size=12)
    found = localise(trained, scenes, range_m=(scene.range_min_m, scene.range_max_m))
    assert np.median(off_deg(found, scenes)) < 0.5
    assert off_deg(found, scenes).max() < 5


def test_sources_beyond_the_angles_of_the_training_are_found_in_a_wider_region(trained, tmp_path):
    wide = replace(SCENE, azimuth_max_deg=75.0, elevation_max_deg=45.0, max_sources=1)
    scenes = scenes_of(wide, size=24)
    sources, limits = scenes.sources, (SCENE.azimuth_max_deg, SCENE.elevation_max_deg)
    pairs = zip((sources.azimuth, sources.elevation), limits, strict=True)
    beyond = torch.stack([angle.abs().rad2deg() > limit + 2 for angle, limit in pairs]).any(0)
    beyond = beyond[:, 0].numpy()
    assert beyond.sum() >= 5
    narrow, found = (
        localise(trained, scenes),
        localise(trained, scenes, azimuth_deg=75.0, elevation_deg=45.0),
    )
    assert off_deg(narrow, scenes)[beyond].min() > 1.9
    assert np.median(off_deg(found, scenes)[beyond]) < 1
    save_scenes(scenes, tmp_path / "in.npz")
    asked = ["--model", str(trained), "--scenes", str(tmp_path / "in.npz")]
    region = ["--azimuth-deg", "75", "--elevation-deg", "45", "--out", str(tmp_path / "out.npz")]
    assert main(["localise", *asked, *region]) == 0
    with np.load(tmp_path / "out.npz") as file:
        np.testing.assert_array_equal(file["azimuth"], found.azimuth)


def test_the_commands_write_what_the_function_returns(trained, tmp_path, capsys):
    scenes = scenes_of(count=None, snr_db=0.0)
    recording, npz, parquet = (tmp_path / n for n in ("in.npz", "out.npz", "out.parquet"))
    save_scenes(scenes, recording)
    asked = ["--model", str(trained), "--scenes", str(recording)]
    assert main(["localise", *asked, "--out", str(npz)]) == 0
    assert search_localise.main([*asked, "--out", str(parquet)]) == 0
    found = localise(trained, recording)
    with np.load(npz) as file:
        assert set(file.files) == set(found.arrays())
        for name in file.files:
            np.testing.assert_array_equal(file[name], found.arrays()[name])
    rows = pd.read_parquet(parquet)
    assert len(rows) == found.active.sum() == found.num_sources.sum()
    for name in ("azimuth", "elevation", "range_m", "confidence", "reason", "resolved"):
        picked = found.arrays()[name][rows["scene"], rows["source"]]
        np.testing.assert_array_equal(rows[name], picked)
    for name in ("num_sources", "explained", "p_value", "fits"):
        np.testing.assert_array_equal(rows[name], found.arrays()[name][rows["scene"]])
    assert [p.name for p in tmp_path.glob(".*")] == []


def test_scenes_in_double_precision_are_localised_like_others(trained):
    single = scenes_of()
    double = localise(trained, single.to(dtype=torch.complex128))
    np.testing.assert_allclose(localise(trained, single).azimuth, double.azimuth, atol=1e-6)


@pytest.mark.slow
def test_confidence_is_higher_where_there_is_less_noise(trained):
    low, high = (localise(trained, scenes_of(snr_db=snr, size=64)) for snr in (-10.0, 10.0))
    first = [np.nanmean(found.confidence[:, 0]) for found in (low, high)]
    assert first[1] > first[0] + 0.2


def test_confidence_with_an_asked_number_has_the_coefficients_of_one(trained):
    model = load_model(trained)
    sure = replace(model.calibration, asked_coefficients=(20.0, 0.0, 0.0, 0.0))
    scenes = scenes_of(snr_db=5.0, size=12)
    for asked in (replace(model, calibration=sure), model):
        found = localise(asked, scenes, num_sources="estimated").confidence
        kept = np.isfinite(found) & (found > 0)
        assert kept.any()
        assert (found[kept] > 0.99).all() == (asked is not model)
    told = localise(replace(model, calibration=sure), scenes).confidence
    np.testing.assert_array_equal(told, localise(model, scenes).confidence)


def test_a_lattice_given_by_its_positions_is_localised_alike(trained, tmp_path):
    """Also with dead elements: told by a mask, by codes of zero, and in memory."""
    scenes = unknown(scenes_of(size=3))
    save_scenes(scenes, tmp_path / "lattice.npz")
    with np.load(tmp_path / "lattice.npz") as file:
        arrays = dict(file)
    row, column = np.divmod(np.arange(20), 5)
    placed = {n: x for n, x in arrays.items() if not n.startswith(("num_", "spacing"))}
    placed["positions_m"] = 0.15 * np.stack([column, row], -1)
    works = row * column != 2
    dark = replace(scenes, codes=scenes.codes * torch.from_numpy(works))
    given = {"whole": placed, "lattice": arrays | {"element_mask": works}}
    given["placed"] = placed | {"element_mask": works}
    for name, each in given.items():
        np.savez(tmp_path / f"{name}.npz", **each)
    found = {name: localise(trained, tmp_path / f"{name}.npz", num_sources=1) for name in given}
    pairs = [(found["whole"], localise(trained, scenes, num_sources=1))]
    pairs += [
        (found[name], localise(trained, dark, num_sources=1)) for name in given if name != "whole"
    ]
    for one, other in pairs:
        for name in ("azimuth", "elevation", "range_m", "confidence"):
            np.testing.assert_allclose(
                one.arrays()[name], other.arrays()[name], rtol=1e-3, atol=1e-4
            )


def test_localise_returns_what_is_told_and_why_confidence_is_withheld(trained):
    wide = replace(SCENE, azimuth_max_deg=80.0, max_sources=1)
    scenes = EvalScenes(wide, 3).batch(range(48), snr_db=20.0, num_sources=1)
    beyond = scenes.sources.azimuth[:, 0].abs().rad2deg() > SCENE.azimuth_max_deg + 5
    assert beyond.sum() >= 3
    outside, inside = (scenes.take(x.nonzero().flatten()[:8]) for x in (beyond, ~beyond))
    found = localise(trained, outside)
    assert np.isnan(found.confidence[:, 0]).all()
    # what does not fit has that reason first, and an azimuth at the edge has no deviation
    assert (found.reason[~found.fits, 0] == MISFIT).all()
    assert np.isnan(found.azimuth_std[:, 0]).any()
    found = localise(trained, inside)
    vouched = found.active & (found.reason == "")
    assert np.isfinite(found.azimuth_std[vouched]).all()
    assert (found.azimuth_std[vouched] > 0).all()
    np.testing.assert_array_equal(np.isnan(found.range_m), np.isnan(found.range_m) & found.active)
    assert (np.isnan(found.range_std_m) >= np.isnan(found.range_m)).all()
