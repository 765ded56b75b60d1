"""The Slurm script, run for real on one machine with Slurm's variables and `srun` faked."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from search.records.store import RunStore

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "deploy" / "slurm.sh"
JOB = 987654
SMALL = ("--preset", "smoke", "--trials", "2", "--scheduler", "none", "--no-preflight")
FEW = (
    *("--set", "evaluation.num_scenes=8", "evaluation.num_test_scenes=8"),
    *("scene.max_sources=1", "steps_per_epoch=5"),
)
SRUN = '#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'


@pytest.mark.parametrize("checker", [("bash", "-n"), ("shellcheck",)])
def test_the_script_is_sound(checker):
    if shutil.which(checker[0]) is None:
        pytest.skip(f"{checker[0]} is not installed")
    done = subprocess.run([*checker, str(SCRIPT)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def submitted(folder: Path, nodes: int) -> subprocess.Popen[str]:
    """The job as Slurm starts it, on so many nodes that are all this machine."""
    fake = folder / "bin" / "srun"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(SRUN)
    fake.chmod(0o755)
    path = (str(fake.parent), str(Path(sys.executable).parent), os.environ["PATH"])
    slurm = {
        "SLURM_JOB_ID": str(JOB),
        "SLURM_JOB_NUM_NODES": str(nodes),
        "SLURM_CPUS_ON_NODE": "1",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURMD_NODENAME": "here",
    }
    return subprocess.Popen(
        ["bash", str(SCRIPT), str(folder / "run"), *SMALL, *FEW],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | slurm | {"PATH": os.pathsep.join(path)},
    )


def rays_left() -> list[str]:
    """Command lines of Ray's processes with the job's port."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended
        if f":{20000 + JOB % 1000 * 10}" in words and "ray" in words:
            found.append(words)
    return found


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_ends_at_its_time_limit_and_the_same_job_continues_it(tmp_path):
    job = submitted(tmp_path, nodes=1)
    latest = time.monotonic() + 240
    while not list(tmp_path.glob("run/configs/*.json")):  # the first trial
        assert job.poll() is None, job.communicate()[0]
        assert time.monotonic() < latest
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)  # --signal=B: to the script alone
    said = job.communicate(timeout=120)[0]
    assert job.returncode == 130, said
    # within a call into Ray, Ray raises, without the signal's name
    assert "interrupted" in said, said
    assert "nothing is lost" in said, said
    assert rays_left() == []

    job = submitted(tmp_path, nodes=2)
    said = job.communicate(timeout=400)[0]
    assert job.returncode == 0, said
    assert "resuming" in said
    assert "2 trials at a time" in said
    assert list(RunStore.open(tmp_path / "run").read("trials")["outcome"]) == ["completed"] * 2
    assert rays_left() == []
