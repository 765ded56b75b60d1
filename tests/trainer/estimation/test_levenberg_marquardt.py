"""Minimisation in a box against SciPy, on quadratics and on a curved valley."""

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

from trainer.estimation.levenberg_marquardt import LocalModel, minimise


def least_squares(matrix, target):
    def model(point):
        residual = (matrix @ point.unsqueeze(-1)).squeeze(-1) - target
        gradient = 2 * (matrix.mT @ residual.unsqueeze(-1)).squeeze(-1)
        return LocalModel(residual.square().sum(-1), gradient, 2 * matrix.mT @ matrix)

    return model


def test_bounded_least_squares_agree_with_scipy():
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(30, 6, 4, dtype=torch.float64, generator=generator)
    matrix[..., 2] *= 1e4  # angles and powers differ by orders of magnitude
    target = 3 * torch.randn(30, 6, dtype=torch.float64, generator=generator)
    lower = torch.tensor([-0.5, -0.5, -1e-4, -2.0], dtype=torch.float64)
    upper = torch.tensor([0.5, 2.0, 1e-4, 0.1], dtype=torch.float64)
    start = torch.zeros(30, 4, dtype=torch.float64)
    found = minimise(least_squares(matrix, target), start, lower, upper, steps=40)
    for i in range(30):
        best = lsq_linear(matrix[i].numpy(), target[i].numpy(), (lower.numpy(), upper.numpy()))
        assert found.value[i].item() == pytest.approx(2 * best.cost, rel=1e-6)
    assert (found.point >= lower).all()
    assert (found.point <= upper).all()


def test_a_quadratic_is_solved_in_a_few_steps():
    matrix = torch.eye(3, dtype=torch.float64).expand(1, 3, 3)
    target = torch.tensor([[0.1, 0.2, -0.3]], dtype=torch.float64)
    box = torch.ones(3, dtype=torch.float64)
    model = least_squares(matrix, target)
    found = minimise(model, torch.zeros(1, 3, dtype=torch.float64), -box, box, steps=4)
    torch.testing.assert_close(found.point, target, rtol=0, atol=1e-8)


def rosenbrock(point):
    x, y = point.unbind(-1)
    residual = torch.stack([10 * (y - x**2), 1 - x], dim=-1)
    slope = torch.stack(
        [
            torch.stack([-20 * x, torch.full_like(x, 10)], dim=-1),
            torch.stack([-torch.ones_like(x), torch.zeros_like(x)], dim=-1),
        ],
        dim=-2,
    )
    gradient = 2 * (slope.mT @ residual.unsqueeze(-1)).squeeze(-1)
    return LocalModel(residual.square().sum(-1), gradient, 2 * slope.mT @ slope)


def test_a_curved_valley_is_followed_and_members_are_independent():
    start = torch.tensor([[-1.2, 1.0], [0.5, -0.5], [2.0, 2.0]], dtype=torch.float64)
    box = torch.tensor([3.0, 3.0], dtype=torch.float64)
    together = minimise(rosenbrock, start, -box, box, steps=60)
    torch.testing.assert_close(together.point, torch.ones_like(start), rtol=0, atol=1e-6)
    for i in range(3):
        alone = minimise(rosenbrock, start[i : i + 1], -box, box, steps=60)
        assert alone.point.equal(together.point[i : i + 1])


def test_the_value_never_exceeds_that_at_the_start():
    """Even with a curvature that has nothing to do with the cost."""

    def model(point):
        return LocalModel(
            point.cos().sum(-1),
            -point.sin(),
            1e-3 * torch.eye(2, dtype=point.dtype).expand(50, 2, 2),
        )

    start = torch.from_numpy(np.random.default_rng(0).uniform(-3, 3, (50, 2)))
    box = torch.full((2,), 3.0, dtype=torch.float64)
    found = minimise(model, start, -box, box, steps=20)
    assert (found.value <= start.cos().sum(-1)).all()


def test_a_flat_cost_moves_nothing():
    start = torch.tensor([[0.3, -0.2]], dtype=torch.float64)

    def model(point):
        return LocalModel(0 * point.sum(-1), 0 * point, torch.zeros(1, 2, 2, dtype=point.dtype))

    box = torch.ones(2, dtype=torch.float64)
    assert minimise(model, start, -box, box, steps=5).point.equal(start)


def test_a_hessian_is_used_where_it_is_definite_and_only_there():
    """From the top of a cosine hill to its valley, with a curvature a thousand times too large."""

    def model(point):
        return LocalModel(
            point.cos().sum(-1),
            -point.sin(),
            1e3 * torch.eye(1, dtype=point.dtype).expand(3, 1, 1),
            -point.cos().unsqueeze(-1),
        )

    start = torch.tensor([[0.5], [2.5], [-2.8]], dtype=torch.float64)  # the first is concave
    box = torch.full((1,), 4.0, dtype=torch.float64)
    found = minimise(model, start, -box, box, steps=12)
    assert (found.value < start.cos().sum(-1)).all()
    torch.testing.assert_close(found.point[1:].abs(), torch.full((2, 1), torch.pi).double())
