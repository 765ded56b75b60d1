"""Derivatives of eigenvalues and spectral projectors of R = F Fᴴ through G = Fᴴ F = W diag(g) Wᴴ.

F is N x r with r < N, and N x N is never formed. The non-zero eigenvalues of R are the g_i, with

    dg_i = w_iᴴ (dFᴴ F + Fᴴ dF) w_i
    P_K  = F H Fᴴ,  H = W diag(h) Wᴴ,  h = 1/g on the top K, else 0
    dP_K = dF H Fᴴ + F H dFᴴ + F dH Fᴴ,  dH = W (Q ∘ (Wᴴ dG W)) Wᴴ,

Q being the divided differences of h over g: -h_i h_j (both in the top), h_i / (g_i - g_j) (only i
in the top), 0 (neither). Nothing is divided inside either cluster.

References: Daleckii & Krein 1965, Integration and differentiation of functions of Hermitian
operators (divided differences); Higham 2008, Functions of matrices, theorem 3.11.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function

from trainer.linalg import hermitian_part, inner_product, real_part, squared_norm

from .dense_gradients import across, picked


class GramEigenvalues(Function):
    """(F, g, W, index or None) -> g[index] [*batch, m]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, values: Tensor, vectors: Tensor, index: Tensor | None) -> Tensor:
        return values.clone() if index is None else values.gather(-1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], *inputs[2:])
        ctx.save_for_forward(inputs[0], *inputs[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factor, *decomposition = ctx.saved_tensors
        w = picked(*decomposition)
        weighted = w * 2 * gradient.unsqueeze(-2)
        if 2 * w.shape[-1] < w.shape[-2]:  # few columns: thin products
            return (factor @ weighted) @ w.mH, None, None, None
        return factor @ (weighted @ w.mH), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        factor, *decomposition = ctx.saved_tensors
        w = picked(*decomposition)
        return 2 * real_part(((factor @ w).conj() * (tangent @ w)).sum(-2))


class GramProjection(Function):
    """(F, X, g, W, h, top, floor) -> P_K X [*batch, N, k]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        factor: Tensor,
        x: Tensor,
        values: Tensor,
        vectors: Tensor,
        inverse: Tensor,
        top: Tensor,
        floor: Tensor,
    ) -> Tensor:
        return factor @ _solved(vectors, inverse, coefficients(factor, x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factor, x, values, w, h, top, floor = ctx.saved_tensors
        g, y = coefficients(factor, gradient), coefficients(factor, x)
        hg, hy = _solved(w, h, g), _solved(w, h, y)
        outer = hermitian_part((w.mH @ g) @ (w.mH @ y).mH)
        inner = w @ (_divided_differences(values, h, top, floor) * outer) @ w.mH
        grad_factor = gradient @ hy.mH + x @ hg.mH + 2 * (factor @ inner)
        grad_x = factor @ hg if ctx.needs_input_grad[1] else None
        return grad_factor, grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, factor_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        factor, x, values, w, h, top, floor = ctx.saved_tensors
        y = coefficients(factor, x)
        moved = coefficients(factor_tangent, x) + coefficients(factor, x_tangent)
        turned = _turned(factor, factor_tangent, values, w, h, top, floor)
        return factor_tangent @ _solved(w, h, y) + factor @ (_solved(w, h, moved) + turned @ y)


class GramCapture(Function):
    """(F, X, Y, g, W, h, top, floor) -> ‖P_K X‖²_F = tr(Xᴴ F H Fᴴ X) [*batch]; Y = Wᴴ Fᴴ X is
    data, like g and W."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        factor: Tensor,
        x: Tensor,
        y: Tensor,
        values: Tensor,
        vectors: Tensor,
        inverse: Tensor,
        top: Tensor,
        floor: Tensor,
    ) -> Tensor:
        return squared_norm(inverse.sqrt().unsqueeze(-1) * y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factor, x, y, values, w, h, top, floor = ctx.saved_tensors
        weight = 2 * gradient[..., None, None]
        hy = w @ (h.unsqueeze(-1) * y)
        inner = w @ (weight * _divided_differences(values, h, top, floor) * (y @ y.mH)) @ w.mH
        grad_factor = x @ (weight * hy).mH + factor @ inner
        grad_x = weight * (factor @ hy) if ctx.needs_input_grad[1] else None
        return grad_factor, grad_x, None, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, factor_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        factor, x, y, values, w, h, top, floor = ctx.saved_tensors
        moved = coefficients(factor_tangent, x) + coefficients(factor, x_tangent)
        turned = _turned(factor, factor_tangent, values, w, h, top, floor)
        y = w @ y
        return 2 * inner_product(_solved(w, h, y), moved) + inner_product(y, turned @ y)


def coefficients(factor: Tensor, x: Tensor) -> Tensor:
    """Fᴴ X [*batch, r, k], in the order of factors that is twice as fast for a thin X."""
    return (x.mH @ factor).mH


def _solved(vectors: Tensor, inverse: Tensor, y: Tensor) -> Tensor:
    """H Y."""
    return vectors @ (inverse.unsqueeze(-1) * (vectors.mH @ y))


def _turned(
    factor: Tensor,
    tangent: Tensor,
    values: Tensor,
    vectors: Tensor,
    inverse: Tensor,
    top: Tensor,
    floor: Tensor,
) -> Tensor:
    """dH of a tangent dF."""
    product = factor.mH @ tangent
    inner = vectors.mH @ (product + product.mH) @ vectors
    return vectors @ (_divided_differences(values, inverse, top, floor) * inner) @ vectors.mH


def _divided_differences(values: Tensor, inverse: Tensor, top: Tensor, floor: Tensor) -> Tensor:
    half = across(values, top, floor, values.shape[-1]) * inverse.unsqueeze(-1)
    return half + half.mT - inverse.unsqueeze(-1) * inverse.unsqueeze(-2)
