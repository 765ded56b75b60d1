"""The search's own command line with one more preset, `drill`: trials long enough to be killed.

    python benchmarks/drill.py --preset drill --name x [any flag of `python -m search.run`]

Used by `chaos.py`, `spread.py` and the tests of resuming; the trainer and everything else is
real.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import spaces
from search.records import RunStore, checkpoints_of
from search.run import main

SMOKE = spaces.get("smoke")
BUDGET = {
    "epochs": 18,
    "scene.max_sources": 1,  # half of the time, and no fewer moments to be killed at
    "evaluation.num_scenes": 8,
    "evaluation.num_test_scenes": 8,
}
spaces.PRESETS["drill"] = replace(
    SMOKE, name="drill", about="For drills.", trials=6, fixed=dict(SMOKE.fixed) | BUDGET
)
PATIENCE_S = 240.0


def training(run: Path) -> set[str]:
    """Return the trials of a run that have kept a checkpoint and have not ended."""
    if not (run / "run.json").exists():
        return set()
    store = RunStore.open(run)
    ended = store.ended()
    return {t for t in store.started() if t not in ended and checkpoints_of(run, t)}


def wait_for(what: str, happened: Callable[[], bool]) -> float:
    """Wait until a condition holds; return the seconds it took."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > PATIENCE_S:
            raise TimeoutError(f"{what} did not happen in {PATIENCE_S:g} s")
        time.sleep(0.1)
    return time.monotonic() - start


def disturbed(*flags: str, disturb: Callable[[], None]) -> tuple[int, str]:
    """Run the command line in a process of its own and, meanwhile, `disturb` in this one.

    Returns:
        Its exit code and what it said.
    """
    command = [sys.executable, __file__, "--preset", "drill", *flags, "--no-preflight"]
    with tempfile.TemporaryFile("w+") as said:
        driver = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            disturb()
            code = driver.wait(PATIENCE_S)
        except (TimeoutError, subprocess.TimeoutExpired) as error:
            said.seek(0)
            raise SystemExit(f"{error}; the search said:\n{said.read()}") from error
        finally:
            driver.kill()  # where it has not ended
        said.seek(0)
        return code, said.read()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
