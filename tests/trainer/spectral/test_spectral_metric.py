"""The generalised problem R v = l B v: coloured noise."""

import pytest
import scipy.linalg
import torch

from tests.matrices import close, covariance, gaussian, inner, slope, thoroughness
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum

DENSE = [name for name in BACKENDS if name != "gram"]


def metric(count, n, seed=5):
    return covariance(count, n, seed) * n


@pytest.mark.parametrize("backend", DENSE)
def test_values_are_scipys(backend):
    r, b = covariance(4, 7), metric(4, 7)
    expected = [scipy.linalg.eigh(x, y, eigvals_only=True)[::-1].copy() for x, y in zip(r, b)]  # noqa: B905
    s = spectrum(r, metric=b, backend=backend)
    close(s.values, torch.stack([torch.from_numpy(v) for v in expected]))
    close(s.trace, torch.linalg.solve(b, r).diagonal(dim1=-2, dim2=-1).real.sum(-1))
    assert (s.residual < 1e-10).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_values_of_a_factor_are_scipys(backend):
    f, b, shift = gaussian(4, 7, 3), metric(4, 7), 0.2
    s = spectrum(factor=f, shift=shift, metric=b, backend=backend)
    for sample in range(4):
        loaded = f[sample] @ f[sample].mH + shift * b[sample]  # loading is along the metric
        expected = scipy.linalg.eigh(loaded, b[sample], eigvals_only=True)[::-1].copy()
        close(s.values[sample], torch.from_numpy(expected))
    assert (s.residual < 1e-10).all()


@pytest.mark.parametrize("backend", ["exact", "gram", "masked"])
def test_projectors_solve_the_pencil(backend):
    """With R v = l B v the projector P_K = B V_K V_Kᴴ satisfies P_K R = R P_Kᴴ and P_K B = B P_Kᴴ,
    its trace is K, and R P_Kᴴ = B V_K diag(l) V_Kᴴ B: residuals below 1e-10."""
    f, b = gaussian(4, 7, 5), metric(4, 7)
    r = f @ f.mH
    s = spectrum(factor=f, metric=b, backend=backend)
    eye = torch.eye(7, dtype=torch.complex128)
    previous = torch.zeros_like(r)
    for k in range(1, 5):
        p = s.apply(k, eye)
        close(p @ p, p, atol=1e-10)
        close(p @ r, r @ p.mH, atol=1e-10)
        close(p @ b, b @ p.mH, atol=1e-10)
        single = p - previous  # B v vᴴ for the k-th pair: R v = l B v in every column
        value = s.values[:, k - 1, None, None]
        close(r @ torch.linalg.solve(b, single), value * single, atol=1e-10)
        previous = p


def test_steering_vectors_lie_in_the_signal_subspace_of_coloured_noise():
    a, b = gaussian(4, 7, 2), metric(4, 7)
    s = spectrum(factor=a, shift=0.5, metric=b)
    close(s.apply(2, a), a)
    whitened = torch.linalg.cholesky(torch.linalg.solve(b, a).mH @ a)
    basis = torch.linalg.solve_triangular(whitened.mH, a, upper=True, left=False)
    close(basis.mH @ torch.linalg.solve(b, basis), torch.eye(2).expand(4, 2, 2).to(basis.dtype))
    close(s.capture(2, basis), torch.full((4,), 2.0))
    # the identity as metric changes nothing, another one does
    plain = spectrum(factor=a, shift=0.5)
    close(spectrum(factor=a, shift=0.5, metric=torch.eye(7)).values, plain.values)
    assert ((plain.gap(1) - s.gap(1)).abs() > 1e-3).all()


@thoroughness
@pytest.mark.parametrize("backend", ["exact", "gram", "masked"])
def test_gradcheck_in_the_factor_and_the_metric(backend, fast_mode):
    f, b, x = gaussian(2, 4, 3), metric(2, 4), gaussian(2, 4, 1, seed=1)
    k = torch.tensor([1, 2])

    def every(factor, noise):
        s = spectrum(factor=factor, metric=noise, shift=0.1, backend=backend)
        return s.gap(k), s.leak(k), s.capture(k, x), s.apply(k, x), s.trace

    inputs = (f.requires_grad_(), b.requires_grad_())
    assert torch.autograd.gradcheck(
        every, inputs, check_forward_ad=backend != "masked", fast_mode=fast_mode
    )


@thoroughness
def test_gradcheck_in_a_dense_matrix_and_the_metric(fast_mode):
    r, b, x = covariance(2, 4), metric(2, 4), gaussian(4, 1)

    def every(matrix, noise):
        s = spectrum(matrix, metric=noise, backend="exact")
        return s.values, s.capture(2, x)

    assert torch.autograd.gradcheck(
        every, (r.requires_grad_(), b.requires_grad_()), fast_mode=fast_mode
    )


def test_scaling_the_metric_scales_the_spectrum_inversely():
    """Euler's theorem in B: <dgap/dB, B> = -gap."""
    r, b = covariance(3, 6), metric(3, 6)
    value, gradient = slope(lambda y: spectrum(r, metric=y).gap(2), b)
    close(inner(gradient, b), -value)


def test_masked_fails_on_a_metric_as_it_does_without():
    """Its threshold drops the pair across the border, and the gradient with it."""
    r = torch.diag(torch.tensor([1.0, 0.99, 0.5], dtype=torch.float64))
    b = torch.diag(torch.tensor([1.0, 0.99, 1.0], dtype=torch.float64)) + 0.001 * torch.ones(3, 3)
    x = torch.ones(3, 1, dtype=torch.float64)
    exact = slope(lambda y: spectrum(y, metric=b, backend="exact").capture(1, x), r)[1]
    masked = lambda y: spectrum(y, metric=b, backend="masked", deg_thresh=0.1)  # noqa: E731
    assert slope(lambda y: masked(y).capture(1, x), r)[1].norm() < 0.1 * exact.norm()


def test_a_metric_that_is_not_positive_definite_is_refused():
    with pytest.raises(ValueError, match=r"`metric` must be positive definite, but sample \[1\]"):
        spectrum(covariance(2, 3), metric=torch.stack((torch.eye(3), -torch.eye(3))))


def test_a_metric_that_is_not_finite_makes_its_sample_nan():
    b = metric(3, 4)
    b[1, 0, 0] = torch.nan
    f = gaussian(3, 4, 2)
    for backend in ("exact", "gram"):
        gap = spectrum(factor=f, metric=b, backend=backend).gap(1)
        close(gap.isnan(), torch.tensor([False, True, False]))
        alone = spectrum(factor=f[::2], metric=b[::2], backend=backend).gap(1)
        close(gap[::2], alone)
