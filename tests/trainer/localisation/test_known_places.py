"""Known places: estimates that agree with them, and the conventions in which they would."""

from dataclasses import replace

import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.localisation.known_places import Comparison, compare_places, place_conventions
from trainer.localisation.localisation import Localisation
from trainer.localisation.localise_scenes import localise
from trainer.scenes.measurement import Scenes, Sources

SCENES = scenes_of(count=2, snr_db=20.0, size=20)


@pytest.fixture(scope="module")
def found() -> Localisation:
    return localise(method="sml", scenes=SCENES)


def compared(found: Localisation, scenes: Scenes = SCENES, **changes: torch.Tensor) -> Comparison:
    truth = replace(scenes.sources, **changes)
    return compare_places(found, replace(scenes, truth=truth), SCENE)


def cartesian(truth: Sources) -> tuple[torch.Tensor, ...]:
    r = truth.range_m
    right, up = truth.azimuth.sin() * truth.elevation.cos(), truth.elevation.sin()
    return r * right, r * up, r * truth.azimuth.cos() * truth.elevation.cos()


def test_the_laws_own_places_agree(found):
    same = compared(found)
    assert same.well
    assert same.agreeing >= same.compared - 1 > 30
    assert same.median_deg < 0.6
    assert same.median_range < 0.1


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda t: {"azimuth": -t.azimuth}, "azimuth of the other sign"),
        (lambda t: {"elevation": -t.elevation}, "elevation of the other sign"),
        (
            lambda t: {"azimuth": t.azimuth.rad2deg(), "elevation": t.elevation.rad2deg()},
            "angles in degrees",
        ),
        (
            lambda t: {"azimuth": t.azimuth.deg2rad(), "elevation": t.elevation.deg2rad()},
            "angles in radians that were converted as if in degrees",
        ),
        (
            lambda t: {"azimuth": t.elevation, "elevation": t.azimuth},
            "azimuth and elevation exchanged",
        ),
        (lambda t: {"range_m": 100 * t.range_m}, "ranges in centimetres"),
        (lambda t: {"range_m": t.range_m / 0.3}, "ranges in wavelengths"),
    ],
)
def test_signs_units_and_axes_are_named(found, change, name):
    wrong = compared(found, **change(SCENES.sources))
    assert not wrong.well
    assert wrong.likely is not None
    assert wrong.likely.name == name


def test_places_from_a_corner_are_named_and_the_shift_advised_leads_to_the_centre(found):
    """The panel is 4 x 3 spacings of 15 cm wide: the lower left element is at (-.3, -.225) m."""
    right, up, ahead = cartesian(SCENES.sources)
    right, up = right + 0.3, up + 0.225
    far = (right**2 + up**2 + ahead**2).sqrt()
    given = {"azimuth": torch.atan2(right, ahead), "elevation": (up / far).asin(), "range_m": far}
    wrong = compared(found, **given)
    assert not wrong.well
    assert wrong.likely is not None
    assert wrong.likely.name == "places from the lower left element"
    assert "add (-0.3, -0.225) m to (right, up)" in wrong.likely.remedy
    known = torch.stack([given["azimuth"], given["elevation"], far], -1)
    truth = SCENES.sources
    wanted = torch.stack([truth.azimuth, truth.elevation, truth.range_m], -1)
    moved = place_conventions(known, SCENES.panel)[wrong.likely.name, wrong.likely.remedy]
    torch.testing.assert_close(moved[truth.active], wanted[truth.active])


def test_places_of_which_only_a_few_are_wrong_are_not_well(found):
    """Three quarters of the scenes agree: more disagree than chance explains."""
    azimuth = SCENES.sources.azimuth.clone()
    azimuth[:5] += 0.1
    some = compared(found, azimuth=azimuth)
    assert some.agreeing > 0.6 * some.compared
    assert not some.well


def test_a_survey_of_half_a_degree_agrees(found):
    generator = torch.Generator().manual_seed(3)
    off = torch.randn(SCENES.sources.azimuth.shape, generator=generator) * 0.0087 / 2
    assert compared(found, azimuth=SCENES.sources.azimuth + off).well


@pytest.mark.parametrize(
    "snr_db", [-10.0, *(pytest.param(snr, marks=pytest.mark.slow) for snr in (-5.0, 0.0))]
)
def test_a_false_basin_below_threshold_contradicts_no_known_place(snr_db):
    """Estimates may be far off where the snapshots do not tell: the known places explain them."""
    scenes = scenes_of(count=1, snr_db=snr_db, size=12)
    assert compared(localise(method="sml", scenes=scenes), scenes).well
