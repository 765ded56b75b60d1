"""Derivatives of eigenvalues and projectors of a dense Hermitian R = W diag(l) Wᴴ.

`Eigenvalues`, `Projection` (P_K X) and `Capture` (‖P_K X‖²) take a decomposition of the detached
R as data and differentiate textbook formulas, never the eigensolver. Eigenvalues descend, and
gradients follow torch: dLoss = Re tr(Gᴴ dR).

    dl_i = w_iᴴ dR w_i          differentiate R w_i = l_i w_i and multiply by w_iᴴ (Magnus 1985, On
                                differentiating eigenvalues and eigenvectors, eq. 6)
    dP_K = W (M ∘ Wᴴ dR W) Wᴴ   M_ij = 1 / |l_i - l_j| if exactly one of i, j is in the top K, else
                                0: differentiate P R = R P and P² = P (Kato 1995, Perturbation
                                theory for linear operators, eq. II.2.14; Daleckii & Krein 1965)

Only gaps across the border K | K+1 divide: ties inside a cluster are harmless, also in dl_i for
symmetric functions of the l_i. Backward, with g = Wᴴ G and y = Wᴴ X for the gradient G of P_K X,
the gradient in R is the Hermitian part of A = W_K (M ∘ (g yᴴ + y gᴴ))_K Wᴴ, where (·)_K has the
top K rows. A is returned as it is: backward through `hermitian_part` or F Fᴴ symmetrises it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from trainer.linalg import hermitian_part, inner_product, real_part, squared_norm

from .once_differentiable import ForwardModeError


def descending_eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues [*batch, n], descending, and eigenvectors [*batch, n, n], as columns."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(-1), vectors.flip(-1)


def inverse_gaps(values: Tensor, top: Tensor, floor: Tensor, limit: int) -> Tensor:
    """Return the first `limit` >= K rows of M [*batch, limit, n] for eigenvalues [*batch, n].

    Args:
        top: marks the leading K eigenvalues [*batch, n].
        floor: least difference [*batch] to divide by. It alters only derivatives, and only those
            across a border that the rounding of the input leaves unresolved.
    """
    gap = values[..., :limit].unsqueeze(-1) - values.unsqueeze(-2)
    gap = torch.maximum(gap, floor[..., None, None])
    return (top[..., :limit].unsqueeze(-1) & ~top.unsqueeze(-2)) / gap


def columns(vectors: Tensor, index: Tensor | None) -> Tensor:
    """Return the columns `index` [*batch, m] of [*batch, n, n]; all of them for None."""
    if index is None:
        return vectors
    return vectors.gather(-1, index.unsqueeze(-2).expand(*vectors.shape[:-1], index.shape[-1]))


def save(ctx: Any, *tensors: Tensor | None) -> None:
    """Save the tensors for the derivatives of either mode."""
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


class Eigenvalues(Function):
    """(R, l, W, index or None) -> l[index] [*batch, m]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, values: Tensor, vectors: Tensor, index: Tensor | None) -> Tensor:
        """Return l[index]."""
        return values.clone() if index is None else values.gather(-1, index)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save W and the index."""
        save(ctx, *inputs[2:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradient in R, the sum of g_i w_i w_iᴴ."""
        w = columns(*ctx.saved_tensors)
        return (w * gradient.unsqueeze(-2)) @ w.mH, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        """Return w_iᴴ dR w_i."""
        w = columns(*ctx.saved_tensors)
        return real_part((w.conj() * (tangent @ w)).sum(-2))


class Projection(Function):
    """(R, X, W, W_K, M_K) -> P_K X = W_K W_Kᴴ X [*batch, N, c], for W_K [*batch, N, limit] with
    zeros in the columns beyond K, and M_K [*batch, limit, N]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, x: Tensor, w: Tensor, w_k: Tensor, m: Tensor) -> Tensor:
        """Return W_K W_Kᴴ X."""
        return w_k @ (w_k.mH @ x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save all but R."""
        save(ctx, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients A in R (see above) and P_K G in X."""
        x, w, w_k, m = ctx.saved_tensors
        g, y = w.mH @ gradient, w.mH @ x
        limit = m.shape[-2]
        rows = g[..., :limit, :] @ y.mH + y[..., :limit, :] @ g.mH
        grad_matrix = w_k @ ((m * rows) @ w.mH)
        grad_x = w_k @ (w_k.mH @ gradient) if ctx.needs_input_grad[1] else None
        return grad_matrix, grad_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, matrix_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        """Return dP_K X + P_K dX."""
        x, w, w_k, m = ctx.saved_tensors
        rows = m * (w_k.mH @ matrix_tangent @ w)
        rotated = w_k @ (rows @ (w.mH @ x)) + w @ (rows.mH @ (w_k.mH @ x))
        return rotated + w_k @ (w_k.mH @ x_tangent)


class Capture(Function):
    """(R, X, W, W_K, M_K), as for `Projection`, -> ‖P_K X‖²_F = Re tr(Xᴴ P_K X) [*batch]."""

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, x: Tensor, w: Tensor, w_k: Tensor, m: Tensor) -> Tensor:
        """Return ‖W_Kᴴ X‖²_F."""
        return squared_norm(w_k.mH @ x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save all but R."""
        save(ctx, *inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of `Projection` for G = 2 g P_K X."""
        x, w, w_k, m = ctx.saved_tensors
        weight = 2 * gradient[..., None, None]
        y = w.mH @ x
        rows = m * (y[..., : m.shape[-2], :] @ y.mH)
        grad_matrix = w_k @ ((weight * rows) @ w.mH)
        grad_x = weight * (w_k @ (w_k.mH @ x)) if ctx.needs_input_grad[1] else None
        return grad_matrix, grad_x, None, None, None

    @staticmethod
    def jvp(ctx: Any, matrix_tangent: Tensor, x_tangent: Tensor, *_: Any) -> Any:
        """Return Re tr(Xᴴ dP_K X) + 2 Re tr(Xᴴ P_K dX)."""
        x, w, w_k, m = ctx.saved_tensors
        rows = m * (w_k.mH @ matrix_tangent @ w)
        return 2 * inner_product(w_k.mH @ x, rows @ (w.mH @ x) + w_k.mH @ x_tangent)


class MaskedEigh(Function):
    """R -> (l, W), descending, with the eigenvector derivative of Kasim 2020 (arXiv 2011.04366):
    dW = W (E ∘ Wᴴ dR W), E_ij = 1 / (l_j - l_i), but 0 where |l_i - l_j| <= threshold · l_max.

    It fixes a phase for every eigenvector, so that only functions free of these phases have a
    derivative; that of a projector is exact only if no pair across its border is left out.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(matrix: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """Return eigenvalues and eigenvectors, descending."""
        return descending_eigh(matrix)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Save them and the threshold."""
        ctx.save_for_backward(*output)
        ctx.threshold = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad_values: Tensor, grad_vectors: Tensor) -> Any:
        """Return the Hermitian part of W (E ∘ Wᴴ G_W + diag(g_l)) Wᴴ."""
        values, w = ctx.saved_tensors
        difference = values.unsqueeze(-2) - values.unsqueeze(-1)  # l_j - l_i at (i, j)
        scale = values.abs().amax(-1)[..., None, None]
        resolved = difference.abs() > ctx.threshold * scale
        inverse = torch.where(resolved, 1 / torch.where(resolved, difference, 1), 0)
        inner = inverse * (w.mH @ grad_vectors) + torch.diag_embed(grad_values)
        return hermitian_part(w @ inner @ w.mH), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Raise ForwardModeError."""
        raise ForwardModeError(
            "backend `masked` has no forward-mode derivative. Use `exact` or `gram`."
        )
