"""`python -m search.run --attach RUN`: follows a search that another process drives.

It reads the run's files only, so it can run any number of times, on any machine that sees them,
and Ctrl-C leaves the search alone. For a run on a bucket it is as late as the mirror.
"""

import json
import sys
import time
from typing import Any

import pandas as pd

from search.plan import Outcome, RunNotFound
from search.records import RunStore, read_run

from .bucket import is_uri, uri_of
from .lock import DRIVER_FILE, is_locked, sign_of_life
from .mirror import MIRROR_SECONDS
from .working_copy import pull, resolve_run

POLL_SECONDS = 1.0


def attach(run: str, out: str | None) -> int:
    """Print what happens in a run until its driver has ended, and return the driver's exit code.

    It is 1 if the driver has gone without one, as when it was killed.
    """
    path = resolve_run(run, out)
    uri = uri_of(path)
    if not path.joinpath(DRIVER_FILE).exists():
        raise RunNotFound(
            f"--attach needs a run that is or was driven, but {path} has never been. Start it "
            f"with `--resume {path}`."
        )
    started: set[str] = set()
    ended: set[str] = set()
    print(f"following {uri}; Ctrl-C leaves the search alone", flush=True)
    driven = True
    while driven:
        # before reading: then nothing comes after what is read last
        driven = is_locked(path) or (is_uri(uri) and sign_of_life(uri) is not None)
        pull(path)
        total = read_run(path)["search"]["trials"]
        for line in _news(RunStore.open(path), started, ended):
            print(f"{line}  ({len(ended)} of {total} trials)", flush=True)
        if driven:
            time.sleep(MIRROR_SECONDS if is_uri(uri) else POLL_SECONDS)
    state = json.loads(path.joinpath(DRIVER_FILE).read_text() or "{}")
    if (code := state.get("exit_code")) is not None:
        print(f"the search has ended with exit code {code}: {len(ended)} of {total} trials")
        return int(code)
    print(
        f"the driver on {state.get('host')} has gone without a word: "
        f"{len(ended)} of {total} trials. Continue with --resume {uri}",
        file=sys.stderr,
    )
    return 1


def _news(store: RunStore, started: set[str], ended: set[str]) -> list[str]:
    """Return a line for each trial that has started or ended since, and add it to its set."""
    lines = []
    rows = {str(row["trial_id"]): row for row in store.read("trials").to_dict("records")}
    for name in store.started():
        if name not in started and name not in rows:
            lines.append(f"{name}  started")
        started.add(name)
        if name in rows and name not in ended:
            ended.add(name)
            lines.append(f"{name}  {_describe_end(rows[name])}")
    return lines


def _describe_end(row: dict[Any, Any]) -> str:
    outcome = Outcome(row["outcome"])
    if outcome is Outcome.STOPPED:
        return f"stopped at rung {row['rung']:g}: {row['objective']:.3f}"
    if outcome is Outcome.COMPLETED:
        return f"completed: {row['objective']:.3f} on {row['host']}"
    return f"{outcome.value}: {'' if pd.isna(row['cause']) else row['cause']}".rstrip(": ")
