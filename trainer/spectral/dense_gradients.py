"""Derivatives of eigenvalues and spectral projectors of a dense Hermitian R = W diag(l) Wᴴ.

Eigenvalues descend; gradients follow torch (dLoss = Re tr(Gᴴ dR)). `top` [*batch, N] marks the
leading K of them, `limit` >= K bounds K over the batch, so that products stay thin. The
decomposition is data, computed on a detached R: differentiated is the textbook formula, never the
eigensolver. Nothing is divided by but an open gap across the border K | K+1:

    dl_i = w_iᴴ dR w_i,  exact for symmetric functions of the l_i also at ties
    dP_K = W (M ∘ (Wᴴ dR W)) Wᴴ,  M_ij = 1 / |l_i - l_j| if one of i, j is in the top, else 0

Gradients of projectors are given by the rows of M in the top alone, twice: their Hermitian part is
the gradient, and R being a Hermitian part, or F Fᴴ, nothing else of them arrives.

References: Magnus 1985, On differentiating eigenvalues and eigenvectors, eq. 6; Kato 1995,
Perturbation theory for linear operators, II.2.1 (eq. 2.14: the projector); Kasim 2020, arXiv
2011.04366 (the masked eigenvector derivative).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from trainer.linalg import hermitian_part, inner_product, real_part, squared_norm

from .once_differentiable import ForwardModeError


def descending_eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [*batch, n], descending, and eigenvectors [*batch, n, n], as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(-1), vectors.flip(-1)


def across(values: Tensor, top: Tensor, floor: Tensor, limit: int) -> Tensor:
    """The rows of M below `limit` [*batch, limit, n]: 1 / (l_i - l_j), i in the top, j not.

    Differences below `floor` [*batch] are raised to it. This guard alters only derivatives, and
    only those across a border that the rounding of the input leaves unresolved.
    """
    distance = values[..., :limit].unsqueeze(-1) - values.unsqueeze(-2)
    distance = torch.maximum(distance, floor[..., None, None])
    return (top[..., :limit].unsqueeze(-1) & ~top.unsqueeze(-2)) / distance


def picked(vectors: Tensor, index: Tensor | None) -> Tensor:
    """Columns `index` [*batch, m] of [*batch, n, n]; all of them for None."""
    if index is None:
        return vectors
    columns = index.unsqueeze(-2).expand(*vectors.shape[:-1], index.shape[-1])
    return vectors.gather(-1, columns)


class Eigenvalues(Function):
    """(R, l, W, index or None) -> l[index] [*batch, m]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, values: Tensor, vectors: Tensor, index: Tensor | None) -> Tensor:
        return values.clone() if index is None else values.gather(-1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[2], inputs[3])
        ctx.save_for_forward(inputs[2], inputs[3])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        w = picked(*ctx.saved_tensors)
        return (w * gradient.unsqueeze(-2)) @ w.mH, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        w = picked(*ctx.saved_tensors)
        return real_part((w.conj() * (tangent @ w)).sum(-2))


class Projection(Function):
    """(R, X, l, W, top, floor, limit) -> P_K X = W_K W_Kᴴ X [*batch, N, k]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        matrix: Tensor,
        x: Tensor,
        values: Tensor,
        vectors: Tensor,
        top: Tensor,
        floor: Tensor,
        limit: int,
    ) -> Tensor:
        leading = _leading(vectors, top, limit)
        return leading @ (leading.mH @ x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:6])
        ctx.save_for_forward(*inputs[1:6])
        ctx.limit = inputs[6]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        leading = _leading(w, top, ctx.limit)
        g, y = w.mH @ gradient, w.mH @ x
        rows = g[..., : ctx.limit, :] @ y.mH + y[..., : ctx.limit, :] @ g.mH
        grad_matrix = leading @ ((across(values, top, floor, ctx.limit) * rows) @ w.mH)
        grad_x = leading @ (leading.mH @ gradient) if ctx.needs_input_grad[1] else None
        return grad_matrix, grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, matrix_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        leading = _leading(w, top, ctx.limit)
        rows = across(values, top, floor, ctx.limit) * (leading.mH @ matrix_tangent @ w)
        turned = leading @ (rows @ (w.mH @ x)) + w @ (rows.mH @ (leading.mH @ x))
        return turned + leading @ (leading.mH @ x_tangent)


class Capture(Function):
    """(R, X, l, W, top, floor, limit) -> ‖P_K X‖²_F [*batch]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        matrix: Tensor,
        x: Tensor,
        values: Tensor,
        vectors: Tensor,
        top: Tensor,
        floor: Tensor,
        limit: int,
    ) -> Tensor:
        return squared_norm(_leading(vectors, top, limit).mH @ x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[1:6])
        ctx.save_for_forward(*inputs[1:6])
        ctx.limit = inputs[6]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        weight = 2 * gradient[..., None, None]
        leading, y = _leading(w, top, ctx.limit), w.mH @ x
        rows = across(values, top, floor, ctx.limit) * (y[..., : ctx.limit, :] @ y.mH)
        grad_matrix = leading @ ((weight * rows) @ w.mH)
        grad_x = weight * (leading @ (leading.mH @ x)) if ctx.needs_input_grad[1] else None
        return grad_matrix, grad_x, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, matrix_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        x, values, w, top, floor = ctx.saved_tensors
        leading = _leading(w, top, ctx.limit)
        rows = across(values, top, floor, ctx.limit) * (leading.mH @ matrix_tangent @ w)
        turned = rows @ (w.mH @ x) + leading.mH @ x_tangent
        return 2 * inner_product(leading.mH @ x, turned)


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
        inner = inverse * (w.mH @ grad_vectors) + torch.diag_embed(grad_values)
        return hermitian_part(w @ inner @ w.mH), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise ForwardModeError(
            "backend `masked` has no forward-mode derivative. Use `exact` or `gram`."
        )


def _leading(vectors: Tensor, top: Tensor, limit: int) -> Tensor:
    return vectors[..., :limit] * top[..., :limit].unsqueeze(-2)
