"""Random matrices of a kind, and the gradients and comparisons that tests of spectra share."""

import pytest
import torch

from trainer.scenes import Scenes, steering_vector


def gaussian(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.complex128, generator=g)


def hermitian(count, n, seed=0):
    x = gaussian(count, n, n, seed=seed)
    return (x + x.mH) / 2


def covariance(count, n, seed=0):
    """Trace 1, positive definite."""
    x = gaussian(count, n, 2 * n, seed=seed)
    r = x @ x.mH
    return r / torch.diagonal(r, dim1=-2, dim2=-1).real.sum(-1)[:, None, None]


def unitary(count, n, seed=0):
    return torch.linalg.qr(gaussian(count, n, n, seed=seed))[0]


def slope(quantity, matrix):
    """Value and gradient of a scalar function of a matrix or a batch of them."""
    leaf = matrix.clone().requires_grad_()
    value = quantity(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


thoroughness = pytest.mark.parametrize(
    "fast_mode", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["fast", "entrywise"]
)
"""gradcheck of Jacobians along random directions or, in the slow tier, of their every entry."""


def inner(x, y):
    return (x.conj() * y).real.sum((-2, -1))


def true_covariance(scenes: Scenes) -> torch.Tensor:
    """R = A P Aᴴ of trace 1 [B, N, N]; 0 for a scene without sources."""
    s = scenes.sources
    a = steering_vector(scenes.panel, s.azimuth, s.elevation, s.range_m).mT
    r = a @ s.covariance.to(a.dtype) @ a.mH
    trace = torch.diagonal(r, dim1=-2, dim2=-1).real.sum(-1)
    return r / torch.where(trace > 0, trace, 1)[:, None, None]


def close(actual, expected, atol=1e-12):
    """Equal to 1e-10 relative or `atol`; a number is taken in double precision."""
    if not isinstance(expected, torch.Tensor):
        expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=atol, check_dtype=False)
