"""Laws of the spectral projector P_K, and of its derivative, in the backends that are exact."""

import pytest
import torch

from tests.matrices import close, covariance, gaussian, inner, slope, thoroughness, unitary
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum

DENSE = [name for name in BACKENDS if name != "gram"]
EXACT = ("gram", "exact", "auto")


def spiked(n, seed=0, dtype=torch.complex128):
    """2 u uᴴ + I and u."""
    u = gaussian(n, seed=seed)
    u = u / u.norm()
    return (2 * torch.outer(u, u.conj()) + torch.eye(n)).to(dtype), u.to(dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_projector_is_one(backend):
    f = gaussian(4, 9, 5)
    k = torch.tensor([1, 2, 3, 4])
    s = spectrum(factor=f, backend=backend)
    p = s.apply(k, torch.eye(9, dtype=torch.complex128))
    close(p, p.mH)
    close(p @ p, p)
    close(inner(p, p), k.double())
    r = f @ f.mH
    close(p @ r, r @ p, atol=1e-11)
    close(inner(p, r), torch.stack([s.values[i, :n].sum() for i, n in enumerate(k)]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_capture_is_the_norm_of_the_projection(backend):
    f, x = gaussian(4, 9, 5), gaussian(4, 9, 3, seed=1)
    s = spectrum(factor=f, shift=0.1, backend=backend)
    projected = s.apply(2, x)
    close(s.capture(2, x), inner(projected, projected))
    own = spectrum(factor=x).apply(3, x)  # x spans its own top 3
    close(own, x)


@pytest.mark.parametrize("backend", ["exact", "auto"])
@pytest.mark.parametrize("n", [8, 144])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_derivative_at_a_spiked_covariance(backend, n, dtype):
    """‖P w‖² of R = 2 u uᴴ + I has gradient (P W P⊥ + P⊥ W P) / 2, W = w wᴴ: the n - 1 ties of
    the floor do not enter."""
    r, u = spiked(n, dtype=dtype)
    w = gaussian(n, 1, seed=1).to(dtype) / n**0.5
    value, gradient = slope(lambda x: spectrum(x, backend=backend).capture(1, w), r)
    p = torch.outer(u, u.conj())
    noise = torch.eye(n) - p
    closed = (p @ w @ w.mH @ noise + noise @ w @ w.mH @ p) / 2
    # complex64 rounds entries of size 1 to 6e-8, and sums n of them
    atol = 1e-12 if dtype == torch.complex128 else 4e-6
    close(value, inner(p @ w, p @ w), atol=atol)
    close(gradient, closed, atol=atol)


@pytest.mark.parametrize("rank", [2, 5])
def test_gram_at_a_spiked_factor(rank):
    """The same closed form through a factor with r - 1 equal columns: <G, dF> from dR."""
    u = unitary(1, 8)[0][:, :rank]
    f = u * torch.tensor([3**0.5] + [1.0] * (rank - 1), dtype=torch.float64)
    w = gaussian(8, 1, seed=1)
    _, gradient = slope(lambda x: spectrum(factor=x, backend="gram").capture(1, w), f)
    p = torch.outer(u[:, 0], u[:, 0].conj())
    floor = u[:, 1:] @ u[:, 1:].mH
    null = torch.eye(8) - p - floor
    cross = p @ w @ w.mH @ (floor / 2 + null / 3)
    close(gradient, 2 * (cross + cross.mH) @ f)


@thoroughness
@pytest.mark.parametrize("backend", ["gram", "exact"])
@pytest.mark.parametrize("multiplicity", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_gradcheck_at_exact_ties_inside_the_clusters(backend, multiplicity, fast_mode):
    """A tie of this order on both sides of the border; gradcheck perturbs it in every entry."""
    k = multiplicity
    n, r = 2 * k + 1, 2 * k
    w = unitary(1, n)[0][:, :r]
    f = w * torch.tensor([2.0] * k + [1.0] * k, dtype=torch.float64)
    x = gaussian(n, 1, seed=1)

    def both(factor, basis):
        s = spectrum(factor=factor, shift=0.1, backend=backend)
        return s.apply(k, basis), s.capture(k, basis), s.energy(k), s.leak(k)

    inputs = (f.requires_grad_(), x.requires_grad_())
    assert torch.autograd.gradcheck(both, inputs, check_forward_ad=True, fast_mode=fast_mode)


@thoroughness
@pytest.mark.parametrize("backend", ["gram", "exact"])
def test_gradcheck_of_a_batch_with_a_k_of_its_own_per_sample(backend, fast_mode):
    f, x = gaussian(2, 5, 4), gaussian(2, 5, 1, seed=1)
    shift = torch.tensor([0.1, 0.2], dtype=torch.float64)
    k = torch.tensor([1, 3])

    def every(factor, basis, load):
        s = spectrum(factor=factor, shift=load, backend=backend)
        return s.values[:, :4], s.gap(k), s.ratio(k), s.energy(k), s.leak(k), s.capture(k, basis)

    inputs = (f.requires_grad_(), x.requires_grad_(), shift.requires_grad_())
    assert torch.autograd.gradcheck(every, inputs, check_forward_ad=True, fast_mode=fast_mode)


@thoroughness
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradcheck_of_a_dense_matrix(dtype, fast_mode):
    r = covariance(2, 4)
    r = (r.real if dtype == torch.float64 else r).clone().requires_grad_()
    x = gaussian(4, 1).real.to(dtype)

    def every(matrix):
        s = spectrum(matrix, backend="exact")
        return s.values, s.gap(2), s.leak(2), s.apply(2, x), s.trace

    assert torch.autograd.gradcheck(every, (r,), check_forward_ad=True, fast_mode=fast_mode)


@pytest.mark.parametrize("backend", DENSE)
def test_eulers_theorem(backend):
    """P_K does not depend on the scale of R."""
    r, x = covariance(5, 7), gaussian(7, 2)
    _, gradient = slope(lambda y: spectrum(y, backend=backend).capture(3, x), r)
    close(inner(gradient, r), torch.zeros(5), atol=1e-9)
    assert (inner(gradient, gradient) > 1e-3).all()


@pytest.mark.parametrize("backend", DENSE)
def test_unitary_equivariance(backend):
    r, q, x = covariance(5, 7), unitary(5, 7, seed=1), gaussian(5, 7, 2, seed=2)
    value, gradient = slope(lambda y: spectrum(y, backend=backend).capture(3, x), r)
    turned_value, turned = slope(
        lambda y: spectrum(y, backend=backend).capture(3, q @ x), q @ r @ q.mH
    )
    close(turned_value, value, atol=1e-10)
    close(turned, q @ gradient @ q.mH, atol=1e-9 * gradient.abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_stands_for_the_dense_matrix(backend):
    """The floor of N - r equal eigenvalues would be NaN in native backends: r = N - 1 has none."""
    f, x = gaussian(4, 6, 5), gaussian(4, 6, 2, seed=1)
    k = torch.tensor([1, 2, 3, 4])
    weight = gaussian(4, 6, 2, seed=2)
    for of in (lambda s: s.capture(k, x), lambda s: inner(weight, s.apply(k, x))):
        dense = slope(lambda y, q=of: q(spectrum(y @ y.mH, backend="exact")), f)
        factor = slope(lambda y, q=of: q(spectrum(factor=y, shift=0.2, backend=backend)), f)
        close(factor[0], dense[0], atol=1e-11)
        close(factor[1], dense[1], atol=1e-8)


def test_directions_without_energy_are_in_no_projector_of_gram():
    f = gaussian(9, 2) @ gaussian(2, 5, seed=1)
    p = spectrum(factor=f, backend="gram").apply(4, torch.eye(9))
    close(torch.linalg.matrix_rank(p, hermitian=True, rtol=1e-6), 2)
    _, gradient = slope(lambda x: spectrum(factor=x, backend="gram").capture(4, gaussian(9, 1)), f)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_an_exact_tie_at_the_border_stays_finite(backend, dtype):
    """There is no derivative there; there is a bound: 1 / (8 u l_max) per unit of R."""
    f = torch.eye(8, dtype=dtype)[:, :5]
    x = gaussian(8, 3).to(dtype) / 3
    for k in (1, 4):
        value, gradient = slope(
            lambda y, n=k: spectrum(factor=y, backend=backend).capture(n, x), f
        )
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        assert gradient.norm() <= 2 * 8**1.5 * x.norm() ** 2 / (4 * torch.finfo(dtype).eps)


def test_the_floor_acts_below_eight_roundoffs_and_not_above():
    """R = diag(1, 1 - d): the derivative of ‖P_1 x‖², x = (1, 1)/√2, is 1/d, or 1/(8u) below."""
    roundoff = torch.finfo(torch.float64).eps / 2
    x = torch.ones(2, 1, dtype=torch.float64) / 2**0.5
    for ulps, expected in ((4, 8), (6, 8), (16, 16), (1000, 1000)):
        r = torch.diag(torch.tensor([1, 1 - ulps * roundoff], dtype=torch.float64))
        _, gradient = slope(lambda y: spectrum(y, backend="exact").capture(1, x), r)
        close(gradient[0, 1] * expected * roundoff, 0.5)
