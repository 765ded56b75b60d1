"""`python -m trainer check`: recordings that fit, and those whose convention is another."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.__main__ import main
from trainer.exchange import describe_scenes
from trainer.localisation import recording_check
from trainer.localisation.localisation import Localisation
from trainer.localisation.localise_scenes import localise_by
from trainer.scenes import save_scenes
from trainer.scenes.measurement import Scenes

SCENES = scenes_of(size=4, snr_db=15.0)


def checked(folder: Path, scenes: Scenes, capsys, *flags: str) -> tuple[int, dict[str, str]]:
    """Return the exit code of the check of these scenes, and its lines by their first word."""
    save_scenes(scenes, folder / "a.npz")
    code = main(["check", str(folder / "a.npz"), *flags])
    lines = capsys.readouterr().out.splitlines()
    return code, {line.split()[0]: line.split(maxsplit=1)[1] for line in lines}


def test_a_recording_of_the_law_is_well(tmp_path, capsys):
    code, said = checked(tmp_path, SCENES, capsys)
    assert code == 0
    assert said["panel"] == "5 x 4 elements"
    assert said["recording"] == "4 scenes, 12 snapshots, 8 antennas"
    assert said["SNR"] == "15.0 ... 15.0 dB"
    assert said["fit"] == "4 of 4 scenes fit (p >= .01), by sml"
    assert said["places"].startswith("4 of 4 sure estimates agree with a known place")
    assert said["verdict"].startswith("all is well")
    assert "the snapshots tell the elements' distances in wavelengths to ±" in said["scale"]


def test_a_wrong_phase_sign_is_named_and_its_remedy_helps(tmp_path, capsys):
    names = ("snapshots", "channel", "codes")
    conjugated = {name: getattr(SCENES, name).conj().resolve_conj() for name in names}
    code, said = checked(tmp_path, replace(SCENES, **conjugated), capsys)
    assert code == 1
    assert said["fit"].startswith("0 of 4")
    assert "with the phase sign reversed 4 of 4 tried fit" in said["remedy"]
    assert said["remedy"].endswith("conjugate snapshots, channel and codes")
    assert said["places"].startswith("with this remedy, 4 of 4 sure estimates")
    with np.load(tmp_path / "a.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "a.npz", **arrays | {name: arrays[name].conj() for name in names})
    assert main(["check", str(tmp_path / "a.npz")]) == 0


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda t: {"azimuth": -t.azimuth}, "negate azimuth"),
        (lambda t: {"elevation": -t.elevation}, "negate elevation"),
        (
            lambda t: {"azimuth": t.elevation, "elevation": t.azimuth},
            "exchange azimuth and elevation",
        ),
    ],
)
def test_known_places_tell_what_snapshots_cannot(tmp_path, capsys, change, remedy):
    """The scenes fit as well as before: only the known places are of another convention."""
    other = replace(SCENES, truth=replace(SCENES.sources, **change(SCENES.sources)))
    code, said = checked(tmp_path, other, capsys)
    assert code == 1
    assert said["fit"].startswith("4 of 4")
    assert said["remedy"].endswith(f"4 of 4 estimates agree: {remedy}")


def test_scenes_that_cannot_be_tested_are_not_called_misfits(tmp_path, capsys, monkeypatch):
    """A recording of which nothing can be tested is not well either."""

    def untested(*args: object) -> Localisation:
        found = localise_by(*args)
        nothing = np.full_like(found.p_value, np.nan)
        return replace(found, p_value=nothing, fits=np.zeros_like(found.fits))

    monkeypatch.setattr(recording_check, "localise_by", untested)
    code, said = checked(tmp_path, SCENES, capsys)
    assert code == 1
    assert said["fit"].startswith("0 of 0")
    assert said["untested"].startswith("4 scenes")
    assert "remedy" not in said


def test_nothing_is_said_of_one_antenna(tmp_path, capsys):
    one = scenes_of(replace(SCENE, num_antennas=1), size=3, snr_db=20.0)
    code, said = checked(tmp_path, one, capsys)
    assert code == 1
    assert said["fit"].startswith("0 of 0")
    assert said["verdict"].startswith("nothing can be said")


def test_what_is_no_recording_is_bad_usage(tmp_path, capsys):
    (tmp_path / "a.mat").write_bytes(b"")
    save_scenes(SCENES, tmp_path / "a.npz")
    for flags, says in (
        (["a.mat"], "python -m trainer convert"),
        (["b.npz"], "must exist"),
        (["a.npz", "--method", "smll"], "Did you mean `sml`"),
        (["a.npz", "--num-scenes", "0"], "num_scenes >= 1"),
        (["a.npz", "--num-sources", "x"], "a count or auto"),
    ):
        assert main(["check", str(tmp_path / flags[0]), *flags[1:]]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1


def test_antennas_that_are_silent_clipped_or_without_channel_are_named():
    snapshots = SCENES.snapshots.clone()
    snapshots[..., 2] = 0
    parts = torch.view_as_real(snapshots)
    limit = parts[..., 5, :].abs().quantile(0.9)
    parts[..., 5, :] = parts[..., 5, :].clamp(-limit, limit)
    channel = SCENES.channel.clone()
    channel[:, 3] = 0
    described = describe_scenes(replace(SCENES, snapshots=snapshots, channel=channel))
    assert [x for x in described if x.startswith("antennas")] == [
        "antennas   number 2 is silent",
        "antennas   number 3 has no channel: its row is 0",
        "antennas   number 5 is clipped in 10 % of its values",
    ]


def test_codes_are_listed_by_their_states():
    bits = torch.randint(0, 2, SCENES.codes.shape, generator=torch.Generator().manual_seed(1))
    states = torch.tensor([0.7j, -1.0])[bits].to(SCENES.codes)
    (line,) = (x for x in describe_scenes(replace(SCENES, codes=states)) if "codes " in x)
    assert "|c| 0.7 ... 1, 2 states" in line
    assert "0.7∠90°" in line
    assert "1∠180°" in line
    still = replace(SCENES, codes=states[:, :1].expand(-1, 12, -1))
    assert describe_scenes(still)[-1].endswith("the same in all snapshots")
