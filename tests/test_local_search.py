"""What the first commands promise: `smoke` in a minute, `local` in five on two cores, and better
than classical MUSIC."""

import time
from pathlib import Path

import pytest

from search.report import leaderboard, runs
from tests.commands import command

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def timed_search(out: Path, preset: str) -> float:
    """Seconds that a search takes, by its own command line."""
    started = time.monotonic()
    done = command("search.run", "--preset", preset, "--out", str(out), "--name", preset)
    assert done.returncode == 0, done.stdout + done.stderr
    return time.monotonic() - started


def test_the_smoke_search_ends_within_a_minute(tmp_path):
    assert timed_search(tmp_path, "smoke") < 60


def test_the_default_search_beats_lmmse_music_within_five_minutes(tmp_path):
    assert timed_search(tmp_path, "local") < 300
    run = runs.load(tmp_path / "local")
    assert len(run.trials) >= 12
    assert set(run.trials["outcome"]) <= {"completed", "stopped", "diverged"}
    difference = leaderboard.paired_with(run)
    assert not isinstance(difference, str), difference
    assert difference.mean < 0
    assert difference.excludes_zero
