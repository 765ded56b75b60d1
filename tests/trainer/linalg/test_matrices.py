"""Elementary operations: right for real and complex numbers, differentiable at 0."""

import pytest
import torch

from trainer.linalg import inner_product, squared_magnitude, squared_norm

DTYPES = (torch.float64, torch.complex128)


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_magnitudes_are_real_and_those_of_abs(dtype):
    x = draw(3, 4, 5, dtype=dtype)
    torch.testing.assert_close(squared_magnitude(x), x.abs() ** 2, rtol=1e-14, atol=0)
    torch.testing.assert_close(squared_norm(x), torch.linalg.matrix_norm(x) ** 2)
    torch.testing.assert_close(inner_product(x, x), squared_norm(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_squared_magnitudes_are_twice_differentiable_also_at_zero(dtype):
    x = draw(4, dtype=dtype)
    x[0] = 0
    x.requires_grad_()
    assert torch.autograd.gradcheck(squared_magnitude, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(squared_magnitude, x)


def test_inner_products_are_real_parts_of_traces():
    x, y = draw(2, 3, 4, dtype=torch.complex128), draw(5, 2, 3, 4, dtype=torch.complex128)[-1]
    trace = torch.diagonal(x.mH @ y, dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(inner_product(x, y), trace.real)
