"""Recordings: what is written is read again, and every broken array is named."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.matrices import true_covariance
from trainer.config import ConfigError, SceneConfig
from trainer.evaluation.crb import stochastic_crb
from trainer.scenes import load_scenes, save_scenes
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

CONFIG = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=5, num_snapshots=6)
COLOURED = replace(
    CONFIG, noise_correlation=0.4, source_correlation=0.3, power_spread_db=5.0, max_sources=3
)


def scenes(config: SceneConfig = COLOURED, count: int = 4) -> Scenes:
    return EvalScenes(config, 1).batch(range(count), snr_db=3.0, dtype=torch.complex128)


def written(folder: Path, **changes: object) -> Path:
    """A valid recording with some arrays replaced, or left out where None."""
    path = folder / "recording.npz"
    save_scenes(scenes(), path)
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


@pytest.mark.parametrize("config", [CONFIG, COLOURED], ids=["plain", "coloured"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_load_returns_what_was_saved(
    tmp_path: Path, config: SceneConfig, dtype: torch.dtype
) -> None:
    saved = scenes(config).to(dtype=dtype)
    save_scenes(saved, tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]
    loaded = load_scenes(tmp_path / "a.npz", dtype=dtype)
    assert loaded.panel == saved.panel
    for name in ("snapshots", "channel", "codes", "noise_variance"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name))
        assert getattr(loaded, name).dtype == getattr(saved, name).dtype
    if config.noise_correlation:
        assert torch.equal(loaded.noise_covariance, saved.noise_covariance)
    else:
        assert loaded.noise_covariance is None
    truth, expected = loaded.sources, saved.sources
    assert torch.equal(truth.active, expected.active)
    assert truth.correlation == expected.correlation
    for name in ("azimuth", "elevation", "range_m", "power"):
        values, wanted = getattr(truth, name), getattr(expected, name)
        assert torch.equal(values[truth.active], wanted[truth.active])
        assert values.isfinite().all()
    torch.testing.assert_close(loaded.snr_db, saved.snr_db, rtol=0, atol=1e-5)
    torch.testing.assert_close(true_covariance(loaded), true_covariance(saved))


def test_recording_without_truth_has_snapshots_but_refuses_to_be_compared(tmp_path: Path) -> None:
    unknown = replace(scenes(), truth=None, noise_variance=torch.full((4,), math.nan))
    save_scenes(unknown, tmp_path / "a.npz")
    loaded = load_scenes(tmp_path / "a.npz")
    assert loaded.truth is None
    assert loaded.snr_db.isnan().all()
    assert loaded.snapshots.isfinite().all()
    with pytest.raises(ValueError, match="recorded without truth"):
        _ = loaded.sources
    with pytest.raises(ValueError, match="recorded without truth"):
        true_covariance(loaded)


def test_recording_with_truth_but_unknown_noise_has_no_bound(tmp_path: Path) -> None:
    loaded = load_scenes(written(tmp_path, noise_variance=None))
    assert loaded.snr_db.isnan().all()
    with pytest.raises(ValueError, match="noise_variance"):
        stochastic_crb(loaded)


def test_shared_arrays_and_single_recordings_may_leave_out_the_batch(tmp_path: Path) -> None:
    batch = scenes()
    shared = batch.channel[0].numpy()
    loaded = load_scenes(written(tmp_path, channel=shared, noise_variance=np.asarray(2.0)))
    assert torch.equal(loaded.channel[3], batch.channel[0].to(torch.complex64))
    assert loaded.noise_variance.tolist() == [2.0] * 4
    single = {
        name: getattr(batch, name)[0].numpy()
        for name in ("snapshots", "channel", "codes", "noise_covariance", "noise_variance")
    }
    truth = {
        name: getattr(batch.sources, name)[0, : batch.sources.num_sources[0]].numpy()
        for name in ("azimuth", "elevation", "range_m", "power")
    }
    loaded = load_scenes(written(tmp_path, **single, **truth), dtype=torch.complex128)
    assert torch.equal(loaded.snapshots, batch.snapshots[:1])
    torch.testing.assert_close(loaded.snr_db, batch.snr_db[:1])


def test_sources_with_gaps_are_put_first(tmp_path: Path) -> None:
    gap = math.nan
    truth = {name: np.array([[gap, 0.1, gap, 0.2]] * 4) for name in ("azimuth", "elevation")}
    loaded = load_scenes(
        written(tmp_path, **truth, range_m=np.array([gap, 1.0, gap, 2.0]), power=None)
    )
    assert loaded.sources.active.tolist() == [[True, True, False, False]] * 4
    assert loaded.sources.azimuth[0].tolist() == pytest.approx([0.1, 0.2, 0, 0])
    assert loaded.sources.range_m[0, :2].tolist() == [1.0, 2.0]
    assert loaded.sources.power[0].tolist() == [1, 1, 0, 0]


BROKEN: list[tuple[dict[str, object], str]] = [
    ({"snapshots": None}, r"no \['snapshots'\]"),
    ({"wavelength_m": None}, r"no \['wavelength_m'\]"),
    ({"spacing_m": None}, r"no \['spacing_m'\]"),
    ({"azimut": np.zeros(4)}, "`azimut` is no array .* Did you mean `azimuth`"),
    ({"snapshots": np.zeros(6)}, r"snapshots has shape \[B, L, M\]"),
    ({"snapshots": np.zeros((4, 0, 5), complex)}, "Give one scene, snapshot and antenna or more"),
    ({"codes": np.zeros((4, 5, 12))}, r"There are 6 snapshots by snapshots and panel, and 5 by"),
    ({"channel": np.zeros((4, 12, 5))}, r"channel has shape \[4, 5, 12\] or \[5, 12\]"),
    ({"codes": np.full((4, 6, 12), np.nan)}, "codes is finite.*288 entries"),
    ({"codes": np.full((4, 6, 12), "a")}, "codes holds numbers"),
    ({"channel": np.array([object()])}, "plain arrays.*Python objects"),
    ({"num_horizontal": 4.5}, "num_horizontal is a positive whole number"),
    ({"spacing_m": -0.1}, "spacing_m is a positive number"),
    ({"wavelength_m": np.array([0.1, 0.2])}, "wavelength_m is a positive number"),
    ({"elevation": None}, "given together"),
    (
        {"azimuth": None, "elevation": None, "range_m": None},
        "places are given if power",
    ),
    (
        {"azimuth": [45.0], "elevation": [0.1], "range_m": [1.0], "power": None},
        r"Give np\.deg2rad\(azimuth\) for degrees",
    ),
    ({"azimuth": np.full((4, 3), 0.1)}, "NaN for the same sources"),
    ({"azimuth": np.zeros((4, 2))}, r"elevation has shape \[4, 2\]"),
    ({"source_correlation": 1.0}, "source_correlation < 1"),
    ({"noise_variance": np.zeros(4)}, "noise_variance > 0"),
    ({"noise_variance": np.ones(3)}, r"noise_variance has shape \[4\] or is a scalar"),
    ({"noise_covariance": 2 * np.eye(5)}, "unit diagonal"),
    ({"noise_covariance": -np.eye(5)}, "positive diagonal"),
    ({"noise_covariance": np.diag([1.0, 1, 0, 1, 1])}, "positive diagonal"),
    ({"comment": np.ones(3)}, "no array of a recording. Leave it out"),
    ({"noise_covariance": np.eye(5) + np.eye(5, k=1) / 2}, "Hermitian"),
    ({"noise_covariance": np.ones((5, 5))}, "positive definite"),
]


@pytest.mark.parametrize(("changes", "message"), BROKEN, ids=[m for _, m in BROKEN])
def test_broken_recordings_say_which_array_and_what_to_do(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_scenes(written(tmp_path, **changes))


@pytest.mark.parametrize("name", ["range_m", "power"])
def test_negative_ranges_and_powers_are_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path)
    with np.load(path) as file:
        negative = -file[name]
    with pytest.raises(ConfigError, match=f"{name} > 0"):
        load_scenes(written(tmp_path, **{name: negative}))


def test_files_that_are_no_recordings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must exist, but there is no .*nothing\.npz"):
        load_scenes(tmp_path / "nothing.npz")
    (tmp_path / "text.npz").write_text("azimuth, elevation")
    with pytest.raises(ConfigError, match="plain arrays"):
        load_scenes(tmp_path / "text.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ConfigError, match=r"single array.*np\.savez.*trainer convert"):
        load_scenes(tmp_path / "one.npy")
    with pytest.raises(ConfigError, match=r"ends in \.npz"):
        save_scenes(scenes(), tmp_path / "a.txt")


def test_single_precision_is_checked_for_double_without_a_warning(tmp_path: Path) -> None:
    save_scenes(EvalScenes(CONFIG, 1).batch(range(2), snr_db=3.0), tmp_path / "a.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_scenes(tmp_path / "a.npz", dtype=torch.complex128)


@pytest.mark.parametrize("name", ["a.mat", "a.h5", "a.csv"])
def test_a_file_of_other_software_is_referred_to_convert(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(ConfigError, match=rf"python -m trainer convert .*{name} --map") as refused:
        load_scenes(tmp_path / name)
    assert "pickle" not in str(refused.value)


@pytest.mark.parametrize("name", ["snapshots", "channel"])
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_a_signal_that_is_silent_or_out_of_range_is_refused(name, factor, tmp_path):
    scenes = EvalScenes(SceneConfig(), 1).batch(range(2), snr_db=3.0).to(dtype=torch.complex128)
    path = tmp_path / "scenes.npz"
    save_scenes(replace(scenes, **{name: getattr(scenes, name) * factor}), path)
    with pytest.raises(ConfigError, match=name):
        load_scenes(path)
