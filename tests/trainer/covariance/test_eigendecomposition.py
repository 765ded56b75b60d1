"""Eigenpairs of both forms of a covariance against dense algebra."""

import math

import pytest
import torch

from trainer.config import SceneConfig
from trainer.covariance.covariance import Covariance, normalise
from trainer.covariance.eigendecomposition import eigendecompose
from trainer.estimation.pseudospectra import ESTIMATORS
from trainer.scenes.grid import search_grid


def factor(columns: int, size: int = 36, batch: int = 5, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(columns)
    return torch.randn(batch, size, columns, dtype=dtype, generator=generator)


@pytest.mark.parametrize("columns", [1, 7, 35, 36, 50])
@pytest.mark.parametrize("eps_psd", [0.0, 1e-2])
def test_a_factor_has_the_eigenpairs_of_its_product(columns, eps_psd):
    held = normalise(factor=factor(columns), eps_psd=eps_psd)
    found, dense = eigendecompose(held), held.dense()
    expected = torch.linalg.eigvalsh(dense).flip(-1)
    torch.testing.assert_close(found.all_values, expected, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.floor, expected[:, -1], rtol=1e-9, atol=1e-14)
    count = min(columns, 36)
    vectors = found.vectors[..., :count]
    eye = torch.eye(count, dtype=vectors.dtype).expand(5, -1, -1)
    torch.testing.assert_close(vectors.mH @ vectors, eye, rtol=0, atol=1e-10)
    moved = vectors * found.values[:, None, :count]
    torch.testing.assert_close(dense @ vectors, moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
def test_estimates_do_not_depend_on_the_form(estimator):
    held = normalise(factor=factor(16), eps_psd=0.1)
    search = search_grid(SceneConfig(), torch.float64)
    two = torch.full((5,), 2)
    one, other = estimator(held, two, search), estimator(held.dense(), two, search)
    torch.testing.assert_close(one.azimuth, other.azimuth, rtol=0, atol=1e-6)
    assert one.resolved.equal(other.resolved)


def test_a_weak_source_beside_a_strong_one_has_a_direction():
    """Powers 90 dB apart: a Gram matrix in single precision would lose the weaker."""
    columns = torch.linalg.qr(factor(2, dtype=torch.complex64)).Q
    held = columns * torch.tensor([1.0, 10**-4.5])
    found = eigendecompose(Covariance(None, held, torch.zeros(5)))
    inner = (found.vectors.mH @ columns).abs()
    torch.testing.assert_close(inner, torch.eye(2).expand(5, 2, 2), rtol=0, atol=2e-2)


@pytest.mark.parametrize("form", ["factor", "dense"])
def test_a_sample_that_is_not_finite_is_flagged_and_leaves_the_others_unchanged(form):
    columns = factor(4)
    clean = normalise(factor=columns, eps_psd=0.0)
    columns[2, 3, 1] = math.nan
    bad = normalise(factor=columns, eps_psd=0.0)
    found = eigendecompose(bad if form == "factor" else bad.dense())
    expected = eigendecompose(clean if form == "factor" else clean.dense())
    assert found.finite.tolist() == [True, True, False, True, True]
    assert torch.isfinite(found.values).all()
    assert torch.isfinite(found.vectors.abs()).all()
    assert found.values[3].equal(expected.values[3])


def test_a_zero_factor_has_no_eigenvectors():
    found = eigendecompose(
        Covariance(None, torch.zeros(2, 8, 3, dtype=torch.complex64), torch.zeros(2))
    )
    assert found.values.abs().max() == 0
    assert found.vectors.abs().max() == 0
