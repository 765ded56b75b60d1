"""Promises of the first commands: `smoke` in a minute, `local` in five on two cores, and better
than classical MUSIC.

The minutes are those of the machine that `benchmarks/data` was recorded on: the same search takes
another half of its time or twice that on a busier host, and its trainings with it.
"""

import itertools
import sys
import time
from pathlib import Path
from statistics import fmean

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from local_table import PRESET, load

from search.plan.config import SearchConfig
from search.report.analysis import leaderboard
from search.report.data import load as load_run
from tests.commands import command
from trainer.training.loop import train

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.alone]

NUMBER = 93
"""A recorded training that had a core to itself: its processor time is its time on the clock."""


EPOCHS = 2
"""Of that training, to compare: one takes 5 s on the recorded machine."""
found: list[float] = []
"""What was measured before and after every search so far."""


def slowness() -> float:
    """Return how many times longer an epoch of a recorded training takes here, at least 1."""
    recorded = load()[NUMBER]
    plan = SearchConfig(preset=PRESET, trials=1, name="recorded")
    config = plan.train_config(plan.space.draw(recorded.sampler))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = min(report.seconds for report in itertools.islice(train(config), EPOCHS))
    finally:
        torch.set_num_threads(threads)
    return max(1.0, seconds / min(recorded.seconds))


def timed_search(out: Path, preset: str) -> float:
    """Seconds that a search takes, by its own command line, on the recorded machine."""
    if not found:
        found.append(slowness())
    started = time.monotonic()
    done = command("search.run", "--preset", preset, "--out", str(out), "--name", preset)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stdout + done.stderr
    found.append(slowness())
    slower = fmean(found[-2:])
    print(f"{preset}: {seconds:.0f} s on a machine {slower:.2f} times slower than the recorded")
    return seconds / slower


def test_the_smoke_search_ends_within_a_minute(tmp_path):
    assert timed_search(tmp_path, "smoke") < 60


def test_the_default_search_beats_lmmse_music_within_five_minutes(tmp_path):
    assert timed_search(tmp_path, "local") < 300
    run = load_run(tmp_path / "local")
    assert len(run.trials) >= 12
    assert set(run.trials["outcome"]) <= {"completed", "stopped", "diverged"}
    difference = leaderboard.paired_with(run)
    assert not isinstance(difference, str), difference
    assert difference.mean < 0
    assert difference.excludes_zero
