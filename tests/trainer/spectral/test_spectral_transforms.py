"""vmap equals the batch; forward mode works or is refused by name; second derivatives never."""

import pytest
import torch
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vmap

from tests.matrices import close, covariance, gaussian, slope
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum
from trainer.spectral.once_differentiable import ForwardModeError, SecondDerivativeError

DENSE = [name for name in BACKENDS if name != "gram"]
QUANTITIES = {
    "values": lambda s, k, x: s.values.square().sum(-1),
    "gap": lambda s, k, x: s.gap(k),
    "ratio": lambda s, k, x: s.ratio(k),
    "energy": lambda s, k, x: s.energy(k),
    "leak": lambda s, k, x: s.leak(k),
    "straddling": lambda s, k, x: s.straddling(k, 0.5),
    "order entropy": lambda s, k, x: s.order_entropy(
        k, num_snapshots=9, max_sources=4, temperature=9.0
    ),
    "capture": lambda s, k, x: s.capture(k, x),
    "apply": lambda s, k, x: s.apply(k, x).abs().square().sum((-2, -1)),
}
BATCH = 3


def case(backend, name):
    """A function of one sample's factor, K and X, and a batch of them. r = N - 1: no two loaded
    eigenvalues are equal, so native projectors have a derivative."""
    quantity = QUANTITIES[name]
    x, k = gaussian(BATCH, 6, 2, seed=1), torch.tensor([1, 3, 2])

    def of(factor, k, x):
        return quantity(spectrum(factor=factor, shift=0.1, backend=backend), k, x)

    return of, (gaussian(BATCH, 6, 5), k, x)


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_vmap_equals_the_batch(backend, name):
    of, inputs = case(backend, name)
    close(vmap(of)(*inputs), of(*inputs))


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "svd"])
def test_vmap_of_the_gradient_equals_the_gradient_of_the_batch(backend, name):
    of, (f, k, x) = case(backend, name)
    expected = slope(lambda y: of(y, k, x), f)[1]
    close(vmap(grad(of))(f, k, x), expected, atol=1e-10)


def test_svd_projectors_have_no_vmapped_gradient():
    """PyTorch's derivative of singular vectors looks at its data; that of values does not."""
    of, inputs = case("svd", "gap")
    close(vmap(grad(of))(*inputs), slope(lambda y: of(y, *inputs[1:]), inputs[0])[1])
    of, inputs = case("svd", "capture")
    with pytest.raises(RuntimeError, match="vmap"):
        vmap(grad(of))(*inputs)


def test_vmap_over_a_dense_matrix_and_a_metric():
    r, b = covariance(BATCH, 5), covariance(BATCH, 5, seed=1)
    of = lambda x, y: spectrum(x, metric=y).gap(2)  # noqa: E731
    close(vmap(of)(r, b), of(r, b))
    close(vmap(grad(of))(r, b), slope(lambda x: of(x, b), r)[1])


def test_under_vmap_a_source_number_out_of_range_is_nan():
    k = torch.tensor([1, 0, 4, -1, 5])
    gap = vmap(lambda n: spectrum(torch.diag(torch.arange(4.0))).gap(n))(k)
    close(gap.isnan(), torch.tensor([False, True, True, True, True]))


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("backend", ["gram", "exact", "auto", "eigh"])
def test_forward_mode_is_the_transpose_of_reverse_mode(backend, name):
    of, (f, k, x) = case(backend, name)
    df = gaussian(*f.shape, seed=2)
    _, tangent = jvp(lambda y: of(y, k, x), (f,), (df,))
    gradient = slope(lambda y: of(y, k, x), f)[1]
    close(tangent.sum(), (gradient.conj() * df).real.sum())


@pytest.mark.parametrize("name", ["gap", "capture"])
def test_masked_refuses_forward_mode_by_name(name):
    of, (f, k, x) = case("masked", name)
    with pytest.raises(ForwardModeError, match="Use `exact` or `gram`"):
        jvp(lambda y: of(y, k, x), (f,), (f,))


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_are_refused_under_autograd_grad(backend, name):
    of, (f, k, x) = case(backend, name)
    f.requires_grad_()
    (gradient,) = torch.autograd.grad(of(f, k, x).sum(), f, create_graph=True)
    with pytest.raises(SecondDerivativeError, match="at most once"):
        torch.autograd.grad(gradient.abs().square().sum(), f)
    with pytest.raises(SecondDerivativeError):
        gradient.abs().square().sum().backward()


@pytest.mark.parametrize("backend", ["gram", "exact"])
def test_second_derivatives_are_refused_through_every_input(backend):
    """Also where the inner derivative is not the one in the factor."""
    f, x = gaussian(6, 3).requires_grad_(), gaussian(6, 2, seed=1).requires_grad_()
    shift = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    for inner in (x, shift):
        s = spectrum(factor=f, shift=shift, backend=backend)
        total = s.capture(2, x) + s.ratio(2)
        (gradient,) = torch.autograd.grad(total, inner, create_graph=True)
        with pytest.raises(SecondDerivativeError):
            torch.autograd.grad(gradient.abs().square().sum(), f)


def test_a_target_without_a_gradient_costs_none():
    """The factor's own need for a gradient must not ask for one of the target."""
    f, x = gaussian(6, 3).requires_grad_(), gaussian(6, 2, seed=1)
    asked = []
    for backend in ("gram", "exact"):
        s = spectrum(factor=f, backend=backend)
        for value in (s.capture(2, x), s.apply(2, x).abs().sum()):
            node = value.grad_fn
            pending = [node]
            while pending:
                node = pending.pop()
                pending += [n for n, _ in node.next_functions if n is not None]
                if node.name() in ("GramCaptureBackward", "CaptureBackward"):
                    asked.append(node.needs_input_grad[1])
    assert asked == [False, False]


@pytest.mark.parametrize("outer", [jacrev, jacfwd])
@pytest.mark.parametrize("inner", [jacrev, jacfwd])
@pytest.mark.parametrize("backend", BACKENDS)
def test_second_derivatives_are_refused_under_every_pair_of_transforms(backend, inner, outer):
    of = lambda y: spectrum(y @ y.mT + torch.eye(4), backend=backend).gap(2)  # noqa: E731
    if backend == "gram":
        of = lambda y: spectrum(factor=y, backend="gram").gap(2)  # noqa: E731
    f = gaussian(4, 3).real
    with pytest.raises((SecondDerivativeError, ForwardModeError)):
        outer(inner(of))(f)


def test_hessian_and_gradgradcheck_meet_the_refusal():
    f = gaussian(4, 3).real
    of = lambda y: spectrum(factor=y).capture(1, torch.eye(4)[:, :2])  # noqa: E731
    with pytest.raises(SecondDerivativeError):
        hessian(of)(f)
    with pytest.raises(SecondDerivativeError):
        torch.autograd.gradgradcheck(of, (f.requires_grad_(),))
