"""The same spectra on a GPU."""

import pytest
import torch

from tests.gpu import needs_gpu
from tests.matrices import close, covariance, gaussian, slope, unitary
from trainer.config import DEFINITIONS
from trainer.spectral.backend_check import ProblemSize
from trainer.spectral.backends import BACKENDS
from trainer.spectral.decomposition import spectrum
from trainer.spectral.failure_policy import guard
from trainer.spectral.losses import dominance_loss, eigengap_loss
from trainer.spectral.preflight import check_spectral

pytestmark = needs_gpu


@pytest.mark.parametrize("definition", DEFINITIONS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_losses_and_gradients_equal_the_cpus(backend, definition):
    f, k = gaussian(4, 9, 8), torch.tensor([1, 2, 3, 2])  # r = N - 1: native backends have no tie
    f = f / torch.linalg.matrix_norm(f)[:, None, None]
    basis = unitary(4, 9)[..., :3] * (torch.arange(3) < k[:, None, None])
    margin = {"leak": 0.0, "subspace": 0.0, "threshold": 0.5, "count": 9.0}.get(definition, 1.0)
    orders = {"num_snapshots": 9, "max_sources": 4} if definition == "count" else {}

    def loss(x):
        target = basis.to(x.device) if definition == "subspace" else None
        found = spectrum(factor=x, shift=0.1, backend=backend)
        return eigengap_loss(
            found, k, definition=definition, margin=margin, target=target, **orders
        )

    value, gradient = slope(loss, f)
    on_gpu, gradient_on_gpu = slope(loss, f.cuda())
    assert (value > 0).all()
    close(on_gpu.cpu(), value, atol=1e-10)
    close(gradient_on_gpu.cpu(), gradient, atol=1e-9)


def test_bad_samples_are_nan_where_reading_would_wait():
    s = spectrum(covariance(3, 4).cuda())
    close(s.gap(torch.tensor([0, 1, 4]).cuda()).isnan().cpu(), torch.tensor([True, False, True]))
    with pytest.raises(ValueError, match="1 <= num_sources < num_elements"):
        s.gap(4)
    metric = torch.stack((torch.eye(4), -torch.eye(4), torch.eye(4))).cuda()
    gap = spectrum(covariance(3, 4).cuda(), metric=metric).gap(1)
    close(gap.isnan().cpu(), torch.tensor([False, True, False]))


def test_what_a_loss_cannot_use_is_nan_where_reading_would_wait():
    r = covariance(3, 6).cuda()
    odd = r * torch.tensor([1.0, 6.0, 1.0]).cuda()[:, None, None]
    loss = eigengap_loss(spectrum(odd), 2, definition="gap", margin=1.0)
    close(loss.isnan().cpu(), torch.tensor([False, True, False]))
    basis = unitary(3, 6)[..., :2].cuda()
    basis[1] *= 2
    loss = eigengap_loss(spectrum(r), 2, definition="subspace", margin=0.0, target=basis)
    close(loss.isnan().cpu(), torch.tensor([False, True, False]))
    r[1] = r[1].tril()
    close(spectrum(r).gap(2).isnan().cpu(), torch.tensor([False, True, False]))


@pytest.mark.parametrize("policy", ["skip_sample", "proxy"])
def test_failure_policies_apply_on_the_gpu(policy):
    r = covariance(3, 6).cuda()
    r[1] = torch.diag(torch.tensor([3.0, 2, 1, 1, 1, 1])) / 9
    basis = unitary(1, 6)[..., :2].cuda()

    def term(x):
        found = spectrum(x, backend="eigh")
        return eigengap_loss(
            found, 2, definition="subspace", margin=0.0, target=basis.expand(len(x), -1, -1)
        )

    leaf = r.clone().requires_grad_()
    proxy = dominance_loss if policy == "proxy" else None
    result = guard(term, leaf, on_failure=policy, proxy=proxy)
    assert int(result.skipped + result.replaced) == int(result.failed.sum())
    assert torch.isfinite(torch.autograd.grad(result.mean(), leaf)[0]).all()


def test_the_machine_is_sound(tmp_path):
    sizes = [ProblemSize(36, 24, 64), ProblemSize(36, None, 64), ProblemSize(144, None, 16)]
    check = check_spectral(["gram", "exact"], sizes=sizes, device="cuda", cache=tmp_path)
    assert check.ok, check.reason
