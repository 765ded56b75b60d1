"""A worker whose eigensolver is silently wrong, as some CUDA builds' is (pytorch issue 192483)."""

import os
import tempfile

import torch
from torch import Tensor

import search.cluster.tasks
import trainer.spectral.backends
from trainer.config import TrainConfig


def eigh(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Values right, vectors not orthonormal."""
    values, vectors = torch.linalg.eigh(matrix)
    vectors = vectors.clone()
    vectors[..., 0] = vectors[..., 1]
    return values.flip(-1), vectors.flip(-1)


def measure_backends(configs: list[TrainConfig]) -> tuple[str, list[str]]:
    """The worker's own check, on such a machine and without what it has measured before."""
    trainer.spectral.backends.descending_eigh = eigh
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    return search.cluster.tasks.measure_backends(configs)
