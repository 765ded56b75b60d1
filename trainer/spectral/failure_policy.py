"""Failure policies for samples whose loss term, or its gradient, is not finite.

`guard` evaluates a per-sample term together with its gradient, so that a NaN gradient of a finite
value is found before it reaches a weight and can be traced to its sample and replaced; a hook in
the later backward pass could only drop it. That pass scales the stored gradients: nothing is
computed twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from trainer.config import FAILURE_POLICIES, require_choice

from .once_differentiable import refuse_second
from .spectrum_type import can_read, finite_samples


@dataclass(frozen=True, eq=False)
class Guarded:
    """A per-sample loss term whose derivative is already known.

    Attributes:
        term: [*batch], differentiable once; 0 with gradient 0 for skipped samples.
        failed: [*batch] bool, whether the value or gradient was not finite.
        skipped: number of samples without a term; a tensor, so that no device waits.
        replaced: number of samples with the proxy's term; a tensor.
    """

    term: Tensor
    failed: Tensor
    skipped: Tensor
    replaced: Tensor

    def mean(self) -> Tensor:
        """Return the mean over the samples that have a term; 0 if none has."""
        return self.term.sum() / (self.term.numel() - self.skipped).clamp(min=1)


def guard(
    term: Callable[..., Tensor],
    *operands: Tensor,
    on_failure: str = "raise",
    proxy: Callable[..., Tensor] | None = None,
) -> Guarded:
    """Evaluate `term(*operands)` [*batch] with its gradient and apply a failure policy.

    | on_failure | a failed sample |
    |---|---|
    | raise | keeps value and gradient, for the caller's check of losses and gradients |
    | skip_sample | has value 0 and gradient 0, and is left out of `mean` |
    | proxy | has the value and gradient of `proxy`, finite or not |

    An eigensolver that does not converge names no sample: under `raise` its
    `torch.linalg.LinAlgError` passes, under the others the whole batch has failed.

    Args:
        term: per-sample loss; sample i may depend on sample i of the operands only.
        operands: everything to differentiate in, the covariance or factor [*batch, N, n] first,
            then others [*batch, ...]; each with or without gradient.
        on_failure: one of `trainer.config.FAILURE_POLICIES`.
        proxy: for `proxy` only: like `term`; called if a sample has failed, or where that cannot
            be read without waiting (CUDA).

    Raises:
        ValueError: for an unknown policy, a proxy that is missing or would not be used, or an
            operand without the batch axes of the term.
        NotImplementedError: inside torch.func transforms.
    """
    require_choice("on_failure", on_failure, FAILURE_POLICIES)
    if (proxy is not None) != (on_failure == "proxy"):
        raise ValueError(
            "`proxy` is given exactly for on_failure `proxy`, but got "
            f"{'a' if proxy is not None else 'no'} proxy with {on_failure!r}. "
            "Hand over a function such as `dominance_loss`, or drop it."
        )
    if any(torch._C._functorch.is_functorch_wrapped_tensor(x) for x in operands):
        raise NotImplementedError(
            "`guard` looks at every gradient and decides, which torch.func cannot trace. Use it "
            "under plain autograd, or transform the term without it."
        )
    try:
        value, gradients = _value_and_gradients(term, operands)
    except torch.linalg.LinAlgError:
        if on_failure == "raise":
            raise
        value = torch.full_like(operands[0].detach()[..., 0, 0].real, torch.nan)
        gradients = [torch.zeros_like(x) for x in operands]
    failed = ~_succeeded(value, gradients)
    replaced = torch.zeros_like(failed)
    if on_failure == "skip_sample":
        value = torch.where(failed, 0, value)
        gradients = [torch.where(_over(failed, g), 0, g) for g in gradients]
    elif proxy is not None and not (can_read(failed) and not failed.any()):
        instead, slopes = _value_and_gradients(proxy, operands)
        value = torch.where(failed, instead.to(value.dtype), value)
        gradients = [
            torch.where(_over(failed, g), slope, g)
            for g, slope in zip(gradients, slopes, strict=True)
        ]
        replaced = failed & _succeeded(instead, slopes)
    skipped = failed if on_failure == "skip_sample" else torch.zeros_like(failed)
    known: Tensor = _Known.apply(value, *gradients, *operands)
    return Guarded(known, failed, skipped.sum(), replaced.sum())


class _Known(Function):
    """(value, *gradients, *operands) -> value, with the given gradient in each operand."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *gradients_and_operands: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients_and_operands)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        count = len(ctx.saved_tensors) // 2
        gradients, operands = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        scaled = [
            refuse_second(_over(upstream, g) * g, x.dtype, x) if wanted else None
            for g, x, wanted in zip(
                gradients, operands, ctx.needs_input_grad[1 + count :], strict=True
            )
        ]
        return None, *(None for _ in gradients), *scaled


def _value_and_gradients(
    term: Callable[..., Tensor], operands: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the detached term and its gradient in every operand; 0 where none is needed."""
    wanted = [torch.is_grad_enabled() and x.requires_grad for x in operands]
    leaves = [x.detach().requires_grad_(w) for x, w in zip(operands, wanted, strict=True)]
    value = term(*leaves)
    for x in operands:
        if x.shape[: value.dim()] != value.shape:
            raise ValueError(
                "every operand must have the batch axes of the term in front, but got "
                f"{tuple(x.shape)=}, {tuple(value.shape)=}. Expand it, or close the term over it."
            )
    gradients = [torch.zeros_like(x) for x in operands]
    if value.requires_grad:
        places = [place for place, needed in enumerate(wanted) if needed]
        found = torch.autograd.grad(value.sum(), [leaves[p] for p in places], allow_unused=True)
        for place, gradient in zip(places, found, strict=True):
            if gradient is not None:
                gradients[place] = gradient
    return value.detach(), gradients


def _succeeded(value: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    finite = torch.isfinite(value)
    for gradient in gradients:
        finite = finite & finite_samples(gradient, gradient.dim() - value.dim())
    return finite


def _over(per_sample: Tensor, like: Tensor) -> Tensor:
    """Return [*batch] with trailing axes of size 1, as many as `like` has."""
    return per_sample.reshape(per_sample.shape + (1,) * (like.dim() - per_sample.dim()))
