"""The codes of the panel: modulus, resolution, orthogonality."""

import math
from dataclasses import replace

import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor

from trainer.config import CODE_KINDS, SceneConfig
from trainer.scenes.codes import CODES, build_codes, uniforms_shape
from trainer.scenes.geometry import Panel, planar_steering_vector

SCENE = SceneConfig(num_horizontal=4, num_vertical=3, num_snapshots=10)


def draw(config: SceneConfig, count: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = uniforms_shape(config)
    uniform = torch.rand(count, *shape, dtype=torch.float64, generator=generator)
    return build_codes(config, uniform)


def test_every_kind_of_the_configuration_exists() -> None:
    assert set(CODES) == set(CODE_KINDS)


@pytest.mark.parametrize("kind", CODE_KINDS)
@pytest.mark.parametrize("num_snapshots", [1, 10, 30])
def test_codes_have_unit_modulus(kind: str, num_snapshots: int) -> None:
    codes = draw(replace(SCENE, code_kind=kind, num_snapshots=num_snapshots))
    assert codes.shape == (50, num_snapshots, 12)
    torch.testing.assert_close(codes.abs(), torch.ones_like(codes.abs()), rtol=1e-15, atol=0)


def test_continuous_phases_are_uniform() -> None:
    turns = draw(SCENE).angle().flatten().numpy() / (2 * math.pi) + 0.5
    assert scipy.stats.kstest(turns, "uniform").pvalue > 1e-4


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_quantised_phases_take_all_levels_and_no_others(bits: int) -> None:
    codes = draw(replace(SCENE, code_bits=bits))
    level = codes.angle() / (2 * math.pi) * 2**bits
    assert (level - level.round()).abs().max() < 1e-12
    count = (level.round().long() % 2**bits).flatten().bincount()
    assert scipy.stats.chisquare(count.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("kind", ["dft", "dft2"])
def test_dft_codes_are_orthogonal(kind: str) -> None:
    codes = draw(replace(SCENE, code_kind=kind))
    expected = 12 * torch.eye(10, dtype=codes.dtype).expand(50, -1, -1)
    torch.testing.assert_close(codes @ codes.mH, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["dft", "dft2"])
def test_all_rows_are_used_before_one_repeats(kind: str) -> None:
    codes = draw(replace(SCENE, code_kind=kind, num_snapshots=24))
    # each of the 12 rows twice: C^H C = 2 N I
    expected = 24 * torch.eye(12, dtype=codes.dtype).expand(50, -1, -1)
    torch.testing.assert_close(codes.mH @ codes, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ["dft", "dft2"])
def test_dft_codes_are_rows_of_the_matrix(kind: str) -> None:
    matrix = torch.from_numpy(scipy.linalg.dft(12))
    if kind == "dft2":
        # element n = row · N_H + column: vertical factor first
        rows, columns = (torch.from_numpy(scipy.linalg.dft(n)) for n in (3, 4))
        matrix = torch.kron(rows, columns)
    codes = draw(replace(SCENE, code_kind=kind, num_snapshots=12))
    match = (codes @ matrix.mH).abs() / 12
    torch.testing.assert_close(match.amax(-1), torch.ones(50, 12, dtype=torch.float64))
    # every scene has its own order
    order = match.argmax(-1)
    assert (order.sort(-1).values == torch.arange(12)).all()
    assert not torch.equal(order[0], order[1])


def test_rows_of_the_two_dimensional_dft_are_far_field_beams() -> None:
    """At half-wavelength spacing a code that matches direction (u, v) conjugates its response."""
    codes = draw(replace(SCENE, code_kind="dft2", num_snapshots=12), count=1)[0]
    panel = Panel(4, 3, 0.15, 0.3)
    sine = torch.tensor([0.0, 0.5], dtype=torch.float64)
    response = planar_steering_vector(panel, sine.asin(), torch.zeros_like(sine))
    gain = (codes @ response.mT).abs()
    # u = 0 and u = 1/2 = 2 · 1/N_H are on the grid of beams: one row takes all, others nothing
    for direction in range(2):
        assert float(gain[:, direction].max()) == pytest.approx(12)
        assert float(gain[:, direction].sum()) == pytest.approx(12)
