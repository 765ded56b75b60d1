"""A scripted trainer on workers of a Ray that was told of GPUs which are not there.

Only what PyTorch would say of the GPU is replaced, in the worker; the share that a trial gets, the
devices that it sees and what becomes of it are Ray's and the search's own.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from tests import scripted
from trainer.config import TrainConfig

EXHAUSTS = 0.008
"""Learning rate at which a trial runs out of its GPU's memory in its second epoch."""
PATIENCE_S = 30.0


def train(
    folder: Path, together: int, config: TrainConfig, *, resume: Any = None
) -> Iterator[Any]:
    """Train once `together` trials have begun; note in `folder` what this one was given."""
    limits: list[float] = []
    torch.cuda.is_available = lambda: True  # of this worker's process, which ends with its job
    torch.cuda.max_memory_allocated = lambda: 3 * 2**30
    torch.cuda.reset_peak_memory_stats = lambda: None
    torch.cuda.set_per_process_memory_fraction = limits.append
    return _reports(folder, together, limits, config, resume)


def _reports(
    folder: Path, together: int, limits: list[float], config: TrainConfig, resume: Any
) -> Iterator[Any]:
    note = folder / f"{os.getpid()}-{time.monotonic_ns()}.json"
    found = {"began": time.monotonic(), "limits": limits}
    found["devices"] = os.environ.get("CUDA_VISIBLE_DEVICES")
    note.write_text("{}")
    while (
        len(list(folder.iterdir())) < together and time.monotonic() < found["began"] + PATIENCE_S
    ):
        time.sleep(0.05)
    for each in scripted.train(config, resume=resume):
        if each.epoch == 2 and config.optimizer.learning_rate == EXHAUSTS:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        yield each
        note.write_text(json.dumps(found | {"ended": time.monotonic()}))
