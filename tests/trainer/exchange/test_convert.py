"""Conversion: scenes laid out in another way come back as they were; mistakes are named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from trainer.__main__ import main
from trainer.config import ConfigError, SceneConfig
from trainer.exchange import convert
from trainer.exchange.mapping import DERIVED, TARGETS
from trainer.scenes import load_scenes, recorded
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

CONFIG = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=5, num_snapshots=6)
SCENES = EvalScenes(CONFIG, 1).batch(range(2), snr_db=3.0, num_sources=2, dtype=torch.complex128)
Y, H, C = (getattr(SCENES, name).numpy() for name in ("snapshots", "channel", "codes"))
PANEL = "num_horizontal = 4\nnum_vertical = 3\nspacing_m = 0.15\nwavelength_m = 0.3\n"
PLAIN = '[snapshots]\nfrom = "Y"\n[channel]\nfrom = "H"\n[codes]\nfrom = "C"\n'


def converted(folder: Path, mapping: str, **arrays: object) -> Scenes:
    """Return the scenes that a mapping makes of arrays in a file."""
    np.savez(folder / "source.npz", **{"Y": Y, "H": H, "C": C} | arrays)
    (folder / "map.toml").write_text(mapping)
    return convert([folder / "source.npz"], folder / "map.toml")


def assert_same(made: Scenes) -> None:
    """Check that scenes are `SCENES`."""
    assert made.panel == SCENES.panel
    for name in ("snapshots", "channel", "codes"):
        torch.testing.assert_close(getattr(made, name), getattr(SCENES, name))


@pytest.mark.parametrize(
    ("mapping", "arrays"),
    [
        (PLAIN, {}),
        (PLAIN.replace('"Y"', '"Y"\nconjugate = true'), {"Y": Y.conj()}),
        (PLAIN.replace('"Y"', '"Y"\nscale = 0.001'), {"Y": 1000 * Y}),
        (PLAIN.replace('"Y"', '"Y"\naxes = "antenna snapshot scene"'), {"Y": Y.T}),
        (PLAIN.replace('from = "Y"', 'real = "I"\nimag = "Q"'), {"I": Y.real, "Q": Y.imag}),
        (PLAIN.replace('from = "C"', 'phase = "P"'), {"P": np.angle(C)}),
        (
            PLAIN.replace('from = "C"', 'phase = "P"\ndegrees = true'),
            {"P": np.degrees(np.angle(C))},
        ),
        (
            PLAIN.replace('from = "H"', 'magnitude = "A"\nphase = "P"'),
            {"A": np.abs(H), "P": np.angle(H)},
        ),
        (
            PLAIN.replace('from = "H"', 'magnitude_db = "D"\nphase = "P"\ndegrees = true'),
            {"D": 20 * np.log10(np.abs(H)), "P": np.angle(H, deg=True)},
        ),
    ],
)
def test_an_array_in_another_form_comes_back_as_it_was(tmp_path, mapping, arrays):
    assert_same(converted(tmp_path, PANEL + mapping, **arrays))


@pytest.mark.parametrize("name", ["C", "H"])
@pytest.mark.parametrize("turn", [0, np.pi])  # phases from -pi, and from 0
def test_phases_in_the_wrong_unit_are_refused_and_the_advice_leads_to_the_right_one(
    tmp_path, name, turn
):
    array = {"C": C, "H": H}[name]
    radians = np.angle(array * np.exp(-1j * turn)) + turn
    modulus = '\nmagnitude = "A"'
    mapping = PANEL + PLAIN.replace(f'from = "{name}"', f'phase = "P"{modulus}')
    given = {"A": np.abs(array), "P": radians}
    with pytest.raises(ConfigError, match="look like radians: drop degrees = true"):
        converted(tmp_path, mapping.replace(modulus, f"{modulus}\ndegrees = true"), **given)
    assert_same(converted(tmp_path, mapping, **given))
    given["P"] = np.degrees(radians)
    for step in (1, 22.5) if name == "C" else ():  # of states
        given["P"] = step * np.round(given["P"] / step)
        with pytest.raises(ConfigError, match="look like degrees: add degrees = true"):
            converted(tmp_path, mapping, **given)
    converted(tmp_path, mapping.replace(modulus, f"{modulus}\ndegrees = true"), **given)


def test_states_become_the_reflections_of_their_table(tmp_path):
    states = np.random.default_rng(2).integers(0, 2, size=C.shape)
    table = "table = [[1, 90], [1, -90.0]]"
    mapping = PANEL + PLAIN.replace('from = "C"', f'states = "bits"\n{table}')
    made = converted(tmp_path, mapping, bits=states.astype(bool))
    np.testing.assert_allclose(made.codes, np.where(states, -1j, 1j))


def test_codes_and_channel_may_be_constants_for_an_array_without_panel(tmp_path):
    constants = PANEL + 'channel = "identity"\ncodes = 1\n'
    made = converted(tmp_path, constants + '[snapshots]\nfrom = "X"', X=C)
    torch.testing.assert_close(
        made.channel, torch.eye(12, dtype=torch.complex128).expand(2, -1, -1)
    )
    assert (made.codes == 1).all()
    np.testing.assert_array_equal(made.snapshots, C)


def test_scalars_come_from_the_file_and_wavelength_from_frequency(tmp_path):
    mapping = PANEL.replace("wavelength_m = 0.3", "") + PLAIN
    mapping += '[frequency_hz]\nfrom = "f"\naxes = "frequency"\nat = {frequency = 1}\n'
    made = converted(tmp_path, mapping, f=np.array([1e9, 299792458 / 0.3]))
    assert made.panel == SCENES.panel


def test_truth_in_degrees_from_the_end_of_the_array_is_turned(tmp_path):
    """Angles from one end of the array, 0 to 180, are 90 at broadside."""
    azimuth = np.array([[-40.0, 10.0], [0.0, 55.0]])
    mapping = '[azimuth]\nfrom = "a"\ndegrees = true\noffset = -90\nscale = -1\n'
    mapping += '[range_m]\nfrom = "mm"\nscale = 0.001\n'
    mapping = "elevation = [[0, 0], [0, 0]]\n" + PANEL + PLAIN + mapping
    made = converted(tmp_path, mapping, a=90 - azimuth, mm=np.full((2, 2), 1500))
    np.testing.assert_allclose(np.degrees(made.sources.azimuth.numpy()), azimuth, atol=1e-9)
    assert (made.sources.range_m == 1.5).all()


def test_cartesian_truth_from_a_corner_becomes_angles_from_the_centre(tmp_path):
    """The corner element is the origin; (x, y, z) are ahead, left and up, in millimetres."""
    truth = SCENES.sources
    az, el, r = (getattr(truth, n).numpy() for n in ("azimuth", "elevation", "range_m"))
    centred = np.stack([r * np.sin(az) * np.cos(el), r * np.sin(el), r * np.cos(az) * np.cos(el)])
    right, up, ahead = centred + np.array([0.225, 0.15, 0])[:, None, None]
    place = 1000 * np.stack([ahead, -right, up], axis=-1)
    mapping = PANEL + PLAIN + '[place_m]\nfrom = "xyz"\nscale = 0.001\n'
    mapping += 'coordinates = "ahead -right up"\norigin = [0, -225, 150]\n'
    made = converted(tmp_path, mapping, xyz=place).sources
    for name in ("azimuth", "elevation", "range_m"):
        torch.testing.assert_close(getattr(made, name), getattr(truth, name))


@pytest.mark.parametrize(
    ("coordinates", "columns"),
    [("right up", [0, 1]), ("ahead right -up", [2, 0, 1]), ("up right", [1, 0])],
)
def test_positions_of_elements_are_put_in_order(tmp_path, coordinates, columns):
    """The lattice's own positions, in millimetres and in another order, are the lattice again."""
    h, v = SCENES.panel.element_positions(torch.float64, torch.device("cpu"))
    sign = -1 if "-up" in coordinates else 1
    places = np.stack([h, sign * v, np.zeros(12)], axis=-1)[:, columns]
    text = f'[positions_m]\nfrom = "p"\nscale = 0.001\ncoordinates = "{coordinates}"\n'
    made = converted(tmp_path, "wavelength_m = 0.3\n" + PLAIN + text, p=1000 * places + 70)
    for mine, lattice in zip(
        made.panel.element_positions(torch.float64, torch.device("cpu")), (h, v), strict=True
    ):
        torch.testing.assert_close(mine, lattice)


def test_a_line_of_positions_has_one_coordinate_and_dead_elements_a_mask(tmp_path):
    text = '[positions_m]\nfrom = "p"\ncoordinates = "right"\n[element_mask]\nfrom = "works"\n'
    mask = np.arange(12) != 3
    line = {"p": 0.1 * np.arange(12)[:, None], "works": mask.astype(np.uint8)}
    made = converted(tmp_path, "wavelength_m = 0.3\n" + PLAIN + text, **line)
    h, v = made.panel.element_positions(torch.float64, torch.device("cpu"))
    np.testing.assert_allclose(h, 0.1 * (np.arange(12) - 5.5)[mask], atol=1e-9)
    assert not v.any()


def test_a_mapping_can_give_every_array_of_a_recording():
    known = {*recorded.SIGNALS, "wavelength_m", *recorded.OPTIONAL}
    assert known == TARGETS.keys() - DERIVED.keys()


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ("snapshot = 1", "`snapshot` is no array.*Did you mean `snapshots`"),
        ("[codes]\nform = 'C'", "`codes.form` is no key.*Did you mean `from`"),
        ("[codes]\nfrom = 3", "codes.from is text"),
        ("[codes]\nfrom = 'C'\nscale = true", "codes.scale is a number"),
        ("[codes]\nreal = 'C'", r"codes has from; or imag and real; .*got \['real'\]"),
        ("[codes]\nstates = 'C'", "codes has from"),
        ("[codes]\nfrom = 'C'\ndegrees = true", "degrees is for phase"),
        ("[codes]\nfrom = 'C'\norigin = [0, 0, 0]", "origin is for place_m"),
        ("[codes]\nfrom = 'c'", r"'c', which none of the files has.*They have Y \[2, 6, 5\] comp"),
        ("[codes]\nreal = 'C'\nimag = 'Y'", "real and imag of codes have one shape"),
        ("[codes]\nstates = 'bits'\ntable = [1, -1]", r"Write for example \[\[1, 0\], \[0.7, 180"),
        (
            "[codes]\nstates = 'bits'\ntable = [[1, 0]]",
            "from 0 to 0, the rows of its table.*0 ... 1",
        ),
        ("codes = 'C'", r"write \[codes\] and below it from = \"C\""),
        ("sizes = 3", "sizes are whole numbers by axis"),
        ("frequency_hz = 1e9", "frequency_hz is given in place of wavelength_m"),
        ("[codes]\nfrom = 'C'\noffset = 1", "codes with an offset is real"),
        ("[power]\nfrom = 'Y'\naxes = 'scene source x'\nat = {x = 0}", "`power is real`.*complex"),
        ("[place_m]\nfrom = 'xyzt'", "right, up or ahead"),
        (
            "[noise_variance]\nfrom = 'I'\naxes = 'scene a b'\nat = {a = -1, b = 0}",
            "from 0`.*got -1",
        ),
        (
            "[noise_variance]\nfrom = 'I'\naxes = 'scene a b'\nat = {a = true, b = 0}",
            "from 0`.*got True",
        ),
        ("codes = [", "--map is a TOML file"),
        ("[noise_variance]\nfrom = 'Y'", "names the axes of the array"),
    ],
)
def test_mistakes_in_a_mapping_are_named(tmp_path, mapping, says):
    arrays = {"h": H[0, :2], "I": Y.real, "xyzt": np.ones((2, 2, 4))}
    with pytest.raises(ConfigError, match=says):
        converted(tmp_path, PANEL + mapping, bits=np.array([0, 1]), **arrays)


def test_a_frequency_is_positive(tmp_path):
    mapping = PANEL.replace("wavelength_m = 0.3", "frequency_hz = 0") + PLAIN
    with pytest.raises(ConfigError, match="`frequency_hz > 0`"):
        converted(tmp_path, mapping)


@pytest.mark.parametrize("key", ["real", "imag", "magnitude", "magnitude_db", "phase"])
@pytest.mark.parametrize("degrees", ["", "\ndegrees = true"])
def test_parts_of_complex_numbers_are_real(tmp_path, key, degrees):
    """np.abs, np.angle or a component was forgotten: the numbers would be wrong."""
    other = {"real": "imag", "imag": "real"}.get(key, "phase")
    entry = f'{key} = "Y"\n' + (f'{other} = "I"' if other != key else "")
    entry += degrees if other == "phase" else ""
    mapping = PANEL + PLAIN.replace('from = "Y"', entry)
    with pytest.raises(ConfigError, match=rf"`snapshots\.{key} is real`.*complex128.*`from`"):
        converted(tmp_path, mapping, I=Y.real)


@pytest.mark.parametrize("snapshots", ["1", "[1, 2, 3]"])
def test_constants_that_are_no_snapshots_are_refused(tmp_path, snapshots):
    mapping = f'snapshots = {snapshots}\nchannel = "identity"\ncodes = 1\n' + PANEL
    with pytest.raises(ConfigError, match="snapshots"):
        converted(tmp_path, mapping)


def test_what_is_no_recording_is_refused_as_by_load_scenes(tmp_path):
    with pytest.raises(ConfigError, match=r"channel has shape \[2, 5, 12\]"):
        converted(tmp_path, PANEL + PLAIN, H=H[:, :, 1:])
    with pytest.raises(ConfigError, match=r"no \['codes'\]"):
        converted(tmp_path, PANEL + PLAIN.partition("[codes]")[0])


def test_the_command_lists_converts_and_refuses(tmp_path, capsys):
    assert_same(converted(tmp_path, PANEL + PLAIN))
    source, mapping, out = (str(tmp_path / n) for n in ("source.npz", "map.toml", "out.npz"))
    assert main(["convert", source]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Y [2, 6, 5] complex128"
    assert main(["convert", source, "--map", mapping, "--out", out]) == 0
    assert "2 scenes, 6 snapshots, 5 antennas" in capsys.readouterr().out
    assert_same(load_scenes(out, dtype=torch.complex128))
    for wrong, says in (
        (["--map", mapping], "given together"),
        (["--map", mapping, "--out", source], "another file"),
        (["--map", mapping, "--out", "/nowhere/x.npz"], "can be written"),
        (["--map", source, "--out", out], "TOML"),
    ):
        assert main(["convert", source, *wrong]) == 2
        said = capsys.readouterr().err
        assert says in said
        assert said.count("\n") == 1
