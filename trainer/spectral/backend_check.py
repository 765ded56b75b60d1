"""The check of one spectral backend at one problem size: accuracy and time.

The residual and the orthonormality of the decomposition are compared with the bound of a
backward-stable eigensolver, on a batch of random covariances and on one in which half of all
eigenvalues are equal.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.linalg import squared_norm

from .decomposition import spectrum
from .losses import eigengap_loss
from .spectrum_type import Spectrum

ROUNDOFFS_PER_ELEMENT = 10
"""A backward-stable eigensolver errs by a small multiple of N u, a broken one by O(1)."""
CPU_BATCH = 16
"""Largest batch measured on a CPU, where time is proportional to the batch."""
SOURCES = 2


@dataclass(frozen=True)
class ProblemSize:
    """The shape of the operand that a training hands to a spectral backend.

    Attributes:
        num_elements: N.
        rank: r, columns of the factor, or None for a dense R.
        batch_size: B.
    """

    num_elements: int
    rank: int | None
    batch_size: int

    @property
    def resolves_to(self) -> str:
        """The backend that `auto` stands for."""
        rank = self.rank
        return "gram" if rank is not None and rank < self.num_elements else "exact"

    @property
    def why(self) -> str:
        """The reason for `resolves_to`, in a few words."""
        if self.rank is None:
            return f"R is dense, {self.num_elements} x {self.num_elements}"
        relation = "<" if self.rank < self.num_elements else ">="
        return f"F has {self.rank} columns {relation} {self.num_elements} rows"


@dataclass(frozen=True)
class BackendCheck:
    """Accuracy and time of one backend at one size.

    Attributes:
        backend: name in `trainer.spectral.BACKENDS`.
        size: the size asked for.
        measured_batch: number of samples decomposed; smaller than the batch on a CPU.
        residual: largest ‖R W - W diag(l)‖_F / ‖R‖_F.
        orthonormality: largest |Wᴴ W - I|.
        tolerance: upper bound of both.
        gap_ms, subspace_ms: median time of forward and backward of the two losses per
            `measured_batch` [ms].
        nonfinite_share: share of samples of rank N/2 plus loading whose `subspace` gradient is
            not finite; expected of `eigh` and `svd`, a fault of the others.
    """

    backend: str
    size: ProblemSize
    measured_batch: int
    residual: float
    orthonormality: float
    tolerance: float
    gap_ms: float
    subspace_ms: float
    nonfinite_share: float

    @property
    def fault(self) -> str:
        """A description of what is wrong, or an empty string."""
        where = f"{self.backend} at {self.size.num_elements} elements"
        for name in ("residual", "orthonormality"):
            value = getattr(self, name)
            if not value <= self.tolerance:  # a NaN is a fault
                return f"{where}: {name} {value:.1e} exceeds {self.tolerance:.1e}"
        if self.nonfinite_share > 0 and self.backend not in ("eigh", "svd"):
            return f"{where}: {self.nonfinite_share:.0%} of its gradients are not finite"
        return ""


def check_backend(
    backend: str, size: ProblemSize, dtype: torch.dtype, device: torch.device
) -> BackendCheck:
    """Decompose a random batch and one full of ties, and time the losses on the first."""
    batch = min(size.batch_size, CPU_BATCH) if device.type == "cpu" else size.batch_size
    n = size.num_elements
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.complex128, generator=generator)

    def operand(factor: Tensor) -> Tensor:
        given = factor if size.rank is not None else factor @ factor.mH
        return given.to(device, dtype).requires_grad_()

    columns = size.rank if size.rank is not None else 2 * n
    factor = draw(batch, n, columns)
    factor = factor / squared_norm(factor).sqrt()[:, None, None]  # trace 1
    target = torch.linalg.qr(draw(batch, n, min(SOURCES, n - 1)))[0].to(device, dtype)
    generic = operand(factor)
    # half of all eigenvalues equal the loading: native derivatives divide by these ties
    tied = operand(factor[..., : max(1, n // 2)])

    def decompose(given: Tensor, shift: float = 0.0) -> Spectrum:
        if size.rank is None:
            return spectrum(given, shift=shift, backend=backend)
        return spectrum(factor=given, shift=shift, backend=backend)

    def gradient(given: Tensor, definition: str, shift: float = 0.0) -> Tensor:
        loss = eigengap_loss(
            decompose(given, shift),
            target.shape[-1],
            definition=definition,
            margin=1.0 if definition == "gap" else 0.0,
            target=target if definition == "subspace" else None,
        )
        return torch.autograd.grad(loss.sum(), given)[0]

    residual, orthonormality = 0.0, 0.0
    for found in (decompose(generic), decompose(tied, 0.1 / n)):
        residual = _largest(residual, found.residual)
        orthonormality = _largest(orthonormality, found.orthonormality)
    finite = torch.isfinite(gradient(tied, "subspace", 0.1 / n)).all(-1).all(-1)
    return BackendCheck(
        backend=backend,
        size=size,
        measured_batch=batch,
        residual=residual,
        orthonormality=orthonormality,
        tolerance=ROUNDOFFS_PER_ELEMENT * n * torch.finfo(dtype).eps / 2,
        gap_ms=_milliseconds(lambda: gradient(generic, "gap"), device),
        subspace_ms=_milliseconds(lambda: gradient(generic, "subspace"), device),
        nonfinite_share=float((~finite).double().mean()),
    )


def _largest(so_far: float, values: Tensor) -> float:
    """Return the maximum, with NaN as infinity, so that a NaN is a fault."""
    largest = float(values.nan_to_num(nan=torch.inf).max())
    return max(so_far, largest)


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Return the median of up to five runs, fewer if they take half a second, after a warm-up."""

    def timed() -> float:
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 1e3 * (time.perf_counter() - start)

    timed()
    times = [timed()]
    while len(times) < 5 and sum(times) < 500:
        times.append(timed())
    return sorted(times)[len(times) // 2]
