"""What all tests share: one thread for torch, no telemetry, GPU tests only where there is one."""

import pytest
import torch

from search.environment import prepare

prepare()
torch.set_num_threads(1)  # the matrices are small, and other processes share the cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips `gpu` tests, with the reason, on a machine without CUDA."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
