"""One spectral backend at one problem size, measured: is it right, and how fast.

The residual and the orthonormality of the decomposition are compared with what a backward-stable
eigensolver guarantees, on a batch of random covariances and on one where half of all eigenvalues
tie.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .decomposition import Spectrum, spectrum
from .losses import eigengap_loss

ROUNDOFFS_PER_ELEMENT = 10
"""A backward-stable eigensolver errs by a modest multiple of N u; a broken one by O(1)."""
CPU_BATCH = 16
"""On a CPU, time is proportional to the batch: more samples teach nothing."""
SOURCES = 2


@dataclass(frozen=True)
class ProblemSize:
    """One shape that a training hands to a spectral backend.

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
        """The backend behind `auto`."""
        rank = self.rank
        return "gram" if rank is not None and rank < self.num_elements else "exact"

    @property
    def why(self) -> str:
        """Why, in a few words."""
        if self.rank is None:
            return f"R is dense, {self.num_elements} x {self.num_elements}"
        relation = "<" if self.rank < self.num_elements else ">="
        return f"F has {self.rank} columns {relation} {self.num_elements} rows"


@dataclass(frozen=True)
class BackendCheck:
    """One backend at one size.

    Attributes:
        backend: name in `trainer.spectral.decomposition.BACKENDS`.
        size: what was asked for.
        measured_batch: samples that were decomposed; smaller than the batch on a CPU.
        residual: largest ‖R W - W diag(l)‖_F / ‖R‖_F.
        orthonormality: largest |Wᴴ W - I|.
        tolerance: that neither may exceed.
        gap_ms, subspace_ms: forward and backward of the two losses per `measured_batch` [ms],
            median.
        nonfinite_share: of samples of rank N/2 plus loading, those whose `subspace` gradient is
            not finite: expected of `eigh` and `svd`, a fault of any other.
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
        """What is wrong, or an empty string."""
        where = f"{self.backend} at {self.size.num_elements} elements"
        for name in ("residual", "orthonormality"):
            value = getattr(self, name)
            if not value <= self.tolerance:  # a NaN is a fault
                return f"{where}: {name} {value:.1e} exceeds {self.tolerance:.1e}"
        if self.nonfinite_share > 0 and self.backend not in ("eigh", "svd"):
            return f"{where}: {self.nonfinite_share:.0%} of its gradients are not finite"
        return ""


def measure(
    backend: str, size: ProblemSize, dtype: torch.dtype, device: torch.device
) -> BackendCheck:
    """Decomposes a random batch and one full of ties, and times the losses on the first."""
    batch = min(size.batch_size, CPU_BATCH) if device.type == "cpu" else size.batch_size
    n = size.num_elements
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.complex128, generator=generator)

    def operand(factor: Tensor) -> Tensor:
        given = factor if size.rank is not None else factor @ factor.mH
        return given.to(device, dtype).requires_grad_()

    columns = size.rank if size.rank is not None else 2 * n
    factor = draw(batch, n, columns) / (n * columns) ** 0.5
    target = torch.linalg.qr(draw(batch, n, min(SOURCES, n - 1)))[0].to(device, dtype)
    generic = operand(factor)
    # half of all eigenvalues are the loading alone: the ties that native derivatives divide by
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
    """The larger, or infinity if one is not finite: JSON has no NaN."""
    largest = float(values.nan_to_num(nan=torch.inf).max())
    return max(so_far, largest)


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    """Median of three to five runs, or of as many as half a second allows, after one to warm
    up."""

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
