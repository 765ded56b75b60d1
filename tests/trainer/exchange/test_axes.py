"""Axes by name against loops over single entries; axes that do not fit are named."""

import numpy as np
import pytest

from trainer.config import ConfigError
from trainer.exchange.axes import arrange

ROWS, COLUMNS, ANTENNAS, SCENES = 2, 3, 4, 5
CHANNEL = np.random.default_rng(1).normal(size=(SCENES, ANTENNAS, ROWS * COLUMNS))
TARGET = ("scene", "antenna", "element")
SIZES = {"row": ROWS, "column": COLUMNS}


def laid_out(shape: tuple[int, ...], place) -> np.ndarray:
    """Return the channel with every entry where `place(scene, antenna, row, column)` says."""
    array = np.full(shape, np.nan)
    for (scene, antenna, element), value in np.ndenumerate(CHANNEL):
        row, column = divmod(element, COLUMNS)
        array[place(scene, antenna, row, column)] = value
    return array


@pytest.mark.parametrize(
    ("axes", "shape", "place"),
    [
        ("scene antenna element", (5, 4, 6), lambda s, a, r, c: (s, a, 3 * r + c)),
        ("element antenna scene", (6, 4, 5), lambda s, a, r, c: (3 * r + c, a, s)),
        ("antenna scene -element", (4, 5, 6), lambda s, a, r, c: (a, s, 5 - 3 * r - c)),
        ("scene antenna (column row)", (5, 4, 6), lambda s, a, r, c: (s, a, 2 * c + r)),
        ("scene antenna (column -row)", (5, 4, 6), lambda s, a, r, c: (s, a, 2 * c + 1 - r)),
        ("row antenna -column scene", (2, 4, 3, 5), lambda s, a, r, c: (r, a, 2 - c, s)),
        ("(scene antenna) element", (20, 6), lambda s, a, r, c: (4 * s + a, 3 * r + c)),
        ("(element scene antenna)", (120,), lambda s, a, r, c: 20 * (3 * r + c) + 4 * s + a),
        (
            "element (antenna scene)",
            (1, 6, 1, 20),
            lambda s, a, r, c: (0, 3 * r + c, 0, 5 * a + s),
        ),
    ],
)
def test_axes_put_every_entry_where_it_belongs(axes, shape, place):
    made = arrange(
        laid_out(shape, place), axes, TARGET, SIZES | {"antenna": 4, "scene": 5}, {}, ""
    )
    np.testing.assert_array_equal(made, CHANNEL)


def test_entries_are_taken_along_other_axes_and_iq_is_joined():
    array = np.arange(2 * 3 * 4 * 2, dtype=np.int16).reshape(2, 3, 4, 2)
    axes = "frequency snapshot antenna iq"
    made = arrange(array, axes, ("scene", "snapshot", "antenna"), {}, {"frequency": 1}, "")
    np.testing.assert_array_equal(made, array[1, ..., 0] + 1j * array[1, ..., 1])


def test_missing_axes_have_length_one_except_scenes():
    made = arrange(np.arange(6.0), "snapshot", ("scene", "snapshot", "antenna"), {}, {}, "")
    assert made.shape == (6, 1)


@pytest.mark.parametrize(
    ("axes", "at", "says"),
    [
        ("scene antena element", {}, "`channel.axes` names .*'antena'. Did you mean `antenna`"),
        ("scene antenna port", {}, r"'port'.*at = {port = 0}"),
        ("scene antenna", {}, r"names the axes of the array.*\[5, 4, 6\].*length one"),
        ("scene antenna antenna", {}, "no axis twice"),
        ("scene (antenna) (row column)", {}, r"6 entries for 9"),
        ("(scene antenna element)", {}, "names the axes of the array"),
        ("scene, antenna", {}, 'Write for example "antenna snapshot"'),
        ("scene antenna element", {"frequency": 0}, "channel.at names axes of `axes`"),
        ("frequency antenna element", {"frequency": 5}, "one of 5 entries, from 0"),
    ],
)
def test_axes_that_do_not_fit_are_named(axes, at, says):
    sizes = {"row": 3, "column": 3}
    with pytest.raises(ConfigError, match=says):
        arrange(CHANNEL, axes, TARGET, sizes, at, "channel")


def test_an_odd_number_of_interleaved_values_is_refused():
    with pytest.raises(ConfigError, match=r"\(element iq\) has as many entries.* 5 entries for 2"):
        arrange(CHANNEL[..., :5], "scene antenna (element iq)", TARGET, {}, {}, "channel")


def test_a_group_with_two_open_sizes_asks_for_one():
    with pytest.raises(ConfigError, match=r"one size of \(scene antenna\) open.*\[sizes\] scene"):
        arrange(np.zeros((20, 6)), "(scene antenna) element", TARGET, {}, {}, "channel")
