"""Products with a compressed table against those with the whole one, on panels of every kind."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from trainer.config import NetworkConfig, SceneConfig, TrainConfig, least_distance
from trainer.covariance.compression import Orbits, compress_table, mirrors
from trainer.covariance.dictionary import TOLERANCE, outer_products
from trainer.covariance.products import CompressedProducts, DenseProducts
from trainer.networks import build_network
from trainer.scenes import SearchGrid, search_grid, simulate

PLACED = tuple(
    (0.17 * (n % 4) + 0.03 * math.sin(3 * n), 0.16 * (n // 4) + 0.02 * n % 0.05) for n in range(12)
)
PANELS = {
    "6x4": SceneConfig(num_horizontal=6, num_vertical=4),
    "5x3": SceneConfig(num_horizontal=5, num_vertical=3),
    "line": SceneConfig(num_horizontal=8, num_vertical=1),
    "placed": SceneConfig(
        num_horizontal=len(PLACED),
        num_vertical=1,
        spacing_m=least_distance(PLACED),
        positions_m=PLACED,
        azimuth_max_deg=30,
        elevation_max_deg=20,
    ),
}
NUM_MIRRORS = {"6x4": 2, "5x3": 2, "line": 1, "placed": 0}
GRADIENTS = "placed"  # smallest


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def grid_of(name: str, dtype: torch.dtype = torch.float64) -> SearchGrid:
    return search_grid(PANELS[name], dtype, torch.device("cpu"), 3.5, 2.0)


def both(
    name: str, tolerance: float = TOLERANCE, dtype: torch.dtype = torch.float64
) -> tuple[DenseProducts, CompressedProducts]:
    grid = grid_of(name, dtype)
    compressed = CompressedProducts(compress_table(grid_of(name), tolerance, dtype))
    return DenseProducts(grid.steering, outer_products(grid)), compressed


def some(dense: DenseProducts, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random positive R of rank 2, [3, 2, N, N], and powers γ, [3, 2, G]."""
    generator = torch.Generator().manual_seed(seed)
    points, size = dense.steering.shape
    root = torch.randn(3, 2, size, 2, dtype=dense.steering.dtype, generator=generator)
    powers = torch.rand(3, 2, points, dtype=dense.table.dtype, generator=generator) ** 8
    return root @ root.mH, powers


def relative(error: Tensor, to: Tensor) -> float:
    return float(error.norm() / to.norm())


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, TOLERANCE])
def test_the_error_of_the_table_is_within_its_tolerance(name: str, tolerance: float) -> None:
    """And is what it is said to be."""
    dense, compressed = both(name, tolerance)
    points = len(dense.steering)
    table = compressed.mixture(torch.eye(points))
    error = relative(table - dense.mixture(torch.eye(points)), table)
    assert error <= tolerance
    assert compressed.error == pytest.approx(error, rel=1e-4)


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 0.0), (torch.float32, 2e-6)])
def test_products_are_within_the_tolerance(name: str, dtype: torch.dtype, rounding: float) -> None:
    """Of random R and γ; a product in single precision adds its rounding."""
    dense, compressed = both(name, dtype=dtype)
    matrix, powers = some(dense)
    expected = dense.power_map(matrix)
    assert relative(compressed.power_map(matrix) - expected, expected) < TOLERANCE + rounding
    mixed = dense.mixture(powers)
    assert relative(compressed.mixture(powers) - mixed, mixed) < TOLERANCE + rounding
    rows = matrix[..., 0]
    echoes = dense.responses(rows)
    torch.testing.assert_close(
        echoes, (rows @ dense.steering.mT).abs().square(), rtol=1e-3, atol=1e-4
    )
    assert relative(compressed.responses(rows) - echoes, echoes) < 1e-14 + rounding


@pytest.mark.parametrize("name", PANELS)
def test_maps_and_mixtures_are_adjoint_to_rounding(name: str) -> None:
    """<map(R), γ> = <R, mixture(γ)>, at a tolerance that is far above rounding."""
    dense, compressed = both(name, tolerance=1e-2)
    matrix, powers = some(dense)
    of_map = (compressed.power_map(matrix) * powers).sum(-1)
    of_mixture = (matrix.conj() * compressed.mixture(powers)).real.sum((-2, -1))
    torch.testing.assert_close(of_map, of_mixture, rtol=1e-12, atol=1e-12)


def test_gradients_are_those_of_finite_differences() -> None:
    dense, compressed = both(GRADIENTS, tolerance=1e-2)
    matrix, powers = (x[0, :1] for x in some(dense))
    chosen = torch.arange(0, len(dense.steering), 7)

    def hermitian_map(root: Tensor) -> Tensor:
        return compressed.power_map(root @ root.mH)[..., chosen].log()

    def mixed(some_powers: Tensor) -> Tensor:
        spread = torch.zeros(len(dense.steering)).index_put((chosen,), some_powers.square())
        return torch.view_as_real(compressed.mixture(spread)[:3, :3])

    root = torch.linalg.cholesky(matrix + torch.eye(matrix.shape[-1]))[..., :1]
    assert torch.autograd.gradcheck(hermitian_map, root.requires_grad_())
    weights = powers[0, chosen].sqrt().requires_grad_()
    assert torch.autograd.gradcheck(mixed, weights)
    assert torch.autograd.gradgradcheck(mixed, weights)


@pytest.mark.parametrize("name", PANELS)
def test_mirrors_are_found_and_leave_the_table_as_it_is(name: str) -> None:
    grid = grid_of(name)
    found = mirrors(grid.panel)
    assert len(found) == NUM_MIRRORS[name]
    points = torch.arange(len(grid.steering)).view(grid.shape)
    for image, axis in found:
        reflected = grid.steering[points.flip(axis).flatten()][:, image]
        torch.testing.assert_close(reflected, grid.steering, rtol=0, atol=1e-12)


def test_every_member_of_every_orbit_has_one_place() -> None:
    """Of 3 x 5 points under both reflections: one, and some, are their own images."""
    points = torch.arange(15).view(3, 5)
    orbits = Orbits.of([points.flip(0).flatten(), points.flip(1).flatten()], 15)
    assert orbits.images.shape == (4, 2 * 3)
    torch.testing.assert_close(orbits.slots.flatten()[orbits.places], torch.arange(15))
    assert int((orbits.slots < 15).sum()) == 15


def test_a_compressed_table_is_the_same_again() -> None:
    one, other = (compress_table(grid_of("5x3"), 1e-3, torch.float64) for _ in range(2))
    for part, same in zip(one.parts, other.parts, strict=True):
        torch.testing.assert_close(part.rows, same.rows, rtol=0, atol=0)
        torch.testing.assert_close(part.weights, same.weights, rtol=0, atol=0)


def test_more_tolerance_takes_fewer_rows() -> None:
    counts = [
        sum(len(p.rows) for p in compress_table(grid_of("6x4"), tolerance, torch.float64).parts)
        for tolerance in (1e-1, 1e-2, 1e-3, 1e-4)
    ]
    assert counts == sorted(set(counts))


@pytest.mark.parametrize("network", [NetworkConfig(), NetworkConfig("unrolled", stages=2)])
def test_a_network_is_the_same_on_a_compressed_table(network: NetworkConfig) -> None:
    """Its covariance and its gradients."""
    config = TrainConfig(scene=replace(PANELS["6x4"], num_antennas=6), network=network)
    generator = torch.Generator().manual_seed(0)
    scenes = simulate(
        config.scene, 3, snr_db=5, generator=generator, device="cpu", dtype=torch.complex128
    )
    made = build_network(config)
    found = []
    for products in both("6x4"):
        made.products = products
        made.zero_grad()
        matrix = made(scenes).dense()
        matrix[:, 0].abs().sum().backward()
        found.append((matrix.detach(), torch.cat([p.grad.flatten() for p in made.parameters()])))
    for one, other in zip(*found, strict=True):
        # an error of R is divided by λ, some .1 here, in every stage
        assert relative(one - other, one) < 100 * TOLERANCE
