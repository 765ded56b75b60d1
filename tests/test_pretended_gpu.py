"""The pretended GPU: it raises where CUDA does, and counts what CUDA would wait for."""

import pytest
import torch

from tests.pretended_gpu import GPU, PretendedGpu, PretendedTensor

MIXED = {
    "product": lambda x, y: x @ y,
    "sum": lambda x, y: x + y,
    "where": lambda x, y: torch.where(x > 0, x, y),
    "cat": lambda x, y: torch.cat([x, y]),
    "gather": lambda x, y: x.gather(0, y.long()),
    "einsum": lambda x, y: torch.einsum("ij,jk->ik", x, y),
    "solve": lambda x, y: torch.linalg.solve_triangular(x, y, upper=True),
    "a number of the CPU, not pointwise": lambda x, y: torch.stack([x[0, 0], y[0, 0]]),
    "in place": lambda x, y: x.mul_(y),
    "a network": lambda x, y: torch.nn.Linear(2, 2)(x),
    "a generator of the CPU": lambda x, y: torch.rand(
        2, device=x.device, generator=torch.Generator("cpu")
    ),
}
WAITS = {
    "float": (lambda x: float(x.sum()), "read"),
    "bool": (lambda x: bool((x > 0).all()), "read"),
    "item": (lambda x: x[0, 0].item(), "read"),
    "index": (lambda x: range(9)[x.sum().long()], "read"),
    "equal": (lambda x: torch.equal(x, x), "read"),
    "tolist": (lambda x: x.tolist(), "download"),
    "cpu": (lambda x: x.cpu(), "download"),
    "a mask": (lambda x: x[x > 0], "count"),
    "nonzero": (lambda x: x.nonzero(), "count"),
    "put at a mask": (lambda x: x.index_put_((x > 0,), x[0, :1].expand(4)), "count"),
    "repeats": (lambda x: x.repeat_interleave(torch.full((2,), 2, device=GPU), 0), "count"),
    "eigh": (lambda x: torch.linalg.eigh(x), "status"),
    "svd": (lambda x: torch.linalg.svd(x), "status"),
    "cholesky": (lambda x: torch.linalg.cholesky(x + torch.eye(2, device=GPU)), "status"),
    "tensor": (lambda x: torch.tensor([1.0], device=GPU), "upload"),
    "new_tensor": (lambda x: x.new_tensor([1.0]), "upload"),
    "as_tensor": (lambda x: torch.as_tensor(1.0, device=GPU), "upload"),
    "to": (lambda x: torch.ones(2).to("cuda"), "upload"),
    "an index of the CPU": (lambda x: x[torch.tensor([0])], "upload"),
}
NO_WAITS = {
    "numbers": lambda x: 2 * x + torch.tensor(1.0),
    "factories": lambda x: torch.zeros(2, device=GPU) + torch.full((), 3.0, device=x.device),
    "fill at a mask": lambda x: x.masked_fill_(x > 0, 0.0),
    "set at a mask": lambda x: x.__setitem__(x > 0, 0.0),
    "an index": lambda x: x[torch.arange(1, device=GPU)],
    "decompositions without checks": lambda x: torch.linalg.cholesky_ex(x)[0],
    "draws": lambda x: torch.rand(2, device=GPU, generator=torch.Generator(GPU)),
    "autograd": lambda x: (x.requires_grad_() ** 2).sum().backward(),
}


def there() -> torch.Tensor:
    return torch.ones(2, 2).to("cuda")


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_devices_do_not_mix(name):
    with PretendedGpu(), pytest.raises(RuntimeError, match=r"on the GPU|on cuda"):
        MIXED[name](there(), torch.zeros(2, 2))


@pytest.mark.parametrize("name", WAITS)
def test_what_a_gpu_makes_the_host_wait_for_is_kept(name):
    with PretendedGpu() as gpu:
        x = there()
        gpu.waits.clear()
        WAITS[name][0](x)
    assert [wait.kind for wait in gpu.waits] == [WAITS[name][1]]


@pytest.mark.parametrize("name", NO_WAITS)
def test_what_runs_on_is_not(name):
    with PretendedGpu() as gpu:
        x = there()
        gpu.waits.clear()
        NO_WAITS[name](x)
    assert gpu.waits == []


def test_results_and_gradients_are_there_and_those_of_the_cpu():
    start = torch.randn(3, 3)
    with PretendedGpu():
        x = start.to("cuda").requires_grad_()
        (x @ x.mT).logdet().backward()
        assert x.grad is not None
        assert x.grad.device == GPU
        assert isinstance(x.grad, PretendedTensor)
        found = x.grad.cpu()
    here = start.requires_grad_()
    (here @ here.mT).logdet().backward()
    torch.testing.assert_close(found, here.grad)
