"""Is this machine's batched eigendecomposition right, and how fast is each backend on it?

Some CUDA builds return eigenvectors of batched complex64 `eigh` that are not orthonormal, without
an error (pytorch issue 192483); trained on, they look like a bad hyperparameter. `check_spectral`
measures residual, orthonormality and time of every backend, at the sizes and in the dtype that a
training would use, and keeps the answer in the user's cache folder: the same machine, torch, dtype
and sizes are measured once.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .config import BACKEND_NAMES, TrainConfig, require, require_choice
from .losses import eigengap_loss
from .spectral import Spectrum, spectrum

ROUNDOFFS_PER_ELEMENT = 10
"""A backward-stable eigensolver errs by a modest multiple of N u; a broken one by O(1)."""
CPU_BATCH = 16
"""On a CPU, time is proportional to the batch: more samples teach nothing."""
SOURCES = 2
SCHEMA = 1
"""Of the cached file; part of its name."""


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
        backend: name in `trainer.spectral.BACKENDS`.
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


@dataclass(frozen=True)
class SpectralCheck:
    """What `check_spectral` found; plain data.

    Attributes:
        torch_version, device, dtype: what it was found on.
        backends: one entry per backend and size that it applies to.
        cached: whether it was read, not measured.
    """

    torch_version: str
    device: str
    dtype: str
    backends: tuple[BackendCheck, ...]
    cached: bool = False

    @property
    def ok(self) -> bool:
        """Whether every backend may be trusted here."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Every fault and the remedy, or an empty string."""
        faults = [b.fault for b in self.backends if b.fault]
        if not faults:
            return ""
        return (
            f"{'; '.join(faults)}. torch {self.torch_version} on {self.device} in {self.dtype} "
            "cannot be trusted with it: use another backend or torch version, or the CPU."
        )

    def lines(self) -> list[str]:
        """For a person: where, every backend, and what `auto` stands for."""
        lines = [f"torch {self.torch_version} on {self.device}, {self.dtype}"]
        lines += [
            f"  {b.backend:<6} N={b.size.num_elements:<4} r={b.size.rank or '-':<4} "
            f"B={b.measured_batch:<4} gap {b.gap_ms:8.2f} ms  subspace {b.subspace_ms:8.2f} ms  "
            f"residual {b.residual:.0e}  orthonormality {b.orthonormality:.0e}"
            + (f"  non-finite gradients {b.nonfinite_share:.0%}" if b.nonfinite_share else "")
            for b in self.backends
        ]
        sizes = dict.fromkeys(b.size for b in self.backends)
        lines += [f"  auto is {size.resolves_to}: {size.why}" for size in sizes]
        return [*lines, f"  FAILED: {self.reason}"] if self.reason else lines


def problem_size(config: TrainConfig) -> ProblemSize:
    """The shape that a training of this configuration hands to its backend."""
    return ProblemSize(config.scene.num_elements, config.factor_columns or None, config.batch_size)


def check_spectral(
    backends: Collection[str],
    *,
    sizes: Sequence[ProblemSize],
    dtype: str = "complex64",
    device: str = "cpu",
    cache: Path | None = None,
) -> SpectralCheck:
    """Measures every backend at every size that it applies to (`gram`: a factor with r < N).

    All backends, dense and factor, take half a second at N = 36 and 7 s at N = 144 on one CPU
    core. An answer without fault is cached; one with a fault is measured again.

    Args:
        backends: names in `trainer.spectral.BACKENDS`.
        sizes: without repetitions.
        dtype: of the covariance, `complex64` or `complex128`.
        device: as torch names it.
        cache: folder; default `$XDG_CACHE_HOME` or `~/.cache`, then `ris-eigengap-search`. One
            that cannot be written to only costs the time.

    Raises:
        ConfigError: for an unknown backend or dtype, or `gram` without a size that it applies to.
    """
    for backend in backends:
        require_choice("spectral.backend", backend, BACKEND_NAMES)
    require_choice("dtype", dtype, ("complex64", "complex128"))
    if "gram" in backends:
        require(
            any(size.resolves_to == "gram" for size in sizes),
            "gram needs a factor with fewer columns than rows",
            f"sizes {list(sizes)}",
            "Use exact.",
        )
    where = _device_name(torch.device(device))
    folder = cache if cache is not None else _cache_folder()
    key = repr((SCHEMA, torch.__version__, where, dtype, sorted(set(backends)), list(sizes)))
    file = folder / f"spectral-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    if (found := _read(file)) is not None:
        return found
    measured = tuple(
        _measure(backend, size, getattr(torch, dtype), torch.device(device))
        for size in sizes
        for backend in sorted(set(backends))
        if backend != "gram" or size.resolves_to == "gram"
    )
    check = SpectralCheck(torch.__version__, where, dtype, measured)
    if check.ok:
        _write(file, check)
    return check


def _measure(
    backend: str, size: ProblemSize, dtype: torch.dtype, device: torch.device
) -> BackendCheck:
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


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ris-eigengap-search"


def _read(file: Path) -> SpectralCheck | None:
    """A cached answer; None if there is none, or none that can be understood."""
    try:
        record = json.loads(file.read_text())
        rows = [r | {"size": ProblemSize(**r["size"])} for r in record.pop("backends")]
        return SpectralCheck(
            **record | {"backends": tuple(BackendCheck(**r) for r in rows), "cached": True}
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, check: SpectralCheck) -> None:
    """Atomically; a folder that cannot be written to is no reason to stop."""
    part = file.with_suffix(f".{os.getpid()}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(dataclasses.asdict(check)))
        part.replace(file)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
