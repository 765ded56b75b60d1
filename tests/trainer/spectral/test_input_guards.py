"""Input that would give a wrong or a dead loss is refused, and the advice leads to a live one."""

import contextlib
import math

import numpy as np
import pytest
import torch
from torch.func import vmap

import trainer.spectral.spectrum_type
from tests.matrices import close, covariance, gaussian, slope, unitary
from trainer.config import DEFINITIONS
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum
from trainer.spectral.failure_policy import guard
from trainer.spectral.losses import eigengap_loss

SINGLE = {"rtol": 2e-5, "atol": 2e-6}
"""Twelve rows in single precision; bfloat16 errs by 4e-3."""


def steering(*sines):
    offsets = torch.arange(6, dtype=torch.float64)
    phases = math.pi * offsets[:, None] * torch.tensor(sines, dtype=torch.float64)
    return torch.polar(torch.ones_like(phases), phases)


def subspace_loss(target, r=None, k=2):
    r = covariance(3, 6) if r is None else r
    return eigengap_loss(spectrum(r), k, definition="subspace", margin=0.0, target=target)


def gap_loss(s):
    return eigengap_loss(s, 2, definition="gap", margin=1.0)


def test_a_raw_steering_matrix_is_no_target_and_its_basis_is():
    a = steering(-0.3, 0.4).expand(3, -1, -1)
    with pytest.raises(ValueError, match=r"orthonormal .* off by 5.*torch.linalg.qr\(A\).Q"):
        subspace_loss(a)
    value, gradient = slope(lambda r: subspace_loss(torch.linalg.qr(a).Q, r), covariance(3, 6))
    assert (value > 0).all()
    assert (torch.linalg.matrix_norm(gradient) > 0).all()


@pytest.mark.parametrize("columns", [0, 1, 3, 6])
def test_a_target_of_another_number_of_columns_is_refused(columns):
    """Missing columns are a part of the loss that nothing lowers; of zeros it has no gradient."""
    short = unitary(3, 6) * (torch.arange(6) < columns)
    with pytest.raises(
        ValueError, match=r"K orthonormal columns and otherwise.*has not K columns"
    ):
        subspace_loss(short)
    with pytest.raises(ValueError, match=r"K orthonormal|but got"):
        subspace_loss(short[..., :columns])
    fine = subspace_loss(unitary(3, 6) * (torch.arange(6) < 2))
    close(fine, subspace_loss(unitary(3, 6)[..., :2]))
    assert (fine > 0).all()


@pytest.mark.parametrize("axes", [(), (1,), (4,), (1, 3)])
def test_a_target_that_would_broadcast_over_the_batch_is_refused(axes):
    one = unitary(1, 6)[0, :, :2]
    with pytest.raises(ValueError, match=r"batch=\(3,\) as of the spectrum.*U.expand"):
        subspace_loss(one.expand(*axes, -1, -1))
    assert torch.isfinite(subspace_loss(one.expand(3, -1, -1))).all()


def test_a_target_that_is_not_orthonormal_is_refused_by_sample():
    spoilt = unitary(3, 6)[..., :2]
    spoilt[1] *= 1.1
    with pytest.raises(ValueError, match=r"of sample \[1\] is off by 0.21"):
        subspace_loss(spoilt)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_rounding_of_trace_and_target_is_accepted(dtype):
    r, basis = covariance(3, 6).to(dtype), unitary(3, 6)[..., :2].to(torch.complex64)
    assert torch.isfinite(subspace_loss(basis, r)).all()
    assert torch.isfinite(gap_loss(spectrum(r, shift=0.5))).all()
    loaded = r + 0.1 / 6 * torch.eye(6)
    close(gap_loss(spectrum(loaded)), gap_loss(spectrum(r)), atol=1e-6)
    assert torch.isfinite(gap_loss(spectrum(0 * r))).all()


def loss_of(definition, found, target):
    target = target if definition == "subspace" else None
    orders = {"num_snapshots": 9, "max_sources": 4} if definition == "count" else {}
    return eigengap_loss(found, 2, definition=definition, margin=0.9, target=target, **orders)


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "gram"])
def test_negative_eigenvalues_are_refused_and_rounding_is_not(backend, definition):
    """Of -R, energy and ratio exceed every margin; of a difference, gap and leak may."""
    r, target = covariance(3, 6), unitary(3, 6)[..., :2]
    other = 2 * r - covariance(3, 6, seed=1)
    for bad, share in ((-r, r"1\. "), (other, r"0\.\d+\. ")):
        rule = rf"no negative .* of sample \[0\] is off by {share}Hand over R itself"
        with pytest.raises(ValueError, match=rule):
            loss_of(definition, spectrum(bad, backend=backend), target)
    line = r[:, :, :3] @ r[:, :, :3].mH  # of rank 3: rounding gives the others either sign
    line = line / torch.diagonal(line, dim1=1, dim2=2).sum(-1)[:, None, None]
    coarse = torch.complex(line.real.bfloat16().float(), line.imag.bfloat16().float())
    coarse = (coarse + coarse.mH) / 2
    assert (torch.linalg.eigvalsh(coarse)[:, 0] < -1e-5).all()
    assert torch.isfinite(loss_of(definition, spectrum(coarse, backend=backend), target)).all()
    assert torch.isfinite(loss_of(definition, spectrum(0 * r, backend=backend), target)).all()


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_training_step_reads_no_value_where_reading_would_wait(backend, definition, monkeypatch):
    """Tensors of the device `meta` have shapes only: to read a value raises."""
    if (backend, definition) == ("svd", "subspace"):
        pytest.skip("PyTorch's own derivative of complex singular vectors reads a value")
    queried = trainer.spectral.spectrum_type, "_own_precision"  # autocast has no such device
    monkeypatch.setattr(*queried, lambda _: contextlib.nullcontext())
    factor = torch.empty(3, 6, 4, dtype=torch.complex64, device="meta", requires_grad=True)
    k, target = torch.empty(3, dtype=torch.long, device="meta"), factor.detach()[..., :2]

    def term(x):
        found = spectrum(factor=x, backend=backend)
        basis = target if definition == "subspace" else None
        orders = {"num_snapshots": 9, "max_sources": 4} if definition == "count" else {}
        return eigengap_loss(found, k, definition=definition, margin=0.1, target=basis, **orders)

    guarded = guard(term, factor, on_failure="skip_sample")
    (gradient,) = torch.autograd.grad(guarded.mean(), factor)
    assert gradient.shape == factor.shape
    with pytest.raises(RuntimeError, match="meta"):
        bool(guarded.failed.all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_trace_is_refused_and_what_is_divided_by_it_is_not(backend):
    f = gaussian(3, 6, 5)
    for shift in (0.0, 0.3):
        with pytest.raises(ValueError, match=r"trace 1.*Divide R by its trace, or F by the root"):
            gap_loss(spectrum(factor=f, shift=shift, backend=backend))
    unit = f / f.abs().square().sum((1, 2), keepdim=True).sqrt()
    value, gradient = slope(lambda x: gap_loss(spectrum(factor=x, backend=backend)), unit)
    assert (value > 0).all()
    assert (torch.linalg.matrix_norm(gradient) > 0).all()
    # definitions that do not depend on the scale take any
    eigengap_loss(spectrum(factor=f, backend=backend), 2, definition="ratio", margin=1.0)


def test_where_values_cannot_be_read_the_sample_is_nan():
    r, basis = covariance(3, 6), unitary(3, 6)[..., :2]
    bad = torch.tensor([False, True, False])
    scale = torch.where(bad, 6.0, 1.0)[:, None, None]
    close(vmap(lambda x: gap_loss(spectrum(x)))(scale * r).isnan(), bad)
    close(vmap(lambda x, u: subspace_loss(u, x))(r, scale * basis).isnan(), bad)
    close(vmap(lambda x: gap_loss(spectrum(x)))(r * (1 - 2.0 * bad)[:, None, None]).isnan(), bad)
    lower = torch.where(bad[:, None, None], r.tril(), r)
    close(vmap(lambda x: spectrum(x).gap(2))(lower).isnan(), bad)


def test_a_triangle_and_a_missing_conjugate_are_refused():
    x = gaussian(6, 20)
    r = x @ x.mH
    for wrong in (r.tril(), r.triu(), x @ x.mT):
        with pytest.raises(ValueError, match=r"Hermitian.*Fill both triangles.*\.mH, not by \.mT"):
            spectrum(wrong)
    lower = r.tril()
    close(spectrum(lower + lower.tril(-1).mH).values, torch.linalg.eigvalsh(r).flip(-1))


def test_a_covariance_rounded_to_half_precision_is_hermitian():
    real = gaussian(6, 20).real
    coarse = (real.bfloat16() @ real.bfloat16().mT).double()
    coarse[0, 1:] *= 1 + 2**-8  # one triangle rounded to another neighbour
    close(spectrum(coarse).values, torch.linalg.eigvalsh((coarse + coarse.mT) / 2).flip(-1))


@pytest.mark.parametrize("name", ["covariance", "factor", "metric", "X", "target"])
def test_arrays_and_lists_are_refused_by_name(name):
    r = covariance(3, 6)
    uses = {
        "covariance": spectrum,
        "factor": lambda x: spectrum(factor=x),
        "metric": lambda x: spectrum(r, metric=x),
        "X": lambda x: spectrum(r).apply(2, x),
        "target": subspace_loss,
    }
    array = r[0, :, :2].numpy() if name in ("factor", "X", "target") else r[0].numpy()
    with pytest.raises(TypeError, match=rf"`{name}` must .* numpy.ndarray.*torch.from_numpy"):
        uses[name](array)
    with pytest.raises(TypeError, match=rf"`{name}` must .* list.*torch.tensor"):
        uses[name](array.tolist())
    if name != "target":  # these columns are not orthonormal
        uses[name](torch.from_numpy(array))
        uses[name](torch.tensor(array.tolist(), dtype=torch.complex128))
    assert isinstance(array, np.ndarray)


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "gram"])
def test_autocast_changes_nothing(backend):
    """Values and gradients, of dense R and of a wide factor, backward inside and outside."""
    x = gaussian(12, 30).real.float()
    r, eye = x @ x.mT, torch.eye(12)

    def evaluate(given, inside):
        given = given.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside is not None):
            wide = given.shape[-1] > 12
            s = spectrum(factor=given) if wide else spectrum(given, backend=backend)
            results = s.values, s.apply(3, eye), s.capture(3, eye[:, :3])
            total = s.capture(3, eye[:, :3]) + s.ratio(3)
            if inside:
                total.backward()
        if not inside:
            total.backward()
        assert all(y.dtype == torch.float32 for y in results)
        return *results, given.grad

    for given in (r, x):
        expected = evaluate(given, None)
        for inside in (True, False):
            for found, right in zip(evaluate(given, inside), expected, strict=True):
                torch.testing.assert_close(found, right, **SINGLE)


def test_a_spectrum_from_outside_is_read_inside_autocast_as_outside():
    x, eye = gaussian(12, 30).real.float(), torch.eye(12)
    s = spectrum(x @ x.mT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = s.apply(3, eye), s.capture(3, eye[:, :3])
    for found, right in zip(inside, (s.apply(3, eye), s.capture(3, eye[:, :3])), strict=True):
        assert found.equal(right)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"spectrum": covariance(1, 6)[0]}, "`spectrum` must not be of type torch.Tensor"),
        ({"num_sources": None}, "`num_sources` must not be of type NoneType"),
        ({"num_sources": "3"}, "`num_sources` must not be of type str"),
        ({"num_sources": True}, "`num_sources` must not be of type bool"),
        ({"margin": "a"}, "`margin` must not be of type str"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(given, says):
    asked = {"spectrum": spectrum(covariance(1, 6)), "num_sources": 2, "margin": 0.5} | given
    with pytest.raises(TypeError, match=says):
        eigengap_loss(definition="gap", **asked)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "1"])
def test_loading_and_margins_that_mean_nothing_are_refused(value):
    with pytest.raises(ValueError, match=r"0 <= shift < inf"):
        spectrum(covariance(1, 6), shift=value)
    if value != "1":
        with pytest.raises(ValueError, match=r"0 <= margin < inf"):
            eigengap_loss(spectrum(covariance(1, 6)), 2, definition="leak", margin=value)


def test_vectors_and_empty_matrices_are_refused_by_shape():
    for x in (torch.ones(4), torch.ones(0, 0)):
        with pytest.raises(ValueError, match="must have two axes or more, the last two not empty"):
            spectrum(x)


def test_half_precision_is_refused_by_name():
    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match=rf"single or double precision, but got {dtype}"):
            spectrum(torch.eye(4, dtype=dtype))
