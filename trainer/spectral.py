"""Spectra of covariances, and what the eigengap losses need from them.

`spectrum(R)` or `spectrum(factor=F)` decomposes once; the `Spectrum` hands out eigenvalues, gaps
and the action of spectral projectors, all differentiable once and batched. Eigenvalues descend,
K = `num_sources` is an int or an integer tensor, one per sample, and batch axes lead and are free.
Eigenvectors never leave: only functions that do not depend on their arbitrary phases (and, inside
a cluster, their arbitrary rotation) do.

A sample with a NaN or an infinity anywhere in its input has NaN results, and does not touch its
neighbours.

Formulas: docs/eigengap.md. Derivatives: trainer/_spectral_derivatives.py.
"""

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer._spectral_backends import (
    BACKENDS,
    FLOOR_ROUNDOFFS,
    Problem,
    Solution,
    resolve_auto,
)
from trainer._spectral_derivatives import (
    ForwardModeError,
    SecondDerivativeError,
    hermitian_part,
    once,
)

__all__ = ["BACKENDS", "ForwardModeError", "SecondDerivativeError", "Spectrum", "spectrum"]

_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues and spectral projectors of a batch of Hermitian matrices; made by `spectrum`.

    Attributes:
        num_elements: N.
        values: eigenvalues [*batch, N], descending, loading included.
        trace: tr R [*batch], loading included.
    """

    num_elements: int
    values: Tensor
    trace: Tensor
    _solution: Solution
    _finite: Tensor
    _roundoff: float
    _dtype: torch.dtype
    _whitener: Tensor | None

    def gap(self, num_sources: int | Tensor) -> Tensor:
        """l_K - l_{K+1} [*batch], in units of R. Loading cancels exactly."""
        k = self._source_number(num_sources)
        values = self._solution.values
        pair = torch.stack((k - 1, k), -1).clamp(0, values.shape[-1] - 1)
        upper, lower = values.gather(-1, pair).unbind(-1)
        return self._poisoned(upper - lower, k)

    def ratio(self, num_sources: int | Tensor) -> Tensor:
        """(l_K - l_{K+1}) / (l_K + l_{K+1}) [*batch], in [0, 1) for R > 0.

        The denominator is floored at 8 roundoffs of the largest eigenvalue: 0/0 gives 0.
        """
        k = self._source_number(num_sources)
        values = self._solution.values
        pair = torch.stack((k - 1, k), -1).clamp(0, values.shape[-1] - 1)
        upper, lower = values.gather(-1, pair).unbind(-1)
        total = upper + lower + 2 * self._solution.shift
        return self._poisoned((upper - lower) / torch.maximum(total, self._floor()), k)

    def energy(self, num_sources: int | Tensor) -> Tensor:
        """sum_{i<=K} l_i / tr R [*batch] (Ky Fan); smooth while the K | K+1 gap is open.

        The denominator is floored at 8 roundoffs of the largest eigenvalue.
        """
        k = self._source_number(num_sources)
        kept, _ = self._counts(k)
        shifted = self._solution.values + self._solution.shift.unsqueeze(-1)
        trace = self._solution.trace + self.num_elements * self._solution.shift
        return self._poisoned((kept * shifted).sum(-1) / torch.maximum(trace, self._floor()), k)

    def leak(self, num_sources: int | Tensor) -> Tensor:
        """sum_{i<=K<j} l_i l_j / (l_i - l_j)² [*batch]; 2 leak / L is E‖P̂_K - P_K‖²_F of a sample
        covariance of L snapshots, to first order.

        Differences are floored at 8 roundoffs of the largest eigenvalue: at a boundary tie the
        leak is huge and finite, and its gradient still opens the gap. Computed in double.
        """
        k = self._source_number(num_sources)
        kept, left = self._counts(k)
        scale = self._solution.scale.double().unsqueeze(-1)
        shifted = self._solution.values.double() + self._solution.shift.double().unsqueeze(-1)
        relative = shifted / scale
        weight = kept.unsqueeze(-1) * left.unsqueeze(-2)
        difference = relative.unsqueeze(-1) - relative.unsqueeze(-2)
        difference = torch.where(weight > 0, difference, 1)
        # the value is floored, the derivative is that of the bare difference
        lift = (FLOOR_ROUNDOFFS * self._roundoff - difference.detach()).clamp(min=0)
        terms = relative.unsqueeze(-1) * relative.unsqueeze(-2) / (difference + lift).square()
        return self._poisoned((weight * terms).sum((-2, -1)), k)

    def apply(self, num_sources: int | Tensor, x: Tensor) -> Tensor:
        """P_K X [*batch, N, k] for X [..., N, k], P_K the projector onto the top K eigenvectors.

        With a metric B, P_K = B V_K V_Kᴴ with Vᴴ B V = I: the projector onto span(B v_1 .. B v_K),
        where the steering vectors of R = A P Aᴴ + s² B lie, along the span of the other B v_j.
        """
        k = self._source_number(num_sources)
        result = self._projected(k, self._whitened(x))
        if self._whitener is not None:
            result = self._whitener @ result
        return self._poisoned(result, k)

    def capture(self, num_sources: int | Tensor, basis: Tensor) -> Tensor:
        """‖P_K U‖²_F [*batch] for U [..., N, k]: K for an orthonormal U that spans the top K.

        Zero columns of U count nothing. With a metric B the norm is that of B⁻¹, in which P_K is
        orthogonal: hand over a U with Uᴴ B⁻¹ U = I.
        """
        k = self._source_number(num_sources)
        projected = self._projected(k, self._whitened(basis))
        energy = (projected * projected.conj()).real.sum((-2, -1))
        return self._poisoned(energy, k)

    @property
    def residual(self) -> Tensor:
        """‖R W - W diag(l)‖_F / ‖R‖_F [*batch] of the decomposition in use, detached: of G = Fᴴ F
        for `gram`, of the whitened R with a metric."""
        return torch.where(self._finite, self._solution.check()[0], torch.nan)

    @property
    def orthonormality(self) -> Tensor:
        """max |Wᴴ W - I| [*batch] of the eigenvectors in use, detached."""
        return torch.where(self._finite, self._solution.check()[1], torch.nan)

    def _source_number(self, num_sources: int | Tensor) -> Tensor:
        """K [*batch]; one outside 1 .. N-1 raises ValueError, or where looking would stall (CUDA)
        or cannot be done (vmap), gives NaN."""
        k = torch.as_tensor(num_sources, device=self.values.device)
        if k.is_floating_point() or k.is_complex() or k.dtype == torch.bool:
            raise ValueError(
                f"`num_sources` must be an int or an integer tensor, but got {k.dtype}. "
                "Round it first."
            )
        if _can_look(k) and bool(((k < 1) | (k >= self.num_elements)).any()):
            raise ValueError(
                f"`1 <= num_sources < num_elements` must hold, but got num_sources from "
                f"{int(k.min())} to {int(k.max())}, num_elements={self.num_elements}. "
                "Use a larger panel or fewer sources."
            )
        return k.to(torch.int64).expand(self._solution.scale.shape)

    def _counts(self, k: Tensor) -> tuple[Tensor, Tensor]:
        """How many of each distinct eigenvalue are among the top K, and how many are not."""
        distinct = self._solution.values.shape[-1]
        position = torch.arange(distinct, device=k.device)
        size = torch.ones_like(position)
        size[-1] = self._solution.multiplicity
        kept = torch.minimum((k.unsqueeze(-1) - position).clamp(min=0), size)
        return kept, size - kept

    def _projected(self, k: Tensor, x: Tensor) -> Tensor:
        position = torch.arange(self._solution.values.shape[-1], device=k.device)
        return self._solution.project(position < k.unsqueeze(-1), x)

    def _whitened(self, x: Tensor) -> Tensor:
        if x.shape[-2] != self.num_elements:
            raise ValueError(
                f"`x.shape[-2] == num_elements` must hold, but got {tuple(x.shape)=}, "
                f"num_elements={self.num_elements}. Columns are vectors over the elements."
            )
        x = once(x, self._dtype).expand(*self._solution.scale.shape, *x.shape[-2:])
        if self._whitener is None:
            return x
        return torch.linalg.solve_triangular(
            self._whitener, x.to(self._whitener.dtype), upper=False
        )

    def _floor(self) -> Tensor:
        return FLOOR_ROUNDOFFS * self._roundoff * self._solution.scale

    def _poisoned(self, result: Tensor, k: Tensor) -> Tensor:
        valid = self._finite & (k >= 1) & (k < self.num_elements)
        valid = valid.reshape(valid.shape + (1,) * (result.dim() - valid.dim()))
        narrow = self._dtype if result.is_complex() else self.values.dtype
        return torch.where(valid, result.to(narrow), torch.nan)


def spectrum(
    covariance: Tensor | None = None,
    *,
    factor: Tensor | None = None,
    shift: float | Tensor = 0.0,
    backend: str = "auto",
    deg_thresh: float | None = None,
    metric: Tensor | None = None,
) -> Spectrum:
    """Decomposes R = covariance + shift I, or R = F Fᴴ + shift I, once.

    Args:
        covariance: dense R [*batch, N, N]; its Hermitian part is used.
        factor: F [*batch, N, r], instead of `covariance`.
        shift: diagonal loading, a number or [*batch], absolute (relative loading is the caller's:
            eps · tr(R) / N). With a metric it loads with shift · B.
        backend: a name in `BACKENDS`.
        deg_thresh: for `masked` only: relative to the largest eigenvalue; None is 10 unit
            roundoffs.
        metric: B > 0 [*batch, N, N]: solves R v = l B v by whitening with its Cholesky factor,
            differentiable in R (or F) and B.

    Raises:
        ValueError: for an unknown backend, not exactly one of covariance and factor, `gram`
            without a factor of fewer columns than rows, a `deg_thresh` that would not be used, or
            a metric that is not positive definite (on CUDA and under vmap: NaN for that sample).
    """
    given = covariance if covariance is not None else factor
    if given is None or (covariance is not None and factor is not None):
        raise ValueError(
            "exactly one of `covariance` and `factor` must be given, but got "
            f"{'both' if given is not None else 'neither'}. Drop one, or hand one over."
        )
    _check_arguments(backend, covariance, factor, deg_thresh)
    *batch, num_elements, _ = given.shape
    dtype = given.dtype
    resolved = resolve_auto(factor) if backend == "auto" else backend
    # the r x r problem is small enough to be solved in double whatever the dtype of F
    wide = torch.promote_types(dtype, torch.float64) if resolved == "gram" else dtype
    real = torch.empty((), dtype=dtype).real.dtype

    load = torch.as_tensor(shift, dtype=None if isinstance(shift, Tensor) else torch.float64)
    load = once(load.to(given.device), torch.empty((), dtype=wide).real.dtype).expand(batch)
    finite = torch.isfinite(given).all(-1).all(-1) & torch.isfinite(load)
    whitener = None
    if metric is not None:
        finite = finite & torch.isfinite(metric).all(-1).all(-1)
        whitener, finite = _cholesky(once(metric, wide), finite)
    operand = torch.where(finite[..., None, None], once(given, wide), 0)
    if factor is None:
        operand = hermitian_part(operand)
    if whitener is not None:
        operand = torch.linalg.solve_triangular(whitener, operand, upper=False)
        if factor is None:
            operand = torch.linalg.solve_triangular(whitener, operand.mH, upper=False)
            operand = hermitian_part(operand)
    solution = BACKENDS[resolved](
        Problem(
            dense=operand if factor is None else None,
            factor=operand if factor is not None else None,
            shift=torch.where(finite, load, 0),
            roundoff=torch.finfo(real).eps / 2,
            deg_thresh=deg_thresh,
        )
    )
    values = (solution.values + solution.shift.unsqueeze(-1)).to(real)
    if solution.multiplicity > 1:
        spare = values[..., -1:].expand(*values.shape[:-1], solution.multiplicity - 1)
        values = torch.cat((values, spare), -1)
    trace = (solution.trace + num_elements * solution.shift).to(real)
    return Spectrum(
        num_elements=num_elements,
        values=torch.where(finite.unsqueeze(-1), values, torch.nan),
        trace=torch.where(finite, trace, torch.nan),
        _solution=solution,
        _finite=finite,
        _roundoff=torch.finfo(real).eps / 2,
        _dtype=dtype,
        _whitener=whitener,
    )


def _check_arguments(
    backend: str, covariance: Tensor | None, factor: Tensor | None, deg_thresh: float | None
) -> None:
    if backend not in BACKENDS:
        near = difflib.get_close_matches(backend, BACKENDS, n=1)
        raise ValueError(
            f"`backend` must be one of {', '.join(BACKENDS)}, but got {backend!r}."
            + (f" Did you mean `{near[0]}`?" if near else "")
        )
    if deg_thresh is not None and not (backend == "masked" and 0 < deg_thresh < 1):
        raise ValueError(
            "`deg_thresh` in (0, 1) is for backend `masked` only, but got "
            f"{deg_thresh=}, {backend=}. It is relative to the largest eigenvalue; drop it, or "
            "try 1e-6."
        )
    given = covariance if covariance is not None else factor
    assert given is not None
    if given.dim() < 2 or given.dtype not in _DTYPES or given.shape[-1] < 1:
        raise ValueError(
            "a covariance or factor must be a float or complex matrix in single or double "
            f"precision with batch axes before it, but got {given.dtype} of shape "
            f"{tuple(given.shape)}. Convert it."
        )
    if covariance is not None and covariance.shape[-1] != covariance.shape[-2]:
        raise ValueError(
            f"`covariance` must be square, but got {tuple(covariance.shape)=}. "
            "Hand a factor over as `factor=`."
        )
    if backend == "gram" and resolve_auto(factor) != "gram":
        got = "no factor" if factor is None else f"{tuple(factor.shape)=}"
        raise ValueError(
            f"backend `gram` needs a factor [*batch, N, r] with r < N, but got {got}. "
            "Use `exact` (or `auto`, which chooses)."
        )


def _cholesky(metric: Tensor, finite: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factor of B (of I where `finite` is False or B is not positive definite), and
    `finite` without the latter."""
    identity = torch.eye(metric.shape[-1], dtype=metric.dtype, device=metric.device)
    usable = torch.where(finite[..., None, None], hermitian_part(metric), identity)
    with torch.no_grad():
        info = torch.linalg.cholesky_ex(usable)[1]
    positive = info == 0
    if _can_look(positive) and not bool(positive.all()):
        sample = (~positive).nonzero()[0].tolist()
        raise ValueError(
            f"`metric` must be positive definite, but sample {sample} is not. Load its diagonal."
        )
    usable = torch.where(positive[..., None, None], usable, identity)
    return torch.linalg.cholesky_ex(usable)[0], finite & positive


def _can_look(x: Tensor) -> bool:
    """Whether reading a value of `x` is possible (not in torch.func) and free (not on a GPU)."""
    return x.device.type == "cpu" and not torch._C._functorch.is_functorch_wrapped_tensor(x)
