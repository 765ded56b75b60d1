"""Our commands as a user runs them."""

import os
import subprocess
import sys


def command(*argv: str) -> subprocess.CompletedProcess[str]:
    """`python -m` with these words, and what it printed."""
    return subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"},
        timeout=600,
    )
