"""The four usual sources: data made the way their software makes it, converted by docs/data.md."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from tests.import_graph import ROOT
from tests.trainer.exchange.test_files import save_v73
from trainer.exchange import convert
from trainer.localisation import localise
from trainer.scenes.measurement import Scenes

RANDOM = np.random.default_rng(5)
COLUMNS, ROWS, ANTENNAS, SNAPSHOTS = 5, 4, 6, 16
NOISE = 0.02
AZIMUTH, ELEVATION, RANGE = np.radians([-35.0, 10.0, 48.0]), np.radians([12.0, -20.0, 5.0]), 1.2


def blocks(section: str) -> list[str]:
    """Return the mappings that docs/data.md shows in a section."""
    text = (ROOT / "docs" / "data.md").read_text().split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```toml\n(.*?)```", text, re.DOTALL)


def mapping(section: str, folder: Path) -> Path:
    """Return a file with the first mapping of a section."""
    (folder / "map.toml").write_text(blocks(section)[0])
    return folder / "map.toml"


def normal(*shape: int) -> np.ndarray:
    """Return complex normal numbers of unit variance."""
    return (RANDOM.normal(size=shape) + 1j * RANDOM.normal(size=shape)) / np.sqrt(2)


def waves(spacing_m: float, wavelength_m: float, range_m: float) -> np.ndarray:
    """Return exp(-jkd) at every element of the panel, [scene, row, column], from its own formula.

    Rows count upwards, columns to the right.
    """
    right = range_m * np.sin(AZIMUTH) * np.cos(ELEVATION)
    up, ahead = range_m * np.sin(ELEVATION), range_m * np.cos(AZIMUTH) * np.cos(ELEVATION)
    h = (np.arange(COLUMNS) - 2.0) * spacing_m
    v = (np.arange(ROWS) - 1.5) * spacing_m
    across = right[:, None, None] - h
    upwards = up[:, None, None] - v[:, None]
    path = np.sqrt(across**2 + upwards**2 + ahead[:, None, None] ** 2)
    return np.exp(-2j * np.pi * (path - range_m) / wavelength_m)


def received(panel: np.ndarray, channel: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return snapshots [scene, snapshot, antenna] of a new amplitude each, with noise.

    Args:
        panel: [scene, element]; channel: [antenna, element]; codes: [snapshot, element].
    """
    clean = np.einsum("mn,ln,sn->slm", channel, codes, panel)
    clean = clean * normal(len(panel), SNAPSHOTS, 1)
    return clean + NOISE * np.abs(clean).mean() * normal(*clean.shape)


def assert_found(scenes: Scenes, far_m: float, tolerance_deg: float = 1.0) -> None:
    """Check that maximum likelihood finds the sources within a degree."""
    found = localise(scenes=scenes, method="sml", num_sources=1, range_m=(far_m / 20, far_m))
    for name, truth in (("azimuth", AZIMUTH), ("elevation", ELEVATION)):
        error = np.degrees(getattr(found, name)[:, 0] - truth)
        assert np.abs(error).max() < tolerance_deg, name
    assert found.resolved.all()
    assert found.fits.all()


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_matlab(tmp_path, version):
    """The toolbox's elements run down each column; MATLAB's axes begin with the antennas."""
    panel = waves(0.15, 0.3, RANGE)
    down_columns = panel[:, ::-1].transpose(0, 2, 1).reshape(3, -1)
    phases = RANDOM.uniform(0, 360, size=(ROWS * COLUMNS, SNAPSHOTS))
    channel = normal(ANTENNAS, ROWS * COLUMNS)
    y = received(down_columns, channel, np.exp(1j * np.radians(phases)).T)
    variables = {"Y": y.transpose(2, 1, 0), "H": channel, "phi": phases}
    variables |= {"az": np.degrees(AZIMUTH), "el": np.degrees(ELEVATION), "r": np.full(3, RANGE)}
    if version == "7.3":
        save_v73(tmp_path / "measured.mat", variables)
    else:
        scipy.io.savemat(tmp_path / "measured.mat", variables)
    scenes = convert([tmp_path / "measured.mat"], mapping("MATLAB", tmp_path))
    np.testing.assert_allclose(scenes.sources.azimuth[:, 0], AZIMUTH)
    assert_found(scenes, 20.0)


def test_doatools(tmp_path):
    """Steering exp(+j 2π x sin θ / λ) of a line that begins at the origin."""
    angles = np.radians([-40.0, 15.0])
    steering = np.exp(2j * np.pi * 0.5 * np.arange(8)[:, None] * np.sin(angles))
    y = steering @ normal(2, 100) + 0.1 * normal(8, 100)
    np.savez(tmp_path / "doatools.npz", y=y)
    scenes = convert([tmp_path / "doatools.npz"], mapping("doatools", tmp_path))
    found = localise(scenes=scenes, method="sml", num_sources=2, elevation_deg=0.1)
    np.testing.assert_allclose(np.sort(found.azimuth[0]), angles, atol=np.radians(0.5))
    assert found.fits.all()


@pytest.mark.slow
def test_plane_waves_of_any_seed_fit(tmp_path):
    """Snapshots that tell 20 D² / wavelength from infinity tell no place of the region from it."""
    steering = np.exp(2j * np.pi * 0.5 * np.arange(8) * np.sin(AZIMUTH[2]))
    y = steering * normal(12, 100, 1)
    y += 10 ** (-np.array([20, 30])[:, None, None].repeat(6, 0) / 20) * normal(12, 100, 8)
    np.savez(tmp_path / "doatools.npz", y=y.transpose(0, 2, 1))
    text = blocks("doatools")[0].replace("antenna snapshot", "scene antenna snapshot")
    (tmp_path / "map.toml").write_text(text)
    scenes = convert([tmp_path / "doatools.npz"], tmp_path / "map.toml")
    found = localise(scenes=scenes, method="sml", num_sources=1, elevation_deg=0.1)
    assert found.fits.all()
    assert found.far.all()


def test_doatools_plane(tmp_path):
    """Positions of a planar array that counts along y first; azimuth is counted in its plane."""
    x, y = (0.5 * i.ravel() for i in np.meshgrid(range(4), range(3), indexing="ij"))
    azimuth, elevation = np.radians([75.0]), np.radians([60.0])
    right, up = np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth)
    steering = np.exp(2j * np.pi * (x[:, None] * right + y[:, None] * up))
    snapshots = steering @ normal(1, 50) + 0.05 * normal(12, 50)
    np.savez(tmp_path / "plane.npz", y=snapshots, locations=np.stack([x, y], axis=-1))
    line, positions = blocks("doatools")
    kept = [r for r in line.splitlines() if not r.startswith(("num_", "spacing_m"))]
    (tmp_path / "map.toml").write_text("\n".join([*kept, positions]))
    scenes = convert([tmp_path / "plane.npz"], tmp_path / "map.toml")
    found = localise(scenes=scenes, method="sml", num_sources=1)
    ours = np.arctan2(right, np.sin(elevation)), np.arcsin(up)
    np.testing.assert_allclose(found.azimuth[0], ours[0], atol=np.radians(0.5))
    np.testing.assert_allclose(found.elevation[0], ours[1], atol=np.radians(0.5))
    assert found.fits.all()


def test_software_radio(tmp_path):
    """Interleaved int16 of a receiver that mixes with an oscillator above the carrier."""
    wavelength = 299792458 / 2.4e9
    panel = waves(0.0625, wavelength, 0.6).reshape(3, -1)
    bits = RANDOM.integers(0, 2, size=(SNAPSHOTS, ROWS, COLUMNS), dtype=np.uint8)
    channel = normal(ANTENNAS, ROWS * COLUMNS)
    y = received(panel, channel, np.where(bits, -0.7, 1).reshape(SNAPSHOTS, -1)).conj()
    pairs = np.stack([y.real, y.imag], axis=-1) / np.abs(y).max() * 32767
    with h5py.File(tmp_path / "iq.h5", "w") as file:
        file["iq"] = pairs.round().astype(np.int16).reshape(3, SNAPSHOTS, -1)
        file["bits"] = bits[:, ::-1]
        file["calibration/H"] = channel.conj()
    scenes = convert([tmp_path / "iq.h5"], mapping("Software radios", tmp_path))
    assert_found(scenes, 10.0)


def test_network_analyser(tmp_path):
    """Traces in dB and degrees, of one transmitter at one place whose amplitude is constant."""
    panel = waves(0.005, 299792458 / 28e9, 0.05)[:1].reshape(1, -1)
    degrees = RANDOM.choice([0.0, 90.0, 180.0, 270.0], size=(SNAPSHOTS, ROWS * COLUMNS))
    channel = normal(ANTENNAS, ROWS * COLUMNS)
    clean = np.einsum("mn,ln,n->lm", channel, np.exp(1j * np.radians(degrees)), panel[0])
    trace = (clean + NOISE * normal(*clean.shape)).ravel()
    lines = [
        "!CSV A.01.01",
        "BEGIN CH1_DATA",
        "S21_dB,S21_deg",
        *(f"{20 * np.log10(abs(s)):.5f},{np.angle(s, deg=True):.4f}" for s in trace),
        "END",
    ]
    (tmp_path / "trace.csv").write_text("\n".join(lines))
    written = [",".join(f"{h.real:.6g}{h.imag:+.6g}i" for h in row) for row in channel]
    (tmp_path / "response.csv").write_text("\n".join(written))
    np.savetxt(tmp_path / "states.csv", degrees, delimiter=",", fmt="%g")
    files = [tmp_path / f"{name}.csv" for name in ("trace", "response", "states")]
    scenes = convert(files, mapping("Vector network analysers", tmp_path))
    found = localise(scenes=scenes, method="sml", num_sources=1, range_m=(0.02, 1.0))
    assert abs(np.degrees(found.azimuth[0, 0] - AZIMUTH[0])) < 1
    assert abs(np.degrees(found.elevation[0, 0] - ELEVATION[0])) < 1
    assert found.fits.all()
