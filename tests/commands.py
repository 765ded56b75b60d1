"""Our commands as a user runs them."""

import os
import socket
import subprocess
import sys

ASCII = {
    "LC_ALL": "POSIX",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}
"""Environment of a terminal, and of files, that know no character beyond ASCII."""


def command(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m` with these arguments and capture what it prints."""
    return subprocess.run(
        [sys.executable, "-m", *argv],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        timeout=600,
    )


def free_port() -> int:
    """Return a port of the loopback interface that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
