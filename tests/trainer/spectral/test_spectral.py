"""Laws of eigenvalues and what is made of them, over every backend that they hold for."""

import math

import pytest
import torch

from tests.matrices import close, covariance, gaussian, hermitian, inner, slope, unitary
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum

DENSE = [name for name in BACKENDS if name != "gram"]
HERMITIAN = [name for name in DENSE if name != "svd"]  # svd answers for R >= 0 only
VALUES = ("gap", "ratio", "energy", "leak")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("backend", DENSE)
def test_gap_of_a_diagonal_matrix(backend, dtype):
    r = torch.diag(torch.tensor([3.0, 1.0])).to(dtype)
    value, gradient = slope(lambda x: spectrum(x, backend=backend).gap(1), r)
    close(value, 2.0)
    close(gradient, torch.diag(torch.tensor([1.0, -1.0])).to(dtype))


@pytest.mark.parametrize("backend", DENSE)
def test_gradients_follow_torchs_conjugation(backend):
    r = torch.tensor([[2, 1j], [-1j, 2]], dtype=torch.complex128)
    value, gradient = slope(lambda x: spectrum(x, backend=backend).gap(1), r)
    close(value, 2.0)
    close(gradient, r - 2 * torch.eye(2))


@pytest.mark.parametrize("backend", DENSE)
def test_conjugation_carries_over_to_the_gradient(backend):
    r = covariance(4, 6)
    _, gradient = slope(lambda x: spectrum(x, backend=backend).gap(2), r)
    _, mirrored = slope(lambda x: spectrum(x, backend=backend).gap(2), r.conj())
    close(mirrored, gradient.conj())


@pytest.mark.parametrize("backend", HERMITIAN)
def test_indefinite_matrices_have_eigenvalues(backend):
    r = torch.diag(torch.tensor([3, -2.5, 1, 0.2], dtype=torch.float64))
    close(
        spectrum(r, backend=backend).values, torch.tensor([3, 1, 0.2, -2.5], dtype=torch.float64)
    )
    close(spectrum(r, backend=backend).gap(1), 2.0)


def test_svd_has_singular_values_of_an_indefinite_matrix_and_another_gap():
    r = torch.diag(torch.tensor([3, -2.5, 1, 0.2], dtype=torch.float64))
    value, gradient = slope(lambda x: spectrum(x, backend="svd").gap(1), r)
    close(spectrum(r, backend="svd").values, [3, 2.5, 1, 0.2])
    close(value, 0.5)  # true: 2.0
    close(gradient, torch.diag(torch.tensor([1, 1, 0, 0])).double())  # true: diag(1, 0, -1, 0)


@pytest.mark.parametrize("backend", HERMITIAN)
@pytest.mark.parametrize("definition", VALUES)
def test_definitions_are_what_they_say(backend, definition):
    r, k = covariance(5, 7), 3
    values = torch.linalg.eigvalsh(r).flip(-1)
    up, down = values[:, k - 1], values[:, k]
    signal, noise = values[:, :k, None], values[:, None, k:]
    expected = {
        "gap": up - down,
        "ratio": (up - down) / (up + down),
        "energy": values[:, :k].sum(-1) / values.sum(-1),
        "leak": (signal * noise / (signal - noise) ** 2).sum((-2, -1)),
    }[definition]
    close(getattr(spectrum(r, backend=backend), definition)(k), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gap_of_a_diagonal_factor(backend):
    """R = diag(3, 1, 0): dGap/dF = 2 (dGap/dR) F, dGap/dR = diag(1, -1, 0)."""
    f = torch.diag(torch.tensor([3, 1, 0]).double().sqrt()).to(torch.complex128)[:, :2]
    value, gradient = slope(lambda x: spectrum(factor=x, backend=backend).gap(1), f)
    close(value, 2.0)
    close(gradient, 2 * torch.diag(torch.tensor([1.0, -1.0, 0.0])).to(f.dtype) @ f)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_in_a_factor_follow_torchs_conjugation(backend):
    """R = [[2, i], [-i, 2]] beside a zero, as F Fᴴ."""
    f = torch.tensor([[3**0.5, 1], [-1j * 3**0.5, 1j], [0, 0]], dtype=torch.complex128) / 2**0.5
    r = torch.tensor([[2, 1j, 0], [-1j, 2, 0], [0, 0, 0]], dtype=torch.complex128)
    close(f @ f.mH, r)
    value, gradient = slope(lambda x: spectrum(factor=x, backend=backend).gap(1), f)
    close(value, 2.0)
    close(gradient, 2 * (r - 2 * torch.diag(torch.tensor([1, 1, 0]))) @ f)


@pytest.mark.parametrize("definition", VALUES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_laws_of_a_factor(backend, definition):
    """Euler's theorem (degree 2 in F for the gap, 0 for others), conjugation, and a rotation of
    the elements."""
    f, q = gaussian(4, 7, 5), unitary(4, 7, seed=1)

    def of(x):
        return getattr(spectrum(factor=x, backend=backend), definition)(3)

    value, gradient = slope(of, f)
    close(inner(gradient, f), 2 * value if definition == "gap" else torch.zeros(4), atol=1e-8)
    size = float(gradient.abs().max())
    close(slope(of, f.conj())[1], gradient.conj(), atol=1e-9 * size)
    close(slope(of, q @ f)[1], q @ gradient, atol=1e-8 * size)


def test_ratio_in_decibels():
    for decibels in (3.0, 10.0):
        r = torch.diag(torch.tensor([10 ** (decibels / 10), 1.0, 0.1], dtype=torch.float64))
        close(spectrum(r).ratio(1), math.tanh(math.log(10) * decibels / 20))


@pytest.mark.parametrize("backend", DENSE)
def test_leak_predicts_the_error_of_the_sample_subspace(backend):
    """2 leak / L = E‖P̂ - P‖²_F to first order in 1/L (Kato; Wishart fluctuations)."""
    n, k, snapshots, draws = 6, 2, 4000, 2000
    values = torch.tensor([3, 2, 0.6, 0.5, 0.4, 0.3], dtype=torch.float64)
    leak = spectrum(torch.diag(values)).leak(k)
    g = torch.Generator().manual_seed(0)
    # the fluctuation of a sample covariance of many snapshots is Gaussian: draw it as such
    z = torch.randn((draws, n, n), dtype=torch.complex128, generator=g)
    z = torch.triu(z, 1) + torch.triu(z, 1).mH
    root = torch.diag(values.sqrt()).to(torch.complex128)
    sample = torch.diag(values).to(torch.complex128) + root @ z @ root / snapshots**0.5
    estimate = spectrum(sample, backend=backend).apply(k, torch.eye(n, dtype=torch.complex128))
    truth = torch.diag((torch.arange(n) < k).to(torch.complex128))
    error = (estimate - truth).abs().square().sum((-2, -1))
    # 5 standard errors of the mean, and 1 % for the second order in 1/L
    bound = 5 * error.std() / draws**0.5 + 0.01 * error.mean()
    assert (error.mean() - 2 * leak / snapshots).abs() < bound


@pytest.mark.parametrize("backend", DENSE)
def test_gradient_at_the_identity_is_a_clarke_element(backend):
    r = torch.eye(8, dtype=torch.complex128)
    value, gradient = slope(lambda x: spectrum(x, backend=backend).gap(3), r)
    close(value, 0.0)
    close(torch.linalg.eigvalsh(gradient), torch.tensor([-1, 0, 0, 0, 0, 0, 0, 1]).double())


@pytest.mark.parametrize("backend", HERMITIAN)
def test_at_a_double_tie_the_gradient_opens_the_gap(backend):
    r = torch.diag(torch.tensor([3, 2, 2, 1], dtype=torch.float64))
    _, gradient = slope(lambda x: spectrum(x, backend=backend).gap(2), r)
    step = 1e-3 * gradient / gradient.norm()
    close(spectrum(r + step, backend=backend).gap(2), 1e-3 * 2**0.5)


@pytest.mark.parametrize("backend", DENSE)
def test_inside_a_fourfold_tie_the_gap_does_not_ascend_and_ky_fan_does(backend):
    r = torch.diag(torch.tensor([2, 2, 2, 2, 1], dtype=torch.float64))
    _, gradient = slope(lambda x: spectrum(x, backend=backend).gap(2), r)
    close(spectrum(r + 1e-3 * gradient, backend=backend).gap(2), 0.0)

    def contrast(x):
        values = spectrum(x, backend=backend).values
        return values[..., :2].sum(-1) - values[..., 2:4].sum(-1)

    before, gradient = slope(contrast, r)
    close(contrast(r + 1e-3 * gradient) - before, 4e-3)


@pytest.mark.parametrize("backend", DENSE)
def test_symmetric_functions_are_differentiable_at_every_tie(backend):
    values = torch.tensor([4, 4, 4, 1, 1, 1, 1], dtype=torch.float64)
    w = unitary(1, 7)[0]
    r = (w * values) @ w.mH
    eye = torch.eye(7, dtype=torch.complex128)
    leading = w[:, :3] @ w[:, :3].mH

    def of(function):
        return slope(lambda x: function(spectrum(x, backend=backend).values), r)[1]

    close(of(lambda v: v.sum()), eye)
    close(of(lambda v: v.square().sum()), 2 * r)
    close(of(lambda v: v.var(correction=0)), 2 * (r - values.mean() * eye) / 7)
    close(of(lambda v: v[:3].sum()), leading)
    share = (leading * values.sum() - values[:3].sum() * eye) / values.sum() ** 2
    close(slope(lambda x: spectrum(x, backend=backend).energy(3), r)[1], share)
    close(slope(lambda x: spectrum(x, backend=backend).trace, r)[1], eye)


@pytest.mark.parametrize("backend", DENSE)
def test_eulers_theorem(backend):
    """The gap is homogeneous of degree 1 in R, the others of degree 0."""
    r = covariance(5, 7)
    for definition in VALUES:
        value, gradient = slope(
            lambda x, d=definition: getattr(spectrum(x, backend=backend), d)(3), r
        )
        close(inner(gradient, r), value if definition == "gap" else torch.zeros(5), atol=1e-9)


@pytest.mark.parametrize("backend", DENSE)
@pytest.mark.parametrize("definition", VALUES)
def test_unitary_equivariance(backend, definition):
    r, q = covariance(5, 7), unitary(5, 7, seed=1)
    quantity = lambda x: getattr(spectrum(x, backend=backend), definition)(3)  # noqa: E731
    value, gradient = slope(quantity, r)
    turned_value, turned = slope(quantity, q @ r @ q.mH)
    close(turned_value, value, atol=1e-10)
    close(turned, q @ gradient @ q.mH, atol=1e-8 * gradient.abs().max())


@pytest.mark.parametrize("backend", HERMITIAN)
def test_the_gap_is_two_lipschitz(backend):
    r, e = hermitian(64, 8), hermitian(64, 8, seed=1)
    moved = spectrum(r + e, backend=backend).gap(3) - spectrum(r, backend=backend).gap(3)
    assert (moved.abs() <= 2 * torch.linalg.matrix_norm(e, ord=2) + 1e-12).all()


@pytest.mark.parametrize("backend", DENSE)
def test_input_that_is_not_hermitian_has_a_hermitian_gradient(backend):
    r = covariance(3, 6) + 1e-3 * gaussian(3, 6, 6, seed=2)
    for definition in VALUES:
        _, g = slope(lambda x, d=definition: getattr(spectrum(x, backend=backend), d)(2), r)
        close(g, g.mH)
