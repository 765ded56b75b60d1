"""The steering vector against plain geometry, its derivatives, and its far-field limits."""

import math

import pytest
import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.scenes.geometry import (
    Panel,
    planar_steering_vector,
    steering_derivatives,
    steering_vector,
)

PANELS = [Panel(12, 12, 0.15, 0.3), Panel(7, 4, 0.1, 0.3), Panel(1, 5, 0.15, 0.3)]


def fresnel_steering_vector(
    panel: Panel, azimuth: Tensor, elevation: Tensor, range_m: Tensor
) -> Tensor:
    """The expansion of the path to second order in 1/r, [*batch, N]."""
    h, v = panel.element_positions(azimuth.dtype, azimuth.device)
    w = h * (azimuth.sin() * elevation.cos()).unsqueeze(-1) + v * elevation.sin().unsqueeze(-1)
    excess = (h**2 + v**2 - w**2) / (2 * range_m.unsqueeze(-1)) - w
    return torch.exp(-1j * panel.wavenumber * excess)


def directions(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    uniform = 2 * torch.rand(2, count, dtype=torch.float64, generator=generator) - 1
    return uniform[0] * math.radians(60), uniform[1] * math.radians(30)


def ranges(count: int, low: float = 0.5, high: float = 10.0) -> Tensor:
    return torch.linspace(low, high, count, dtype=torch.float64)


@pytest.mark.parametrize("panel", PANELS)
def test_phase_is_that_of_the_distance_to_every_element(panel: Panel) -> None:
    (azimuth, elevation), range_m = directions(20), ranges(20)
    response = steering_vector(panel, azimuth, elevation, range_m)
    for element in range(panel.num_elements):
        column = element % panel.num_horizontal - (panel.num_horizontal - 1) / 2
        row = element // panel.num_horizontal - (panel.num_vertical - 1) / 2
        across = range_m * azimuth.sin() * elevation.cos() - column * panel.spacing_m
        up = range_m * elevation.sin() - row * panel.spacing_m
        ahead = range_m * azimuth.cos() * elevation.cos()
        distance = (across**2 + up**2 + ahead**2).sqrt()
        phase = -2 * math.pi / panel.wavelength_m * (distance - range_m)
        expected = torch.polar(torch.ones_like(phase), phase)
        # distance - range cancels here, at 10 m to 1e-15 m · k
        torch.testing.assert_close(response[:, element], expected, rtol=0, atol=1e-12)


def test_response_has_unit_modulus_and_free_batch_axes() -> None:
    (azimuth, elevation), range_m = directions(24), ranges(24)
    shaped = [x.reshape(2, 3, 4) for x in (azimuth, elevation, range_m)]
    response = steering_vector(PANELS[0], *shaped)
    assert response.shape == (2, 3, 4, 144)
    assert steering_derivatives(PANELS[0], *shaped).shape == (2, 3, 4, 3, 144)
    torch.testing.assert_close(response.abs(), torch.ones_like(response.abs()), rtol=1e-14, atol=0)
    assert steering_vector(PANELS[0], *(x.float() for x in shaped)).dtype == torch.complex64


def test_phase_falls_with_distance() -> None:
    """A source to the right is nearer to the right element, whose phase therefore leads."""
    angle = torch.tensor(0.3, dtype=torch.float64)
    response = steering_vector(Panel(2, 1, 0.05, 0.3), angle, 0 * angle, 5 + 0 * angle)
    assert (response[1] * response[0].conj()).imag > 0


@pytest.mark.parametrize("panel", PANELS)
def test_derivatives_agree_with_finite_differences(panel: Panel) -> None:
    (azimuth, elevation), range_m = directions(50), ranges(50)
    place = [azimuth, elevation, range_m]
    derivatives = steering_derivatives(panel, *place)
    step = 1e-4
    for axis in range(3):

        def moved(steps: int, axis: int = axis) -> Tensor:
            shifted = [x + steps * step if i == axis else x for i, x in enumerate(place)]
            return steering_vector(panel, *shifted)

        # fourth order: the error is h⁴/30 times the fifth derivative
        difference = (8 * (moved(1) - moved(-1)) - (moved(2) - moved(-2))) / (12 * step)
        assert (derivatives[:, axis] - difference).abs().max() < 1e-8


def test_derivatives_agree_with_automatic_differentiation_at_any_range() -> None:
    (azimuth, elevation), range_m = directions(40), torch.logspace(-0.3, 6, 40).double()
    place = (azimuth, elevation, range_m)
    derivatives = steering_derivatives(PANELS[0], *place)
    for axis in range(3):
        tangents = tuple(
            torch.ones_like(x) if i == axis else torch.zeros_like(x) for i, x in enumerate(place)
        )
        _, expected = torch.func.jvp(
            lambda *p: torch.view_as_real(steering_vector(PANELS[0], *p)), place, tangents
        )
        # its derivative by range cancels at long range, ours does not: relative to range 1 m
        torch.testing.assert_close(
            torch.view_as_real(derivatives[:, axis]), expected, rtol=1e-9, atol=1e-12
        )


def test_range_derivative_keeps_its_digits_at_long_range() -> None:
    """-jk ∂δ/∂r a with ∂δ/∂r -> -(q - w²) / 2r²; one order in aperture/r is left out."""
    (azimuth, elevation), panel = directions(40), PANELS[0]
    range_m = torch.full_like(azimuth, 1e6)
    horizontal, vertical = panel.element_positions(torch.float64, azimuth.device)
    across = (azimuth.sin() * elevation.cos()).unsqueeze(-1)
    projection = horizontal * across + vertical * elevation.sin().unsqueeze(-1)
    expected = (horizontal**2 + vertical**2 - projection**2) / (2 * range_m.unsqueeze(-1) ** 2)
    response = steering_vector(panel, azimuth, elevation, range_m)
    slope = steering_derivatives(panel, azimuth, elevation, range_m)[:, 2] / response
    torch.testing.assert_close(slope.imag, panel.wavenumber * expected, rtol=3e-6, atol=1e-17)


def test_fresnel_error_falls_with_the_square_of_range_and_planar_error_with_range() -> None:
    (azimuth, elevation), panel = directions(30), PANELS[0]
    fresnel, planar = [], []
    for distance in (200.0, 400.0):
        range_m = torch.full_like(azimuth, distance)
        exact = steering_vector(panel, azimuth, elevation, range_m)
        near = fresnel_steering_vector(panel, azimuth, elevation, range_m)
        fresnel.append((near - exact).norm())
        planar.append((planar_steering_vector(panel, azimuth, elevation) - exact).norm())
    assert fresnel[0] / fresnel[1] == pytest.approx(4, rel=0.01)  # next order: aperture / 200 m
    assert planar[0] / planar[1] == pytest.approx(2, rel=0.01)


def test_fresnel_is_wrong_in_the_near_field() -> None:
    """Reason for the exact wave: a matched filter of the approximation loses most of it."""
    azimuth, elevation = directions(2000)

    def match(distance: float) -> float:
        range_m = torch.full_like(azimuth, distance)
        exact = steering_vector(PANELS[0], azimuth, elevation, range_m)
        near = fresnel_steering_vector(PANELS[0], azimuth, elevation, range_m)
        return float(((exact.conj() * near).mean(-1)).abs().median())

    # medians over the region known for this panel; 2,000 directions give them to a hundredth
    assert match(0.5) == pytest.approx(0.17, abs=0.02)
    assert match(1.0) == pytest.approx(0.43, abs=0.02)
    assert match(2.0) == pytest.approx(0.92, abs=0.02)
    assert match(10.0) > 0.999


def test_mirrored_source_conjugates_the_response_only_in_the_far_field() -> None:
    (azimuth, elevation), panel = directions(30), PANELS[0]
    for distance, far in ((1.0, False), (1e9, True)):
        range_m = torch.full_like(azimuth, distance)
        response = steering_vector(panel, azimuth, elevation, range_m)
        mirrored = steering_vector(panel, -azimuth, -elevation, range_m)
        error = (response.conj() - mirrored).abs().max()
        # curvature k q / r is 2e-8 rad at 1e9 m
        assert (error < 1e-7) == far


def test_single_precision_holds_at_any_range() -> None:
    (azimuth, elevation), range_m = directions(200), torch.logspace(-0.3, 6, 200).double()
    single = [x.float() for x in (azimuth, elevation, range_m)]
    exact = steering_vector(PANELS[0], *(x.double() for x in single))
    # phases reach k · 1.2 m = 25 rad: 25 · 2^-24 · a few operations
    assert (steering_vector(PANELS[0], *single) - exact).abs().max() < 1e-5


def test_panel_of_a_configuration() -> None:
    scene = SceneConfig(num_horizontal=5, num_vertical=3, spacing_m=0.1, wavelength_m=0.25)
    panel = Panel.from_config(scene)
    assert panel == Panel(5, 3, 0.1, 0.25)
    assert panel.num_elements == scene.num_elements == 15
    horizontal, vertical = panel.element_positions(torch.float64, torch.device("cpu"))
    assert float(horizontal.sum().abs() + vertical.sum().abs()) < 1e-15
    assert float(horizontal[1] - horizontal[0]) == pytest.approx(0.1)
    assert float(vertical[5] - vertical[0]) == pytest.approx(0.1)
