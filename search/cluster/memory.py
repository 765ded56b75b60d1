"""Memory of a worker's process, and of its GPU: the peak, a limit, and what is freed."""

import gc
import os
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from search.plan import Memory, Refused

STATM = Path("/proc/self/statm")
"""Sizes of this process in pages, on Linux."""


def cuda() -> Any:
    """Return `torch.cuda` if torch has been imported and can use it."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_available() else None


def peak_memory() -> Memory:
    """Return the peaks of this process and of its GPU, if there is one."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if (gpu := cuda()) is None:
        return Memory(host)
    return Memory(host, gpu.max_memory_allocated(), gpu.mem_get_info()[1])


def peak_bytes() -> int:
    """Return the peak of the memory in use: the GPU's if there is one, or else this process's."""
    if (gpu := cuda()) is not None:
        return int(gpu.max_memory_allocated())
    return int(peak_memory().host)


def free_memory() -> None:
    """Free memory for trials on the same GPU, and reset its peak for the worker's next one."""
    gc.collect()
    if (gpu := cuda()) is not None:
        gpu.empty_cache()
        gpu.reset_peak_memory_stats()
    with suppress(OSError):  # Linux only, and not in every container
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins at what is held now


def require_gpu(gpus: float) -> None:
    """Raise Refused where PyTorch, which is loaded, sees no GPU though the caller has been given
    some: `auto` would go on the CPU."""
    if gpus > 0 and cuda() is None:
        seen = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')!r}"
        raise Refused(
            f"a worker with {gpus:g} GPUs must be able to use them, but PyTorch "
            f"{sys.modules['torch'].__version__} sees none on {platform.node()} ({seen}). Install "
            "a build of PyTorch for its driver there, or train on CPUs with --gpus-per-trial 0."
        )


def limit_gpu_memory(gpus: float) -> None:
    """Let a trial that outgrows its share of a GPU run out of memory, not its neighbours."""
    if 0 < gpus < 1 and (gpu := cuda()) is not None:
        gpu.set_per_process_memory_fraction(gpus)


@contextmanager
def memory_limit(most: float) -> Iterator[None]:
    """Let allocations fail, for the time of the context, that would take this process beyond so
    many bytes: an error, instead of a machine that has no memory left. Linux only."""
    if not STATM.exists() or most == float("inf"):
        yield
        return
    pages = [int(word) * resource.getpagesize() for word in STATM.read_text().split()]
    resident, data = pages[1], pages[5]
    before = resource.getrlimit(resource.RLIMIT_DATA)
    # the limit counts what is reserved: more than what is resident
    limit = data + max(0, int(most) - resident)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
