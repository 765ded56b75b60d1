"""`python -m search.run --attach RUN`: follows a search that another process drives.

Reads the run's files only, so it may be given as often as one likes, on any machine that sees
them, and Ctrl-C leaves the search alone. For a run on a bucket it is as late as the mirror.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd

from search.plan import Outcome, RunNotFound
from search.records import RunStore, read_run

from . import bucket, mirror, working_copy
from .locate import resolve_run
from .lock import DRIVER_FILE, driven

POLL_SECONDS = 1.0


def attach(run: str, out: str | None) -> int:
    """Prints what happens in a run until its driver has ended.

    Returns:
        The driver's exit code; 1 if it has gone without one, killed say.
    """
    path = resolve_run(run, out)
    remote = bucket.is_uri(bucket.home_of(path))
    if not path.joinpath(DRIVER_FILE).exists():
        raise RunNotFound(
            f"--attach needs a run that is or was driven, but {path} has never been. Start it "
            f"with `--resume {path}`."
        )
    started: set[str] = set()
    ended: set[str] = set()
    print(f"following {bucket.home_of(path)}; Ctrl-C leaves the search alone", flush=True)
    while True:
        alive = is_driven(path)  # asked first: what is read then is all there is
        working_copy.pull(path)
        store = RunStore.open(path)
        total = read_run(path)["search"]["trials"]
        for line in news(store, started, ended):
            print(f"{line}  ({len(ended)} of {total} trials)", flush=True)
        if not alive:
            break
        time.sleep(mirror.MIRROR_SECONDS if remote else POLL_SECONDS)
    state = json.loads(path.joinpath(DRIVER_FILE).read_text() or "{}")
    if (code := state.get("exit_code")) is not None:
        print(f"the search has ended with exit code {code}: {len(ended)} of {total} trials")
        return int(code)
    print(
        f"the driver on {state.get('host')} has gone without a word: "
        f"{len(ended)} of {total} trials. Continue with --resume {bucket.home_of(path)}",
        file=sys.stderr,
    )
    return 1


def is_driven(path: Path) -> bool:
    """Whether some driver has the run: by its lock, or by its sign of life on the bucket."""
    if driven(path):
        return True
    home = bucket.home_of(path)
    return bucket.is_uri(home) and mirror.sign_of_life(home) is not None


def news(store: RunStore, started: set[str], ended: set[str]) -> list[str]:
    """One line for each trial that has started or ended since; adds them to the sets."""
    lines = []
    rows = {str(row["trial_id"]): row for row in store.read("trials").to_dict("records")}
    for name in store.started():
        if name not in started:
            started.add(name)
            if name not in rows:
                lines.append(f"{name}  started")
        if name in rows and name not in ended:
            ended.add(name)
            lines.append(f"{name}  {_ending(rows[name])}")
    return lines


def _ending(row: dict[Any, Any]) -> str:
    outcome = Outcome(row["outcome"])
    if outcome is Outcome.STOPPED:
        return f"stopped at rung {row['rung']:g}: {row['objective']:.3f}"
    if outcome is Outcome.COMPLETED:
        return f"completed: {row['objective']:.3f} on {row['host']}"
    return f"{outcome.value}: {'' if pd.isna(row['cause']) else row['cause']}".rstrip(": ")
