"""Bad input ends in NaN for its own sample or in a named error; historic backends fail as
documented, and the default ones do not."""

import pytest
import torch

from tests.matrices import close, covariance, gaussian, inner, slope, unitary
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum

QUANTITIES = {
    "values": lambda s, x: s.values[..., 0],
    "trace": lambda s, x: s.trace,
    "gap": lambda s, x: s.gap(2),
    "ratio": lambda s, x: s.ratio(2),
    "energy": lambda s, x: s.energy(2),
    "leak": lambda s, x: s.leak(2),
    "capture": lambda s, x: s.capture(2, x),
    "apply": lambda s, x: s.apply(2, x).abs().sum((-2, -1)),
    "residual": lambda s, x: s.residual,
    "orthonormality": lambda s, x: s.orthonormality,
}


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_sample_is_nan_and_does_not_touch_its_neighbours(backend, name, bad):
    f, x = gaussian(4, 6, 5), gaussian(4, 6, 2, seed=1)
    spoilt = f.clone()
    spoilt[1, 3, 2] = bad
    of = lambda y: QUANTITIES[name](spectrum(factor=y, shift=0.1, backend=backend), x)  # noqa: E731
    value = of(spoilt)
    assert value[1].isnan()
    good = [0, 2, 3]
    close(value[good], of(f)[good])
    if name not in ("residual", "orthonormality"):
        gradient = slope(lambda y: of(y)[good], spoilt)[1]
        close(gradient[good], slope(lambda y: of(y)[good], f)[1][good])
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["shift", "x"])
def test_a_bad_loading_or_target_is_nan(backend, where, bad):
    f, x = gaussian(3, 6, 5), gaussian(3, 6, 2, seed=1)
    shift = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)
    (shift if where == "shift" else x[:, 0, 0])[1] = bad
    s = spectrum(factor=f, shift=shift, backend=backend)
    spoilt = torch.tensor([False, True, False])
    close(s.capture(2, x).isnan(), spoilt)
    close(s.apply(2, x).isnan().all(-1).all(-1), spoilt)
    if where == "shift":
        close(s.gap(2).isnan(), spoilt)  # although a loading cancels in it


def test_large_and_small_numbers_are_finite_samples():
    f = torch.full((2, 3, 2), 1e19, dtype=torch.complex64) * torch.eye(3, 2)
    f[1] *= 1e-38
    for backend in ("gram", "exact"):
        s = spectrum(factor=f, backend=backend)
        assert torch.isfinite(s.ratio(1)).all(), backend
        assert not s.values.isnan().any(), backend


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_finite_sample_whose_product_overflows_does_not_end_the_batch(backend):
    f, x = gaussian(3, 6, 4).to(torch.complex64), gaussian(6, 2, seed=1).to(torch.complex64)
    f[1] *= 1e25  # of R = F Fᴴ nothing is left in single precision, in double everything
    s = spectrum(factor=f, backend=backend)
    close(s.capture(2, x)[[0, 2]], spectrum(factor=f[[0, 2]], backend=backend).capture(2, x))
    if backend in ("gram", "auto"):
        assert torch.isfinite(s.ratio(2)[1])
    else:
        assert s.ratio(2)[1].isnan()
    huge = spectrum(factor=gaussian(2, 6, 4) * torch.tensor([1, 1e200])[:, None, None])
    close(huge.ratio(2).isnan(), torch.tensor([False, True]))
    dense = covariance(2, 4) * torch.tensor([1, 1.7e308])[:, None, None]
    assert torch.isfinite(spectrum(dense, backend="exact").ratio(1)[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_weak_factor_under_a_strong_loading_has_finite_losses(backend):
    """R = F Fᴴ + s I with F Fᴴ far below the roundoff of s: the leak is floored at 8 roundoffs of
    the largest eigenvalue, loading included, and energy is that of a white R, K / N."""
    for dtype in (torch.complex64, torch.complex128):
        for size, shift in ((1e-14, 1e-3), (1e-30, 0.1), (0.0, 1e-10), (0.0, 0.3)):
            f = size * gaussian(4, 6, 3).to(dtype)
            s = spectrum(factor=f, shift=shift, backend=backend)
            roundoff = torch.finfo(dtype).eps / 2
            assert (s.leak(2) <= 1.01 * 2 * 4 / (8 * roundoff) ** 2).all()
            close(s.energy(2), torch.full((4,), 1 / 3, dtype=torch.float64), atol=20 * roundoff)
            value, slope_of_f = slope(
                lambda y, s=shift: spectrum(factor=y, shift=s, backend=backend).leak(2), f
            )
            assert torch.isfinite(value).all()
            assert torch.isfinite(slope_of_f).all()


def test_a_zero_matrix_has_finite_values_and_gradients():
    f, x = torch.zeros(2, 6, 3, dtype=torch.complex64), torch.eye(6)[:, :2]
    for backend in ("gram", "exact"):
        for name, quantity in QUANTITIES.items():
            if name in ("residual", "orthonormality"):
                continue
            for shift in (0.0, 0.1):
                of = lambda y, b=backend, q=quantity, s=shift: q(  # noqa: E731
                    spectrum(factor=y, shift=s, backend=b), x
                )
                value, gradient = slope(of, f)
                assert torch.isfinite(value).all(), (backend, name)
                assert torch.isfinite(gradient).all(), (backend, name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda r: {"backend": "gram"}, "needs a factor .* Use `exact`"),
        (lambda r: {"backend": "gran"}, "Did you mean `gram`"),
        (lambda r: {"factor": r}, "exactly one of `covariance` and `factor`.*both"),
        (lambda r: {"deg_thresh": 1e-6}, "for backend `masked` only"),
        (lambda r: {"deg_thresh": 2.0, "backend": "masked"}, r"`deg_thresh` in \(0, 1\)"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    r = covariance(1, 4)[0]
    with pytest.raises(ValueError, match=message):
        spectrum(r, **arguments(r))


def test_operands_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"exactly one of `covariance` and `factor`.*none"):
        spectrum()
    with pytest.raises(ValueError, match="must be square"):
        spectrum(gaussian(4, 3))
    with pytest.raises(ValueError, match="float or complex"):
        spectrum(torch.eye(3, dtype=torch.int64))
    for columns in (4, 5):
        with pytest.raises(ValueError, match=r"r < N.*Use `exact`"):
            spectrum(factor=gaussian(4, columns), backend="gram")
        assert spectrum(factor=gaussian(4, columns)).gap(2) > 0  # auto takes it


def test_complex_numbers_in_a_real_spectrum_are_refused():
    r, b = covariance(1, 4)[0].real, covariance(1, 4, seed=1)[0]
    with pytest.raises(ValueError, match="Convert R"):
        spectrum(r, metric=b)
    with pytest.raises(ValueError, match="a shift is real"):
        spectrum(b, shift=torch.tensor(0.1 + 0.1j))
    for of in (spectrum(r).capture, spectrum(r).apply):
        with pytest.raises(ValueError, match="real vectors"):
            of(1, b[:, :1])


def test_shapes_that_do_not_fit_are_refused():
    r = covariance(3, 4)
    with pytest.raises(ValueError, match=r"`metric` must be .*the size of R"):
        spectrum(r, metric=torch.eye(5))
    with pytest.raises(ValueError, match=r"`metric` must have the batch axes \(3,\)"):
        spectrum(r, metric=torch.eye(4).expand(2, 4, 4))
    with pytest.raises(ValueError, match="`shift` must have the batch axes"):
        spectrum(r, shift=torch.zeros(2))
    with pytest.raises(ValueError, match=r"`num_sources` must have the batch axes \(\)"):
        spectrum(r[0]).gap(torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="`X` must have the batch axes"):
        spectrum(r).capture(1, torch.ones(2, 3, 4, 1))


@pytest.mark.parametrize("k", [0, 4, -1, torch.tensor([1, 4]), torch.tensor([0, 1])])
def test_a_source_number_out_of_range_is_refused(k):
    s = spectrum(covariance(2, 4))
    for of in (s.gap, s.ratio, s.energy, s.leak, lambda n: s.capture(n, torch.eye(4))):
        with pytest.raises(ValueError, match="1 <= num_sources < num_elements"):
            of(k)


def test_a_source_number_that_is_no_integer_is_refused():
    s = spectrum(covariance(2, 4))
    for k in (1.5, torch.tensor([1.0, 2.0]), True):
        with pytest.raises(ValueError, match="integer"):
            s.gap(k)
    with pytest.raises(ValueError, match="vectors over the elements"):
        s.capture(1, torch.ones(3, 2))


# What makes people switch the term off: reproducible on demand, absent by default.


def low_rank(count, n, rank):
    f = gaussian(count, n, rank).to(torch.complex64) / (n * rank) ** 0.5
    return f, unitary(count, n, seed=1)[..., :2].to(torch.complex64)


def nan_share(backend, f, x, shift):
    of = lambda y: spectrum(factor=y, shift=shift, backend=backend).capture(2, x)  # noqa: E731
    gradient = slope(of, f)[1]
    return (~torch.isfinite(gradient)).flatten(1).any(1).double().mean()


@pytest.mark.parametrize("backend", ["eigh", "svd"])
def test_native_projectors_are_nan_at_floor_ties_and_more_so_with_more_loading(backend):
    f, x = low_rank(16, 64, 8)
    little, much = (nan_share(backend, f, x, shift) for shift in (1e-8, 1e-1))
    assert much == 1
    assert little < 1 or backend == "svd"
    for sound in ("gram", "exact", "masked"):
        assert nan_share(sound, f, x, 1e-1) == 0


@pytest.mark.parametrize("backend", ["eigh", "svd"])
def test_native_gap_plus_zero_times_an_eigenvector_is_nan(backend):
    r, x = torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0])), torch.ones(4, 1)
    of = lambda y, b: spectrum(y, backend=b).gap(1) + 0 * spectrum(y, backend=b).capture(1, x)  # noqa: E731
    assert slope(lambda y: of(y, backend), r)[1].isnan().any()
    expected = torch.diag(torch.tensor([1.0, 0, 0, 0]))
    gradient = slope(lambda y: of(y, "exact"), r)[1]
    close(gradient[0, 0], expected[0, 0])
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_eigenvalue_losses_are_finite_on_every_backend_at_the_same_ties(backend):
    f, _ = low_rank(16, 64, 8)
    for definition in ("gap", "ratio", "energy", "leak"):
        of = lambda y, d=definition: getattr(spectrum(factor=y, shift=0.1, backend=backend), d)(3)  # noqa: E731
        value, gradient = slope(of, f)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()


def test_svd_underflows_in_single_precision_where_exact_does_not():
    """It divides by differences of squares, and 1e-25 squared is no complex64."""
    r, x = 1e-25 * covariance(4, 6).to(torch.complex64), gaussian(6, 2).to(torch.complex64)
    assert not torch.isfinite(
        slope(lambda y: spectrum(y, backend="svd").capture(2, x), r)[1]
    ).all()
    assert torch.isfinite(slope(lambda y: spectrum(y).capture(2, x), r)[1]).all()


def rotated_ties(count):
    """Exact five- and seven-fold ties, 2 and 1, rounded to complex64 after a rotation."""
    w = unitary(count, 12)
    values = torch.tensor([2.0] * 5 + [1.0] * 7, dtype=torch.float64)
    return ((w * values) @ w.mH).to(torch.complex64)


def test_an_absolute_threshold_does_not_find_ties_in_single_precision():
    values = spectrum(rotated_ties(200)).values
    neighbours = torch.cat((values[:, :5].diff(), values[:, 5:].diff()), -1).abs()
    assert (neighbours > 1e-9).double().mean() > 0.5
    assert (neighbours / values[:, :1] <= 20 * torch.finfo(torch.float32).eps / 2).all()


def test_masked_with_a_threshold_below_the_roundoff_is_wrong_and_above_it_is_right():
    r, x = rotated_ties(200), unitary(200, 12, seed=1)[..., :5].to(torch.complex64)
    truth = slope(lambda y: spectrum(y).capture(5, x.to(y.dtype)), r.to(torch.complex128))[1]

    def error(backend, threshold=None):
        of = lambda y: spectrum(y, backend=backend, deg_thresh=threshold).capture(5, x)  # noqa: E731
        difference = slope(of, r)[1] - truth
        return (inner(difference, difference) / inner(truth, truth)).sqrt()

    assert (error("masked", 1e-9) > 2e-2).any()
    assert (error("masked", 1e-5) < 1e-4).all()
    assert (error("exact") < 1e-4).all()


def test_masked_loses_the_gradient_of_a_masked_border_pair():
    r, x = torch.diag(torch.tensor([1.0, 0.99, 0.1])).double(), torch.ones(3, 1).double()
    exact = slope(lambda y: spectrum(y, backend="exact").capture(1, x), r)[1]
    lost = slope(lambda y: spectrum(y, backend="masked", deg_thresh=0.1).capture(1, x), r)[1]
    close(exact[0, 1] * 0.01, 1.0, atol=1e-5)  # 1 / (l_1 - l_2), of entries in single precision
    close(lost[0, 1], 0.0)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_threshold_of_masked_is_relative_to_the_largest_eigenvalue(size):
    """The derivative of a projector scales as 1 / R: no pair may change sides."""
    r, x = torch.diag(torch.tensor([1.0, 0.99, 0.1])).double(), torch.ones(3, 1).double()
    of = lambda y: spectrum(y, backend="masked", deg_thresh=0.05).capture(1, x)  # noqa: E731
    close(size * slope(of, size * r)[1], slope(of, r)[1])
