"""One spectrum in many forms: factor or dense, batch or loop, loaded or not, single or double."""

import pytest
import torch

from tests.matrices import close, covariance, gaussian, slope, unitary
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum

VALUES = ("gap", "ratio", "energy", "leak")
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@pytest.mark.parametrize("definition", VALUES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_stands_for_the_dense_matrix(backend, definition):
    f, shift = gaussian(4, 9, 5), torch.tensor([0.0, 0.1, 0.2, 1.0], dtype=torch.float64)
    k = torch.tensor([1, 2, 5, 4])
    if definition in ("ratio", "leak"):
        shift = shift + 0.01  # l_{K+1} = 0 and its derivative: a corner of its own, tested below
    dense = lambda x: x @ x.mH + shift[:, None, None] * torch.eye(9)  # noqa: E731
    expected = slope(lambda x: getattr(spectrum(dense(x), backend="exact"), definition)(k), f)
    actual = slope(
        lambda x: getattr(spectrum(factor=x, shift=shift, backend=backend), definition)(k), f
    )
    close(actual[0], expected[0])
    close(actual[1], expected[1], atol=1e-9)
    loaded, plain = spectrum(factor=f, shift=shift, backend=backend), spectrum(dense(f))
    close(loaded.values, plain.values)
    close(loaded.trace, plain.trace)


@pytest.mark.parametrize("definition", VALUES)
def test_a_border_inside_the_noise_floor_counts_its_multiplicity(definition):
    """N = 9, r = 3, K = 3 .. 8: `gram` keeps one of the equal eigenvalues for all of them."""
    f = gaussian(9, 3)
    for k in range(4, 9):
        pair = [
            getattr(spectrum(factor=f, shift=0.5, backend=backend), definition)(k)
            for backend in ("gram", "exact")
        ]
        # `exact` tells equal eigenvalues apart by roundoffs, and divides them by the floor of 8
        close(pair[0], pair[1], atol=1e-13 if definition != "leak" else 1e-6 * pair[1])


def test_values_of_a_deficient_factor_descend_and_are_not_negative():
    values = spectrum(factor=gaussian(64, 9, 2) @ gaussian(64, 2, 7, seed=1)).values
    assert (values >= 0).all()
    assert (values.diff() <= 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_may_be_rotated_from_the_right(backend):
    f, q = gaussian(4, 9, 5), unitary(4, 5, seed=1)
    for definition in VALUES:
        of = lambda x, d=definition: getattr(spectrum(factor=x, shift=0.1, backend=backend), d)(3)  # noqa: E731
        value, gradient = slope(of, f)
        turned_value, turned = slope(of, f @ q)
        close(turned_value, value, atol=1e-10)
        close(turned, gradient @ q, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_k_per_sample_equals_a_loop(backend):
    f, u = gaussian(5, 9, 4), unitary(5, 9, seed=1)[..., :3]
    k = torch.tensor([1, 8, 3, 2, 4])
    s = spectrum(factor=f, shift=0.1, backend=backend)
    for definition in VALUES:
        alone = [
            getattr(spectrum(factor=x, shift=0.1, backend=backend), definition)(int(n))
            for x, n in zip(f, k, strict=True)
        ]
        close(getattr(s, definition)(k), torch.stack(alone), atol=1e-9)
    alone = [
        spectrum(factor=x, shift=0.1, backend=backend).capture(int(n), y)
        for x, n, y in zip(f, k, u, strict=True)
    ]
    kept = [0, 2, 3, 4]  # K = 8 > r: P_K is arbitrary inside the noise floor
    close(s.capture(k, u)[kept], torch.stack(alone)[kept], atol=1e-9)


def test_batch_axes_are_free():
    f = gaussian(2, 3, 1, 6, 3)
    k = torch.tensor([1, 2, 1])[:, None]
    s = spectrum(factor=f)
    assert s.values.shape == (2, 3, 1, 6)
    close(s.gap(k)[1, 1, 0], spectrum(factor=f[1, 1, 0]).gap(2))
    assert s.apply(k, torch.eye(6)).shape == (2, 3, 1, 6, 6)
    assert spectrum(factor=f[0, 0, 0]).gap(1).shape == ()
    assert spectrum(f[0, :, 0] @ f[0, :, 0].mH).gap(1).shape == (3,)


@pytest.mark.parametrize("backend", ["gram", "exact"])
def test_loading_cancels_where_it_should(backend):
    """Gap, Ky Fan sum and projector do not feel a shift at all; ratio and leak do."""
    f, u = gaussian(4, 9, 5) / 7, unitary(4, 9, seed=1)[..., :2]
    same = {
        "gap": lambda s: s.gap(2),
        "ky fan": lambda s: s.values[..., :2].sum(-1),
        "capture": lambda s: s.capture(2, u),
    }
    for quantity in same.values():
        bare = slope(lambda x, q=quantity: q(spectrum(factor=x, backend=backend)), f)[1]
        loaded = slope(lambda x, q=quantity: q(spectrum(factor=x, shift=0.3, backend=backend)), f)
        assert (loaded[1] - bare).abs().max() <= 2e-16
    for definition in ("ratio", "leak"):
        bare, loaded = (spectrum(factor=f, shift=s, backend=backend) for s in (0.0, 0.3))
        assert ((getattr(bare, definition)(2) - getattr(loaded, definition)(2)).abs() > 1e-2).all()


def test_loading_moves_the_energy_along_a_line():
    """A trace-1 R loaded with eps / N: (1 + eps) energy = energy + eps K / N, so eps only rescales
    margin and weight."""
    r, eps, k = covariance(4, 6), 0.2, 2
    bare, loaded = spectrum(r).energy(k), spectrum(r, shift=eps / 6).energy(k)
    close((1 + eps) * loaded, bare + eps * k / 6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_one_factor_is_a_saddle_of_the_third_gap(backend):
    """l_3 = l_4 = 0 and both stay so to first order: the gradient is zero, in `gram` exactly."""
    f = torch.zeros(10, 5, dtype=torch.complex128)
    f[:, 0] = gaussian(10)
    value, gradient = slope(lambda x: spectrum(factor=x, backend=backend).gap(3), f)
    close(value, 0.0)
    close(gradient, torch.zeros_like(f))
    if backend in ("gram", "auto"):
        assert value == 0
        assert (gradient == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_thirty_steps_open_the_gap(backend):
    """The founding loss, flipped, is dead here: its value is the margin, its gradient zero."""
    f = gaussian(1, 144, 21)[0] / (144 * 21) ** 0.5
    margin = 0.3
    hinge = lambda x: (margin - spectrum(factor=x / x.norm(), backend=backend).gap(3)).relu()  # noqa: E731
    value, gradient = slope(hinge, f)
    assert value < margin
    assert gradient.norm() > 1e-2
    ascending = lambda x: torch.linalg.svdvals(x @ x.mH).flip(-1)  # noqa: E731
    flipped, dead = slope(lambda x: (margin + ascending(x)[2:4].diff()[0]).relu(), f)
    close(flipped, margin, atol=1e-9)
    assert dead.norm() < 1e-6
    start = spectrum(factor=f, backend=backend).gap(3)
    for _ in range(30):
        f = f - 0.2 * slope(hinge, f)[1]
        f = f / f.norm()
    assert spectrum(factor=f, backend=backend).gap(3) > 10 * start


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128]
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_results_keep_the_callers_precision(backend, dtype):
    f = gaussian(2, 6, 3).real.to(dtype) if not dtype.is_complex else gaussian(2, 6, 3).to(dtype)
    real = torch.empty((), dtype=dtype).real.dtype
    s = spectrum(factor=f, shift=0.1, backend=backend)
    assert {getattr(s, d)(2).dtype for d in VALUES} == {real}
    assert s.values.dtype == s.trace.dtype == s.capture(2, torch.eye(6)).dtype == real
    assert s.apply(2, torch.eye(6)).dtype == dtype
    roundoff = torch.finfo(dtype).eps / 2
    assert (s.residual < 10 * 6 * roundoff).all()
    assert (s.orthonormality < 10 * 6 * roundoff).all()
    close(s.values, spectrum(factor=f.to(torch.complex128), shift=0.1).values, atol=200 * roundoff)


def test_gram_sees_in_single_precision_what_a_dense_matrix_has_lost():
    """l_2 / l_1 = 1e-9: below the roundoff of a dense complex64, within reach of its factor."""
    f = torch.diag(torch.tensor([1, 10**-4.5, 0, 0])).to(torch.complex64)[:, :2]
    found = spectrum(factor=f, backend="gram").values[1]
    close(found.double(), f[1, 1].abs().double() ** 2, atol=1e-17)
