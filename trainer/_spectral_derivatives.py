"""Derivatives of eigenvalues and spectral projectors that divide by nothing but an open gap.

Convention: eigenvalues l descend, R = W diag(l) Wᴴ, gradients follow torch (dLoss = Re tr(Gᴴ dR)).
`top` marks the leading K of them, so M_ij = 1 / |l_i - l_j| exactly where one of i, j is in the
top K, else 0. All functions take the decomposition as data, computed on detached inputs: what they
differentiate is the textbook formula, never the eigensolver. All are batched, vmap- and (the
exact ones) jvp-aware, and none may be differentiated twice: `once` guards every entry.

References: Magnus 1985, On differentiating eigenvalues and eigenvectors (eigenvalues); Daleckii &
Krein 1965 and Kato 1995, II.2 (divided differences, the derivative of a spectral projector);
Kasim 2020, arXiv 2011.04366 (the masked eigenvector derivative).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class SecondDerivativeError(RuntimeError):
    """A spectral quantity was differentiated twice; its first derivative is all there is."""

    def __init__(self) -> None:
        super().__init__(
            "a Spectrum may be differentiated at most once, but a second derivative was asked "
            "for. Drop `create_graph=True` (or the outer torch.func transform), or detach the "
            "first derivative."
        )


class ForwardModeError(NotImplementedError):
    """Forward-mode differentiation of a backend that has none."""


class _Refuse(Function):
    """Identity on a first derivative; `anchor`, the input it belongs to, makes sure that any
    second derivative, of whatever path and mode, meets this refusal."""

    generate_vmap_rule = True

    @staticmethod
    def forward(derivative: Tensor, anchor: Tensor) -> Tensor:
        return derivative.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise SecondDerivativeError

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise SecondDerivativeError


class _Once(Function):
    """Copies into `dtype`; its derivative is the identity, and has no derivative of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype, copy=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.dtype = output.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        narrowed = gradient if x.is_complex() else _real(gradient)
        return _Refuse.apply(narrowed.to(x.dtype), x), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: Any) -> Any:
        (x,) = ctx.saved_tensors
        return _Refuse.apply(tangent.to(ctx.dtype), x)


def once(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x` in `dtype`, differentiable once: a second derivative raises SecondDerivativeError."""
    result: Tensor = _Once.apply(x, dtype)
    return result


def _real(x: Tensor) -> Tensor:
    return x.real if x.is_complex() else x


def hermitian_part(x: Tensor) -> Tensor:
    """(X + Xᴴ) / 2 of [*batch, n, n]."""
    return (x + x.mH) / 2


def across(values: Tensor, top: Tensor, floor: Tensor) -> Tensor:
    """M [*batch, n, n]: 1 / |l_i - l_j| where exactly one of i, j is in the top, else 0.

    Differences below `floor` [*batch] are raised to it. This guard alters only derivatives, and
    only those across a boundary that the input's own rounding leaves unresolved.
    """
    distance = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
    distance = torch.maximum(distance, floor[..., None, None])
    return (top.unsqueeze(-1) != top.unsqueeze(-2)) / distance


class Eigenvalues(Function):
    """(R, l, W) -> l, with dl_i = w_iᴴ dR w_i: exact for every symmetric function of l, also at
    ties, and a Clarke element for the others (Magnus 1985, eq. 11)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (w,) = ctx.saved_tensors
        return (w * gradient.unsqueeze(-2)) @ w.mH, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        (w,) = ctx.saved_tensors
        return _real((w.conj() * (tangent @ w)).sum(-2))


class Projection(Function):
    """(R, X, l, W, top, floor) -> P_K X, P_K = W_K W_Kᴴ, with dP = W (M ∘ (Wᴴ dR W)) Wᴴ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        matrix: Tensor, x: Tensor, values: Tensor, vectors: Tensor, top: Tensor, floor: Tensor
    ) -> Tensor:
        return vectors @ (top.unsqueeze(-1) * (vectors.mH @ x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        g, y = w.mH @ gradient, w.mH @ x
        weighted = across(values, top, floor) * hermitian_part(g @ y.mH)
        grad_x = w @ (top.unsqueeze(-1) * g) if ctx.needs_input_grad[1] else None
        return w @ weighted @ w.mH, grad_x, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, matrix_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        inner = across(values, top, floor) * (w.mH @ matrix_tangent @ w)
        kept = top.unsqueeze(-1) * (w.mH @ x_tangent)
        return w @ (inner @ (w.mH @ x) + kept)


class GramEigenvalues(Function):
    """(F, g, W) -> g, the eigenvalues of G = Fᴴ F = W diag(g) Wᴴ and the non-zero ones of F Fᴴ."""

    generate_vmap_rule = True

    @staticmethod
    def forward(factor: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        return values.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0], inputs[2])
        ctx.save_for_forward(inputs[0], inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factor, w = ctx.saved_tensors
        return 2 * factor @ ((w * gradient.unsqueeze(-2)) @ w.mH), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        factor, w = ctx.saved_tensors
        return 2 * _real(((factor @ w).conj() * (tangent @ w)).sum(-2))


class GramProjection(Function):
    """(F, X, g, W, h, top, floor) -> P_K X, P_K = F W diag(h) Wᴴ Fᴴ, h = 1/g on the top K, else 0.

    dP = dF H Fᴴ + F H dFᴴ + F dH Fᴴ with H = W diag(h) Wᴴ and, by divided differences of h,
    dH = W (Q ∘ (Wᴴ dG W)) Wᴴ: Q_ij = -h_i h_j (both top), h_i / (g_i - g_j) (i top, j below), 0.
    """

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
        basis = factor @ vectors
        return basis @ (inverse.unsqueeze(-1) * (basis.mH @ x))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        factor, x, values, w, h, top, floor = ctx.saved_tensors
        basis = factor @ w
        g, y = basis.mH @ gradient, basis.mH @ x
        hg, hy = h.unsqueeze(-1) * g, h.unsqueeze(-1) * y
        inner = _divided_differences(values, h, top, floor) * hermitian_part(g @ y.mH)
        grad_factor = (gradient @ hy.mH + x @ hg.mH + 2 * basis @ inner) @ w.mH
        grad_x = basis @ hg if ctx.needs_input_grad[1] else None
        return grad_factor, grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, factor_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        factor, x, values, w, h, top, floor = ctx.saved_tensors
        basis, moved = factor @ w, factor_tangent @ w
        cross = basis.mH @ moved
        inner = _divided_differences(values, h, top, floor) * (cross + cross.mH)
        hy = h.unsqueeze(-1) * (basis.mH @ x)
        inside = h.unsqueeze(-1) * (moved.mH @ x + basis.mH @ x_tangent) + inner @ (basis.mH @ x)
        return moved @ hy + basis @ inside


def _divided_differences(values: Tensor, h: Tensor, top: Tensor, floor: Tensor) -> Tensor:
    h_larger = h.unsqueeze(-1) + h.unsqueeze(-2)  # across the boundary one of the two is 0
    return across(values, top, floor) * h_larger - h.unsqueeze(-1) * h.unsqueeze(-2)


class MaskedEigh(Function):
    """R -> (l, W), descending, with the eigenvector derivative of Kasim 2020: terms of pairs with
    |l_i - l_j| <= threshold · l_max are dropped. Phases of W are not defined; functions that do
    not depend on them (projectors) are differentiated exactly only if no dropped pair matters."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        return descending_eigh(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*output)
        ctx.threshold = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor, grad_vectors: Tensor) -> Any:
        values, w = ctx.saved_tensors
        difference = values.unsqueeze(-2) - values.unsqueeze(-1)  # l_j - l_i at (i, j)
        scale = values.abs().amax(-1)[..., None, None]
        resolved = difference.abs() > ctx.threshold * scale
        inverse = torch.where(resolved, 1 / torch.where(resolved, difference, 1), 0)
        inner = inverse * (w.mH @ grad_vectors) + torch.diag_embed(grad_values).to(w.dtype)
        return hermitian_part(w @ inner @ w.mH), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ForwardModeError(
            "backend `masked` has no forward-mode derivative. Use `exact` or `gram`."
        )


def descending_eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [*batch, n], descending, and eigenvectors [*batch, n, n] of a Hermitian
    matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(-1), vectors.flip(-1)
