"""The hinges, their margins and units; and what becomes of a sample whose term fails."""

import math

import pytest
import torch

from tests.matrices import close, covariance, gaussian, slope, unitary
from trainer.config import DEFINITIONS, FAILURE_POLICIES
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum
from trainer.spectral.failure_policy import guard
from trainer.spectral.losses import dominance_loss, eigengap_loss
from trainer.spectral.once_differentiable import SecondDerivativeError


def diagonal(*values):
    return torch.diag(torch.tensor(values, dtype=torch.float64))


ORDERS = {"num_snapshots": 9, "max_sources": 4}
GREEDY = {
    "gap": 1.0,
    "ratio": 0.9,
    "energy": 1.0,
    "leak": 0.0,
    "subspace": 0.0,
    "threshold": 0.5,
    "count": 9.0,
}
"""Margins that no covariance of these tests reaches, a threshold and a temperature."""


def hinge(r, k, definition, margin, target=None, **options):
    return eigengap_loss(
        spectrum(r, **options),
        k,
        definition=definition,
        margin=margin,
        target=target,
        **(ORDERS if definition == "count" else {}),
    )


@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "gram"])
def test_gap_hinge_and_its_gradient(backend):
    """diag(.5, .4, .1, 0), K = 2: gap .3. A margin of .4 is .8 in units of 1/K."""
    of = lambda x: hinge(x, 2, "gap", 0.8, backend=backend)  # noqa: E731
    value, gradient = slope(of, diagonal(0.5, 0.4, 0.1, 0))
    close(value, 0.1)
    close(gradient, diagonal(0, -1, 1, 0))


def test_a_gap_margin_means_the_same_for_every_k():
    """K equal sources of a trace-1 R have eigenvalue 1/K: margin 1 is what they just reach."""
    for k in (1, 2, 5):
        r = diagonal(*([1 / k] * k), 0, 0)
        close(hinge(r, k, "gap", 1.0), 0.0)
        half = (r + torch.eye(k + 2) / (k + 2)) / 2
        close(hinge(half, k, "gap", 1.0), 0.5 / k)
    stacked = torch.stack([diagonal(1, 0, 0, 0), diagonal(0.5, 0.5, 0, 0)])
    half = (stacked + torch.eye(4) / 4) / 2
    close(hinge(half, torch.tensor([1, 2]), "gap", 1.0), torch.tensor([0.5, 0.25]))


def test_a_ratio_margin_is_a_number_of_decibels():
    for decibels in (3.0, 10.0):
        r = diagonal(10 ** (decibels / 10), 1.0, 0.5)
        margin = math.tanh(math.log(10) * decibels / 20)
        close(hinge(r, 1, "ratio", margin), 0.0)
        close(hinge(r, 1, "ratio", margin + 0.1), 0.1)


def test_energy_leak_and_subspace_hinges():
    r = diagonal(6, 3, 1)
    close(hinge(r, 1, "energy", 0.7), 0.1)
    close(hinge(r, 2, "energy", 0.7), 0.0)
    leak = 6 * 3 / 9 + 6 / 25
    close(hinge(r, 1, "leak", 0.5), math.log1p(leak) - 0.5)
    close(hinge(r, 1, "leak", 5.0), 0.0)
    basis = torch.tensor([[0.8], [0.6], [0.0]], dtype=torch.float64)
    close(hinge(r, 1, "subspace", 0.1, basis), 1 - 0.64 - 0.1)
    close(hinge(r, 2, "subspace", 0.0, torch.eye(3)[:, [0, 2]]), 0.5)
    close(hinge(r, 2, "subspace", 0.0, torch.eye(3)[:, :2]), 0.0)


def test_threshold_is_the_published_product_above_its_least_value():
    """0 where K eigenvalues equal the largest and the others are 0, whatever t. With l_K / l_1 on
    the wrong side of t or l_{K+1} on the same one, the product is positive."""
    close(hinge(diagonal(2, 2, 0, 0) / 4, 2, "threshold", 0.3), 0.0)
    of = lambda x: hinge(x, 2, "threshold", 0.3)  # noqa: E731
    value, gradient = slope(of, diagonal(5, 4, 1, 0))
    close(value, (0.8 - 0.3) * (0.2 - 0.3) + 0.3 * 0.7)
    down, up = (0.2 - 0.3) / 5, (0.8 - 0.3) / 5
    close(gradient, diagonal(-0.8 * down - 0.2 * up, down, up, 0))
    assert of(diagonal(5, 4, 3, 0)) > 0.3 * 0.7
    assert of(diagonal(5, 1, 1, 0)) > 0.3 * 0.7


@pytest.mark.parametrize("temperature", [1.0, 20.0])
@pytest.mark.parametrize("num_snapshots", [5, 6, 40])
def test_count_is_the_cross_entropy_of_description_lengths(num_snapshots, temperature):
    """Against Wax and Kailath's MDL written out, for fewer snapshots than elements, too."""
    values = [9.0, 4.0, 1.0, 0.8, 0.7, 0.4]
    size = min(6, num_snapshots)
    lengths = []
    for k in range(5):
        tail = values[k:size]
        ratio = math.prod(tail) ** (1 / len(tail)) / (sum(tail) / len(tail))
        misfit = -num_snapshots * len(tail) * math.log(ratio)
        lengths.append(misfit + k * (2 * size - k) * math.log(num_snapshots) / 2)
    share = (-torch.tensor(lengths, dtype=torch.float64) / temperature).softmax(0)

    def of(r, k):
        orders = {"num_snapshots": num_snapshots, "max_sources": 4}
        return eigengap_loss(spectrum(r), k, definition="count", margin=temperature, **orders)

    for k in (1, 2, 3, 4):
        close(of(diagonal(*values), k), -math.log(share[k]), atol=1e-9)
    half = covariance(1, 6)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda r: of((r + r.mH) / 2, 2), half)


def test_count_is_least_for_the_k_that_mdl_says():
    losses = [float(hinge(diagonal(9, 7, 1, 1, 1, 1), k, "count", 1.0)) for k in (1, 2, 3, 4)]
    assert losses.index(min(losses)) == 1
    assert losses[1] < math.log(2)


def test_count_raises_a_zero_eigenvalue_that_it_misses():
    """l_2 = 0 of two sources: the logarithm is floored, its derivative is not."""
    value, gradient = slope(lambda x: hinge(x, 2, "count", 9.0), diagonal(1, 0, 0, 0, 0, 0))
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient[1, 1] < 0


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_batch_of_different_k_equals_a_loop(definition):
    r, k = covariance(4, 8), torch.tensor([1, 2, 3, 2])
    basis = unitary(4, 8)[..., :3] * (torch.arange(3) < k[:, None, None])
    target = basis if definition == "subspace" else None
    batch = hinge(r, k, definition, GREEDY[definition], target)
    assert (batch > 0).all()
    for i in range(4):
        alone = basis[i, :, : k[i]] if definition == "subspace" else None
        close(batch[i], hinge(r[i], int(k[i]), definition, GREEDY[definition], alone), atol=1e-11)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_following_the_gradient_lowers_every_hinge(definition):
    r, k = covariance(3, 6), torch.tensor([1, 2, 3])
    target = unitary(3, 6)[..., :3] * (torch.arange(3) < k[:, None, None])
    basis = target if definition == "subspace" else None
    of = lambda x: hinge(x, k, definition, GREEDY[definition], basis)  # noqa: E731
    value, gradient = slope(of, r)
    size = torch.linalg.matrix_norm(gradient)[:, None, None]
    gap = spectrum(r).gap(k)[:, None, None]
    assert (of(r - 0.01 * gap * gradient / size) < value).all()


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_a_sample_that_is_not_finite_has_no_finite_loss(definition):
    r = covariance(3, 6)
    r[1, 2, 3] = torch.nan
    target = unitary(3, 6)[..., :2] if definition == "subspace" else None
    close(
        hinge(r, 2, definition, 0.1, target).isnan(),
        torch.tensor([False, True, False]),
    )


def test_a_leak_below_minus_one_by_rounding_has_a_finite_hinge():
    """log1p of it would be NaN: at the border are eigenvalues of either sign."""
    r = diagonal(1, 1e-9, *[-1e-9] * 10)
    assert spectrum(r).leak(2) < -2
    value, gradient = slope(lambda x: hinge(x, 2, "leak", 0.0), r)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_bad_arguments_are_refused():
    s = spectrum(covariance(2, 4))
    with pytest.raises(ValueError, match="Did you mean `energy`"):
        eigengap_loss(s, 1, definition="enrgy", margin=0.1)
    for margin in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="`0 <= margin < inf` must hold"):
            eigengap_loss(s, 1, definition="gap", margin=margin)
    with pytest.raises(ValueError, match="no target with 'subspace'"):
        eigengap_loss(s, 1, definition="subspace", margin=0.1)
    with pytest.raises(ValueError, match="a target with 'gap'"):
        eigengap_loss(s, 1, definition="gap", margin=0.1, target=torch.eye(4))
    with pytest.raises(ValueError, match="1 <= num_sources < num_elements"):
        eigengap_loss(s, 4, definition="gap", margin=0.1)
    for definition, given in (("count", {"num_snapshots": 9}), ("gap", ORDERS)):
        with pytest.raises(ValueError, match="given exactly for definition `count`"):
            eigengap_loss(s, 1, definition=definition, margin=0.1, **given)
    for margin, most, k, rule in (
        (0.0, 2, 1, "temperature > 0"),
        (1.0, 4, 1, "1 <= max_sources < num_snapshots, num_elements"),
        (1.0, 1, 2, "`num_sources` must not exceed `max_sources`, but K is off by 1"),
    ):
        orders = {"num_snapshots": 9, "max_sources": most}
        with pytest.raises(ValueError, match=rule):
            eigengap_loss(s, k, definition="count", margin=margin, **orders)


def test_dominance_prefers_white_to_any_signal():
    """Reason why it is no stand-in for a gap: the clearest subspace there is has the greatest
    loss."""
    n = 16
    a = torch.exp(1j * torch.arange(n, dtype=torch.float64))
    single = torch.outer(a, a.conj()) / n
    white = torch.eye(n, dtype=torch.complex128) / n
    assert spectrum(single).gap(1) > 0.99
    assert spectrum(white).gap(1) < 1e-12
    close(dominance_loss(white), 0.0)
    close(dominance_loss(single), (n - 2) / n)
    assert torch.autograd.gradcheck(dominance_loss, (covariance(2, 4).requires_grad_(),))


# The fallback policy. One sample has a finite term whose native gradient is NaN (two equal
# eigenvalues in the noise floor), another has a NaN input.

BATCH, ELEMENTS, SOURCES = 5, 6, 2
TIED, SPOILT = 1, 3
GOOD = [0, 2, 4]


def batch(spoilt):
    r = covariance(BATCH, ELEMENTS)
    r[TIED] = diagonal(3, 2, 1, 1, 1, 1) / 9
    if spoilt:
        r[SPOILT, 0, 0] = torch.nan
    return r


def term(r, backend="eigh"):
    """Works on any number of samples: targets are the same for all."""
    target = unitary(1, ELEMENTS)[..., :SOURCES].expand(len(r), -1, -1)
    return hinge(r, SOURCES, "subspace", 0.0, target, backend=backend)


def guarded(policy, r, function=term):
    leaf = r.clone().requires_grad_()
    result = guard(
        function, leaf, on_failure=policy, proxy=dominance_loss if policy == "proxy" else None
    )
    return result, leaf


def test_the_native_gradient_fails_although_the_value_is_finite():
    value, gradient = slope(term, batch(spoilt=False))
    assert torch.isfinite(value).all()
    assert gradient[TIED].isnan().any()


@pytest.mark.parametrize("policy", FAILURE_POLICIES)
def test_sound_samples_are_left_alone(policy):
    r = batch(spoilt=True)
    result, leaf = guarded(policy, r)
    value, gradient = slope(term, r[GOOD])
    close(result.term[GOOD], value)
    weights = torch.rand(BATCH, dtype=torch.float64)
    (found,) = torch.autograd.grad((weights * result.term).sum(), leaf)
    close(found[GOOD], weights[GOOD, None, None] * gradient)
    close(result.failed, torch.tensor([i not in GOOD for i in range(BATCH)]))


def test_raise_lets_the_failure_through_to_the_callers_check():
    result, leaf = guarded("raise", batch(spoilt=False))
    assert torch.isfinite(result.mean())
    (found,) = torch.autograd.grad(result.mean(), leaf)
    assert found[TIED].isnan().any()
    assert guarded("raise", batch(spoilt=True))[0].mean().isnan()
    assert int(result.skipped) == int(result.replaced) == 0


def test_skip_sample_drops_value_and_gradient_and_counts():
    result, leaf = guarded("skip_sample", batch(spoilt=True))
    assert int(result.skipped) == 2
    assert int(result.replaced) == 0
    close(result.mean(), term(batch(spoilt=True))[GOOD].mean())
    (found,) = torch.autograd.grad(result.mean(), leaf)
    close(found[[TIED, SPOILT]], torch.zeros(2, ELEMENTS, ELEMENTS))
    assert (found[GOOD].abs().amax((1, 2)) > 0).all()


def test_a_skipped_sample_does_not_poison_weights_shared_with_its_neighbours():
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)
    r = batch(spoilt=False)
    assert torch.autograd.grad(term(weight * r).mean(), weight)[0].isnan()
    assert torch.isfinite(
        torch.autograd.grad(guard(term, weight * r, on_failure="skip_sample").mean(), weight)[0]
    )


def test_proxy_replaces_value_and_gradient_and_counts():
    r = batch(spoilt=False)
    result, leaf = guarded("proxy", r)
    assert int(result.replaced) == 1
    assert int(result.skipped) == 0
    close(result.term[TIED], dominance_loss(r[TIED]))
    (found,) = torch.autograd.grad(result.term.sum(), leaf)
    close(found[TIED], slope(dominance_loss, r[TIED])[1])


def test_a_proxy_that_fails_too_is_not_hidden():
    result, _ = guarded("proxy", batch(spoilt=True))
    assert int(result.replaced) == 1
    assert result.term[SPOILT].isnan()
    assert result.mean().isnan()


def gives_up(r):
    raise torch.linalg.LinAlgError("failed to converge")


def test_an_eigensolver_that_gives_up_fails_the_batch():
    with pytest.raises(torch.linalg.LinAlgError, match="failed to converge"):
        guarded("raise", batch(spoilt=False), gives_up)
    skipped, leaf = guarded("skip_sample", batch(spoilt=False), gives_up)
    assert int(skipped.skipped) == BATCH
    close(skipped.mean(), 0.0)
    close(torch.autograd.grad(skipped.mean(), leaf)[0], torch.zeros(BATCH, ELEMENTS, ELEMENTS))
    replaced, _ = guarded("proxy", batch(spoilt=False), gives_up)
    assert int(replaced.replaced) == BATCH
    close(replaced.term, dominance_loss(batch(spoilt=False)))


def test_every_operand_is_differentiated_and_none_twice():
    f, shift = gaussian(3, 5, 2), torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)

    def ratio(factor, load):
        return eigengap_loss(
            spectrum(factor=factor, shift=load), 1, definition="ratio", margin=1.0
        )

    f.requires_grad_()
    shift.requires_grad_()
    direct = torch.autograd.grad(ratio(f, shift).sum(), (f, shift))
    found = torch.autograd.grad(guard(ratio, f, shift).term.sum(), (f, shift), create_graph=True)
    close(found[0], direct[0])
    close(found[1], direct[1])
    with pytest.raises(SecondDerivativeError):
        torch.autograd.grad(found[0].abs().sum(), f)
    with torch.no_grad():
        close(guard(ratio, f, shift).term, ratio(f, shift))
    close(guard(ratio, f.detach(), shift.detach()).term, ratio(f, shift))


def test_bad_policies_are_refused():
    r = batch(spoilt=False)
    with pytest.raises(ValueError, match="Did you mean `skip_sample`"):
        guard(term, r, on_failure="skip_samples")
    with pytest.raises(ValueError, match="no proxy with 'proxy'"):
        guard(term, r, on_failure="proxy")
    with pytest.raises(ValueError, match="a proxy with 'raise'"):
        guard(term, r, proxy=dominance_loss)
    with pytest.raises(ValueError, match="batch axes of the term"):
        guard(lambda x, y: term(x) * y, r, torch.ones(()))
