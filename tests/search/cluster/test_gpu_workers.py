"""Trials on shares of GPUs: the memory that they may take."""

import pytest
import torch

from search.cluster import memory


@pytest.mark.parametrize(("share", "limits"), [(0.25, [0.25]), (1.0, []), (2.0, []), (0.0, [])])
def test_only_a_trial_that_shares_its_gpu_has_its_memory_limited(monkeypatch, share, limits):
    found: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", found.append)
    memory.limit_gpu_memory(share)
    assert found == limits
