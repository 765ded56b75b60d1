"""Tests that need a GPU are skipped, with the reason, where there is none."""

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
