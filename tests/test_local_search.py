"""The promise of the first command: five minutes on two cores, and better than classical MUSIC."""

import subprocess
import sys
import time

import pytest

from search.report import leaderboard, runs


@pytest.mark.ray
@pytest.mark.slow
def test_the_default_search_beats_lmmse_music_within_five_minutes(tmp_path):
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "search.run", "--out", str(tmp_path), "--name", "local"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 300
    run = runs.load(tmp_path / "local")
    assert len(run.trials) >= 12
    assert set(run.trials["outcome"]) <= {"completed", "stopped", "diverged"}
    difference = leaderboard.paired_with(run)
    assert not isinstance(difference, str), difference
    assert difference.mean < 0
    assert difference.excludes_zero
