"""The `Spectrum` that `spectrum` returns: eigenvalues, gaps and the action of projectors.

Eigenvectors stay inside: every quantity is free of their arbitrary phases and, for equal
eigenvalues, of their arbitrary rotation.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from trainer.config import require
from trainer.linalg import description_lengths, mdl_penalty, real_part

from .backends import FLOOR_ROUNDOFFS
from .once_differentiable import once_differentiable
from .problem import Solution


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and spectral projectors of a batch of Hermitian matrices R, loading included.

    K = `num_sources` is an int or an integer tensor, one per sample, in 1 .. N-1. Another K raises
    ValueError, or gives NaN for its sample where tensors cannot be read without waiting (CUDA) or
    at all (torch.func). A sample whose input is not finite is NaN. Every quantity may be
    differentiated once.

    Attributes:
        num_elements: N.
    """

    num_elements: int
    _solution: Solution
    _finite: Tensor
    _dtype: torch.dtype
    _whitener: Tensor | None
    _operand: Tensor
    _load: Tensor

    @cached_property
    def values(self) -> Tensor:
        """Eigenvalues [*batch, N], descending."""
        values = self._distinct()
        if spare := self.num_elements - values.shape[-1]:
            values = torch.cat((values, values[..., -1:].expand(*values.shape[:-1], spare)), -1)
        return torch.where(self._finite.unsqueeze(-1), values.to(self._real), torch.nan)

    @cached_property
    def trace(self) -> Tensor:
        """tr R [*batch]; with a metric B, tr B⁻¹R."""
        return torch.where(self._finite, self._trace().to(self._real), torch.nan)

    def gap(self, num_sources: int | Tensor) -> Tensor:
        """Return l_K - l_{K+1} [*batch], in units of R. Loading cancels exactly."""
        k, _ = self._source_number(num_sources)
        upper, lower = self._border(k)
        return self._nan_where_invalid(upper - lower, k)

    def ratio(self, num_sources: int | Tensor) -> Tensor:
        """Return (l_K - l_{K+1}) / (l_K + l_{K+1}) [*batch], in [0, 1] for R >= 0.

        The denominator is floored at 8 roundoffs of the largest eigenvalue, so that 0/0 gives 0.
        """
        k, _ = self._source_number(num_sources)
        upper, lower = self._border(k)
        total = upper + lower + 2 * self._solution.shift
        return self._nan_where_invalid((upper - lower) / torch.maximum(total, self._floor), k)

    def energy(self, num_sources: int | Tensor) -> Tensor:
        """Return sum_{i<=K} l_i / tr R [*batch] (Ky Fan); smooth while l_K > l_{K+1}.

        The denominator is floored at 8 roundoffs of the largest eigenvalue.
        """
        k, _ = self._source_number(num_sources)
        kept, _ = self._counts(k)
        share = (kept * self._distinct()).sum(-1) / torch.maximum(self._trace(), self._floor)
        return self._nan_where_invalid(share, k)

    def leak(self, num_sources: int | Tensor) -> Tensor:
        """Return the leak sum_{i<=K<j} l_i l_j / (l_i - l_j)² [*batch].

        2 leak / L is E‖P̂_K - P_K‖²_F of a sample covariance of L snapshots, to first order
        (docs/eigengap.md). Differences are floored at 8 roundoffs of the largest eigenvalue: for
        l_K = l_{K+1} the leak is large and finite, and its gradient still opens the gap. Computed
        in double precision.
        """
        k, limit = self._source_number(num_sources)
        kept, left = self._counts(k)
        relative = self._distinct().double() / self._solution.scale.double().unsqueeze(-1)
        rows = relative[..., :limit].unsqueeze(-1)
        weight = kept[..., :limit].unsqueeze(-1) * left.unsqueeze(-2)
        difference = rows - relative.unsqueeze(-2)
        difference = torch.where(weight > 0, difference, 1)
        # the floor alters the value only; the derivative is that of the difference itself
        lift = (FLOOR_ROUNDOFFS * self._roundoff - difference.detach()).clamp(min=0)
        terms = rows * relative.unsqueeze(-2) / (difference + lift).square()
        return self._nan_where_invalid((weight * terms).sum((-2, -1)), k)

    def straddling(self, num_sources: int | Tensor, threshold: float) -> Tensor:
        """Return (l_K / l_1 - t)(l_{K+1} / l_1 - t) [*batch] for a threshold t.

        Of R >= 0 it is least, -t (1 - t), where l_K = l_1 and l_{K+1} = 0. The denominator is
        floored at 8 roundoffs of the largest eigenvalue.
        """
        k, _ = self._source_number(num_sources)
        first = self._solution.values(torch.zeros_like(k).unsqueeze(-1)).squeeze(-1)
        largest = torch.maximum(first + self._solution.shift, self._floor)
        upper, lower = ((x + self._solution.shift) / largest for x in self._border(k))
        return self._nan_where_invalid((upper - threshold) * (lower - threshold), k)

    def order_entropy(
        self,
        num_sources: int | Tensor,
        *,
        num_snapshots: int,
        max_sources: int,
        temperature: float,
    ) -> Tensor:
        """Return -ln q_K [*batch], q = softmax(-MDL(k) / temperature) over k = 0 ... max_sources.

        At temperature 1, q is Schwarz's approximation of the posterior of the number of sources
        (`model_order`). Eigenvalues are floored at 8 roundoffs of the largest, in value only:
        their derivative still raises those of 0. Computed in double precision.
        """
        k, _ = self._source_number(num_sources)
        distinct = self._distinct().double() / self._solution.scale.double().unsqueeze(-1)
        size = min(self.num_elements, num_snapshots)
        last = distinct[..., -1:].expand(*distinct.shape[:-1], max(size - distinct.shape[-1], 0))
        relative = torch.cat((distinct, last), -1)[..., :size]
        lift = (FLOOR_ROUNDOFFS * self._roundoff - relative.detach()).clamp(min=0)
        penalty = mdl_penalty(num_snapshots)
        lengths = description_lengths(relative + lift, num_snapshots, max_sources, penalty)
        log_share = (-lengths / temperature).log_softmax(-1)
        index = k.clamp(0, lengths.shape[-1] - 1).unsqueeze(-1)
        return self._nan_where_invalid(-log_share.gather(-1, index).squeeze(-1), k)

    def apply(self, num_sources: int | Tensor, x: Tensor) -> Tensor:
        """Return P_K X [*batch, N, c] of X [..., N, c]; P_K projects onto the top K eigenvectors.

        With a metric B, P_K = B V_K V_Kᴴ for Vᴴ B V = I: the projector onto span(B v_1 .. B v_K),
        which holds the steering vectors of R = A P Aᴴ + s² B, along the span of the other B v_j.
        """
        k, limit = self._source_number(num_sources)
        with _own_precision(self._finite):
            result = self._solution.project(k, limit, self._whitened(x))
            if self._whitener is not None:
                result = self._whitener @ result
        return self._nan_where_invalid(result, k, finite_samples(x, 2))

    def capture(self, num_sources: int | Tensor, basis: Tensor) -> Tensor:
        """Return ‖P_K U‖²_F [*batch] of U [..., N, c]; it is K where orthonormal U span the top K.

        Zero columns of U add nothing. With a metric B the norm is that of B⁻¹, in which P_K is
        orthogonal, and U should satisfy Uᴴ B⁻¹ U = I.
        """
        k, limit = self._source_number(num_sources)
        with _own_precision(self._finite):
            captured = self._solution.capture(k, limit, self._whitened(basis))
        return self._nan_where_invalid(captured, k, finite_samples(basis, 2))

    @torch.no_grad()
    def unloaded_trace(self) -> Tensor:
        """Return tr R [*batch] without the loading, detached; with a metric, tr B⁻¹R."""
        loading = self.num_elements * (self._solution.shift - self._load)
        trace = self._solution.trace().detach() + loading
        return torch.where(self._finite, trace.to(self._real), torch.nan)

    @torch.no_grad()
    def negative_share(self) -> Tensor:
        """Return the share of sum |l_i| that negative eigenvalues have [*batch], detached.

        It is 0 for R >= 0 and 1 for -R; of R = 0 it is 0.
        """
        values = self._distinct()
        spare = self.num_elements - values.shape[-1]
        # singular values (`svd`) have no signs, but the trace has them
        total = values.abs().sum(-1) + spare * values[..., -1].abs()
        share = (1 - self._trace() / torch.where(total > 0, total, 1)) / 2
        return torch.where(total > 0, share, 0).to(self._real)

    @torch.no_grad()
    def basis_error(self, num_sources: int | Tensor, basis: Tensor) -> Tensor:
        """Return max |Uᴴ U - D| [*batch] of U [*batch, N, c], detached; Uᴴ B⁻¹ U with a metric.

        D is 1 for columns that are not zero; unless there are K of them, the error is infinite.

        Raises:
            ValueError: for other batch axes, which would broadcast, or no column.
        """
        k, _ = self._source_number(num_sources)
        batch = tuple(self._finite.shape)
        if basis.shape[:-2] != batch or basis.shape[-1:] == (0,):
            raise ValueError(
                f"a basis U must be [*batch, num_elements, columns], {batch=} as of the spectrum, "
                f"but got {tuple(basis.shape)}. Of one for all samples hand over "
                "U.expand(*batch, -1, -1)."
            )
        with _own_precision(self._finite):
            u = self._whitened(basis.detach())
            gram = u.mH @ u
        given = real_part(torch.diagonal(gram, dim1=-2, dim2=-1)) > 0.5
        error = (gram - torch.diag_embed(given.to(gram.dtype))).abs().amax((-2, -1))
        error = error.to(self._real)  # NaN of a basis that is not finite
        return torch.where((given.sum(-1) != k) & ~error.isnan(), torch.inf, error)

    @property
    def residual(self) -> Tensor:
        """‖R W - W diag(l)‖_F / ‖R‖_F [*batch] of the decomposition in use, detached: of G = Fᴴ F
        for `gram`, of the whitened R with a metric."""
        return torch.where(self._finite, self._solution.check()[0], torch.nan)

    @property
    def orthonormality(self) -> Tensor:
        """max |Wᴴ W - I| [*batch] of the eigenvectors in use, detached."""
        return torch.where(self._finite, self._solution.check()[1], torch.nan)

    @property
    def _real(self) -> torch.dtype:
        return self._dtype.to_real()

    @property
    def _roundoff(self) -> float:
        return torch.finfo(self._dtype).eps / 2

    @property
    def _floor(self) -> Tensor:
        return FLOOR_ROUNDOFFS * self._roundoff * self._solution.scale

    def _distinct(self) -> Tensor:
        return self._solution.values(None) + self._solution.shift.unsqueeze(-1)

    def _trace(self) -> Tensor:
        return self._solution.trace() + self.num_elements * self._solution.shift

    def _border(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return l_K and l_{K+1} without shift; arbitrary for a K out of range."""
        index = torch.stack((k - 1, k), -1).clamp(0, self.num_elements - 1)
        upper, lower = self._solution.values(index).unbind(-1)
        return upper, lower

    def _counts(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """Return how often each listed eigenvalue is among the top K, and how often it is not."""
        position = torch.arange(self._solution.distinct, device=k.device)
        last = position == self._solution.distinct - 1
        size = torch.where(last, self.num_elements - position, 1)
        kept = torch.minimum((k.unsqueeze(-1) - position).clamp(min=0), size)
        return kept, size - kept

    def _source_number(self, num_sources: int | Tensor) -> tuple[Tensor, int]:
        """Return K [*batch] and an upper bound of it that is known without waiting."""
        k = torch.as_tensor(num_sources, device=self._finite.device)
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise ValueError(
                f"`num_sources` must be an int or an integer tensor, but got {k.dtype}. "
                "Convert it."
            )
        limit = self.num_elements
        if isinstance(num_sources, int):
            smallest = limit = num_sources
        elif can_read(k) and k.numel() > 0:
            smallest, limit = int(k.min()), int(k.max())
        else:
            smallest, limit = 1, self.num_elements - 1
        require(
            smallest >= 1 and limit < self.num_elements,
            "1 <= num_sources < num_elements",
            f"num_sources from {smallest} to {limit}, num_elements={self.num_elements}",
            "Use a larger panel or fewer sources.",
        )
        return over_batch(k.to(torch.int64), self._finite.shape, 0, "num_sources"), limit

    def _whitened(self, x: Tensor) -> Tensor:
        require_tensor("X", x)
        if x.dim() < 2 or x.shape[-2] != self.num_elements:
            raise ValueError(
                "the columns of X [..., num_elements, c] must be vectors over the elements, but "
                f"got {tuple(x.shape)=}, num_elements={self.num_elements}. Transpose it?"
            )
        # eigenvectors of `gram` are double: so is what it works on
        wide = torch.promote_types(self._dtype, self._solution.scale.dtype)
        x = over_batch(once_differentiable(x, wide, self._operand), self._finite.shape, 2, "X")
        if self._whitener is None:
            return x
        return torch.linalg.solve_triangular(self._whitener, x, upper=False)

    def _nan_where_invalid(self, result: Tensor, k: Tensor, given: Tensor | None = None) -> Tensor:
        valid = self._finite & (k >= 1) & (k < self.num_elements)
        if given is not None:
            valid = valid & given
        valid = valid.reshape(valid.shape + (1,) * (result.dim() - valid.dim()))
        narrow = self._dtype if result.is_complex() else self._real
        return torch.where(valid, result.to(narrow), torch.nan)


def require_tensor(name: str, x: object) -> None:
    """Raise TypeError for a NumPy array, a list or anything else that is not a tensor."""
    if isinstance(x, Tensor):
        return
    kind = f"{type(x).__module__}.{type(x).__qualname__}".removeprefix("builtins.")
    remedy = "torch.from_numpy" if kind == "numpy.ndarray" else "torch.tensor"
    raise TypeError(
        f"`{name}` must be a torch.Tensor, but got {kind}. Convert it by {remedy}(...)."
    )


def narrowed_by_autocast(x: Tensor) -> bool:
    """Return whether matrix products of `x` would be taken in fewer bits here."""
    return x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type)


def _own_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off for the device of `x`, if it is on."""
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return nullcontext()


def finite_samples(x: Tensor, sample_axes: int) -> Tensor:
    """Return whether all entries over the last `sample_axes` axes are finite [*batch]."""
    # 0 · x sums to 0 exactly if all x are finite; ten times as fast as all(isfinite(x))
    if sample_axes == 0:
        return torch.isfinite(x)
    return (0 * x.detach()).sum(tuple(range(-sample_axes, 0))) == 0


def finite_gram(x: Tensor) -> Tensor:
    """Return whether X [*batch, N, r] and Xᴴ X have finite entries only [*batch]."""
    parts = torch.view_as_real(x.detach().resolve_conj()) if x.is_complex() else x.detach()
    own = tuple(range(-3 if x.is_complex() else -2, 0))
    return torch.isfinite(torch.linalg.vector_norm(parts, dim=own))


def over_batch(x: Tensor, batch: Sequence[int], own_axes: int, name: str) -> Tensor:
    """Return `x` with all but its last `own_axes` axes broadcast to `batch`.

    Raises:
        ValueError: if they do not broadcast to it.
    """
    split = x.dim() - own_axes
    own, leading = x.shape[split:], x.shape[:split]
    aligned = zip(reversed(leading), reversed(batch), strict=False)
    if len(leading) > len(batch) or any(have not in (1, want) for have, want in aligned):
        raise ValueError(
            f"`{name}` must have the batch axes {tuple(batch)} of the spectrum, or axes that "
            f"broadcast to them, but got {tuple(leading)}. Add axes to R (or F) first."
        )
    return x.expand((*batch, *own))


def can_read(x: Tensor) -> bool:
    """Return whether values of `x` can be read at all (torch.func: no) and at once (GPU: no)."""
    return x.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(x)
