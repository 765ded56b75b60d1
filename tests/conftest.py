"""What all tests share: one thread for torch, no telemetry, one real run."""

import fcntl
import json
import subprocess
from pathlib import Path

import pytest
import torch

from search.plan.environment import set_ray_environment
from tests.commands import command

set_ray_environment()
torch.set_num_threads(1)  # the matrices are small, and other processes share the cores


@pytest.fixture(scope="session")
def smoke(
    tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real run, which no test may change: its folder, and what was printed. One for all of
    pytest's processes."""
    own = tmp_path_factory.getbasetemp()
    out = (own if worker_id == "master" else own.parent) / "shared"
    out.mkdir(exist_ok=True)
    said = out / "smoke.json"
    with open(out / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = command("search.run", "--preset", "smoke", "--out", str(out), "--name", "smoke")
            said.write_text(json.dumps(vars(done)))
    return out / "smoke", subprocess.CompletedProcess(**json.loads(said.read_text()))
