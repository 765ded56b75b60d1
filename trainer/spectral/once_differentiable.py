"""A guard against second derivatives, which the formulas of this room do not have.

They treat the decomposition as data: differentiated again, they would hold eigenvectors constant
and give finite, plausible, wrong numbers. `torch.autograd.function.once_differentiable` does not
prevent that under `torch.autograd.grad`, so every input of a spectrum enters through
`once_differentiable`, and every derivative leaves through `refuse_second`.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function, forward_ad

from trainer.linalg import real_part


class SecondDerivativeError(RuntimeError):
    """A second derivative of a spectral quantity, which has a first derivative only."""

    def __init__(self) -> None:
        super().__init__(
            "a spectrum may be differentiated at most once, but a second derivative was asked "
            "for. Drop `create_graph=True` (or the outer torch.func transform), or detach the "
            "first derivative."
        )


class ForwardModeError(NotImplementedError):
    """Forward-mode differentiation of a backend that has reverse mode only."""


class _Refuse(Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(derivative: Tensor, dtype: torch.dtype, *anchors: Tensor) -> Tensor:
        return derivative.to(dtype, copy=True)

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
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, anchor: Tensor, dtype: torch.dtype) -> Tensor:
        return x.to(dtype, copy=True)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.save_for_forward(*inputs[:2])
        ctx.dtype = output.dtype

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, anchor = ctx.saved_tensors
        same_field = gradient if x.is_complex() else real_part(gradient)
        return refuse_second(same_field, x.dtype, x, anchor), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Any:
        return refuse_second(tangent, ctx.dtype, *ctx.saved_tensors)


def once_differentiable(x: Tensor, dtype: torch.dtype, anchor: Tensor | None = None) -> Tensor:
    """Return `x` in `dtype`; its second derivatives raise SecondDerivativeError.

    Args:
        anchor: another input that the first derivative in `x` depends on; a derivative of that in
            `anchor` is a second one.

    Raises:
        ValueError: for a complex `x` and a real `dtype`.
    """
    if x.is_complex() and not dtype.is_complex:
        raise ValueError(
            f"a real number is needed here, but got {x.dtype}: a shift is real, and a real R (or "
            "F) takes a real metric and real vectors. Convert R (or F) to complex."
        )
    if not is_differentiated(x):
        return x.to(dtype)
    result: Tensor = _Once.apply(x, x if anchor is None else anchor, dtype)
    return result


def is_differentiated(x: Tensor) -> bool:
    """Return whether `x` takes part in differentiation: reverse mode, forward mode, torch.func."""
    return (
        x.requires_grad
        or torch._C._functorch.is_functorch_wrapped_tensor(x)
        or forward_ad.unpack_dual(x).tangent is not None
    )


def refuse_second(derivative: Tensor, dtype: torch.dtype, *anchors: Tensor) -> Tensor:
    """Return `derivative` in `dtype`; differentiating it raises SecondDerivativeError.

    Args:
        anchors: the inputs it was taken at. They make it depend on them in the graph, so that
            the refusal lies on every path, in reverse and in forward mode.
    """
    result: Tensor = _Refuse.apply(derivative, dtype, *anchors)
    return result
