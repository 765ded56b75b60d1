"""500 matrices and 500 factors made to break a spectral derivative (2,000 in the slow tier), in
either precision: `exact` and `gram` have no non-finite gradient, and no wrong one where there is a
right one."""

from functools import cache

import pytest
import torch

from tests import adversarial, forty_digits
from tests.adversarial import LOSSES, TOLERANCE

MATRICES, FACTORS = 125, 134  # of 16 and 15 classes

in_part = pytest.mark.parametrize("part", [4, pytest.param(1, marks=pytest.mark.slow)])


def samples(kind, part):
    generator = torch.Generator().manual_seed(20)
    make, count = {
        "matrices": (adversarial.matrices, MATRICES),
        "factors": (adversarial.factors, FACTORS),
    }[kind]
    count //= part
    return make(count, generator), adversarial.targets(count, generator)


@in_part
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize(
    ("kind", "backend"), [("matrices", "exact"), ("factors", "gram"), ("factors", "exact")]
)
def test_no_gradient_is_not_finite_and_none_is_wrong(kind, backend, dtype, part):
    """Truth is complex128 on the same rounded input, checked by differences below."""
    roundoff = torch.finfo(dtype).eps / 2
    classes, basis = samples(kind, part)
    basis = basis.to(dtype)
    checked = 0
    for name, x in classes.items():
        x = x.to(dtype)
        wide, wide_basis = x.to(torch.complex128), basis.to(torch.complex128)
        for loss in LOSSES:
            found = adversarial.gradient(loss, x, basis, backend)
            assert torch.isfinite(found).all(), (name, loss)
            if loss not in adversarial.losses_of(name):
                continue
            truth = adversarial.gradient(loss, wide, wide_basis, "exact")
            counts = adversarial.counted(loss, x, roundoff)
            counts &= ~adversarial.vanishes(truth, x, loss, roundoff)
            error = adversarial.relative_error(found, truth)
            assert (error[counts] <= TOLERANCE).all(), (name, loss, float(error[counts].max()))
            checked += int(counts.sum())
    assert checked > 2000 / part


@in_part
@pytest.mark.parametrize("kind", ["matrices", "factors"])
def test_the_truth_agrees_with_finite_differences(kind, part):
    """Along the gradient itself, and along a direction of no merit. A quotient needs a gap of
    1e5 u l_max: its rounding error is 100 times that of the projector."""
    classes, basis = samples(kind, part)
    generator = torch.Generator().manual_seed(1)
    roundoff = 100 * torch.finfo(torch.float64).eps / 2
    checked = 0
    for name, x in classes.items():
        for loss in LOSSES:
            if loss not in adversarial.losses_of(name):
                continue
            truth = adversarial.gradient(loss, x, basis, "exact")
            norm = torch.linalg.matrix_norm(truth)
            noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
            if kind == "matrices":
                noise = noise + noise.mH
            counts = adversarial.counted(loss, x, roundoff)
            counts &= ~adversarial.vanishes(truth, x, loss, roundoff)
            for direction in (truth, noise):
                size = torch.linalg.matrix_norm(direction)
                direction = direction / torch.where(counts, size, 1)[:, None, None]
                quotient, sharp = adversarial.difference_quotient(loss, x, basis, direction)
                slope = (truth.conj() * direction).real.sum((-2, -1))
                error = ((quotient - slope).abs() / norm)[counts & sharp]
                assert (error <= TOLERANCE).all(), (name, loss, error.max())
            checked += int(counts.sum())
    assert checked > 2000 / part


@pytest.mark.parametrize(
    ("kind", "backend"), [("matrices", "exact"), ("factors", "gram"), ("factors", "exact")]
)
def test_double_precision_agrees_with_forty_digits(kind, backend):
    """One sample of every class: in complex128 the truth above is `exact` itself."""
    checked = 0
    for name, loss, x, u, truth in true_gradients(kind):
        found = adversarial.gradient(loss, x, u, backend)
        error = adversarial.relative_error(found, truth)
        assert error <= TOLERANCE, (name, loss, float(error))
        checked += 1
    assert checked > 40


@cache
def true_gradients(kind):
    """Class, loss, sample, basis and gradient in forty digits, where it does not vanish."""
    classes, basis = samples(kind, 60)
    roundoff = torch.finfo(torch.float64).eps / 2
    u, found = basis[:1], []
    for name, samples_of_class in classes.items():
        x = samples_of_class[:1]
        losses = [
            n for n in adversarial.losses_of(name) if adversarial.counted(n, x, roundoff).all()
        ]
        for loss, truth in forty_digits.gradients(x[0], u[0], losses).items():
            if not adversarial.vanishes(truth[None], x, loss, roundoff):
                found.append((name, loss, x, u, truth[None]))
    return found
