"""Bad input of localisation is refused in one line; silent scenes have no resolved source."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from search import localise as search_localise
from tests.small_model import scenes_of
from trainer.__main__ import main
from trainer.config import ConfigError
from trainer.localisation import localise
from trainer.scenes import save_scenes
from trainer.scenes.measurement import Scenes
from trainer.training.model import load_model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--model": "nowhere"}, "a model is a folder with"),
        ({"--scenes": "nowhere.npz"}, "A recording must exist"),
        ({"--scenes": "foreign.mat"}, "trainer convert foreign.mat --map"),
        ({"--scenes": "wrong"}, "channel has shape"),
        ({"--out": "estimates.txt"}, "--out ends in"),
        ({"--out": "/nowhere/x"}, "--out"),
        ({"--num-sources": "0"}, "num_sources >= 1"),
        ({"--num-sources": "two"}, "a count or auto"),
        ({"--num-sources": "20"}, "num_sources < num_antennas"),
        ({"--range-m": "3 1"}, "range_min_m < range_max_m"),
        ({"--azimuth-deg": "90"}, "0 < azimuth_max_deg < 90"),
        ({"--azimuth-deg": "1.0471975"}, "Give 60 for 1.0471975 radians"),
        ({"--elevation-deg": "nan"}, "0 < elevation_max_deg < 90"),
        ({"--range-m": "1e-9 1e9"}, "the search grid has at most 300000 points"),
        ({"--range-m": "0.5 inf"}, "(localise: --range-m 0.5 3750)"),
        ({"--modle": "x"}, "Did you mean `--model`"),
    ],
)
@pytest.mark.parametrize("ends", [".npz", ".parquet"])
def test_bad_input_is_refused_in_one_line(trained, tmp_path, capsys, change, says, ends):
    scenes = scenes_of(size=2)
    good, wrong = tmp_path / "good.npz", tmp_path / "wrong.npz"
    save_scenes(scenes, good)
    with np.load(good) as file:
        np.savez(wrong, **dict(file) | {"channel": file["channel"][:, :-1]})
    out = tmp_path / f"out{ends}"
    asked = {"--model": str(trained), "--scenes": str(good), "--out": str(out)}
    asked |= {k: str(wrong) if v == "wrong" else v for k, v in change.items()}
    if asked["--out"].startswith("/nowhere"):
        asked["--out"] += ends
    argv = [word for flag, value in asked.items() for word in (flag, *value.split())]
    command = main if ends == ".npz" else search_localise.main
    assert command(["localise", *argv] if ends == ".npz" else argv) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert not out.exists()


def test_estimates_that_are_not_finite_are_refused(trained):
    made = load_model(trained)
    with torch.no_grad():
        next(made.network.parameters()).mul_(float("nan"))
    with pytest.raises(ConfigError, match=r"estimates must be finite.*damaged"):
        localise(made, scenes_of(size=2))


def test_estimates_do_not_replace_the_recording(trained, tmp_path, capsys):
    recording = tmp_path / "in.npz"
    save_scenes(scenes_of(size=2), recording)
    before = recording.read_bytes()
    same = str(tmp_path / "." / "in.npz")
    asked = ["localise", "--model", str(trained), "--scenes", str(recording), "--out", same]
    assert main(asked) == 2
    assert "another file than --scenes" in capsys.readouterr().err
    assert recording.read_bytes() == before


def spoiled(name: str, value: float) -> Scenes:
    """Return scenes in memory with an entry of the third overwritten."""
    scenes = scenes_of(size=4)
    array = getattr(scenes, name).clone()
    array[2, 0, 0] = value
    return replace(scenes, **{name: array})


@pytest.mark.parametrize(
    ("scenes", "says"),
    [
        (lambda: spoiled("snapshots", float("nan")), "snapshots is finite.*1 scenes.*2 first"),
        (lambda: spoiled("channel", float("nan")), "channel is finite"),
        (lambda: spoiled("codes", float("inf")), "codes is finite"),
        (lambda: replace(scenes_of(), codes=2 * scenes_of().codes), r"abs\(codes\) <= 1"),
        (lambda: replace(scenes_of(), codes=3 + 0 * scenes_of().codes), "equal steps of phase"),
        (lambda: scenes_of().take(slice(0, 0)), "snapshots has shape"),
        (lambda: replace(scenes_of(), channel=scenes_of().channel[:1]), "channel has shape"),
        (lambda: replace(scenes_of(), codes=scenes_of().codes[:, 1:]), "codes has shape"),
        (lambda: replace(scenes_of(), snapshots=scenes_of().snapshots.real), "is complex"),
        (lambda: replace(scenes_of(), snapshots=1e-25 * scenes_of().snapshots), "largest of snap"),
    ],
)
def test_scenes_in_memory_are_checked_like_recorded_ones(trained, scenes, says):
    with pytest.raises(ConfigError, match=says):
        localise(trained, scenes())


def test_silence_has_no_resolved_source(trained):
    scenes = replace(scenes_of(), truth=None)
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    assert localise(trained, scenes).resolved.any()
    assert not localise(trained, silent).resolved.any()


def test_a_dead_channel_does_not_end_the_other_scenes(trained):
    scenes = replace(scenes_of(size=4), truth=None)
    channel = scenes.channel.clone()
    channel[2] = 0
    whole, dead = (localise(trained, s) for s in (scenes, replace(scenes, channel=channel)))
    others = [0, 1, 3]
    np.testing.assert_array_equal(dead.num_sources[others], whole.num_sources[others])
    np.testing.assert_allclose(dead.azimuth[others], whole.azimuth[others], atol=1e-4)
    assert np.isfinite(dead.azimuth[others]).all()
    assert np.isnan(dead.azimuth[2, dead.active[2]]).all()
    assert (
        np.isfinite(dead.confidence[others]).sum() == np.isfinite(whole.confidence[others]).sum()
    )


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"device": "gpu"}, "`device` must be"),
        ({"device": "cuda:64"}, "needs a CUDA device"),
        ({"num_sources": 1.5}, "num_sources >= 1, whole"),
        ({"num_sources": float("nan")}, "num_sources >= 1, whole"),
        ({"num_sources": True}, "num_sources >= 1, whole"),
        ({"num_sources": [1, 1]}, "num_sources >= 1, whole"),
        ({"range_m": 3}, r"range_m is \(nearest, farthest\)"),
        ({"range_m": ("1", "2")}, "range_min_m is a number"),
        ({"scenes": {}}, "path of a recording.*got dict.*scenes_of_arrays"),
        ({"model": 3}, "model is a Model or a path.*got int"),
        ({"num_sources": "knwon"}, "Did you mean `known`"),
        ({"range_m": (1.0,)}, "range_m is"),
    ],
)
def test_bad_arguments_are_refused(trained, given, says):
    with pytest.raises(ConfigError, match=says):
        localise(**{"model": trained, "scenes": scenes_of(size=1)} | given)


def test_units_change_no_place():
    scenes = replace(scenes_of(size=4), truth=None)
    scenes.noise_variance.fill_(float("nan"))
    asked = {"method": "sml", "num_sources": 1, "range_m": (0.5, 3.0)}
    found = localise(scenes=scenes, **asked)
    for name, factor in (("channel", 1e-12), ("snapshots", 1e12)):
        changed = replace(scenes, **{name: factor * getattr(scenes, name)})
        other = localise(scenes=changed, **asked)
        np.testing.assert_allclose(other.azimuth, found.azimuth, atol=1e-4)
        np.testing.assert_allclose(other.p_value, found.p_value, rtol=1e-2)
        np.testing.assert_array_equal(other.resolved, found.resolved)
