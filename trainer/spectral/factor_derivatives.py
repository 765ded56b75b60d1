"""Derivatives of eigenvalues and projectors of R = F Fᴴ through G = Fᴴ F = W diag(g) Wᴴ.

F is N x r with r < N, and no N x N matrix is formed. The non-zero eigenvalues of R are the g_i.

    dg_i = w_iᴴ dG w_i, dG = dFᴴ F + Fᴴ dF  Magnus 1985, eq. 6
    P_K  = F H Fᴴ, H = W diag(h) Wᴴ         h_i = 1/g_i on the top K, else 0, for F w_i / √g_i are
                                            eigenvectors of R
    dP_K = dF H Fᴴ + F H dFᴴ + F dH Fᴴ      product rule
    dH   = W (Q ∘ Wᴴ dG W) Wᴴ               Daleckii & Krein 1965, Integration and differentiation
                                            of functions of Hermitian operators; Higham 2008,
                                            Functions of matrices, theorem 3.11

Q holds the divided differences of h over g: -h_i h_j (both in the top K), h_i / (g_i - g_j) (only
i), 0 (neither). Only gaps across the border K | K+1 divide. A gradient in F follows from
Re tr(Aᴴ dG) = 2 Re tr((F A)ᴴ dF) for a Hermitian A.
"""

from typing import Any

from torch import Tensor
from torch.autograd import Function

from trainer.linalg import hermitian_part, inner_product, real_part, squared_norm

from .dense_derivatives import columns, inverse_gaps, save


class GramEigenvalues(Function):
    """(F, g, W, index or None) -> g[index] [*batch, m]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, values: Tensor, vectors: Tensor, index: Tensor | None) -> Tensor:
        """Return g[index]."""
        return values.clone() if index is None else values.gather(-1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save F, W and the index."""
        save(ctx, inputs[0], *inputs[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradient in F, 2 F W diag(gradient) Wᴴ."""
        factor, *decomposition = ctx.saved_tensors
        w = columns(*decomposition)
        weighted = w * 2 * gradient.unsqueeze(-2)
        if 2 * w.shape[-1] < w.shape[-2]:  # few columns: thin products
            return (factor @ weighted) @ w.mH, None, None, None
        return factor @ (weighted @ w.mH), None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        """Return 2 Re((F w_i)ᴴ dF w_i)."""
        factor, *decomposition = ctx.saved_tensors
        w = columns(*decomposition)
        return 2 * real_part(((factor @ w).conj() * (tangent @ w)).sum(-2))


class GramProjection(Function):
    """(F, X, W, h, Q) -> P_K X = F H Fᴴ X [*batch, N, c]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, x: Tensor, w: Tensor, h: Tensor, q: Tensor) -> Tensor:
        """Return F H Fᴴ X."""
        return factor @ _times_h(w, h, adjoint_times(factor, x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save all inputs."""
        save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients in F and X, term by term of dP_K."""
        factor, x, w, h, q = ctx.saved_tensors
        g, y = adjoint_times(factor, gradient), adjoint_times(factor, x)
        hg, hy = _times_h(w, h, g), _times_h(w, h, y)
        inner = w @ (q * hermitian_part((w.mH @ g) @ (w.mH @ y).mH)) @ w.mH
        grad_factor = gradient @ hy.mH + x @ hg.mH + 2 * (factor @ inner)
        grad_x = factor @ hg if ctx.needs_input_grad[1] else None
        return grad_factor, grad_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, factor_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        """Return dP_K X + P_K dX."""
        factor, x, w, h, q = ctx.saved_tensors
        y = adjoint_times(factor, x)
        moved = adjoint_times(factor_tangent, x) + adjoint_times(factor, x_tangent)
        rotated = _tangent_of_h(factor, factor_tangent, w, q) @ y
        return factor_tangent @ _times_h(w, h, y) + factor @ (_times_h(w, h, moved) + rotated)


class GramCapture(Function):
    """(F, X, Y, W, h, Q) -> ‖P_K X‖²_F = Re tr(Xᴴ F H Fᴴ X) [*batch]; Y = Wᴴ Fᴴ X is data, too."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, x: Tensor, y: Tensor, w: Tensor, h: Tensor, q: Tensor) -> Tensor:
        """Return ‖diag(h)^½ Y‖²_F."""
        return squared_norm(h.sqrt().unsqueeze(-1) * y)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save all inputs."""
        save(ctx, *inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of `GramProjection` for G = 2 g P_K X."""
        factor, x, y, w, h, q = ctx.saved_tensors
        weight = 2 * gradient[..., None, None]
        hy = w @ (h.unsqueeze(-1) * y)
        inner = w @ (weight * q * (y @ y.mH)) @ w.mH
        grad_factor = x @ (weight * hy).mH + factor @ inner
        grad_x = weight * (factor @ hy) if ctx.needs_input_grad[1] else None
        return grad_factor, grad_x, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, factor_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        """Return Re tr(Xᴴ dP_K X) + 2 Re tr(Xᴴ P_K dX)."""
        factor, x, y, w, h, q = ctx.saved_tensors
        y = w @ y
        moved = adjoint_times(factor_tangent, x) + adjoint_times(factor, x_tangent)
        rotated = _tangent_of_h(factor, factor_tangent, w, q) @ y
        return 2 * inner_product(_times_h(w, h, y), moved) + inner_product(y, rotated)


def adjoint_times(factor: Tensor, x: Tensor) -> Tensor:
    """Return Fᴴ X [*batch, r, c], by the order of products that is twice as fast for a thin X."""
    return (x.mH @ factor).mH


def divided_differences(values: Tensor, h: Tensor, top: Tensor, floor: Tensor) -> Tensor:
    """Return Q [*batch, r, r] for g and h [*batch, r]; `top` and `floor` as in `inverse_gaps`."""
    half = inverse_gaps(values, top, floor, values.shape[-1]) * h.unsqueeze(-1)
    return half + half.mT - h.unsqueeze(-1) * h.unsqueeze(-2)


def _times_h(w: Tensor, h: Tensor, y: Tensor) -> Tensor:
    """Return H Y."""
    return w @ (h.unsqueeze(-1) * (w.mH @ y))


def _tangent_of_h(factor: Tensor, tangent: Tensor, w: Tensor, q: Tensor) -> Tensor:
    """Return dH for dF = `tangent`."""
    product = factor.mH @ tangent
    return w @ (q * (w.mH @ (product + product.mH) @ w)) @ w.mH
