"""The check of this machine's eigendecompositions, before a training relies on them.

Some CUDA builds return eigenvectors of batched complex64 `eigh` that are not orthonormal, without
an error (pytorch issue 192483); a training on them looks like one with bad hyperparameters.
`check_spectral` measures residual, orthonormality and time of every backend, at the sizes and in
the dtype of the training, and caches the result in the user's cache folder for the same machine,
torch, dtype and sizes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.atomic import write_atomically
from trainer.config import BACKEND_NAMES, TrainConfig, require, require_choice

from .backend_check import BackendCheck, ProblemSize, check_backend

SCHEMA = 1
"""Version of the cached file; part of the hash in its name."""


@dataclass(frozen=True)
class SpectralCheck:
    """The result of `check_spectral`; plain data.

    Attributes:
        torch_version, device, dtype: where it was measured.
        backends: one entry per backend and size that makes a difference to it: every factor for
            `gram`, every N for the others.
        sizes: all sizes asked for.
        cached: whether it was read from the cache.
    """

    torch_version: str
    device: str
    dtype: str
    backends: tuple[BackendCheck, ...]
    sizes: tuple[ProblemSize, ...]
    cached: bool = False

    @property
    def ok(self) -> bool:
        """True if no backend has a fault here."""
        return not self.reason

    @property
    def reason(self) -> str:
        """All faults and the remedy, or an empty string."""
        faults = [b.fault for b in self.backends if b.fault]
        if not faults:
            return ""
        return (
            f"{'; '.join(faults)}. torch {self.torch_version} on {self.device} in {self.dtype} "
            "cannot be trusted with it: use another backend or torch version, or the CPU."
        )

    def lines(self) -> list[str]:
        """Return lines to print: the machine, every backend, and what `auto` stands for."""
        known = ", as measured before" if self.cached else ""
        lines = [f"torch {self.torch_version} on {self.device}, {self.dtype}{known}"]
        lines += [
            f"  {b.backend:<6} N={b.size.num_elements:<4} r={b.size.rank or '-':<4} "
            f"B={b.measured_batch:<4} gap {b.gap_ms:8.2f} ms  subspace {b.subspace_ms:8.2f} ms  "
            f"residual {b.residual:.0e}  orthonormality {b.orthonormality:.0e}"
            + (f"  non-finite gradients {b.nonfinite_share:.0%}" if b.nonfinite_share else "")
            for b in self.backends
        ]
        lines += [f"  auto is {size.resolves_to}: {size.why}" for size in self.sizes]
        return [*lines, f"  FAILED: {self.reason}"] if self.reason else lines


def problem_size(config: TrainConfig) -> ProblemSize:
    """Return the shape that a training of this configuration hands to its backend."""
    return ProblemSize(config.scene.num_elements, config.factor_columns or None, config.batch_size)


def check_spectral(
    backends: Collection[str],
    *,
    sizes: Sequence[ProblemSize],
    dtype: str = "complex64",
    device: str = "cpu",
    cache: Path | None = None,
) -> SpectralCheck:
    """Measure every backend at every size that it applies to (`gram`: a factor with r < N).

    All backends, dense and factor, take half a second at N = 36 and 7 s at N = 144 on one CPU
    core. Only a result without fault is cached.

    Args:
        backends: names in `trainer.spectral.BACKENDS`.
        sizes: without repetitions.
        dtype: of the covariance, `complex64` or `complex128`.
        device: as torch names it.
        cache: folder; by default `ris-eigengap-search` in `$XDG_CACHE_HOME` or `~/.cache`. One
            that cannot be written to is ignored.

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
        check_backend(backend, size, getattr(torch, dtype), torch.device(device))
        for backend, size in _pairs(backends, sizes)
    )
    check = SpectralCheck(torch.__version__, where, dtype, measured, tuple(sizes))
    if check.ok:
        _write(file, check)
    return check


def _pairs(
    backends: Collection[str], sizes: Sequence[ProblemSize]
) -> list[tuple[str, ProblemSize]]:
    """Return pairs to measure: a backend that decomposes R itself sees one factor of each N."""
    asked: dict[tuple[str, int, int | None, int], tuple[str, ProblemSize]] = {}
    for size in sizes:
        for backend in sorted(set(backends)):
            small = size.resolves_to == "gram" and backend in ("gram", "auto")
            if backend != "gram" or small:
                rank = size.rank if small else None
                key = (backend, size.num_elements, rank, size.batch_size)
                asked.setdefault(key, (backend, size))
    return list(asked.values())


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{kind}, {torch.get_num_threads()} threads"


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "ris-eigengap-search"


def _read(file: Path) -> SpectralCheck | None:
    """Return a cached result; None if there is none that can be read."""
    try:
        record = json.loads(file.read_text())
        rows = [r | {"size": ProblemSize(**r["size"])} for r in record.pop("backends")]
        read = {
            "backends": tuple(BackendCheck(**r) for r in rows),
            "sizes": tuple(ProblemSize(**s) for s in record.pop("sizes")),
            "cached": True,
        }
        return SpectralCheck(**record | read)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(file: Path, check: SpectralCheck) -> None:
    """Cache a result, if the folder can be written to."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(dataclasses.asdict(check)).encode())
